"""The experts behind an `Experts`: native learners, and learners of other kinds in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from everlearn.base import (
    Array,
    Columns,
    Floats,
    InputError,
    LearnerKind,
    Part,
    SpecError,
    State,
    TargetKind,
    prefixed,
    under,
)
from everlearn.learners.native.chunks import ChunkClassifier, ChunkRegressor
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.either import Either
from everlearn.learners.native.estimator import Native
from everlearn.learners.native.learner import NativeLearner
from everlearn.learners.native.loading import all_like
from everlearn.learners.native.mixing import move_powers, temper, vote
from everlearn.learners.native.rows import WIDTH, Rows, Shape
from everlearn.learners.native.shared import SharedRows

_TARGETS: tuple[TargetKind, ...] = ("integer", "number")
_NOTHING = np.empty(0, np.int64)
_NO_WEIGHT = np.empty(0)


class Members:
    """Experts side by side, each learning on its own.

    Args:
        definitions: native learners, and whatever else `as_learner` takes; they are copied.
        kind: what they have to be.
        shape: of the rows that they will all be given, times as phases.
        seed: from which each member gets its own.

    Raises:
        SpecError: one of them is of another kind, or cannot learn such rows.
    """

    def __init__(
        self, definitions: Sequence[Any], kind: LearnerKind, shape: Shape, seed: int
    ) -> None:
        self._members = [
            _begun(definition, kind, shape, own_seed(seed, number))
            for number, definition in enumerate(definitions)
        ]
        self._classify = kind == "classifier"
        self._records = np.zeros((len(self._members), 2))
        self._powers = np.tile([1.0, 1.0, 0.0], (len(self._members), 1))

    @property
    def voices(self) -> int:
        """How many answers they give: classifiers one more each, with tempered probabilities."""
        return (1 + self._classify) * len(self._members)

    @property
    def per_row(self) -> bool:
        """Whether all of them learn row by row."""
        return all(member.per_row for member in self._members)

    def learn(
        self, rows: SharedRows, y: Array, weight: Floats, advice: Array, judged: bool = True
    ) -> None:
        """Learn rows; fill (voices, m, k), m ≤ n, with what each member predicted just before.

        Args:
            rows, y, weight: as for `Native._learn`.
            judged: whether it is learned how far they can be trusted, too; m is then n.
        """
        views = _Views(rows)
        told, begun = y if judged else _NOTHING, self._members[0]._learned > 0
        for member, record, answers in zip(self._members, self._records, advice, strict=False):
            out = _room(member, answers)
            member._run(views.of(member), y, weight, out)
            _as_chances(member, out, told, weight, record, answers)
        if not begun:
            unlearned = int(np.argmax(weight > 0.0)) + 1 if weight.any() else len(weight) or 1
            advice[:, :unlearned] = self._prior(advice)
        self._temper(advice, told, weight, by_row=True)

    def predict(self, rows: SharedRows, advice: Array) -> None:
        """Fill (voices, n, k) with what each member predicts."""
        self.examine(rows, _NOTHING, _NO_WEIGHT, advice)

    def examine(self, rows: SharedRows, y: Array, weight: Floats, advice: Array) -> None:
        """The same, and note how far they can be trusted (`take_over`), but learn no row."""
        views = _Views(rows)
        for member, record, answers in zip(self._members, self._records, advice, strict=False):
            if member._learned == 0:
                answers[:] = self._prior(advice)
                continue
            out = _room(member, answers)
            member._predict(views.of(member), out)
            _as_chances(member, out, y, weight, record, answers)
        self._temper(advice, y, weight, by_row=False)

    def _prior(self, advice: Array) -> float:
        """What is answered before anything was learned."""
        return 1.0 / advice.shape[2] if self._classify else 0.0

    def _temper(self, advice: Array, y: Array, weight: Floats, by_row: bool) -> None:
        if self._classify:
            count = len(self._members)
            temper(advice[:count], y, weight, by_row, self._powers, advice[count:])

    def take_over(self, judged: Members, share: float) -> None:
        """Know how far they can be trusted, from where that was noted of rows which count for this
        share of a row each."""
        self._records, self._powers = judged._records, judged._powers
        move_powers(self._powers, share)

    def grow(self, outputs: int) -> None:
        """Make room for more classes."""
        for member in self._members:
            assert isinstance(member, Classifier)
            member._grow_to(outputs)

    def save(self) -> dict[str, Part]:
        """The state of each under its number."""
        trust = {"records": self._records.copy(), "powers": self._powers.copy()}
        parts = {"trust": Part(trust)}
        for number, member in enumerate(self._members):
            parts |= prefixed(str(number), member.save())
        return parts

    def load(self, state: State) -> None:
        """Take over what `save` saw.

        Raises:
            InputError, KeyError: it is of other experts, or of other rows.
        """
        own = {"records": self._records, "powers": self._powers}
        trust = all_like(own, state["trust"].arrays)
        for name, array in trust.items():
            if not np.isfinite(array).all():
                raise InputError(f"{name} go from {array.min()} to {array.max()}")
        self._records, self._powers = trust["records"], trust["powers"]
        for number, member in enumerate(self._members):
            begun = member._shape
            member.load(under(str(number), state))
            if member._shape != begun:
                raise InputError(f"expert {number} is of rows {member._shape}, not {begun}")


def kind_of(definition: Any) -> LearnerKind | None:
    """What a learner of this definition predicts; None where the target decides."""
    if isinstance(definition, Native | Either):
        return definition.kind
    from everlearn.learners import learner_kind

    columns = [Columns(numbers=("x",), target="y", target_kind=kind) for kind in _TARGETS]
    found = {learner_kind(definition, one) for one in columns}
    return found.pop() if len(found) == 1 else None


class _Views:
    """The same rows as each member wants them, made once."""

    def __init__(self, rows: SharedRows) -> None:
        self._rows = rows
        self._waves: Rows | None = None

    def of(self, member: Native) -> Rows:
        if member.times == "phases" or self._rows.times.shape[1] == 0:
            return self._rows
        if self._waves is None:
            self._waves = self._rows.in_waves()
        return self._waves


def _begun(definition: Any, kind: LearnerKind, shape: Shape, seed: int) -> Native:
    """A member that has learned nothing, and knows the shape of its rows."""
    if isinstance(definition, Either):
        definition = definition.of_kind(kind)
    if isinstance(definition, Native):
        made = definition.clone()
    else:
        made = _adapted(definition, kind, shape, seed)
    if made.kind != kind:
        raise SpecError(f"{definition!r} is a {made.kind}, and the other experts are {kind}s")
    if shape.categories and not made.takes_categories:
        raise SpecError(f"{definition!r} takes no categories, so it is no expert on these rows")
    if shape.sparse and not made.takes_sparse:
        raise SpecError(f"{definition!r} takes no sparse rows, so it is no expert on them")
    own = replace(shape, times=shape.times // WIDTH["phases"] * WIDTH[made.times])
    made.seed = seed if made.seed is None else made.seed
    made._start(own, made.seed)
    return made


def _adapted(definition: Any, kind: LearnerKind, shape: Shape, seed: int) -> Native:
    """A native learner out of a name, an estimator with `partial_fit`, or a chain."""
    from everlearn.learners import as_learner

    columns = Columns(
        numbers=tuple(f"number {i}" for i in range(shape.numbers)),
        categories=tuple(f"category {i}" for i in range(shape.categories)),
        times=tuple(f"time {i}" for i in range(shape.times // WIDTH["phases"])),
        target="target",
        target_kind="integer" if kind == "classifier" else "number",
    )
    classes = shape.outputs if kind == "classifier" else 0
    learner = as_learner(definition, columns, classes=classes, seed=seed)
    if isinstance(learner, NativeLearner):
        return learner.estimator.clone()
    if learner.kind == "classifier":
        return ChunkClassifier(learner)
    if learner.kind == "regressor":
        return ChunkRegressor(learner)
    raise SpecError(f"{definition!r} is a {learner.kind}, and experts predict a target")


def own_seed(seed: int, number: int) -> int:
    """The seed of a member that has none."""
    return int(np.random.SeedSequence([seed % 2**63, number]).generate_state(1)[0])


def _room(member: Native, answers: Floats) -> Floats:
    """Where a member writes: in its place among the answers, or apart where it writes less."""
    if isinstance(member, Classifier) and member.binary_in_one and answers.shape[1] == 2:
        return np.empty((len(answers), 1))
    if isinstance(member, Classifier) and not member.probabilistic:
        return np.zeros_like(answers)
    return answers


def _as_chances(
    member: Native, out: Floats, y: Array, weight: Floats, record: Floats, answers: Floats
) -> None:
    """Turn what a member wrote into a probability for each class."""
    if not isinstance(member, Classifier):
        return
    if not member.probabilistic:
        vote(out, y, weight, answers.shape[1], record, answers)
    elif out is not answers:
        answers[:, 1] = out[:, 0]
        answers[:, 0] = 1.0 - out[:, 0]
