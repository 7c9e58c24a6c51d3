"""A job's input, frozen when it is planned: what it starts from, what it learns, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from everlearn.base import Columns, Json, canonical_json, digest_bytes
from everlearn.data.increment import Slice
from everlearn.registry.config import from_config, to_config
from everlearn.strategies.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Plan:
    """The frozen input of a job.

    Args:
        definition: id of the model's definition.
        base: number of the version to start from (the champion); None for the first job.
        base_digest: its state digest, "" for none.
        strategy: start, memory, chunk, passes, order, seed.
        columns: kinds and order of the columns.
        classes: classes of the target that are known beforehand.
        slices: the increment, in its order.
        holdout: share of rows that is kept out of learning.
    """

    definition: int
    base: int | None
    base_digest: str
    strategy: Strategy
    columns: Columns
    classes: tuple[Any, ...]
    slices: tuple[Slice, ...]
    holdout: float

    def to_json(self) -> Json:
        return {
            "definition": self.definition,
            "base": self.base,
            "base_digest": self.base_digest,
            "strategy": to_config(self.strategy),
            "columns": self.columns.to_json(),
            "classes": list(self.classes),
            "slices": [piece.to_json() for piece in self.slices],
            "holdout": self.holdout,
        }

    @classmethod
    def from_json(cls, value: Json) -> Plan:
        made = dict(value)
        made["strategy"] = from_config(value["strategy"])
        made["columns"] = Columns.from_json(value["columns"])
        made["classes"] = tuple(value["classes"])
        made["slices"] = tuple(Slice.from_json(piece) for piece in value["slices"])
        return cls(**made)

    @property
    def fingerprint(self) -> str:
        """Two jobs with one fingerprint would end in the same state: same base, rows, strategy."""
        content = [[piece.start, piece.stop, piece.digest] for piece in self.slices]
        same = {
            "base": self.base_digest,
            "strategy": to_config(self.strategy),
            "columns": asdict(self.columns),
            "content": content,
            "holdout": self.holdout,
            "definition": self.definition,
        }
        return digest_bytes(canonical_json(same))
