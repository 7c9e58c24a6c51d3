"""What native learners share, on two that count in plain Python and know how they were called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from everlearn.base import Batch, Columns, InputError, Part, SpecError, state_digest
from everlearn.learners import as_learner
from everlearn.learners.native import estimator as base
from everlearn.learners.native.parameters import Parameters
from everlearn.testing.learner import COLUMNS, make_rows
from everlearn.testing.per_row import PerRowSuite
from tests.learners.plain import Counts, Total


class TestCounts(PerRowSuite):
    learns = computes = False
    weights_repeat = True

    def learner(self, columns, classes=0, seed=0):
        return as_learner(Counts(), columns, classes=classes, seed=seed)


class TestTotal(PerRowSuite):
    columns = Columns(numbers=COLUMNS.numbers, target="kind", target_kind="number")
    learns = computes = False
    weights_repeat = True

    def learner(self, columns, classes=0, seed=0):
        return as_learner(Total(), columns, classes=classes, seed=seed)


X = np.zeros((10, 2))
Y = np.array(["b", "a", "b", "b", "c", "a", "a", "a", "c", "b"])


# --- how a learner is called -------------------------------------------------------------------


def test_rows_come_in_blocks(monkeypatch):
    monkeypatch.setattr(base, "BLOCK", 4)
    learner = Counts(classes=["a", "b", "c"])
    answers = learner.score_then_learn(X, Y, proba=True)
    assert learner.calls == [(4, 0, 4, 3), (4, 0, 4, 3), (2, 0, 2, 3)]
    np.testing.assert_allclose(
        answers[:3], [[1 / 3] * 3, [1 / 4, 2 / 4, 1 / 4], [2 / 5, 2 / 5, 1 / 5]]
    )
    learner.partial_fit(X, Y, sample_weight=np.arange(10.0))
    assert learner.calls[3:] == [(4, 4, 0, 3), (4, 4, 0, 3), (2, 2, 0, 3)]


def test_room_is_made_just_before_a_class_appears():
    learner = Counts()
    learner.partial_fit(X, Y)
    assert learner.calls == [(4, 0, 0, 2), (6, 0, 0, 3)]
    assert learner.begun_with[0].outputs == 2


def test_weights_are_handed_over_only_where_they_differ():
    learner = Counts(classes=3)
    learner.partial_fit(X, np.zeros(10, int), sample_weight=np.ones(10))
    assert learner.calls == [(10, 0, 0, 3)]


def test_only_what_is_asked_for_is_scored():
    learner = as_learner(Counts(), COLUMNS, classes=2)
    learner.learn(make_rows(0, 10), score=3)
    learner.learn(make_rows(0, 10), score=0)
    assert [call[2] for call in learner.estimator.calls] == [3, 0]


def test_the_seed_is_the_strategys_unless_the_definition_has_one():
    assert as_learner(Counts(), COLUMNS, seed=5).estimator.begun_with[1] == 5
    assert as_learner(Counts(seed=3), COLUMNS, seed=5).estimator.begun_with[1] == 3
    for given, used in ((None, 0), (3, 3)):
        learner = Counts(seed=given).fit(X, Y)
        assert learner.begun_with[1] == used


# --- parameters --------------------------------------------------------------------------------


def test_wrong_parameters_are_told_of_when_rows_come():
    learner = Counts(start=-1.0)
    with pytest.raises(SpecError, match=r"start=-1\.0"):
        learner.fit(X, Y)
    assert learner.set_params(start=2).fit(X, Y).predict_proba(X[:1]).tolist() == [
        [6 / 16, 6 / 16, 4 / 16]
    ]
    with pytest.raises(SpecError, match=r"start=-1\.0"):
        as_learner(Counts(start=-1.0), COLUMNS)


def test_parameters_within_parameters():
    learner = Counts(inner=Counts(start=3.0))
    assert learner.get_params()["inner__start"] == 3.0
    assert "inner__start" not in learner.get_params(deep=False)
    learner.set_params(inner__start=4.0, start=2.0)
    assert (learner.inner.start, learner.start) == (4.0, 2.0)
    assert repr(learner) == "Counts(start=2.0, inner=Counts(start=4.0))"
    other = learner.clone()
    assert other.inner is not learner.inner and repr(other) == repr(learner)
    with pytest.raises(SpecError, match="has no parameter 'outer'"):
        learner.set_params(outer__start=1.0)
    with pytest.raises(SpecError, match="has no parameter 'colour'"):
        learner.set_params(inner__colour=1.0)


def test_changed_parameters_forget_what_was_learned():
    learner = Counts().fit(X, Y)
    assert len(learner.set_params(start=2.0).classes_) == 0


def test_no_parameters():
    assert Total().get_params() == {}
    assert repr(Total()) == "Total()"
    with pytest.raises(TypeError):
        Parameters()


# --- states ------------------------------------------------------------------------------------


def broken(state, **changes):
    head = state["native"].meta
    return {**state, "native": Part(meta=head | changes)}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: {},
        lambda state: {"native": state["native"]},
        lambda state: broken(state, learner="Total"),
        lambda state: broken(state, shape={"width": 3}),
        lambda state: broken(state, shape=None),
        lambda state: broken(state, learned="many"),
        lambda state: broken(state, classes=["a", "a"]),
        lambda state: {**state, "native": Part(meta={"learner": "Counts"})},
        lambda state: {**state, "native": Part(meta=[])},
        lambda state: {**state, "counts": Part({"sums": np.zeros(3)})},
    ],
)
def test_a_broken_state_is_refused(spoil):
    state = Counts().fit(X, Y).save()
    other = Counts(classes=["x", "y"]).fit(X[:1], ["x"])
    with pytest.raises(InputError):
        other.load(spoil(state))
    assert other.fit(X, np.repeat(["x", "y"], 5)).classes_.tolist() == ["x", "y"]


def test_a_learner_in_a_model_stays_as_it_is_if_a_state_is_refused():
    learner = as_learner(Counts(), COLUMNS, classes=2)
    learner.learn(make_rows(0, 50))
    before = state_digest(learner.save())
    narrow = Columns(numbers=("length",), target="kind", target_kind="integer")
    others = [
        as_learner(Counts(), narrow, classes=2).save(),
        as_learner(Total(), narrow).save(),
        {"known": Part(meta={})},
        {"known": Part(meta={}), **Counts().save()},
        {**learner.save(), "known": Part(meta={"classes": 2})},
    ]
    for state in others:
        with pytest.raises(InputError):
            learner.load(state)
        assert state_digest(learner.save()) == before


def test_what_has_learned_nothing_is_saved_too():
    learner = Counts(classes=["b", "a"])
    state = learner.save()
    assert Counts(classes=["b", "a"]).fit(X, Y).load(state).classes_.tolist() == ["a", "b"]


def test_a_state_has_the_types_of_classes():
    for y in (Y, np.arange(10) % 3, np.arange(10) % 2 == 0, np.arange(10) % 2 * 1.0):
        learner = Counts().fit(X, y)
        other = Counts().load(learner.save())
        assert other.classes_.dtype == learner.classes_.dtype
        assert other.predict(X).tolist() == learner.predict(X).tolist()


# --- in a model --------------------------------------------------------------------------------


def test_class_codes_need_room():
    learner = as_learner(Counts(), COLUMNS, classes=2)
    rows = make_rows(0, 20)
    for y in (np.full(20, 2), np.full(20, -1)):
        with pytest.raises(InputError, match="class codes are 0 … 1"):
            learner.learn(rows.with_y(y))
    assert learner.grow(3)
    learner.learn(rows.with_y(np.full(20, 2)))
    assert learner.predict(rows).value.tolist() == [2] * 20


def test_rows_to_learn_have_a_target():
    for learner in (
        as_learner(Counts(), COLUMNS, classes=2),
        as_learner(Total(), TestTotal.columns),
    ):
        rows = make_rows(0, 5).with_y(None)
        if learner.kind == "regressor":
            rows = replace(rows, categories=rows.categories[:, :0], times=rows.times[:, :0])
        with pytest.raises(InputError, match="no target"):
            learner.learn(rows)


def test_a_quantity_is_finite():
    learner = as_learner(Total(), TestTotal.columns)
    rows = make_rows(0, 5, classes=0)
    rows = replace(rows, categories=rows.categories[:, :0], times=rows.times[:, :0])
    with pytest.raises(InputError, match="NaN or infinite"):
        learner.learn(rows.with_y(np.array([1.0, 2.0, np.nan, 1.0, 1.0])))


def test_categories_are_refused_by_those_that_take_none():
    with pytest.raises(
        SpecError, match=r"Total takes no categories; put them into Schema\(ignore=…\)"
    ):
        as_learner(Total(), COLUMNS)


def test_rows_of_no_weight_begin_nothing():
    learner = as_learner(Counts(), COLUMNS, classes=2)
    rows = replace(make_rows(0, 5), weight=np.zeros(5))
    answer = learner.learn(rows, score=5)
    assert answer is not None and (answer.proba == 0.5).all()
    assert learner.estimator.calls == []


def test_one_class_is_certain():
    learner = as_learner(Counts(), COLUMNS, classes=1)
    assert (learner.predict(make_rows(0, 5)).proba == 1.0).all()
    assert learner.grow(2)
    assert (learner.predict(make_rows(0, 5)).proba == 0.5).all()


def test_scores_that_are_no_probabilities():
    class Scores(Counts):
        probabilistic = False

    learner = as_learner(Scores(), COLUMNS, classes=2)
    learner.learn(make_rows(0, 50))
    answer = learner.predict(make_rows(50, 60))
    assert answer.proba is None and answer.margin is not None
    assert ((answer.margin > 0) == (answer.value == 1)).all()
    assert learner.grow(3)
    assert learner.predict(make_rows(50, 60)).margin is None
    alone = Scores().fit(X, Y)
    assert not hasattr(alone, "predict_proba") and hasattr(Counts(), "predict_proba")
    with pytest.raises(AttributeError, match="has no probabilities"):
        alone.score_then_learn(X, Y, proba=True)
    assert alone.score_then_learn(X, Y).shape == (10,)


def test_rows_of_a_batch_are_those_of_its_columns():
    learner = Counts()
    learner.partial_fit(make_rows(0, 5))
    assert learner.n_features_in_ == 3 + 3 + 1, "numbers, places of the time in day, week and year"
    with pytest.raises(InputError, match=r"X has 3 features, but Counts is expecting 7"):
        learner.predict(np.zeros((2, 3)))
    assert isinstance(make_rows(0, 5), Batch)
