"""The review queue: predictions that people look at, chosen with chances that are known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from everlearn.base import Floats, Json, SpecError
from everlearn.data.feedback import LoggedPrediction
from everlearn.data.hashing import mix
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import LabelPolicy
from everlearn.storage.schema import predictions, review_items

UNCERTAIN, DISAGREEMENT, RANDOM = "uncertain", "disagreement", "random"
WAITING, CLAIMED, DONE, SKIPPED, DROPPED = "waiting", "claimed", "done", "skipped", "dropped"
"""States; "waiting" is what nobody took yet, "claimed" what somebody did who may still answer."""

PROMISED = 1e12
"""Priority of what the random audit share has: it comes first and is never dropped."""

_DAY = 86_400_000_000
_LEAST = 1e-9
_SALT = np.uint64(0xD1B54A32D192ED03)


@dataclass(frozen=True, slots=True)
class Review:
    """Which predictions people look at (Ohlsson's sequential Poisson sampling).

    Every prediction is wanted with a chance from 0 to 1, the largest that applies, and has a number
    from 0 to 1 by a hash of its id. In the queue are those whose number is below chance × cut. The
    cut is `share`, and falls as far as the budget of the day asks for; then those that are above it
    are dropped, unless somebody took them. So whatever part of the queue is worked, from its top,
    is a sample with chances that are known: chance × cut is kept as `selection`, for weights.

    Args:
        budget: predictions a day (UTC); None is without limit, where a share is given, else 50.
        share: the largest cut.
        uncertain: chance of an answer that is a toss-up between its two likeliest classes; it falls
            to 0 with the margin between their probabilities.
        disagreement: chance where a candidate answers something else (in a rollout that mirrors).
        random: chance of any prediction. Where the model's `LabelPolicy(audit=)` has a share, that
            decides instead, and its predictions come beyond the budget.
        reviewers: how many are to answer for each.
        claim_minutes: for how long one who took a prediction has it to himself.

    Raises:
        SpecError: a parameter that cannot be.
    """

    budget: int | None = None
    share: float | None = None
    uncertain: float = 1.0
    disagreement: float = 1.0
    random: float = 0.05
    reviewers: int = 1
    claim_minutes: float = 15.0

    def __post_init__(self) -> None:
        if self.budget is None and self.share is None:
            object.__setattr__(self, "budget", 50)
        if self.budget is not None and self.budget < 1:
            raise SpecError(f"Review(budget=) is at least 1, not {self.budget!r}")
        if self.share is not None and not 0.0 < self.share <= 1.0:
            raise SpecError(f"Review(share=) is above 0 and at most 1, not {self.share!r}")
        for name in ("uncertain", "disagreement", "random"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise SpecError(f"Review({name}=) is a chance, not {getattr(self, name)!r}")
        if self.reviewers < 1:
            raise SpecError(f"Review(reviewers=) is at least 1, not {self.reviewers!r}")
        if not 0.0 < self.claim_minutes < float("inf"):
            raise SpecError(f"Review(claim_minutes=) is above 0, not {self.claim_minutes!r}")

    @property
    def cut(self) -> float:
        """The cut at the beginning of a day."""
        return 1.0 if self.share is None else self.share


def draws(ids: Sequence[int]) -> Floats:
    """(n,) the number of each prediction, uniform between 0 and 1; the same in every process."""
    scrambled = mix(np.array(ids, np.uint64) ^ _SALT)
    return ((scrambled >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def margin(output: Json) -> float | None:
    """Between the probabilities of the two likeliest classes; None where there are none."""
    chances = output.get("probabilities") if isinstance(output, dict) else None
    if not chances or len(chances) < 2:
        return None
    first, second = sorted(chances.values())[:-3:-1]
    return float(first - second)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A prediction that is wanted with a chance, and its number."""

    prediction: int
    chance: float
    draw: float
    why: str
    promised: bool = False

    def row(self, cut: float) -> dict[str, Any]:
        """Its columns."""
        return {
            "priority": PROMISED if self.promised else self.chance / self.draw,
            "selection": max(self.chance * cut, _LEAST),
            "why": self.why,
        }


class ReviewQueue:
    """The queue of one model. Safe for several processes: who changes it, locks it.

    Args:
        log: of the model.
        review: what is put into it; nothing without it.
        policy: of the model, with its audit share.
    """

    def __init__(
        self, log: FeedbackLog, review: Review | None, policy: LabelPolicy | None = None
    ) -> None:
        self._log, self._database, self._model = log, log.database, log.model
        self.review = review
        self._policy = policy or LabelPolicy()
        self._random = 0.0 if review is None or self._policy.audit else review.random
        self._seen = (-1, 1.0)  # day, and its cut when it was looked at last

    # --- what comes in ---

    def offer(self, rows: Sequence[LoggedPrediction]) -> int:
        """Take what is wanted of predictions that were logged; returns how many."""
        review = self.review
        if review is None or not rows:
            return 0
        cut, numbers = self._last_cut(), draws([row.id for row in rows])
        chosen = []
        likely = numbers < cut * max(review.uncertain, self._random)
        if self._policy.audit:
            likely |= [self._policy.audited(row.id) for row in rows]
        for place in np.flatnonzero(likely).tolist():
            one = self._wanted(rows[place].id, rows[place].output, float(numbers[place]), cut)
            if one.promised or one.draw < one.chance * cut:
                chosen.append(one)
        return self._take(chosen)

    def offer_compared(self, answers: Mapping[int, Json]) -> int:
        """Take what is wanted of predictions that a candidate answered too; returns how many are
        new or wanted more than before.

        Args:
            answers: prediction → what the candidate would have said; None where it failed.
        """
        review = self.review
        told = [number for number, output in answers.items() if output is not None]
        if review is None or review.disagreement == 0.0 or not told:
            return 0
        cut = self._last_cut()
        drawn = dict(zip(told, draws(told).tolist(), strict=True))
        likely = [number for number in told if drawn[number] < cut * review.disagreement]
        chosen = []
        for row in self._predictions(likely):
            output = json.loads(row.output)
            if output.get("value") == answers[row.id].get("value"):
                continue
            one = self._wanted(row.id, output, drawn[row.id], cut, review.disagreement)
            chosen.append(one)
        return self._take(chosen)

    def _wanted(
        self, prediction: int, output: Json, draw: float, cut: float, disagreement: float = 0.0
    ) -> _Chosen:
        assert self.review is not None
        if self._policy.audited(prediction):
            why, promised = RANDOM, True
        else:
            why, promised = RANDOM if draw < self._random * cut else UNCERTAIN, False
        gap = margin(output)
        unsure = 0.0 if gap is None else self.review.uncertain * (1.0 - gap)
        if why == UNCERTAIN and disagreement >= unsure and disagreement > 0.0:
            why = DISAGREEMENT
        return _Chosen(prediction, max(self._random, unsure, disagreement), draw, why, promised)

    def _take(self, chosen: Sequence[_Chosen]) -> int:
        """Put them into the queue, and drop what is too much of the day."""
        if not chosen:
            return 0
        at = self._database.clock()
        with self._locked() as connection:
            cut = self._cut(connection, at)
            within = [one for one in chosen if one.promised or one.draw < one.chance * cut]
            count = self._put(connection, self._best(within), cut, at)
            self._seen = (at // _DAY, self._trim(connection, cut, at))
        return count

    def _best(self, chosen: list[_Chosen]) -> list[_Chosen]:
        """As many as there can be room for, and the one after them: where that is dropped, it says
        how far the cut fell."""
        assert self.review is not None
        promised = [one for one in chosen if one.promised]
        others = [one for one in chosen if not one.promised]
        if self.review.budget is not None and len(others) > self.review.budget + 1:
            others.sort(key=lambda one: one.draw / one.chance)
            del others[self.review.budget + 1 :]
        return promised + others

    def _put(self, connection: Connection, chosen: Sequence[_Chosen], cut: float, at: int) -> int:
        """Add what is new, and raise what is wanted more than before; how many these are."""
        assert self.review is not None
        known = self._known(connection, [one.prediction for one in chosen])
        fixed: dict[str, Any] = {"model_id": self._model, "created_at": at, "state": WAITING}
        fixed |= {"claims": {}, "wanted": self.review.reviewers}
        new, raised = [], 0
        for one in chosen:
            row, before = one.row(cut), known.get(one.prediction)
            if before is None:
                new.append(fixed | row | {"prediction_id": one.prediction})
            elif before.state == WAITING and before.priority < row["priority"]:
                update = sa.update(review_items).where(review_items.c.id == before.id)
                connection.execute(update.values(**row))
                raised += 1
        if new:
            connection.execute(sa.insert(review_items), new)
        return len(new) + raised

    def _trim(self, connection: Connection, cut: float, at: int) -> float:
        """Drop what is beyond the budget of the day, the least wanted first; the cut after it."""
        assert self.review is not None
        if self.review.budget is None:
            return cut
        table, mine = review_items.c, self._of_day(at)
        counted = sa.select(sa.func.count()).where(mine, table.state != DROPPED)
        over = int(connection.execute(counted).scalar_one()) - self.review.budget
        if over <= 0:
            return cut
        query = sa.select(table.id, table.priority).where(mine, table.state == WAITING)
        least = connection.execute(query.order_by(table.priority).limit(over)).all()
        if not least:
            return cut
        lower = min(cut, 1.0 / float(least[-1].priority))
        for part in _pages([row.id for row in least]):
            drop = sa.update(review_items).where(table.id.in_(part))
            connection.execute(drop.values(state=DROPPED))
        left = sa.update(review_items).where(
            table.model_id == self._model,
            table.created_at >= at // _DAY * _DAY,
            table.state == WAITING,
        )
        connection.execute(left.values(selection=table.selection * (lower / cut)))
        return lower

    def _cut(self, connection: Connection, at: int) -> float:
        """The cut of a day: what was dropped says how far it fell."""
        assert self.review is not None
        table = review_items.c
        query = sa.select(sa.func.max(table.priority))
        highest = connection.execute(query.where(self._of_day(at), table.state == DROPPED)).scalar()
        return min(self.review.cut, 1.0 if highest is None else 1.0 / float(highest))

    def _last_cut(self) -> float:
        """The cut of today as it was known last; it only falls."""
        assert self.review is not None
        at = self._database.clock()
        if self._seen[0] != at // _DAY:
            with self._database.read() as connection:
                self._seen = (at // _DAY, self._cut(connection, at))
        return self._seen[1]

    def _of_day(self, at: int) -> sa.ColumnElement[bool]:
        table = review_items.c
        return sa.and_(
            table.model_id == self._model,
            table.created_at >= at // _DAY * _DAY,
            table.priority < PROMISED,
        )

    def _known(self, connection: Connection, ids: Sequence[int]) -> dict[int, Row[Any]]:
        found: dict[int, Row[Any]] = {}
        table = review_items.c
        for part in _pages(ids):
            query = sa.select(review_items).where(
                table.model_id == self._model, table.prediction_id.in_(part)
            )
            found |= {row.prediction_id: row for row in connection.execute(query)}
        return found

    def _predictions(self, ids: Sequence[int]) -> list[Row[Any]]:
        found: list[Row[Any]] = []
        with self._database.read() as connection:
            for part in _pages(ids):
                query = sa.select(predictions.c.id, predictions.c.output)
                found += connection.execute(query.where(predictions.c.id.in_(part)))
        return found

    @contextmanager
    def _locked(self) -> Iterator[Connection]:
        with self._database.write() as connection:
            lock(self._log, connection)
            yield connection


def lock(log: FeedbackLog, connection: Connection) -> None:
    """Keep others from changing the queue of a model until a writing transaction ends."""
    log.database.in_commit_order(connection, f"review/{log.model}")


def _pages(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), 500):
        yield ids[start : start + 500]
