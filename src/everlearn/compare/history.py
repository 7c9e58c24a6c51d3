"""A history compiled once: arrays on disk that every strategy's process maps into its memory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.base import Array, Batch, Columns, Floats, Ints, Json
from everlearn.compare.timeline import Span, Timeline
from everlearn.data.texts import TEXTS, texts_from_arrays, texts_to_arrays

_BATCH = ("numbers", "categories", "times", "weight", "ids", "time", "label_time", "key")
_TIMELINE = ("time", "known", "arrival", "available", "edges")


@dataclass(frozen=True, slots=True)
class History:
    """All rows of a comparison, and what is known when.

    Args:
        batch: (n rows) in the order in which labels became known; y in its own values.
        codes: (n,) place of each y in `classes`; None for a regressor.
        classes: all classes that occur, in natural order; empty for a regressor.
        columns: kinds and order of the columns.
        timeline: of the same rows.
        probes: (m,) events that nothing learns from: past periods are tested on them.
        read_seconds: CPU seconds that reading one row from its source costs.
        kind: "classifier" or "regressor".
        sources: names of what was read.
        notes: what a reader of the results must know: rows set aside, choices made.
    """

    batch: Batch
    codes: Ints | None
    classes: tuple[Any, ...]
    columns: Columns
    timeline: Timeline
    probes: Ints
    read_seconds: float
    kind: str
    sources: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def position(self) -> Ints:
        """(n,) for each event, its place in `batch`."""
        place = np.empty(len(self), np.int64)
        place[self.timeline.arrival] = np.arange(len(self))
        return place

    @property
    def target(self) -> Array:
        """(n,) the target in the order of `batch`: class codes, or values for a regressor."""
        return np.asarray(self.batch.y if self.codes is None else self.codes)

    def truth(self) -> Array:
        """(n,) the target of each event: class codes, or values for a regressor."""
        return np.asarray(self.target[self.position])

    def save(self, folder: Path) -> None:
        """Write everything as .npy files and one JSON file."""
        for name in _BATCH:
            value = getattr(self.batch, name)
            if value is not None:
                np.save(folder / f"{name}.npy", value)
        if self.batch.texts is not None:
            for name, value in texts_to_arrays(self.batch.texts).items():
                np.save(folder / f"{name}.npy", value)
        np.save(folder / "target.npy", self.target)
        np.save(folder / "probes.npy", self.probes)
        for name in _TIMELINE:
            np.save(folder / f"timeline-{name}.npy", getattr(self.timeline, name))
        (folder / "history.json").write_text(json.dumps(self._facts()))

    @classmethod
    def load(cls, folder: Path) -> History:
        """What `save` wrote; the rows are mapped into memory, not copied."""
        facts = json.loads((folder / "history.json").read_text())
        line = {name: _mapped(folder / f"timeline-{name}.npy") for name in _TIMELINE}
        spans = {name: Span(**facts["timeline"].pop(name)) for name in ("every", "tick")}
        made: dict[str, Any] = {**line, **spans, **facts.pop("timeline")}
        target = _mapped(folder / "target.npy")
        classes = tuple(facts.pop("classes"))
        codes = target if facts["kind"] == "classifier" else None
        names = [name for name in (*_BATCH, *TEXTS) if _has(folder, name)]
        arrays: dict[str, Any] = {name: _mapped(folder / f"{name}.npy") for name in names}
        texts = texts_from_arrays(arrays)
        arrays = {name: array for name, array in arrays.items() if name not in TEXTS}
        return cls(
            batch=Batch(
                **arrays, texts=texts, y=target if codes is None else values_of(codes, classes)
            ),
            codes=codes,
            classes=classes,
            columns=Columns.from_json(facts.pop("columns")),
            timeline=Timeline(**made),
            probes=_mapped(folder / "probes.npy"),
            sources=tuple(facts.pop("sources")),
            **facts,
        )

    def _facts(self) -> Json:
        line = self.timeline
        return {
            "classes": list(self.classes),
            "columns": self.columns.to_json(),
            "read_seconds": self.read_seconds,
            "kind": self.kind,
            "sources": list(self.sources),
            "notes": self.notes,
            "timeline": {
                "unit": line.unit,
                "warmup": line.warmup,
                "every": asdict(line.every),
                "tick": asdict(line.tick),
            },
        }


def values_of(codes: Ints, classes: tuple[Any, ...]) -> Array:
    """(n,) values of the target as the fold takes them: float64, or objects that are `str`."""
    kind: Any = object if classes and isinstance(classes[0], str) else np.float64
    return np.array(classes, dtype=kind)[codes]


def errors_of(answer: Array, truth: Array, kind: str) -> Floats:
    """(n,) what is paid for an answer: 1 for a wrong class, or a regressor's absolute error."""
    wrong = answer != truth if kind == "classifier" else np.abs(answer - truth)
    return np.asarray(wrong, np.float64)


def _mapped(path: Path) -> Array:
    """The array of a file, read through the page cache (a plain array: slices of it are cheap)."""
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(array)


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.npy").exists()
