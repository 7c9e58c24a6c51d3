"""Native linear learners held to their weights by EWC and by an anchor; PyTorch modules by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import SGDClassifier

import everlearn as el
from everlearn.base import Batch, Columns, InputError, Learner, SpecError, state_digest
from everlearn.learners import GaussianNB, LinearRegression, LinearSVM, LogisticRegression
from everlearn.learners.adapt import as_learner
from everlearn.strategies import EWC, Anchor, Strategy
from everlearn.testing.learner import COLUMNS, LearnerSuite, copied, make_rows
from everlearn.testing.per_row import PerRowSuite

pytestmark = pytest.mark.xdist_group("anchor")  # in one process, kernels are compiled once
NUMBERS = Columns(numbers=("a", "b", "c"), target="y", target_kind="boolean")
METHODS = [EWC(5.0), EWC(5.0, decay=0.8), Anchor(0.5)]
OPTIMIZERS = ["sgd", "adagrad", "adam", "ftrl"]


class Held:
    """A linear learner that has been through one increment, and is held to it."""

    method: Any
    definition: Any

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = as_learner(self.definition, columns, classes=classes, seed=seed)
        return self.method.wrap(made)  # type: ignore[no-any-return]

    def taught(self, rows: int = 300, seed: int = 0) -> Learner:
        learner = super().taught(rows, seed)  # type: ignore[misc]
        if rows:
            learner.settle()
            for batch in self.rows(rows, rows + 120).split(50):  # type: ignore[attr-defined]
                learner.learn(batch)
        return learner  # type: ignore[no-any-return]


class TestLogistic(Held, PerRowSuite):
    method, definition = EWC(5.0), LogisticRegression(bits=8)
    weights_repeat = False


class TestDecaying(Held, LearnerSuite):
    method, definition = EWC(5.0, decay=0.5), LogisticRegression(bits=8, optimizer="ftrl")
    per_row = True


class TestAnchored(Held, PerRowSuite):
    method, definition = Anchor(0.5), LogisticRegression(bits=8, optimizer="adagrad", l2=0.01)


class TestMargin(Held, LearnerSuite):
    method, definition = EWC(0.5), LinearSVM(bits=8)
    per_row = True


class TestQuantity(Held, LearnerSuite):
    method, definition = EWC(0.5), LinearRegression(bits=8)
    per_row = True


class TestPoisson(Held, LearnerSuite):
    method, definition = Anchor(0.5), LinearRegression("poisson", bits=8)
    per_row, positive = True, True


def rows(seed: int, weights: list[float], n: int = 2_000, number: bool = False) -> Batch:
    """Rows whose class, or quantity, is told by a weighted sum of three numbers."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 3))
    score = x @ np.array(weights) + 0.3 * generator.normal(size=n)
    return Batch(
        numbers=x,
        categories=np.zeros((n, 0), np.uint64),
        times=np.zeros((n, 0), np.int64),
        y=score if number else (score > 0).astype(np.int64),
        ids=np.arange(n, dtype=np.uint64),
    )


def held(method: Any, definition: Any = None, columns: Columns = NUMBERS) -> Any:
    made = as_learner(definition or LogisticRegression(), columns, classes=2)
    return Strategy(retention=method).wrap(made)


def loss(learner: Any, batch: Batch) -> float:
    proba = learner.predict(batch).proba
    return float(-np.log(proba[np.arange(len(batch)), batch.y].clip(1e-12)).mean())


OLD, NEW = rows(0, [2.0, 0.0, 0.0]), rows(1, [0.0, 2.0, 0.0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", [EWC(5.0), Anchor(0.3)], ids=lambda m: type(m).__name__)
def test_more_is_retained_and_less_is_learned(method: Any, optimizer: Any) -> None:
    known = []
    for strength in (0.0, method.strength, 1e12):
        learner = held(replace(method, strength=strength), LogisticRegression(optimizer=optimizer))
        learner.learn(OLD)
        learner.settle()
        before = loss(learner, OLD)
        learner.learn(NEW)
        known.append((loss(learner, OLD) - before, loss(learner, NEW)))
    forgotten, learned = zip(*known, strict=True)
    assert forgotten[0] > 0.6
    assert forgotten[1] < forgotten[0] / 2
    assert abs(forgotten[2]) < 0.02  # however stiff, nothing diverges
    assert learned[0] < learned[1] < learned[2] < 4.0


@pytest.mark.parametrize("method", [EWC(2.0), Anchor(0.3)], ids=lambda m: type(m).__name__)
def test_quantities_are_retained(method: Any) -> None:
    columns = replace(NUMBERS, target_kind="number")
    old, new = rows(0, [2.0, 0.0, 0.0], number=True), rows(1, [0.0, 2.0, 0.0], number=True)
    errors = []
    for retention in (None, method):
        learner = held(retention, LinearRegression(), columns)
        for batch in (old, new):
            learner.learn(batch)
            learner.settle()
        errors.append([((learner.predict(b).value - b.y) ** 2).mean() for b in (old, new)])
    assert errors[1][0] < 0.6 * errors[0][0]
    assert errors[1][1] > errors[0][1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", [EWC(0.0), Anchor(0.0)], ids=lambda m: type(m).__name__)
def test_no_strength_is_bit_equal_to_none(method: Any, optimizer: Any) -> None:
    columns = replace(NUMBERS, categories=("colour",), times=("at",))
    plain, other = (
        held(m, LogisticRegression(optimizer=optimizer, bits=8, l1=1e-4), columns)
        for m in (None, method)
    )
    for start in (0, 200):
        batch = make_rows(start, start + 200)
        answers = [one.learn(batch, 200).proba for one in (plain, other)]
        assert np.array_equal(*answers)
        other.settle()
    kept = {name: part for name, part in other.save().items() if name != "held/weights"}
    assert state_digest(kept) == state_digest(plain.save())


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.sampled_from(OPTIMIZERS),
    st.lists(st.integers(1, 399), max_size=5, unique=True),
    st.booleans(),
)
def test_any_cut_and_any_stop_ends_bit_equal(
    method: Any, optimizer: Any, cuts: list[int], stop: bool
) -> None:
    """However rows are cut into chunks, and saved and loaded between them."""
    columns = Columns(
        numbers=("a", "b", "c"), categories=("colour",), times=("at",), target="y",
        target_kind="text",
    )  # fmt: skip
    definition = LogisticRegression(optimizer=optimizer, bits=6)

    def begun() -> Any:
        made = method.wrap(as_learner(definition, columns, classes=2))
        made.learn(make_rows(1000, 1200))
        made.settle()
        return made

    whole, piecewise, batch = begun(), begun(), make_rows(0, 400)
    whole.learn(batch)
    places = [0, *sorted(cuts), 400]
    for start, end in pairwise(places):
        piecewise.learn(batch.take(slice(start, end)))
        if stop:
            state = piecewise.save()
            piecewise = method.wrap(as_learner(definition, columns, classes=2))
            piecewise.load(state)
    for one in (whole, piecewise):
        one.settle()
    assert state_digest(whole.save()) == state_digest(piecewise.save())


@pytest.mark.parametrize("method", [EWC(5.0), Anchor(0.5)], ids=lambda m: type(m).__name__)
def test_a_state_has_what_occurred_and_goes_on_bit_equal_into_the_next_increment(
    method: Any,
) -> None:
    """Not every slot of the table; and a weight that is -0 is saved as if it had never moved."""
    made = [method.wrap(as_learner(LogisticRegression(), COLUMNS, classes=3)) for _ in range(2)]
    first, second = made
    for batch in make_rows(0, 600, classes=3).split(50):
        first.learn(batch)
    first.settle()
    state = first.save()
    assert sum(array.nbytes for array in state["held/weights"].arrays.values()) < 10_000
    second.load(copied(state))
    for number in range(2):
        rows = make_rows(600 + 300 * number, 900 + 300 * number, classes=3)
        rows = replace(rows, categories=rows.categories + np.uint64(number))  # new ones, too
        for learner in (first, second):
            learner.learn(rows)
            learner.settle()
        assert state_digest(first.save()) == state_digest(second.save())
        second.load(copied(second.save()))


def test_information_is_that_of_the_formula() -> None:
    """The mean of p (1 − p) x² over rows, each before it is learned."""
    learner = held(EWC(1.0), LogisticRegression(standardize=False, learning_rate=1e-9))
    learner.learn(OLD)
    learner.settle()
    model = learner.estimator.held
    expected = 0.25 * np.column_stack([OLD.numbers**2, np.ones(len(OLD))]).mean(axis=0)
    np.testing.assert_allclose(model._dense[0], expected, rtol=1e-6)
    weights = learner.estimator._settled().weights[0]
    np.testing.assert_array_equal(model._dense[1], weights)


def test_anchors_of_two_increments_are_one() -> None:
    """Their quadratic penalties are summed: importances add up, anchors are the F-mean."""
    learner, kept = held(EWC(0.0)), []
    for batch in (OLD, NEW):
        before = learner.estimator.held._dense.copy()
        learner.learn(batch)
        found = learner.estimator.held._dense[2] / len(batch)
        kept.append((before[0], before[1], found))
        learner.settle()
    now = learner.estimator._settled().weights[0]
    importance, anchor, found = kept[1]
    dense = learner.estimator.held._dense
    np.testing.assert_allclose(dense[0], importance + found)
    np.testing.assert_allclose(dense[1], (importance * anchor + found * now) / dense[0])


def test_new_classes_are_not_held_and_old_ones_are() -> None:
    columns = replace(NUMBERS, target_kind="text")
    old, late = make_rows(0, 500), make_rows(500, 1_200, classes=4)
    columns = replace(columns, categories=("colour",), times=("at",))
    learner = held(EWC(1e9), LogisticRegression(bits=8), columns)
    learner.learn(old)
    learner.settle()
    before = learner.estimator.coef_.copy()
    assert learner.grow(4)
    learner.learn(late)
    coefficients = learner.estimator._settled().weights
    np.testing.assert_allclose(coefficients[1, :3] - coefficients[0, :3],
                               learner.estimator.held._dense[5, :3] * 2.0, atol=1e-6)  # fmt: skip
    assert np.abs(coefficients[2:]).max() > 0.05
    assert before.shape[0] == 1
    codes = learner.predict(late).value
    assert (codes >= 2).mean() > 0.1
    state = learner.save()
    again = held(EWC(1e9), LogisticRegression(bits=8), columns)
    again.load(state)
    assert state_digest(again.save()) == state_digest(state)


def test_what_was_learned_without_is_taken_up() -> None:
    plain = held(None)
    plain.learn(OLD)
    for method, retained in ((Anchor(1e9), True), (EWC(1e9), False)):
        learner = held(method)
        learner.load(plain.save())
        learner.learn(NEW)
        assert (loss(learner, OLD) < 0.25) == retained
    back = held(None)
    back.load(learner.save())  # and is let go again
    assert np.array_equal(back.predict(OLD).value, learner.predict(OLD).value)


def test_a_state_of_another_form_is_refused() -> None:
    learner = held(EWC(1.0))
    learner.learn(OLD)
    state = dict(learner.save())
    part = state["held/weights"]
    state["held/weights"] = replace_arrays(part, dense=np.zeros((4, 2)))
    with pytest.raises(InputError, match="not those of the model"):
        held(EWC(1.0)).load(state)


def replace_arrays(part: Any, **arrays: Any) -> Any:
    from everlearn.base import Part

    return Part({**part.arrays, **arrays}, part.meta)


@pytest.mark.parametrize("method", [EWC(), Anchor()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize(
    "definition", [GaussianNB(), SGDClassifier(loss="log_loss"), "tree"], ids=str
)
def test_who_has_no_weights_is_refused(method: Any, definition: Any) -> None:
    with pytest.raises(SpecError, match=r"native linear learner .*TorchLearner.*memory"):
        held(method, definition)


def test_what_is_no_strength_is_refused() -> None:
    with pytest.raises(SpecError, match="strength"):
        Anchor(-1.0)


def table(seed: int, column: int, n: int = 1_500) -> pa.Table:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 2))
    shop = generator.choice(["north", "south"], n)
    return pa.table({"a": x[:, 0], "b": x[:, 1], "shop": shop, "y": x[:, column] > 0})


def test_jobs_retain_and_go_on_bit_equal_after_a_stop(tmp_path: Path) -> None:
    """As `Strategy(retention=…)` of a model; the job is stopped between two checkpoints."""
    from everlearn.jobs.checkpoint import Pace

    strategy = Strategy(retention=EWC(20.0), chunk=100)

    def model(one: Strategy) -> el.Model:
        return el.Model("m", LogisticRegression(bits=8), el.Schema(target="y"), one, holdout=0.2)

    def run(name: str, strategy: Strategy, stop: bool = False) -> Any:
        with el.open(tmp_path / name) as workspace:
            handle = workspace.model(model(strategy))
            handle.train(table(0, 0), source="first")
            workspace.runner.pace = lambda: Pace(rows=200)
            if stop:
                with pytest.raises(KeyboardInterrupt):
                    handle.train(table(1, 1), source="second", progress=stopping())
            return handle.train(table(1, 1), source="second"), handle.versions()[-1]

    plain, _ = run("plain", Strategy(chunk=100))
    whole, version = run("whole", strategy)
    stopped, again = run("stopped", strategy, stop=True)
    assert stopped.resumed_from > 0
    assert again["state_digest"] == version["state_digest"]
    assert again["metrics"]["transfer"] == version["metrics"]["transfer"]
    lost = [one.metrics["transfer"]["figures"]["log_loss"]["forgetting"] for one in (plain, whole)]
    assert lost[1] < 0.5 * lost[0]
    assert whole.metrics["transfer"]["notes"] == []


def stopping() -> Callable[[Any], None]:
    def report(progress: Any) -> None:
        if progress.rows >= 700 and progress.phase == "learning":
            raise KeyboardInterrupt

    return report


def test_a_job_says_that_it_cannot_help_against_classes_that_come_late(tmp_path: Path) -> None:
    generator, strategy = np.random.default_rng(0), Strategy(retention=EWC(10.0), chunk=100)
    model = el.Model("m", LogisticRegression(), el.Schema(target="y"), strategy, holdout=0.2)
    with el.open(tmp_path / "workspace") as workspace:
        handle = workspace.model(model)
        for part in range(3):
            kind = generator.integers(2 * part, 2 * part + 2, 400)
            rows = {"a": generator.normal(size=400) + kind, "y": [f"k{one}" for one in kind]}
            result = handle.train(pa.table(rows))
        (note,) = result.metrics["transfer"]["notes"]
        assert note.startswith("EWC alone cannot help here: 4 of 6 classes")
        assert handle.transfer()["notes"] == [note]


def test_a_module_is_anchored() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is needed")
    from everlearn.learners.encoder import Encoder
    from everlearn.learners.neural.definition import TorchLearner

    torch.set_num_threads(1)
    encoder = Encoder(numbers="as_is", categories="drop", times="drop", missing="mean")
    definition = TorchLearner(
        lambda: torch.nn.Linear(3, 2),
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1),
        batch=50,
        encoder=encoder,
    )
    losses = []
    for strength in (0.0, 0.5, 1e12):
        learner: Any = Anchor(strength).wrap(definition.make_learner(NUMBERS, classes=2))
        learner.learn(OLD)
        learner.settle()
        begun = loss(learner, OLD)
        for _ in range(3):
            learner.learn(NEW)
        losses.append(loss(learner, OLD) - begun)
        again: Any = Anchor(strength).wrap(definition.make_learner(NUMBERS, classes=2))
        again.load(learner.save())
        assert state_digest(again.save()) == state_digest(learner.save())
    assert losses[0] > 2 * losses[1] > 0
    assert abs(losses[2]) < 0.05  # one step away from its anchor, and no further
