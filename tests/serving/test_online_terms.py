"""Definitions that change, and labels that a learner fails on, while a model learns online."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier, SGDRegressor

import everlearn as el
from everlearn.base import SpecError
from everlearn.data.feedback import Label
from everlearn.jobs.learn import Fold, Step
from everlearn.jobs.online import UnlearnableError
from everlearn.registry.versions import Increment
from everlearn.serving.online import OnlineLearning
from tests.serving.local import LocalClient as TestClient
from tests.serving.test_online import URL, Loop, until

WORDS = el.LabelPolicy(signals={"yes": (1, 1.0), "no": (0, 1.0)})


class Touchy(SGDClassifier):
    """Raises on large numbers, and is not finite after large negative ones."""

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Touchy:
        if (X > 50.0).any():
            raise ValueError("too much")
        super().partial_fit(X, y, classes, sample_weight)
        if (X < -50.0).any():
            self.coef_[:] = np.nan
        return self


class Wild(SGDRegressor):
    """After a large negative number its weights are finite still, and its answers are not."""

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Wild:
        super().partial_fit(X, y, sample_weight)
        if (X < -50.0).any():
            self.coef_[:] = 1e308
        return self


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., Loop]]:
    made: list[Loop] = []

    def make(*given: Any, **more: Any) -> Loop:
        made.append(Loop(tmp_path, *given, **more))
        return made[-1]

    yield make
    for one in made:
        one.workspace.close()


def increments(it: Loop, number: int) -> tuple[Increment, ...]:
    return it.workspace.registry.version("m", number).increments


def words(it: Loop, client: TestClient, rows: int) -> int:
    x = it.random.normal(size=rows)
    return it.say(client, it.ask(client, *x), *("yes" if v > 0 else "no" for v in x))


def test_a_definition_holds_for_the_labels_after_it_wherever_a_replica_began(
    loop: Callable[..., Loop],
) -> None:
    it = loop(margin=10.0)
    before = it.fresh()
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        words(it, client, 20)
        it.workspace.model(it.model.replace(labels=WORDS, holdout=0.5))
        last = words(it, client, 20)
        assert until(lambda: it.position(client) == last)
        served = [row["probabilities"] for row in it.ask(client, 0.7, -0.3)]
    assert len(it.tails(before)) == 1
    with TestClient(it.workspace.app(["m"], learn=False)) as client:  # a restart
        assert until(lambda: it.position(client) == last)
        assert [row["probabilities"] for row in it.ask(client, 0.7, -0.3)] == served
        it.workspace.model(it.model.replace(labels=WORDS, triggers=[el.Online(rows=1)]))
        assert until(lambda: client.get(URL).json()["champion"] == 2)  # a trigger, at once
    first, second = increments(it, 2)
    assert (first.start, first.stop, first.set_aside) == (0, 20, 20)
    assert (second.start, second.stop, second.set_aside) == (20, 40, 0)
    assert second.held_out >= 4
    for one in it.workspace.accounts.increments("m")[-2:]:
        assert it.workspace.accounts.increment(one["id"])["exact"]


def test_a_definition_with_another_schema_holds_for_jobs_alone(loop: Callable[..., Loop]) -> None:
    it = loop(margin=10.0)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 20)
        changed = it.model.replace(
            schema=el.Schema(target="late"), strategy=el.Strategy(start="scratch"), labels=WORDS
        )
        it.workspace.model(changed)
        last = it.teach(client, 20)
        assert until(lambda: it.position(client) == last)
    tail = it.fresh()
    tail.fold_in(last)
    assert [one.set_aside for one in tail.increments(it.workspace.blobs)] == [0]


def test_a_model_that_is_to_learn_online_no_more_keeps_what_it_learned(
    loop: Callable[..., Loop],
) -> None:
    it = loop(margin=10.0)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        last = it.teach(client, 30, turned=True)
        assert until(lambda: it.position(client) == last)
        it.workspace.model(it.model.replace(triggers=[]))
        assert until(lambda: "position" not in it.ask(client, 0.3)[0])
        assert client.get(URL).json()["champion"] == it.ask(client, 0.3)[0]["version"] == 2
        it.workspace.model(it.model)
        last = it.teach(client, 10)
        assert until(lambda: it.position(client) == last)
    assert [(one.start, one.stop) for one in increments(it, 2)] == [(0, 30)]


@pytest.mark.parametrize("bad", [99.0, -99.0])
def test_a_label_that_the_learner_fails_on_is_set_aside_and_learning_goes_on(
    loop: Callable[..., Loop], bad: float
) -> None:
    it = loop(Touchy(loss="log_loss"), margin=10.0)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 20)
        it.say(client, it.ask(client, 0.2, bad, -0.2), 1, 1, 0)
        last = it.teach(client, 20)
        assert until(lambda: it.position(client) == last)
        served = [row["probabilities"] for row in it.ask(client, 0.7, -0.3)]
        assert all(0.0 < value < 1.0 for row in served for value in row.values())
        last = it.teach(client, 20)
        assert until(lambda: it.position(client) == last)
        it.workspace.model(it.model.replace(triggers=[el.Online(rows=1)]))
        assert until(lambda: client.get(URL).json()["champion"] == 2)
    (one,) = increments(it, 2)
    assert one.rows + one.held_out == 62 and one.set_aside == 1
    assert any("learner failed" in reason for reason in one.reasons["set_aside"])
    (account,) = it.workspace.accounts.increments("m")[-1:]
    assert it.workspace.accounts.increment(account["id"])["exact"]
    assert "set aside" in it.workspace.registry.version("m", 2).decision.reason
    assert len(it.tails()) == 1


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_label_after_which_answers_are_not_finite_is_set_aside_and_no_other(
    loop: Callable[..., Loop],
) -> None:
    it = loop(Wild(), margin=10.0)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        last = it.say(client, it.ask(client, 0.2, -99.0, -2.2, 2.2), 1, 1, 0, 1)
        it.say(client, it.ask(client, 3.0), 1)
    tail = it.fresh()
    with pytest.raises(UnlearnableError):
        tail.fold_in(last)
    tail = it.fresh()
    tail.careful = True
    tail.fold_in(last + 1)
    assert list(tail.failed) == [2]


def one_layer() -> Any:
    from torch import nn

    return nn.LazyLinear(2, bias=False)


def steep_at_zero(output: Any, y: Any) -> Any:
    """Finite, and its gradient is not where a row is 0."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(output, y, reduction="none") + output.square().sum(1).sqrt()


def test_a_label_after_which_a_module_cannot_be_saved_is_set_aside(
    loop: Callable[..., Loop],
) -> None:
    pytest.importorskip("torch", reason="PyTorch is needed")
    plain = el.learners.Encoder(numbers="as_is", missing="mean")
    it = loop(el.learners.TorchLearner(one_layer, steep_at_zero, encoder=plain), margin=10.0)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        last = it.say(client, it.ask(client, 0.2, 0.0, 0.3), 1, 1, 0)
    tail = it.fresh()
    tail.careful = True
    tail.fold_in(last)
    assert list(tail.failed) == [2]


def test_of_many_rows_that_are_learned_together_only_those_that_fail_are_set_aside(
    loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = loop(margin=10.0)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        x = it.random.normal(size=50)
        rows = it.ask(client, *x)
    it.workspace.updates.log("m").append_labels(
        [Label(int(v > 0), row["id"]) for row, v in zip(rows, x, strict=True)]
    )
    real, worst = Fold.step, np.sort(x)[-2]

    def step(fold: Fold, batch: Any, *given: Any, **more: Any) -> Step:
        found = real(fold, batch, *given, **more)
        if (batch.numbers[:, 0] >= worst).any():
            raise ValueError("after it was changed")
        return found

    monkeypatch.setattr(Fold, "step", step)
    with pytest.raises(UnlearnableError):
        it.fresh().fold_in(50)
    assert len(it.tails()) == 1
    tail = it.fresh()
    tail.careful = True
    tail.fold_in(50)
    assert len(tail.failed) == 2


def test_a_model_that_cannot_be_learned_holds_no_other_up() -> None:
    class Counted:
        name, steps = "m", 0

        def __init__(self, error: Exception | None = None) -> None:
            self.error = error

        def step(self) -> bool:
            self.steps += 1
            if self.error is not None:
                raise self.error
            return False

        def close(self) -> None:
            """Nothing is held."""

    broken, sound = Counted(SpecError("no such class")), Counted()
    thread = OnlineLearning([broken, sound])  # type: ignore[list-item]
    thread.start()
    assert until(lambda: broken.steps >= 2)
    thread.stop()
    assert sound.steps > 5 * broken.steps
