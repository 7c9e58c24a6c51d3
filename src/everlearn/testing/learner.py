"""The conformance suite of learners: what a fold relies on, for ours and for third parties'.

Subclass it in a test module, and say which learner is tested::

    class TestMyLearner(LearnerSuite):
        def learner(self, columns, classes=0, seed=0):
            return MyLearner(columns, classes, seed)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, replace
from functools import cache
from typing import Literal

import numpy as np
import pytest

from everlearn.base import (
    NO_TIME,
    Array,
    Batch,
    Columns,
    InputError,
    Learner,
    Part,
    Prediction,
    State,
    state_digest,
)

MINUTE = 60_000_000
"""Microseconds between the rows that `make_rows` makes."""

COLUMNS = Columns(
    numbers=("length", "width", "height"),
    categories=("colour",),
    times=("seen",),
    target="kind",
    target_kind="integer",
    time="seen",
)
"""What `make_rows` makes."""


def make_rows(
    start: int, stop: int, *, classes: int = 2, missing: bool = True, positive: bool = False
) -> Batch:
    """The rows numbered start … stop−1 of an endless stream whose target can be learned: the
    class, 0 … classes−1, is told by the first number and by the colour. Arrays are read-only.

    Args:
        classes: how many there are; 0 for a target that is a number.
        missing: whether some numbers, colours and times are missing.
        positive: whether all numbers are from 0 up, as counts are.
    """
    chance = np.array([_chance(row) for row in range(start, stop)]).reshape(-1, 8)
    kind = (chance[:, 0] * max(classes, 2)).astype(np.int64)
    numbers = np.column_stack([kind * 2.0 + chance[:, 1], 100 + chance[:, 2], chance[:, 3] * 1e-3])
    numbers = numbers if positive else numbers - [1.5, 0.0, 0.0]
    colours = (kind * 3 + (chance[:, 4] * 3).astype(np.int64) + 1).astype(np.uint64)[:, None]
    times = ((np.arange(start, stop) + 20_000_000) * MINUTE)[:, None]
    if missing:
        numbers = np.where(chance[:, 5:6] < 0.05, np.nan, numbers)
        colours = np.where(chance[:, 6:7] < 0.05, np.uint64(0), colours)
        times = np.where(chance[:, 7:8] < 0.05, NO_TIME, times)
    batch = Batch(
        numbers=np.ascontiguousarray(numbers),
        categories=colours,
        times=times,
        y=kind if classes else kind * 10.0 + chance[:, 1],
        ids=(np.arange(start, stop) + 1).astype(np.uint64),
        time=times[:, 0],
    )
    for item in fields(Batch):
        if (array := getattr(batch, item.name)) is not None:
            array.flags.writeable = False
    return batch


@cache
def _chance(row: int) -> Array:
    """(8,) numbers from 0 to 1 that depend on nothing but the row's number."""
    return np.random.default_rng([7, row]).random(8)


def same_prediction(left: Prediction | None, right: Prediction | None) -> bool:
    """Whether two predictions are equal bit by bit."""
    if left is None or right is None:
        return left is right
    for name in ("value", "proba", "margin"):
        ours, theirs = getattr(left, name), getattr(right, name)
        if (ours is None) != (theirs is None):
            return False
        if ours is not None and not np.array_equal(ours, theirs, equal_nan=True):
            return False
    return True


def copied(state: State) -> dict[str, Part]:
    """The same state in arrays of its own, as if it came from a file."""
    return {
        name: Part({key: array.copy() for key, array in part.arrays.items()}, part.meta)
        for name, part in state.items()
    }


def restricted(batch: Batch, columns: Columns) -> Batch:
    """The same rows with only those of the columns of `COLUMNS` that are named."""
    kept = {
        kind: getattr(batch, kind)[:, [getattr(COLUMNS, kind).index(name) for name in names]]
        for kind in ("numbers", "categories", "times")
        if (names := getattr(columns, kind)) != getattr(COLUMNS, kind)
    }
    for array in kept.values():
        array.flags.writeable = False
    return replace(batch, **kept)


class LearnerSuite(ABC):
    """Every test takes a learner of its own. Set `per_row` for one that predicts and learns row by
    row, `scores` to "step" for one that answers each row before its own step rather than before the
    chunk, `positive` for one that takes only numbers from 0 up, `learns` to False for one that need
    not beat the majority or the mean on the rows of `make_rows`, `chunk` to fit the learner, and
    `columns` to some of `COLUMNS` for one that does not take all."""

    columns = COLUMNS
    per_row = False
    scores: Literal["chunk", "step"] = "chunk"
    positive = False
    learns = True
    chunk = 100

    @abstractmethod
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        """A new learner that has learned nothing."""

    def rows(self, start: int, stop: int, classes: int = 2) -> Batch:
        """Rows with the kind of target that the learner wants."""
        if self.learner(self.columns).kind == "regressor":
            classes = 0
        rows = make_rows(start, stop, classes=classes, positive=self.positive)
        return restricted(rows, self.columns)

    def taught(self, rows: int = 300, seed: int = 0) -> Learner:
        """A learner that has learned the first rows."""
        learner = self.learner(self.columns, classes=2, seed=seed)
        for batch in self.rows(0, rows).split(self.chunk):
            learner.learn(batch)
        return learner

    def test_follows_the_protocol(self) -> None:
        learner = self.learner(self.columns, classes=2)
        assert isinstance(learner, Learner)
        assert learner.kind in ("classifier", "regressor", "clusterer", "transformer")

    def test_answers_with_a_prior_before_it_has_learned(self) -> None:
        learner = self.learner(self.columns, classes=2)
        answer = learner.predict(self.rows(0, 5))
        assert len(answer) == 5
        assert np.isfinite(answer.value).all()
        if answer.proba is not None:
            assert (answer.proba == 0.5).all()

    def test_predictions_have_their_forms(self) -> None:
        learner = self.taught()
        answer = learner.predict(self.rows(300, 350))
        assert answer.value.shape == (50,)
        whole = learner.kind in ("classifier", "clusterer")
        assert answer.value.dtype == (np.int64 if whole else np.float64)
        assert np.isfinite(answer.value).all()
        if answer.proba is not None:
            assert answer.proba.shape == (50, 2)
            assert (answer.proba >= 0).all()
            np.testing.assert_allclose(answer.proba.sum(axis=1), 1.0, rtol=0.0, atol=1e-12)
            chosen = answer.proba[np.arange(50), answer.value]
            assert (chosen == answer.proba.max(axis=1)).all()
        if answer.margin is not None:
            assert ((answer.margin > 0) == (answer.value == 1)).all()

    def test_no_rows_are_answered_by_no_rows(self) -> None:
        assert len(self.taught().predict(self.rows(0, 0))) == 0

    def test_predicting_changes_nothing(self) -> None:
        learner = self.taught()
        before = state_digest(learner.save())
        first = learner.predict(self.rows(300, 400))
        assert state_digest(learner.save()) == before
        assert same_prediction(learner.predict(self.rows(300, 400)), first)

    def test_a_prediction_does_not_depend_on_the_rows_beside_it(self) -> None:
        learner = self.taught()
        rows = self.rows(300, 320)
        together = learner.predict(rows)
        alone = [learner.predict(rows.take(slice(i, i + 1))).value[0] for i in range(20)]
        np.testing.assert_allclose(np.array(alone, float), together.value, rtol=1e-9, atol=1e-9)

    def test_an_empty_batch_is_the_identity(self) -> None:
        for learner in (self.learner(self.columns, classes=2), self.taught()):
            before = state_digest(learner.save())
            learner.learn(self.rows(0, 0))
            assert state_digest(learner.save()) == before

    def test_scores_before_it_learns(self) -> None:
        learner, other = self.taught(), self.taught()
        rows = self.rows(300, 400)
        expected = other.predict(rows)
        other.learn(rows)
        answer = learner.learn(rows, score=60)
        assert answer is not None and len(answer) == 60
        scored = {"row": 1, "step": 0, "chunk": 60}["row" if self.per_row else self.scores]
        assert same_prediction(answer.take(slice(scored)), expected.take(slice(scored)))
        assert state_digest(learner.save()) == state_digest(other.save())
        assert learner.learn(self.rows(400, 500)) is None

    def test_equal_seeds_make_equal_learners(self) -> None:
        assert state_digest(self.taught().save()) == state_digest(self.taught().save())

    def test_a_state_does_not_change_when_its_learner_learns_on(self) -> None:
        learner = self.taught()
        state = learner.save()
        kept = state_digest(copied(state))
        learner.learn(self.rows(300, 400))
        assert state_digest(copied(state)) == kept
        assert state_digest(learner.save()) != kept

    def test_goes_on_bit_equal_after_save_and_load(self) -> None:
        for rows in (0, 100, 300):
            learner = self.taught(rows)
            other = self.learner(self.columns, classes=0, seed=99)
            state = copied(learner.save())
            other.load(state)
            assert state_digest(other.save()) == state_digest(state)
            batch = self.rows(300, 500)
            assert same_prediction(other.predict(batch), learner.predict(batch))
            for piece in batch.split(self.chunk):
                answers = learner.learn(piece, score=len(piece)), other.learn(piece, len(piece))
                assert same_prediction(*answers)
            assert state_digest(other.save()) == state_digest(learner.save())

    def test_refuses_a_state_that_is_not_its_own(self) -> None:
        with pytest.raises(InputError):
            self.learner(self.columns).load({"something": Part({"a": np.zeros(3)})})

    def test_refuses_rows_with_other_columns(self) -> None:
        learner = self.taught()
        rows = self.rows(0, 10)
        wide = replace(rows, numbers=np.ones((10, len(self.columns.numbers) + 1)))
        before = state_digest(learner.save())
        with pytest.raises(InputError):
            learner.predict(wide)
        with pytest.raises(InputError):
            learner.learn(wide)
        assert state_digest(learner.save()) == before

    def test_stays_finite_with_nothing_but_missing_values(self) -> None:
        learner = self.taught()
        rows = self.rows(0, 20)
        empty = Batch(
            numbers=np.full_like(rows.numbers, np.nan),
            categories=np.zeros_like(rows.categories),
            times=np.full_like(rows.times, NO_TIME),
            y=rows.y,
            ids=rows.ids,
        )
        learner.learn(empty)
        assert np.isfinite(learner.predict(empty).value).all()

    def test_learns(self) -> None:
        learner = self.taught(1000)
        if not self.learns or learner.kind not in ("classifier", "regressor"):
            return
        rows = self.rows(1000, 1300)
        assert rows.y is not None
        answer = learner.predict(rows).value
        if learner.kind == "classifier":
            assert (answer == rows.y).mean() > 0.7
        else:
            assert np.mean((answer - rows.y) ** 2) < 0.5 * np.var(rows.y)

    def test_room_for_classes_comes_before_them(self) -> None:
        learner = self.learner(self.columns, classes=1)
        if learner.kind != "classifier":
            assert not learner.grow(3)
            return
        rows = self.rows(0, 600, classes=3)
        assert rows.y is not None
        for piece in rows.take(rows.y == 0).split(self.chunk):
            answer = learner.learn(piece, score=len(piece))
            assert answer is not None and (answer.value == 0).all()
            assert answer.proba is None or answer.proba.shape == (len(piece), 1)
        with pytest.raises(InputError):
            learner.learn(rows)
        before = state_digest(learner.save())
        if not learner.grow(3):
            assert state_digest(learner.save()) == before
            return
        for _ in range(3):
            for piece in rows.split(self.chunk):
                learner.learn(piece)
        answer = learner.predict(rows)
        assert answer.proba is None or answer.proba.shape == (600, 3)
        assert np.isfinite(answer.value).all()
        if self.learns:
            assert (answer.value == rows.y).mean() > 0.6
        assert learner.grow(2), "room for fewer classes is there"

    def test_rows_of_no_weight_are_not_learned(self) -> None:
        learner, other = self.taught(), self.taught()
        rows = self.rows(300, 400)
        weight = np.tile([0.0, 1.0], 50)
        weighted = replace(rows, weight=weight)
        learner.learn(weighted)
        other.learn(rows.take(weight > 0))
        assert state_digest(learner.save()) == state_digest(other.save())
        learner.learn(weighted.take(weight == 0))
        assert state_digest(learner.save()) == state_digest(other.save())
