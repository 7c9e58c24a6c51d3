"""`Metrics`: the streaming metrics of any kind of learner behind one small class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np

from everlearn.base import Array, Floats, InputError, LearnerKind, Part, Prediction
from everlearn.evaluation.classification import Classification
from everlearn.evaluation.regression import Regression

BLOCK = 8192
"""Rows are gathered to blocks of this size, so that small chunks cost little."""


class Sums(Protocol):
    """What is kept of a stream for one kind of learner."""

    rows: int

    def add(self, y: Any, value: Any, proba: Any = None) -> None: ...
    def merge(self, later: Any) -> None: ...
    def results(self, positive: int = 1) -> dict[str, Any]: ...
    def save(self) -> tuple[dict[str, Array], dict[str, Any]]: ...
    @classmethod
    def load(cls, arrays: dict[str, Array], meta: dict[str, Any]) -> Self: ...


@dataclass(slots=True)
class Reconstruction:
    """The mean reconstruction error of a transformer, which is its predicted value."""

    rows: int = 0
    nonfinite: int = 0
    total: float = 0.0

    def add(self, y: Array, value: Floats, proba: None = None) -> None:
        """Add the errors (n,) of n rows."""
        good = np.isfinite(value)
        self.rows += len(value)
        self.nonfinite += int(np.count_nonzero(~good))
        self.total += float(value[good].sum())

    def merge(self, later: Reconstruction) -> None:
        """Add the rows of another one."""
        self.rows += later.rows
        self.nonfinite += later.nonfinite
        self.total += later.total

    def results(self, positive: int = 1) -> dict[str, Any]:
        """Every metric by name; None where it is not defined."""
        usable = self.rows > 0 and self.nonfinite == 0
        found: dict[str, Any] = {
            "rows": self.rows,
            "reconstruction_error": self.total / self.rows if usable else None,
        }
        if self.nonfinite:
            found["nonfinite"] = self.nonfinite
        return found | {"baselines": {}}

    def save(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays and JSON from which `load` makes the same one."""
        meta = {"rows": self.rows, "nonfinite": self.nonfinite}
        return {"sums": np.array([self.total])}, meta

    @classmethod
    def load(cls, arrays: dict[str, Array], meta: dict[str, Any]) -> Self:
        """The one that `save` saw."""
        return cls(meta["rows"], meta["nonfinite"], float(arrays["sums"][0]))


@dataclass(slots=True)
class Clusters:
    """How many clusters a clusterer put rows into."""

    rows: int = 0
    used: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, y: Array, value: Array, proba: None = None) -> None:
        """Add the cluster numbers (n,) of n rows."""
        self.rows += len(value)
        self.used = np.union1d(self.used, value)

    def merge(self, later: Clusters) -> None:
        """Add the rows of another one."""
        self.rows += later.rows
        self.used = np.union1d(self.used, later.used)

    def results(self, positive: int = 1) -> dict[str, Any]:
        """Rows and the number of clusters that were used."""
        return {"rows": self.rows, "clusters": len(self.used), "baselines": {}}

    def save(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays and JSON from which `load` makes the same one."""
        return {"used": self.used}, {"rows": self.rows}

    @classmethod
    def load(cls, arrays: dict[str, Array], meta: dict[str, Any]) -> Self:
        """The one that `save` saw."""
        return cls(meta["rows"], arrays["used"])


_KINDS: dict[str, Callable[[], Sums]] = {
    "classifier": Classification,
    "regressor": Regression,
    "clusterer": Clusters,
    "transformer": Reconstruction,
}


class Metrics:
    """Streaming metrics, test-then-train, with their baselines. Bounded memory.

    Rows are added in the order of the stream, each with what was predicted for it before it was
    learned. The results are the same to the last bit whether or not the metrics were saved and
    loaded, or looked at, in between. A k that grows during the stream is handled.

    Args:
        kind: "classifier", "regressor", "clusterer" or "transformer".

    Example:
        >>> import numpy as np
        >>> from everlearn.base import Prediction
        >>> metrics = Metrics("regressor")
        >>> metrics.add(np.array([1.0, 2.0]), Prediction(value=np.array([1.0, 4.0])))
        >>> metrics.results()["mae"]
        1.0

    Raises:
        InputError: another kind.
    """

    def __init__(self, kind: LearnerKind) -> None:
        if kind not in _KINDS:
            raise InputError(f"a kind of learner is needed, such as 'classifier', not {kind!r}")
        self.kind: LearnerKind = kind
        self._done = _KINDS[kind]()
        self._y: Array | None = None
        self._value: Array | None = None
        self._proba: Floats | None = None
        self._filled = 0

    def __len__(self) -> int:
        """Rows added so far."""
        return self._done.rows + self._filled

    def add(self, y: Array | None, prediction: Prediction) -> None:
        """Add the next rows in their order.

        Args:
            y: (n,) int64 class codes (−1: not known to the learner) or float64 values; None for
                learners without a target.
            prediction: what was predicted for these n rows.

        Raises:
            InputError: y and prediction differ in length, or y is needed and missing.
        """
        n = len(prediction)
        if self.kind in ("clusterer", "transformer"):
            y = prediction.value
        if y is None or len(y) != n:
            have = "no target" if y is None else f"{len(y)} targets"
            raise InputError(f"{n} predictions were given with {have}; give one for each row")
        if n >= BLOCK:
            self._flush()
            self._done.add(y, prediction.value, prediction.proba)
            return
        if n:
            self._gather(y, prediction.value, prediction.proba)

    def merge(self, later: Metrics) -> None:
        """Add the rows of other metrics of the same kind, which came after these.

        Raises:
            InputError: the other one is of another kind.
        """
        if later.kind != self.kind:
            raise InputError(f"metrics of a {later.kind} cannot be merged into a {self.kind}'s")
        self._flush()
        self._done.merge(later._complete())

    def results(self, *, positive: int = 1) -> dict[str, Any]:
        """Every metric by name, None where it is not defined, with "rows" and "baselines".

        Args:
            positive: the code of the positive class of two, for pr_auc (`Labels.order` tells which
                code is the last class in natural order).
        """
        return self._complete().results(positive)

    def save(self) -> Part:
        """Everything, for a checkpoint."""
        arrays, meta = self._done.save()
        if self._filled and self._y is not None and self._value is not None:
            arrays["pending.y"] = self._y[: self._filled].copy()
            arrays["pending.value"] = self._value[: self._filled].copy()
            if self._proba is not None:
                arrays["pending.proba"] = self._proba[: self._filled].copy()
        return Part(arrays, meta | {"kind": self.kind})

    @classmethod
    def load(cls, part: Part) -> Self:
        """The metrics that `save` saw."""
        made = cls(part.meta["kind"])
        made._done = type(made._done).load(part.arrays, part.meta)
        if "pending.y" in part.arrays:
            proba = part.arrays.get("pending.proba")
            made._gather(part.arrays["pending.y"], part.arrays["pending.value"], proba)
        return made

    def _gather(self, y: Array, value: Array, proba: Floats | None) -> None:
        n = len(y)
        if self._filled + n > BLOCK or not self._fits(proba):
            self._flush()
        if self._y is None or self._value is None:
            self._y = np.empty(BLOCK, y.dtype)
            self._value = np.empty(BLOCK, value.dtype)
            self._proba = None if proba is None else np.empty((BLOCK, proba.shape[1]))
        start, stop = self._filled, self._filled + n
        self._y[start:stop] = y
        self._value[start:stop] = value
        if self._proba is not None:
            self._proba[start:stop] = proba
        self._filled = stop

    def _fits(self, proba: Floats | None) -> bool:
        if self._y is None:
            return True
        if self._proba is None or proba is None:
            return self._proba is proba
        return bool(self._proba.shape[1] == proba.shape[1])

    def _flush(self) -> None:
        if self._filled:
            self._add_pending(self._done)
        if self._filled or self._y is not None:
            self._y = self._value = self._proba = None
            self._filled = 0

    def _add_pending(self, into: Sums) -> None:
        if self._y is None or self._value is None:
            return
        n = self._filled
        proba = None if self._proba is None else self._proba[:n]
        into.add(self._y[:n], self._value[:n], proba)

    def _complete(self) -> Sums:
        """What was added, the gathered rows included; this object is not changed."""
        if not self._filled:
            return self._done
        copy = type(self._done).load(*self._done.save())
        self._add_pending(copy)
        return copy
