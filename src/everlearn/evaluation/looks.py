"""Looks at a model while it learns: what it still knows of older periods, for the stability gap.

They cost little: at most 10 of them, at most 512 rows each, and together at most a twentieth of
the rows that are learned (but for one look, where there is more than one chunk). Where they fall
depends only on the job, so that one that was killed and went on has seen the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from everlearn.base import Batch, Ints, Json
from everlearn.evaluation.holdouts import Period, sample
from everlearn.evaluation.loss import GREATER_IS_BETTER
from everlearn.evaluation.transfer import stability_gap
from everlearn.evaluation.trial import Scorer, ask, mean_losses

MOST, ROWS, FEWEST_ROWS = 10, 512, 64
"""Looks, rows of each, and rows of each at least where there are as many."""

SHARE = 0.05
"""Of the rows that are learned, how many are looked at."""


class Looks:
    """Scores on rows of older periods, at a few moments of a job.

    Args:
        rows: rows of the older periods; None to look at nothing.
        moments: rows learned after which it looks, ascending.
        before: scores before the job began.
        seen: rows learned at each look, and the scores then.
        learned: rows learned so far.
    """

    def __init__(
        self,
        rows: Batch | None,
        moments: Sequence[int] = (),
        before: Mapping[str, float | None] | None = None,
        seen: Sequence[tuple[int, Mapping[str, float | None]]] = (),
        learned: int = 0,
    ) -> None:
        self._rows, self._moments = rows, tuple(moments)
        self._before, self._seen = dict(before or {}), list(seen)
        self._learned = learned

    @classmethod
    def plan(cls, periods: Sequence[Period], scorer: Scorer, rows: int, chunk: int) -> Self:
        """Looks for a job that goes on from a model.

        Args:
            periods: the older ones.
            scorer: the model before it learns on.
            rows: that will be learned, those of every pass counted.
            chunk: rows that are learned at once.
        """
        moments = look_at(rows, chunk)
        if not periods or not moments or scorer.kind not in ("classifier", "regressor"):
            return cls(None)
        each = max(FEWEST_ROWS, int(rows * SHARE) // len(moments))
        batch = sample(Batch.concat([period.batch for period in periods]), min(ROWS, each))
        return cls(batch, moments, _scores(scorer, batch))

    @classmethod
    def load(cls, periods: Sequence[Period], kept: Json) -> Self:
        """What `save` saw, for a job that goes on from a checkpoint."""
        if not kept:
            return cls(None)
        batch = sample(Batch.concat([period.batch for period in periods]), kept["rows"])
        seen = [(int(at), scores) for at, scores in kept["seen"]]
        return cls(batch, kept["moments"], kept["before"], seen, kept["learned"])

    def save(self) -> Json:
        """All but the rows, which the hold-outs have; None where it looks at nothing."""
        if self._rows is None:
            return None
        return {
            "rows": len(self._rows),
            "moments": list(self._moments),
            "before": self._before,
            "seen": [[at, scores] for at, scores in self._seen],
            "learned": self._learned,
        }

    def after(self, rows: int, scorer: Scorer) -> None:
        """Rows were learned: look, if it is time to."""
        before, self._learned = self._learned, self._learned + rows
        if self._rows is None:
            return
        if any(before < moment <= self._learned for moment in self._moments):
            self._seen.append((self._learned, _scores(scorer, self._rows)))

    def figures(self) -> Json:
        """The scores before and during the job, and the stability gap of each metric (De Lange et
        al. 2022): above 0 where something was worse in between than before. None without a look."""
        if self._rows is None or not self._seen:
            return None
        gaps: dict[str, float | None] = {}
        for name, before in self._before.items():
            during = [scores.get(name) for _, scores in self._seen]
            values = np.array([np.nan if value is None else value for value in during])
            sign = 1.0 if name in GREATER_IS_BETTER else -1.0
            gaps[name] = None if before is None else stability_gap(sign * before, sign * values)
        return {
            "rows": len(self._rows),
            "before": self._before,
            "during": [{"learned": at, **scores} for at, scores in self._seen],
            "gap": gaps,
        }


def look_at(rows: int, chunk: int) -> list[int]:
    """Rows learned after which to look: after the first chunk, and then ever more seldom, since it
    is at first that most is lost. Never at the end, which is scored anyway.

    >>> look_at(100_000, 1_000)
    [1000, 2000, 3000, 4000, 7000, 10000, 16000, 26000, 40000, 64000]
    >>> look_at(1_000, 1_000)
    []
    """
    chunks = -(-rows // chunk)
    if chunks < 2:
        return []
    count = min(MOST, chunks - 1, max(1, int(rows * SHARE) // FEWEST_ROWS))
    steps = (chunks ** (np.arange(count) / count)).round(9)
    places: Ints = np.unique(np.ceil(steps).astype(np.int64))
    return [int(place) * chunk for place in places if place < chunks]


def _scores(scorer: Scorer, batch: Batch) -> dict[str, float | None]:
    answers = ask(scorer, batch)
    if answers.y is None:
        return {}
    found = mean_losses(scorer.kind, answers, np.zeros(1, np.int64))
    return {name: values[0] for name, values in found.items()}
