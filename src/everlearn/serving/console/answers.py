"""How good the last labelled answers of a model were, beside what one would have said without it;
and how its labels came in."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from pydantic_core import from_json

from everlearn.base import Json
from everlearn.data.answers import class_name
from everlearn.data.log import FeedbackLog
from everlearn.evaluation.outcomes import loss_of, metric_for
from everlearn.evaluation.sequences import Moments, difference, mean_bounds
from everlearn.serving.console.frozen import Frozen
from everlearn.storage.database import Database
from everlearn.storage.schema import labels, predictions, shadow_answers

KEPT = 10_000
"""Labels that are looked at: the last ones."""

READ = 5000
"""Labels that are read at once."""

BLOCKS, FEWEST = 40, 20
"""Blocks of a chart, and answers that one has at least."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose label is known.

    Args:
        prediction: its id.
        version, arm: that gave it.
        loss: of the answer.
        naive: of what labels before it alone would have made one say; None for the first.
        at: when the label arrived, in microseconds.
        apart: how much larger the loss is of what a candidate in its shadow would have answered.
        frozen: loss of what the first champion would have answered; None where that is not known.
    """

    prediction: int
    version: int
    arm: str
    loss: float
    naive: float | None
    at: int
    apart: float | None = None
    frozen: float | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Answers that follow each other.

    Args:
        stop: number of the last answer.
        version: of the champion that gave most of them.
        tried: version of most of the candidate's; None without any.
        champion, candidate, naive, frozen: mean losses; None where there are too few.
        at: when the last label arrived.
    """

    stop: int
    version: int | None
    tried: int | None
    champion: float | None
    candidate: float | None
    naive: float | None
    frozen: float | None
    at: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Labels that came in spans of time.

    Args:
        unit: of the spans: "minute", "hour" or "day".
        starts: of the spans, in microseconds; the last is the present one.
        counts: labels in each.
        delays: seconds between a prediction and its label: the median, and that which 90 % keep to.
    """

    unit: str
    starts: list[int]
    counts: list[int]
    delays: tuple[float, float] | None


class Answers:
    """The last labelled answers of one model; what is known is not read again.

    Args:
        database: of the workspace.
        log: of the model.
        frozen: its first champion.
    """

    def __init__(self, database: Database, log: FeedbackLog, frozen: Frozen) -> None:
        self._database, self._log, self.frozen = database, log, frozen
        self._lock = threading.Lock()
        self._position = 0
        self._naive = _Naive()
        self._judged: set[int] = set()
        self._answers: deque[Answer] = deque()
        self._labels: deque[tuple[int, int]] = deque(maxlen=KEPT)  # arrived, delay
        self.metric: str | None = None
        self._whole = True

    def read(self) -> list[Answer]:
        """Take in what is new; all that are kept. The first label of a prediction counts, as in
        rollouts."""
        with self._lock:
            head = self._log.head()
            if head - KEPT > self._position:
                self._position, self._whole = head - KEPT, False
            while self._position < head:
                upto = min(head, self._position + READ)
                rows = self._page(self._position, upto)
                if len(rows) < upto - self._position:  # the others are archived
                    self._whole = False
                outputs = self.frozen.outputs([(row.id, row.version) for row in rows])
                for row in rows:
                    self._add(row, outputs.get(row.id))
                self._position = upto
            return list(self._answers)

    def since(self, prediction: int, until: int | None = None) -> list[Answer]:
        """Those to predictions from this one on; none where not all of them are kept.

        Args:
            until: with labels that had arrived by this time.
        """
        rows = self.read()
        if not self._whole and (not rows or rows[0].prediction >= prediction):
            return []
        part = [one for one in rows if one.prediction >= prediction]
        return part if until is None else [one for one in part if one.at <= until]

    def flow(self, now: int, spans: int = 30) -> Flow | None:
        """How the labels came in up to now, by the unit that fits; None without any."""
        with self._lock:
            arrived = np.array(self._labels, dtype=np.int64).reshape(-1, 2)
        if len(arrived) == 0:
            return None
        units = (("minute", 60), ("hour", 3600), ("day", 86_400))
        age = (now - int(arrived[:, 0].min())) // 1_000_000
        unit, seconds = next((one for one in units if age < one[1] * spans), units[-1])
        width = seconds * 1_000_000
        last = now // width
        place = arrived[:, 0] // width - last + spans - 1
        counts = np.bincount(np.clip(place[place >= 0], 0, spans - 1), minlength=spans)
        median, most = np.quantile(arrived[:, 1] / 1e6, [0.5, 0.9])
        starts = [int((last - spans + 1 + n) * width) for n in range(spans)]
        return Flow(unit, starts, counts.tolist(), (float(median), float(most)))

    def _add(self, row: Any, first: Json) -> None:
        """Take in one label.

        Args:
            first: what the first champion would have answered; None where that is not known.
        """
        self._labels.append((row.arrived_at, max(0, row.said_at - row.asked_at)))
        if row.value is None or row.id in self._judged:
            return
        output, value = from_json(row.output), from_json(row.value)
        self.metric = self.metric or metric_for(output, value)
        naive = self._naive.loss(self.metric, value)
        self._naive.add(value)
        loss = loss_of(self.metric, output, value)
        if loss is None:
            return
        if len(self._answers) >= KEPT:
            self._judged.discard(self._answers.popleft().prediction)
            self._whole = False
        self._judged.add(row.id)
        apart = None
        if row.shadow is not None:
            shadow = loss_of(self.metric, from_json(row.shadow), value)
            apart = None if shadow is None else shadow - loss
        frozen = loss if self.frozen.gave(row.version) else None
        if first is not None:
            frozen = loss_of(self.metric, first, value)
        answer = Answer(row.id, row.version, row.arm, loss, naive, row.arrived_at, apart, frozen)
        self._answers.append(answer)

    def _page(self, after: int, upto: int) -> Sequence[Any]:
        table, asked = labels.c, predictions.c
        query = (
            sa.select(
                asked.id, asked.version, asked.arm, asked.output, asked.at.label("asked_at"),
                table.value, table.at.label("said_at"), table.arrived_at,
                shadow_answers.c.output.label("shadow"),
            )
            .join(predictions, asked.id == table.prediction_id)
            .outerjoin(shadow_answers, asked.id == shadow_answers.c.prediction_id)
            .where(table.model_id == self._log.model)
            .where(table.position > after, table.position <= upto)
            .order_by(table.position)
        )  # fmt: skip
        with self._database.read() as connection:
            return connection.execute(query).all()


class _Naive:
    """What one would say who knows only the labels so far: the most frequent class with the shares
    of all (one more than seen of each), or the mean."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._classes, self._numbers, self._sum = 0, 0, 0.0

    def loss(self, metric: str, value: Json) -> float | None:
        """Of this answer."""
        if metric in ("mse", "mae"):
            said = {"value": self._sum / self._numbers} if self._numbers else {"value": None}
            return loss_of(metric, said | {"probabilities": None}, value)
        if not self._counts:
            return None
        chances, name = None, class_name(value)
        total = self._classes + len(self._counts) + (name not in self._counts)
        if metric == "log_loss":
            return -math.log((self._counts[name] + 1) / total)
        if metric == "brier":
            chances = {one: (self._counts[one] + 1) / total for one in {*self._counts, name}}
        most = max(self._counts, key=self._counts.__getitem__)
        return loss_of(metric, {"value": most, "probabilities": chances}, value)

    def add(self, value: Json) -> None:
        """One more label."""
        if isinstance(value, str | bool | int):
            self._counts[class_name(value)] += 1
            self._classes += 1
        if isinstance(value, int | float):
            self._numbers += 1
            self._sum += value


def blocks(answers: Sequence[Answer]) -> list[Block]:
    """Mean losses of answers in blocks of the same size, oldest first."""
    size = max(FEWEST, -(-len(answers) // BLOCKS))
    made: list[Block] = []
    for stop in range(len(answers), 0, -size):  # whole blocks up to the newest
        part = answers[max(0, stop - size) : stop]
        if len(part) < size and made:
            break
        champion = [one for one in part if one.arm != "candidate"]
        candidate = [one for one in part if one.arm == "candidate"]
        made.append(
            Block(
                stop=stop,
                version=_usual(champion),
                tried=_usual(candidate),
                champion=_mean([one.loss for one in champion]),
                candidate=_mean([one.loss for one in candidate], 5),
                naive=_mean([one.naive for one in part if one.naive is not None]),
                frozen=_mean([one.frozen for one in part if one.frozen is not None], 5),
                at=part[-1].at,
            )
        )
    return made[::-1]


def sequence(
    answers: Sequence[Answer], alpha: float, zero_one: bool, points: int = 40
) -> list[tuple[int, float, float, float]]:
    """The confidence sequence of a stage, as it was label by label: (labels of the candidate, how
    much larger its mean loss is, lower bound, upper bound).

    Args:
        answers: of the stage.
        alpha: of the sequence.
        zero_one: whether losses are 0 or 1.
    """
    size = max(1, -(-len(answers) // points))
    seen = {"candidate": Moments(), "champion": Moments()}
    both, made = Moments(), []
    for start in range(0, len(answers), size):
        part = answers[start : start + size]
        for arm in seen:
            losses = [one.loss for one in part if one.arm == arm]
            seen[arm] = seen[arm].add(np.array(losses))
        both = both.add(np.array([one.apart for one in part if one.apart is not None]))
        if both.n:
            made.append((both.n, both.mean, *mean_bounds(both, alpha)))
            continue
        candidate, champion = seen["candidate"], seen["champion"]
        if candidate.n and champion.n:
            bounds = difference(candidate, champion, alpha, shares=zero_one)
            made.append((candidate.n, *bounds))
    return made


def _usual(answers: Sequence[Answer]) -> int | None:
    """The version of most of them."""
    counts = Counter(one.version for one in answers)
    return counts.most_common(1)[0][0] if counts else None


def _mean(values: Sequence[float], fewest: int = 1) -> float | None:
    return float(np.mean(values)) if len(values) >= fewest else None
