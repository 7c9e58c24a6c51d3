"""What one strategy did and answered."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from everlearn.base import Array, Floats, Ints


@dataclass(slots=True)
class Run:
    """What one strategy did and answered. Events are those from the end of warm-up on.

    Args:
        name: of the strategy.
        value: (m,) answers: class codes in the history's order of classes, or numbers.
        proba: (m, k) probabilities in that order, or None.
        cpu_seconds: of reading, encoding and learning.
        update_seconds: (u,) the same, per update.
        update_moments: (u,) when the serving version changed.
        rows_learned: rows that were learned, those seen again by a retraining counted again; rows
            drawn from a memory are not counted.
        rows_read: rows that were read from the source.
        labels_used: share of the labels known after warm-up that the model ever learned.
        wait: mean time (microseconds or rows) from a label being known to the serving model
            knowing it, until the end of the history for one that it never learned.
        transfer: (T, T) R[i, j]: score on the rows of group j that nothing learned from, at the
            end of group i; accuracy, or −MAE for a regressor. None for fewer than two groups.
        serving: (P, P) errors of the version of period i in period j; only for the schedule in
            hindsight.
        peak_memory_mb: of the process, or None where it was not one of its own.
    """

    name: str
    value: Array
    proba: Floats | None
    cpu_seconds: float = 0.0
    update_seconds: Floats = field(default_factory=lambda: np.empty(0))
    update_moments: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    rows_learned: int = 0
    rows_read: int = 0
    labels_used: float | None = None
    wait: float | None = None
    transfer: Floats | None = None
    serving: Floats | None = None
    peak_memory_mb: float | None = None
