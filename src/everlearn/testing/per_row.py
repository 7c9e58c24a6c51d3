"""The conformance suite of learners that learn row by row: what `LearnerSuite` asks, and more.

Subclass it in a test module, and say which learner is tested::

    class TestMyLearner(PerRowSuite):
        def learner(self, columns, classes=0, seed=0):
            return MyLearner(columns, classes, seed)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from everlearn.base import NO_TIME, Array, Batch, Learner, Part, Prediction, State, state_digest
from everlearn.testing.learner import MINUTE, LearnerSuite, restricted, same_prediction
from everlearn.testing.threads import runs_beside

SIZES = (1, 7, 101, 10_000)
"""Rows of the chunks that must make no difference."""

STRANGE = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1e-300, -1e-300, 5e-324, 1.7e308, -1.7e308, 0.0)
"""Numbers that a row may hold."""


def joined(predictions: Sequence[Prediction | None]) -> Prediction:
    """One prediction for the rows of all."""
    found = [one for one in predictions if one is not None]

    def column(name: str) -> Any:
        values = [getattr(one, name) for one in found]
        return None if values[0] is None else np.concatenate(values)

    return Prediction(value=column("value"), proba=column("proba"), margin=column("margin"))


def stored(state: State) -> dict[str, Part]:
    """The same state in arrays of its own that may not be written to: as it comes from a file."""
    parts = {}
    for name, part in state.items():
        arrays = {key: array.copy() for key, array in part.arrays.items()}
        for array in arrays.values():
            array.flags.writeable = False
        parts[name] = Part(arrays, json.loads(json.dumps(part.meta, allow_nan=False)))
    return parts


def size(state: State) -> int:
    """Bytes of a state's arrays and of its JSON."""
    arrays = sum(array.nbytes for part in state.values() for array in part.arrays.values())
    return arrays + sum(len(json.dumps(part.meta)) for part in state.values())


def changing_rows(start: int, stop: int, *, classes: int = 2) -> Batch:
    """The rows numbered start … stop−1 of an endless stream in which nothing stays: every 1000
    rows other numbers tell the class, numbers wander off, and categories are never seen again.

    Args:
        classes: how many there are; 0 for a target that is a number.
    """
    block = 1000
    pieces = [_changing(number, block) for number in range(start // block, -(-stop // block))]
    chance = np.concatenate([np.empty((0, 5)), *pieces])[start % block :][: stop - start]
    at = np.arange(start, stop)
    which = (at // block % 3)[:, None]
    told = np.take_along_axis(chance, which, axis=1)[:, 0]
    numbers = chance[:, :3] * (1.0 + at[:, None] / 10_000) + at[:, None] * [0.01, 0.0, -0.001]
    numbers[chance[:, 3] < 0.05, 0] = np.nan
    return Batch(
        numbers=numbers,
        categories=(at[:, None] + 1).astype(np.uint64),
        times=((at + 20_000_000) * MINUTE)[:, None],
        y=(told * classes).astype(np.int64) if classes else told * 10.0 + at / 1000,
        ids=(at + 1).astype(np.uint64),
    )


def _changing(number: int, rows: int) -> Array:
    return np.random.default_rng([11, number]).random((rows, 5))


class PerRowSuite(LearnerSuite):
    """Set `weights_repeat` for a learner to which a row of weight 2 is that row twice,
    `state_bytes` to what its state may take after 50,000 rows, `growth` to how much more that may
    be than after 25,000, `unlimited` to the arrays ("part/array") in which an infinity has a
    meaning, `computes` to False for one whose 60,000 rows are done before another thread wakes up,
    and `targets_from_0` for one that takes no target below 0."""

    per_row = True
    weights_repeat = False
    state_bytes = 1_000_000
    growth = 1.05
    unlimited: frozenset[str] = frozenset()
    computes = True
    targets_from_0 = False

    def check_finite(self, learner: Learner) -> None:
        """No number in the state is NaN, and none is infinite that may not be."""
        for name, part in learner.save().items():
            json.dumps(part.meta, allow_nan=False)
            for key, array in part.arrays.items():
                if array.dtype.kind != "f":
                    continue
                assert not np.isnan(array).any(), f"NaN in {name}/{key}"
                if f"{name}/{key}" not in self.unlimited:
                    assert np.isfinite(array).all(), f"infinity in {name}/{key}"

    def check_answer(self, answer: Prediction | None) -> None:
        """Predictions are finite, and probabilities are probabilities."""
        assert answer is not None
        assert np.isfinite(answer.value).all()
        assert answer.margin is None or np.isfinite(answer.margin).all()
        if answer.proba is not None:
            assert (answer.proba >= 0.0).all()
            np.testing.assert_allclose(answer.proba.sum(axis=1), 1.0, rtol=0.0, atol=1e-12)

    def weighted(self, start: int, stop: int, classes: int) -> Batch:
        """Rows of which some weigh nothing, some more than others, and most 1."""
        rows = self.rows(start, stop, classes)
        weight = np.random.default_rng(start).choice([0.0, 0.3, 1.0, 2.0, 5.0], len(rows))
        return replace(rows, weight=weight)

    def test_chunks_make_no_difference(self) -> None:
        for classes in (2, 3):
            rows = self.weighted(0, 1500, classes)
            digests, answers = [], []
            for chunk in SIZES:
                learner = self.learner(self.columns, classes=classes, seed=5)
                answers.append(
                    joined([learner.learn(piece, len(piece)) for piece in rows.split(chunk)])
                )
                digests.append(state_digest(learner.save()))
            assert set(digests) == {digests[0]}
            assert all(same_prediction(answer, answers[0]) for answer in answers)

    def test_predictions_are_those_of_one_row_at_a_time(self) -> None:
        learner, other = (self.learner(self.columns, classes=2, seed=5) for _ in range(2))
        rows = self.weighted(0, 400, 2)
        before = []
        for row in rows.split(1):
            before.append(other.predict(row))
            other.learn(row)
        assert same_prediction(learner.learn(rows, len(rows)), joined(before))

    def test_how_many_are_scored_makes_no_difference(self) -> None:
        learners = [self.taught() for _ in range(3)]
        rows = self.rows(300, 700)
        answers = [
            learner.learn(rows, score)
            for learner, score in zip(learners, (400, 130, 0), strict=True)
        ]
        assert answers[0] is not None and answers[2] is None
        assert same_prediction(answers[1], answers[0].take(slice(130)))
        assert len({state_digest(learner.save()) for learner in learners}) == 1

    def test_a_prediction_is_the_same_alone_and_beside_any_rows(self) -> None:
        learner = self.taught(600)
        rows = self.rows(600, 660)
        together = learner.predict(rows)
        backwards = learner.predict(rows.take(np.arange(60)[::-1]))
        assert same_prediction(backwards.take(np.arange(60)[::-1]), together)
        assert same_prediction(joined([learner.predict(row) for row in rows.split(1)]), together)

    def test_goes_on_bit_equal_after_save_and_load_at_any_row(self) -> None:
        rows = self.weighted(0, 1200, 3)
        whole = self.learner(self.columns, classes=3, seed=5)
        states, answers = {}, []
        for start, stop in _steps(1, 2, 3, 5, 8, 21, 55, 144, 199, 377, 610, 987, 1200):
            states[start] = stored(whole.save())
            answers.append(whole.learn(rows.take(slice(start, stop)), stop - start))
        expected = joined(answers)
        for start, state in states.items():
            before = state_digest(stored(state))
            learner = self.learner(self.columns, classes=0, seed=77)
            learner.load(state)
            answer = learner.learn(rows.take(slice(start, None)), 1200 - start)
            assert same_prediction(answer, expected.take(slice(start, None)))
            assert state_digest(learner.save()) == state_digest(whole.save())
            assert state_digest(stored(state)) == before, "a state was written to"

    def test_any_course_ends_the_same(self) -> None:
        """Chunks of any size, scored or not, with predictions and files between them."""
        rows = self.weighted(0, 1500, 3)
        whole = self.learner(self.columns, classes=3, seed=5)
        answers = joined([whole.learn(rows, len(rows))])
        expected = state_digest(whole.save())
        for seed in range(6):
            generator = np.random.default_rng([2, seed])
            learner, start = self.learner(self.columns, classes=3, seed=5), 0
            while start < len(rows):
                stop = min(len(rows), start + int(1 + generator.exponential(40)))
                score = int(generator.integers(0, stop - start + 1))
                found = learner.learn(rows.take(slice(start, stop)), score)
                if score:
                    assert same_prediction(found, answers.take(slice(start, start + score)))
                start = stop
                if generator.random() < 0.2:
                    learner.predict(rows.take(generator.integers(0, len(rows), 5)))
                if generator.random() < 0.2:
                    state = stored(learner.save())
                    learner = self.learner(self.columns, seed=int(generator.integers(100)))
                    learner.load(state)
            assert state_digest(learner.save()) == expected

    def test_learners_share_nothing(self) -> None:
        learner, other = self.taught(), self.taught()
        before = state_digest(other.save())
        learner.learn(self.rows(300, 600))
        learner.load(stored(self.taught(100).save()))
        assert state_digest(other.save()) == before

    def test_rows_are_not_written_to(self) -> None:
        learner = self.taught()
        rows = self.weighted(300, 500, 2)
        arrays = (rows.numbers, rows.categories, rows.times, rows.y, rows.weight)
        before = [array.copy() for array in arrays if array is not None]
        learner.learn(rows, score=100)
        learner.predict(rows)
        for array, kept in zip(arrays, before, strict=True):
            assert array is not None and np.array_equal(
                array, kept, equal_nan=kept.dtype.kind == "f"
            )

    def test_weight_2_is_twice(self) -> None:
        if not self.weights_repeat:
            return
        learner, other = (self.learner(self.columns, classes=2, seed=5) for _ in range(2))
        rows = self.rows(0, 800)
        times = np.random.default_rng(3).integers(0, 4, len(rows))
        learner.learn(replace(rows, weight=times.astype(np.float64)))
        other.learn(rows.take(np.repeat(np.arange(len(rows)), times)))
        rows = self.rows(800, 1000)
        answers = learner.predict(rows), other.predict(rows)
        for name in ("value", "proba", "margin"):
            ours, theirs = (getattr(answer, name) for answer in answers)
            if ours is not None:
                np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)

    def test_a_class_may_appear_late(self) -> None:
        """Room that was made earlier than needed makes no difference."""
        early, late = (self.learner(self.columns, classes=0, seed=5) for _ in range(2))
        if early.kind != "classifier":
            return
        assert early.grow(4)
        rows = self.rows(0, 900, classes=4)
        assert rows.y is not None
        order = np.concatenate([np.flatnonzero(rows.y < known)[:200] for known in (1, 2, 3, 4)])
        known = 0
        for row in (rows := rows.take(order)).split(1):
            assert row.y is not None
            if row.y[0] >= known:
                known = int(row.y[0]) + 1
                assert late.grow(known)
            self.check_answer(late.learn(row, 1))
        self.check_answer(early.learn(rows, len(rows)))
        self.check_finite(late)
        assert state_digest(early.save()) == state_digest(late.save())

    def test_one_class_only(self) -> None:
        learner = self.learner(self.columns, classes=3)
        if learner.kind != "classifier":
            return
        rows = self.rows(0, 3000, classes=3)
        rows = rows.with_y(np.ones(len(rows), np.int64))
        self.check_answer(learner.learn(rows, len(rows)))
        answer = learner.predict(rows)
        self.check_answer(answer)
        assert (answer.value == 1).all()
        self.check_finite(learner)

    @pytest.mark.parametrize("missing", [False, True])
    def test_rows_that_are_all_alike(self, missing: bool) -> None:
        learner = self.learner(self.columns, classes=2)
        rows = self.rows(0, 2000)
        y = rows.y
        rows = rows.take(np.zeros(len(rows), np.int64)).with_y(y)
        if missing:
            rows = _without_values(rows)
        self.check_answer(learner.learn(rows, len(rows)))
        self.check_answer(learner.predict(rows))
        self.check_finite(learner)

    @pytest.mark.parametrize("value", STRANGE)
    def test_strange_numbers(self, value: float) -> None:
        """Alone in a column, among others, and from the first row on; proper rows before and after
        are learned and predicted as usual."""
        for first in (0, 300):
            learner = self.taught(first)
            rows = self.rows(first, first + 300)
            numbers = rows.numbers.copy()
            numbers[:200, :1] = self.taken(value)
            numbers[100:200] = self.taken(value)
            for strange in (replace(rows, numbers=numbers), replace(rows, numbers=numbers)):
                self.check_answer(learner.learn(strange, len(strange)))
                self.check_answer(learner.predict(strange))
                self.check_finite(learner)
            self.check_answer(learner.predict(self.rows(600, 700)))

    def test_strange_numbers_in_turn(self) -> None:
        learner = self.taught()
        rows = self.rows(300, 1300)
        generator = np.random.default_rng(4)
        numbers = np.where(
            generator.random(rows.numbers.shape) < 0.5,
            self.taken(generator.choice(np.array(STRANGE), rows.numbers.shape)),
            rows.numbers,
        )
        rows = replace(rows, numbers=numbers)
        self.check_answer(learner.learn(rows, len(rows)))
        self.check_answer(learner.predict(rows))
        self.check_finite(learner)

    @pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e9, 1e100, 1e300])
    def test_targets_of_any_scale(self, scale: float) -> None:
        learner = self.learner(self.columns)
        if learner.kind != "regressor":
            return
        rows = self.rows(0, 600)
        assert rows.y is not None
        sign = np.where((np.arange(600) % 2 == 1) & (not self.targets_from_0), -1.0, 1.0)
        rows = rows.with_y(sign * rows.y * scale / 10.0)
        self.check_answer(learner.learn(rows, len(rows)))
        self.check_answer(learner.predict(rows))
        self.check_finite(learner)

    @pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e9, 1e300])
    def test_weights_of_any_scale(self, scale: float) -> None:
        learner = self.taught()
        rows = self.rows(300, 900)
        weight = np.where(np.arange(600) % 3, scale, 1.0)
        self.check_answer(learner.learn(replace(rows, weight=weight), len(rows)))
        self.check_answer(learner.predict(rows))
        self.check_finite(learner)

    def test_its_state_stays_small_for_ever(self) -> None:
        learner = self.learner(self.columns, classes=2)
        sizes = []
        for start in range(0, 50_000, 5000):
            rows = self.endless(start, start + 5000)
            self.check_answer(learner.learn(rows, 100))
            sizes.append(size(learner.save()))
        self.check_finite(learner)
        assert sizes[-1] <= self.state_bytes
        assert sizes[-1] <= sizes[4] * self.growth, f"bytes after each 5000 rows: {sizes}"

    def endless(self, start: int, stop: int) -> Batch:
        """Rows of a stream in which nothing stays."""
        classes = 2 if self.learner(self.columns).kind == "classifier" else 0
        rows = restricted(changing_rows(start, stop, classes=classes), self.columns)
        return replace(rows, numbers=self.taken(rows.numbers))

    def taken(self, numbers: Any) -> Any:
        """Numbers that the learner takes."""
        return np.abs(numbers) if self.positive else numbers

    def test_other_threads_run_while_it_learns_and_predicts(self) -> None:
        if not self.computes:
            return
        learner = self.taught()
        rows = self.rows(0, 500).take(np.resize(np.arange(500), 60_000))
        for call in (lambda: learner.learn(rows), lambda: learner.predict(rows)):
            # in several calls: some of numpy's functions let go of the lock for a moment, and on a
            # busy machine the thread that looks does not always get a turn
            seen = (runs_beside(call) for _ in range(60))
            assert len(list(islice(filter(None, seen), 5))) == 5


def _steps(*stops: int) -> Iterator[tuple[int, int]]:
    yield from zip((0, *stops[:-1]), stops, strict=True)


def _without_values(rows: Batch) -> Batch:
    return replace(
        rows,
        numbers=np.full_like(rows.numbers, np.nan),
        categories=np.zeros_like(rows.categories),
        times=np.full_like(rows.times, NO_TIME),
    )
