"""The progressive guard: the live model against the version that it began from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from everlearn.base import Batch, Decision
from everlearn.data.increment import Reader
from everlearn.evaluation.loss import losses
from everlearn.evaluation.sequences import Moments, mean_bounds
from everlearn.jobs.feed import MOST, Labels
from everlearn.jobs.learn import Fold
from everlearn.jobs.online import Online, Tail


class Guard:
    """Compares a tail with the version it began from, on rows that neither has learned.

    Args:
        frozen: the version.
        online: its margin and level.
    """

    def __init__(self, frozen: Fold, online: Online) -> None:
        self._frozen, self.online = frozen, online
        self.apart = Moments()

    def see(self, tail: Tail, read: Sequence[Labels]) -> None:
        """Take in labels that the tail is about to learn."""
        columns = self._frozen.columns
        for labels in read:
            with Reader(
                [labels.part], columns, chunk=MOST, blobs=labels.blobs, read_ahead=False
            ) as reader:
                for chunk in reader:
                    for batch in (chunk.batch, chunk.held):
                        if batch is not None and len(batch):
                            self._compare(tail.fold, batch)

    def decide(self) -> Decision | None:
        """ "roll back" where the tail is surely worse; None otherwise."""
        low, _ = mean_bounds(self.apart, 1.0 - self.online.level)
        if low <= self.online.margin:
            return None
        reason = f"live, the loss is larger by {low:.4g} at least (margin {self.online.margin:g})"
        return Decision("refuse", reason, {"rows": self.apart.n, "apart": self.apart.mean})

    def _compare(self, live: Fold, batch: Batch) -> None:
        assert batch.y is not None
        found = []
        try:
            for fold in (live, self._frozen):
                found.append(losses(fold.kind, fold.encode(batch.y), fold.predict(batch)))
        except Exception:  # of rows on which a learner fails; others are compared
            for row in batch.split(1) if len(batch) > 1 else ():
                self._compare(live, row)
            return
        apart = found[0] - found[1]
        self.apart = self.apart.add(apart[np.isfinite(apart)])
