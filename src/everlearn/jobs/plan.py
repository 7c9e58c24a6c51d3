"""A job's input, frozen when it is planned: what it starts from, what it learns, and how."""

from __future__ import annotations

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

    def to_json(self) -> Json:
        """As it is kept in the job's row."""
        return {
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

    @classmethod
    def from_json(cls, value: Json, source: str | None = None) -> Plan:
        """The inverse of `to_json`; `source` is the text of the spec file, if any."""
        made = dict(value)
        made["strategy"] = from_config(value["strategy"], source)
        made["columns"] = Columns.from_json(value["columns"])
        made["classes"] = tuple(value["classes"])
        made["slices"] = tuple(Slice.from_json(piece) for piece in value["slices"])
        return cls(**made)

    @property
    def rows(self) -> int:
        """Rows of the increment, before any is held out or set aside."""
        return sum(piece.rows for piece in self.slices)

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
