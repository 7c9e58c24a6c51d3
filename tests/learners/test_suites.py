"""The suites of learners find what they are for: each of these faults fails the test that it is
written for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from everlearn.base import Part
from everlearn.learners import as_learner
from everlearn.testing.per_row import PerRowSuite
from tests.learners.plain import Counts


class Chunked(Counts):
    def _learn(self, rows, y, weight, out):
        super()._learn(rows, y, weight, out)
        self._counts += 1e-6 * len(rows) ** 2


class LearnsBeforeItPredicts(Counts):
    def _learn(self, rows, y, weight, out):
        super()._learn(rows, y, weight, out[:0])
        self._predict(rows, out)


class RoundsOtherwiseAlone(Counts):
    def _predict(self, rows, out):
        super()._predict(rows, out)
        out[:, 0] += 1e-12 * (len(rows) > 1)


class LearnsTheUnweighted(Counts):
    def _learn(self, rows, y, weight, out):
        super()._learn(rows, y, np.maximum(weight, 1e-3) if len(weight) else weight, out)


class IgnoresWeights(Counts):
    def _learn(self, rows, y, weight, out):
        super()._learn(rows, y, (weight > 0).astype(float) if len(weight) else weight, out)


class WritesRows(Counts):
    def _learn(self, rows, y, weight, out):
        super()._learn(rows, y, weight, out)
        if rows.numbers.flags.writeable:
            rows.numbers[:] += 1.0


class Shares(Counts):
    everybody = np.zeros(2)

    def _begin(self, shape, seed):
        super()._begin(shape, seed)
        self._counts = Shares.everybody

    def _load(self, state):
        self._counts[: len(state["counts"].arrays["counts"])] = state["counts"].arrays["counts"]


class LoadsWithoutCopy(Counts):
    def _load(self, state):
        self._counts = state["counts"].arrays["counts"]


class SavesWithoutCopy(Counts):
    def _save(self):
        return {"counts": Part({"counts": self._counts})}


class SavesLess(Counts):
    def _begin(self, shape, seed):
        super()._begin(shape, seed)
        self._seen = 0

    def _learn(self, rows, y, weight, out):
        super()._learn(rows, y, weight, out)
        self._seen += len(rows)
        self._counts *= 1.0 + 1e-3 * (self._seen > 700)


class Forgets(Counts):
    """What it draws from is not in its state."""

    def _begin(self, shape, seed):
        super()._begin(shape, seed)
        self._generator = np.random.default_rng(seed)

    def _learn(self, rows, y, weight, out):
        super()._learn(rows, y, weight, out)
        self._counts += self._generator.random(len(self._counts))


class TakesNaN(Counts):
    def _learn(self, rows, y, weight, out):
        super()._learn(rows, y, weight, out)
        self._mean = getattr(self, "_mean", 0.0) + rows.numbers.sum()

    def _save(self):
        return super()._save() | {"mean": Part({"mean": np.full(1, getattr(self, "_mean", 0.0))})}


class Grows(Counts):
    def _save(self):
        return super()._save() | {"all": Part({"rows": np.zeros(self._learned)})}


class NoProbabilities(Counts):
    def _predict(self, rows, out):
        super()._predict(rows, out)
        out *= 1.0 + 1e-9


FAULTS = [
    (Chunked, "test_chunks_make_no_difference"),
    (LearnsBeforeItPredicts, "test_predictions_are_those_of_one_row_at_a_time"),
    (LearnsBeforeItPredicts, "test_scores_before_it_learns"),
    (RoundsOtherwiseAlone, "test_a_prediction_is_the_same_alone_and_beside_any_rows"),
    (LearnsTheUnweighted, "test_rows_of_no_weight_are_not_learned"),
    (IgnoresWeights, "test_weight_2_is_twice"),
    (WritesRows, "test_rows_are_not_written_to"),
    (Shares, "test_learners_share_nothing"),
    (LoadsWithoutCopy, "test_goes_on_bit_equal_after_save_and_load_at_any_row"),
    (SavesWithoutCopy, "test_a_state_does_not_change_when_its_learner_learns_on"),
    (SavesLess, "test_goes_on_bit_equal_after_save_and_load_at_any_row"),
    (Forgets, "test_goes_on_bit_equal_after_save_and_load"),
    (TakesNaN, "test_strange_numbers_in_turn"),
    (Grows, "test_its_state_stays_small_for_ever"),
    (NoProbabilities, "test_predictions_have_their_forms"),
    (Counts, "test_other_threads_run_while_it_learns_and_predicts"),
]


@pytest.mark.parametrize(
    ("learner", "test"), FAULTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_fault_is_found(learner, test):
    class Suite(PerRowSuite):
        learns = False
        weights_repeat = True

        def learner(self, columns, classes=0, seed=0):
            return as_learner(learner(), columns, classes=classes, seed=seed)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((AssertionError, ValueError)):
            getattr(Suite(), test)()
