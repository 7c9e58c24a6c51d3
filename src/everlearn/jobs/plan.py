"""A job's input, frozen when it is planned: what it starts from, what it learns, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from everlearn.base import Columns, Json, canonical_json, digest_bytes
from everlearn.data.slices import Slice
from everlearn.registry.config import from_config, to_config
from everlearn.storage.parts import Manifest
from everlearn.strategies.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Plan:
    """The frozen input of a job.

    Args:
        definition: number of the model's definition.
        base: number of the version to start from (the champion); None for the first job.
        base_digest: its state digest, "" for none.
        strategy: start, memory, chunk, passes, order, seed.
        columns: kinds and order of the columns.
        classes: classes of the target that are known beforehand.
        slices: the increment, in its order.
        holdout: share of rows that is kept out of learning.
        given: manifest of the state of a `Pretrained` start, else None.
        holdouts: manifest of the hold-out rows of all jobs before, the refused ones included:
            what is judged on must not grow old because candidates are refused.
        again: rows that are held out once more take the place of the earlier ones.
        online: the increment was learned label by label as they came, and is so once more.
        earlier: increments that are folded in before this one, where what versions learned is
            folded once more; each is as its own job had it.
        refolds: whether it folds again what versions learned.
    """

    definition: int
    base: int | None
    base_digest: str
    strategy: Strategy
    columns: Columns
    classes: tuple[Any, ...]
    slices: tuple[Slice, ...]
    holdout: float
    given: Manifest | None = None
    holdouts: Manifest = field(default_factory=dict)
    again: bool = False
    online: bool = False
    earlier: tuple[Plan, ...] = ()
    refolds: bool = False

    def to_json(self) -> Json:
        """As it is kept in the job's row."""
        made: dict[str, Json] = {
            "definition": self.definition,
            "base": self.base,
            "base_digest": self.base_digest,
            "strategy": to_config(self.strategy),
            "columns": self.columns.to_json(),
            "classes": list(self.classes),
            "slices": [piece.to_json() for piece in self.slices],
            "holdout": self.holdout,
            "given": self.given,
            "holdouts": self.holdouts,
            "again": self.again,
        }
        if self.online:
            made["online"] = True
        if self.refolds:
            made["refolds"] = True
            made["earlier"] = [plan.to_json() for plan in self.earlier]
        return made

    @classmethod
    def from_json(cls, value: Json, source: Callable[[int], str | None]) -> Plan:
        """The inverse of `to_json`.

        Args:
            source: number of a definition → the text of its spec file, if any.
        """
        made = dict(value)
        made["earlier"] = tuple(cls.from_json(one, source) for one in value.get("earlier", ()))
        made["strategy"] = from_config(value["strategy"], source(value["definition"]))
        made["columns"] = Columns.from_json(value["columns"])
        made["classes"] = tuple(value["classes"])
        made["slices"] = tuple(Slice.from_json(piece) for piece in value["slices"])
        return cls(**made)

    @property
    def stages(self) -> tuple[Plan, ...]:
        """The increments that are folded in, in their order."""
        return (*self.earlier, self)

    @property
    def rows(self) -> int:
        """Rows of all increments, before any is held out or set aside."""
        return sum(piece.rows for plan in self.stages for piece in plan.slices)

    @property
    def fingerprint(self) -> str:
        """Two jobs with one fingerprint would end in the same state: same base, rows, strategy."""
        same = {
            "base": self.base_digest,
            "strategy": to_config(self.strategy),
            "columns": asdict(self.columns),
            "slices": [piece.fingerprint for piece in self.slices],
            "holdout": self.holdout,
            "definition": self.definition,
            "given": {name: entry["digest"] for name, entry in (self.given or {}).items()},
        }
        if self.earlier:
            same["earlier"] = [plan.fingerprint for plan in self.earlier]
        return digest_bytes(canonical_json(same))


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for when a job is planned.

    Args:
        data: what `open_sources` takes.
        chunk: rows learned at a time, in place of the strategy's.
        again: learn what was learned before once more.
        keep: copy files into the workspace's blobs.
        source: name of a table or an iterable.
    """

    data: Any
    chunk: int | None = None
    again: bool = False
    keep: bool = False
    source: str | None = None
