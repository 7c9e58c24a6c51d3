"""Prediction with expert advice: several learners answer as one, the best of them loudest."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from everlearn.base import (
    Array,
    Batch,
    Floats,
    InputError,
    LearnerKind,
    Part,
    SpecError,
    State,
    prefixed,
    under,
)
from everlearn.learners.native.baselines import LastValue, Majority, NoChange, RunningMean
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.either import Either
from everlearn.learners.native.estimator import Native
from everlearn.learners.native.loading import all_like, check_within
from everlearn.learners.native.members import Members, kind_of
from everlearn.learners.native.mixing import mix_classes, mix_values, sum_log_losses, sum_squares
from everlearn.learners.native.regressor import Regressor
from everlearn.learners.native.rows import Rows, Shape
from everlearn.learners.native.shared import SharedRows

Judge = Literal["row", "version"]

SHARES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Parts of the weight that are spread over the experts after every row, where none is said."""

BLOCK_ROWS = 30.0
"""The rows that a version would have answered count as no more than this: they are alike."""


class Experts(Either):
    """Several learners that answer as one: an average, weighted by how good each was so far.

    Each expert predicts every row before it learns it. After a row the weight of an expert shrinks
    by the factor exp(−η loss), where the loss is −log of the probability that it gave the row's
    class, or the squared error of its value; then a share of all weight is spread evenly, so that
    an expert that becomes good after a change is soon followed.

    For classes, each expert is there twice: as it is, and tempered, its probabilities raised to a
    power that makes too sure ones less so and too timid ones more. With η = 1 and no share, the log
    loss of all answers together is at most log N above that of the best of these N, whatever the
    rows are; with a share α, at most log N + m log(N / α) − (T − m) log(1 − α) above that of any
    sequence of them which changes m times in T rows. For values, η adapts to the size of errors.

    A model that learns all the time is helped by other experts than one that answers for a week
    before it learns again: to say the last label once more may be best right after it, and is
    worthless a week later. So experts are judged by their prediction of each row right before it
    is learned ("row"), or ("version") by what they, as they stood when the last version was
    complete, would have answered for all rows since; within a long increment also whenever half as
    many rows were learned as before. These rows count as 30 at most, and share once.

    Experts of this package learn row by row. An estimator of scikit-learn learns the rows that are
    handed over as one chunk: all are predicted, then learned.

    Args:
        learners: the experts: native learners, names ("logistic"), estimators with `partial_fit`,
            chains; all classifiers or all regressors.
        baselines: whether `Majority` and `NoChange` (for values `RunningMean` and `LastValue`) are
            experts too.
        share: α, the part of all weight that is spread after every row, from 0 to 1: about one
            change of the best expert in 1/α rows is reckoned with. None for four shares from
            0.0001 to 0.1, which are weighed as the experts are; that costs log 4 at most.
        learning_rate: η, above 0; None for 1 with classes, and for one that adapts with values
            (AdaHedge).
        judge: what experts are judged by, "row" or "version"; None for "version" in the jobs of a
            model that do not shuffle, and "row" elsewhere.
        classes: how many there are, or which; None where they are not known beforehand.
        nominal: columns of a matrix that are categories.
        seed: of the experts that have none of their own.

    Raises:
        SpecError: no learner, one that cannot be an expert here, or a parameter out of its range.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> X = generator.normal(size=(2000, 2))
        >>> experts = Experts(["logistic"], classes=2)
        >>> answers = experts.score_then_learn(X, (X[:, 0] > 0).astype(int))
        >>> max(experts.weights_, key=experts.weights_.get)
        'logistic'

    Papers:
        Vovk 1990, "Aggregating strategies"; Littlestone & Warmuth 1994, "The weighted majority
        algorithm"; Herbster & Warmuth 1998, "Tracking the best expert" (fixed share); Monteleoni &
        Jaakkola 2003, "Online learning of non-stationary sequences" (several shares); de Rooij et
        al. 2014, "Follow the leader if you can, hedge if you must" (AdaHedge); Cesa-Bianchi &
        Lugosi 2006, "Prediction, learning, and games".
    """

    def __init__(
        self,
        learners: Sequence[Any],
        *,
        baselines: bool = True,
        share: float | None = None,
        learning_rate: float | None = None,
        judge: Judge | None = None,
        classes: Any = None,
        nominal: tuple[int, ...] = (),
        seed: int | None = None,
    ) -> None:
        self.learners = learners
        self.baselines = baselines
        self.share = share
        self.learning_rate = learning_rate
        self.judge = judge
        self.classes = classes
        self.nominal = nominal
        self.seed = seed

    @property
    def kind(self) -> LearnerKind | None:
        """What it is: what its experts are; None where they would take any target."""
        if isinstance(self.learners, str) or not isinstance(self.learners, Sequence):
            raise SpecError(f"learners={self.learners!r}; it takes a list of learners")
        found = [kind_of(learner) for learner in self.learners]
        return next((kind for kind in found if kind is not None), super().kind)

    def of_kind(self, kind: LearnerKind, frozen: bool = False) -> Native:
        """A native learner of this kind with these parameters, that has learned nothing."""
        if kind == "classifier":
            return ExpertsClassifier(self.clone(), frozen)
        if self.classes is not None:
            raise SpecError(f"classes={self.classes!r}, but the experts are regressors")
        return ExpertsRegressor(self.clone(), frozen)


class _Mixture(Native):
    """What both kinds of experts share.

    Args:
        plan: the parameters.
        frozen: whether it answers for long before it learns on, which decides where `judge` does
            not.
    """

    simple: ClassVar[tuple[type[Native], ...]]
    """Its baselines."""
    target_type: ClassVar[type[np.generic]]

    def __init__(self, plan: Experts, frozen: bool = False) -> None:
        self.plan = plan
        self.frozen = frozen
        self.by_version = frozen if plan.judge is None else plan.judge == "version"
        self.classes, self.nominal, self.seed = plan.classes, plan.nominal, plan.seed

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(**saved["params"])  # type: ignore[misc]
        self.load(saved["state"])

    @property
    def takes_sparse(self) -> bool:  # type: ignore[override]
        """Whether all experts take sparse matrices."""
        return all(getattr(one, "takes_sparse", False) for one in self._definitions(None))

    @property
    def experts_(self) -> tuple[str, ...]:
        """(N,) what the experts are called."""
        return _names(self._definitions(self._shape))

    @property
    def weights_(self) -> dict[str, float]:
        """The weight of each expert; they sum to 1."""
        names = self.experts_
        if self._shape is None:
            return dict.fromkeys(names, 1.0 / len(names))
        voices = self._trust.sum(axis=0).reshape(-1, len(names))
        return dict(zip(names, voices.sum(axis=0).tolist(), strict=True))

    def _definitions(self, shape: Shape | None) -> list[Any]:
        """The experts for rows of a shape; for any rows, where it is not known yet."""
        simple = self.simple if self.plan.baselines else ()
        return [*self.plan.learners, *(kind() for kind in simple)]

    def _begin(self, shape: Shape, seed: int) -> None:
        plan = self.plan
        definitions = self._definitions(shape)
        if not definitions:
            raise SpecError("learners=[] without baselines: there is no expert")
        share = plan.share
        if share is not None and not (_is_number(share) and 0.0 <= share <= 1.0):
            raise SpecError(f"share={plan.share!r}; it takes a number from 0 to 1, or None")
        if plan.judge not in (None, "row", "version"):
            raise SpecError(f"judge={plan.judge!r}; it takes 'row', 'version' or None")
        rate = plan.learning_rate
        if rate is not None and not (_is_number(rate) and 0.0 < rate < math.inf):
            raise SpecError(f"learning_rate={rate!r}; it takes a number above 0, or None")
        self._members = Members(definitions, self.kind, shape, seed)
        self._shares = np.array(SHARES if plan.share is None else [plan.share], np.float64)
        room = (len(self._shares), self._members.voices)
        self._trust = np.full(room, 1.0 / (room[0] * room[1]))
        self._beliefs = np.log(self._trust)
        self._above, self._room = np.zeros(1), np.empty((2, room[1]))
        self._judged: Members | None = None
        self._losses, self._block = np.zeros(room[1]), np.zeros(2)
        self.per_row = self._members.per_row

    def _rows(self, X: Any) -> Rows:
        wanted = isinstance(X, Batch) and (self._shape is None or not self.per_row)
        return SharedRows.of(super()._rows(X), X if wanted else None)

    def _learn(self, rows: Rows, y: Array, weight: Floats, out: Floats) -> None:
        if not self.by_version:
            advice = self._advice(len(rows))
            self._members.learn(_shared(rows), y, weight, advice)
            self._mix(advice, y, weight, out)
            return
        learned = np.cumsum(weight > 0.0) if len(weight) else np.arange(1, len(rows) + 1)
        start = before = 0
        while start < len(rows):
            room = max(1, int(self._block[1]) // 2) - int(self._block[0])
            stop = min(int(np.searchsorted(learned, before + room)) + 1, len(rows))
            part = weight[start:stop] if len(weight) else weight
            shared = _shared(rows).part(start, stop)
            self._learn_in_block(shared, y[start:stop], part, out[start:stop])
            self._block[0] += learned[stop - 1] - before
            start, before = stop, int(learned[stop - 1])
            if self._block[0] >= max(1, int(self._block[1]) // 2):
                self.settle()

    def _learn_in_block(self, rows: SharedRows, y: Array, weight: Floats, out: Floats) -> None:
        """Learn rows; count what the experts, as they were when the block began, lose by them."""
        if self._judged is None:
            self._judged = copy.deepcopy(self._members)
        advice = self._advice(len(rows))
        self._judged.examine(rows, y, weight, advice)
        self._sum_losses(advice, y, weight)
        live = self._advice(len(out))
        self._members.learn(rows, y, weight, live, judged=False)
        self._blend(live, out)

    def settle(self) -> None:
        """Judge the experts by the rows since the last time, as they were then: a version is
        complete, and will answer."""
        if self._judged is None or self._block[0] == 0:
            return
        share = min(1.0, BLOCK_ROWS / self._block[0])
        self._judge((self._losses - self._losses.min()) * share)
        self._losses[:] = 0.0
        self._block[:] = 0.0, self._block.sum()
        self._members.take_over(self._judged, share)
        self._judged = None

    def _predict(self, rows: Rows, out: Floats) -> None:
        advice = self._advice(len(rows))
        self._members.predict(_shared(rows), advice)
        self._blend(advice, out)

    def _blend(self, advice: Array, out: Floats) -> None:
        self._mix(advice, np.zeros(len(out), self.target_type), np.zeros(len(out)), out)

    @abstractmethod
    def _sum_losses(self, advice: Array, y: Array, weight: Floats) -> None:
        """Add up what the experts lose by rows."""

    @abstractmethod
    def _judge(self, losses: Floats) -> None:
        """Update what the experts weigh by (N,) losses."""

    @abstractmethod
    def _mix(self, advice: Array, y: Array, weight: Floats, out: Floats) -> None:
        """Blend what the experts say, and update what they weigh."""

    def _advice(self, rows: int) -> Array:
        """(N, n, k) room for what the experts say."""
        return np.zeros((self._members.voices, rows, self._outputs()))

    def _own(self) -> dict[str, Floats]:
        """Its arrays beside those of the experts."""
        own = {"weights": self._trust, "beliefs": self._beliefs, "above": self._above}
        return own | {"losses": self._losses, "block": self._block}

    def _save(self) -> dict[str, Part]:
        arrays = {name: array.copy() for name, array in self._own().items()}
        parts = {"mixture": Part(arrays), **prefixed("expert", self._members.save())}
        if self._judged is not None:
            parts |= prefixed("judged", self._judged.save())
        return parts

    def _load(self, state: State) -> None:
        self._members.load(under("expert", state))
        arrays = all_like(self._own(), state["mixture"].arrays)
        for name, array in arrays.items():
            if not np.isfinite(array).all() or (name != "beliefs" and array.min() < 0.0):
                raise InputError(f"{name} go from {array.min()} to {array.max()}")
        check_within(arrays["block"], 0, 2**53, "counts of rows")
        if abs(arrays["weights"].sum() - 1.0) > 1e-6:
            raise InputError(f"weights sum to {arrays['weights'].sum()}, not to 1")
        self._trust, self._beliefs, self._above = (
            arrays[name] for name in ("weights", "beliefs", "above")
        )
        self._losses, self._block = arrays["losses"], arrays["block"]
        if judged := under("judged", state):
            self._judged = copy.deepcopy(self._members)
            self._judged.load(judged)


class ExpertsClassifier(_Mixture, Classifier):
    """`Experts` of classes."""

    simple = (Majority, NoChange)
    target_type = np.int64

    def _mix(self, advice: Array, y: Array, weight: Floats, out: Floats) -> None:
        rate = 1.0 if self.plan.learning_rate is None else float(self.plan.learning_rate)
        own = (self._shares, self._trust, self._room)
        mix_classes(advice, y, weight, rate, *own, out)

    def _sum_losses(self, advice: Array, y: Array, weight: Floats) -> None:
        sum_log_losses(advice, y, weight, self._losses)

    def _judge(self, losses: Floats) -> None:
        chances = np.exp(-losses)[:, None, None]
        self._mix(chances, np.zeros(1, np.int64), np.empty(0), np.empty((0, 1)))

    def _grow(self, outputs: int) -> None:
        self._members.grow(outputs)
        if self._judged is not None:
            self._judged.grow(outputs)


class ExpertsRegressor(_Mixture, Regressor):
    """`Experts` of quantities."""

    simple = (RunningMean, LastValue)
    target_type = np.float64

    def _mix(self, advice: Array, y: Array, weight: Floats, out: Floats) -> None:
        rate = 0.0 if self.plan.learning_rate is None else float(self.plan.learning_rate)
        own = (self._shares, self._trust, self._beliefs, self._above, self._room)
        mix_values(advice, y, weight, rate, *own, out)

    def _sum_losses(self, advice: Array, y: Array, weight: Floats) -> None:
        sum_squares(advice, y, weight, self._losses)

    def _judge(self, losses: Floats) -> None:
        apart = np.sqrt(losses)[:, None, None]
        self._mix(apart, np.zeros(1), np.empty(0), np.empty((0, 1)))


def _shared(rows: Rows) -> SharedRows:
    assert isinstance(rows, SharedRows)
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)


def _names(definitions: Sequence[Any]) -> tuple[str, ...]:
    """What each is called: as it is written, with a number where two are written alike."""
    written = [item if isinstance(item, str) else repr(item) for item in definitions]
    return tuple(
        name if written.count(name) == 1 else f"{name} {written[: place + 1].count(name)}"
        for place, name in enumerate(written)
    )
