"""Retention: what PyTorch modules are held to while they learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

torch = pytest.importorskip("torch", reason="PyTorch is needed")

from torch import nn  # noqa: E402

import everlearn as el  # noqa: E402
from everlearn.base import Columns, Learner, SpecError  # noqa: E402
from everlearn.learners.encoder import Encoder  # noqa: E402
from everlearn.learners.neural.definition import TorchLearner  # noqa: E402
from everlearn.strategies import AGEM, EWC, MAS, SI, Anchor, DarkReplay, LwF  # noqa: E402
from everlearn.strategies.sampled import RowSample  # noqa: E402
from everlearn.testing.learner import COLUMNS, LearnerSuite, make_rows  # noqa: E402

torch.set_num_threads(1)

PLAIN = Encoder(numbers="as_is", categories="drop", times="drop", missing="mean")


def net() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def fast(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


class Held(LearnerSuite):
    """A module that has been through one increment, and is held to it."""

    method: Any
    scores = "step"

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        encoder = Encoder(categories="onehot", buckets=8)
        definition = TorchLearner(net, optimizer=fast, batch=20, encoder=encoder)
        return self.method.wrap(  # type: ignore[no-any-return]
            definition.make_learner(columns, classes=classes, seed=seed)
        )

    def taught(self, rows: int = 300, seed: int = 0) -> Learner:
        learner = super().taught(rows, seed)
        if rows:
            learner.settle()  # type: ignore[attr-defined]
            for batch in self.rows(rows, rows + 120).split(50):
                learner.learn(batch)
        return learner


class TestEwc(Held):
    method = EWC(50.0, rows=64)


class TestOnlineEwc(Held):
    method = EWC(50.0, decay=0.9, rows=64)


class TestAnchor(Held):
    method = Anchor(0.5)


class TestSi(Held):
    method = SI(5.0)


class TestMas(Held):
    method = MAS(5.0, rows=64)


class TestLwf(Held):
    method = LwF()


class TestDarkReplay(Held):
    method = DarkReplay(50)


class TestDarkReplayOfScores(Held):
    method = DarkReplay(50, beta=0.0, draw=7)


class TestAgem(Held):
    method = AGEM(50, draw=20)


def two_tasks() -> list[tuple[Any, Any]]:
    """The sign of one of two numbers, each told apart from the other task by a third and fourth."""
    rng = np.random.default_rng(1)
    tasks = []
    for task in range(2):
        X = np.column_stack([rng.normal(size=(2000, 2)), np.zeros((2000, 2))])
        X[:, 2 + task] = 1.0
        tasks.append((X, (X[:, task] > 0).astype(int)))
    return tasks


@pytest.mark.parametrize(
    "method",
    [EWC(500.0), SI(50.0), MAS(5.0), LwF(0.1), DarkReplay(200), AGEM(500)],
    ids=lambda method: type(method).__name__,
)
def test_less_is_forgotten_and_the_new_is_learned(method: Any) -> None:
    definition = TorchLearner(
        lambda: nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)),
        optimizer=fast,
        batch=50,
        encoder=PLAIN,
    )
    old, new = two_tasks()
    kept = {}
    for name, retention in (("naive", None), ("held", method)):
        strategy = el.Strategy(retention=retention, chunk=500, passes=5)
        learned = el.learn(el.learn(definition, *old, strategy), *new, strategy)
        kept[name] = [(learned.predict(X) == y).mean() for X, y in (old, new)]
    assert kept["held"][0] > kept["naive"][0] + 0.05
    assert kept["held"][1] > 0.9


def test_importance_is_the_mean_of_squared_gradients_of_single_rows() -> None:
    definition = TorchLearner(lambda: nn.Linear(3, 1), "mse", encoder=PLAIN, precision="float64")
    learner = EWC(rows=1000).wrap(definition.make_learner(COLUMNS))
    rows = make_rows(0, 40, classes=0, missing=False)
    learner.learn(rows)
    learner.settle()  # type: ignore[attr-defined]
    held = learner._training.holders[0]  # type: ignore[attr-defined]
    expected = (rows.numbers**2).mean(axis=0)
    np.testing.assert_allclose(held.importance["weight"][0].numpy(), expected, rtol=1e-12)
    assert held.importance["bias"].item() == pytest.approx(1.0)


def test_two_increments_pull_to_the_mean_of_their_anchors() -> None:
    definition = TorchLearner(lambda: nn.Linear(3, 1), "mse", encoder=PLAIN, precision="float64")
    learner: Any = EWC(rows=1000).wrap(definition.make_learner(COLUMNS))
    held, anchors, fishers = learner._training.holders[0], [], []
    for start in (0, 40):
        rows = make_rows(start, start + 40, classes=0, missing=False)
        learner.learn(rows)
        learner.settle()
        anchors.append(learner.module.weight.detach().clone())
        fishers.append(torch.from_numpy((rows.numbers**2).mean(axis=0)))
    expected = (fishers[0] * anchors[0] + fishers[1] * anchors[1]) / (fishers[0] + fishers[1])
    torch.testing.assert_close(held.anchor["weight"], expected)


def test_a_penalty_of_any_strength_does_not_diverge() -> None:
    definition = TorchLearner(
        net, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), batch=20, encoder=PLAIN
    )
    learner: Any = EWC(1e12, rows=64).wrap(definition.make_learner(COLUMNS, classes=2))
    for start in range(0, 600, 100):
        learner.learn(make_rows(start, start + 100))
        learner.settle()
    assert np.isfinite(learner.predict(make_rows(0, 10)).proba).all()


def test_a_strategy_may_begin_to_hold_on_and_stop() -> None:
    old, new = two_tasks()
    definition = TorchLearner(lambda: nn.Linear(4, 2), batch=50, encoder=PLAIN)
    naive = el.learn(definition, *old, el.Strategy(chunk=500))
    held = el.learn(naive, *new, el.Strategy(chunk=500, retention=EWC()))
    assert any(name.startswith("learner/held/ewc/") for name in held.state)
    after = el.learn(held, *old, el.Strategy(chunk=500))
    assert not any(name.startswith("learner/held/") for name in after.state)


def test_answers_are_held_from_the_increment_on_in_which_lwf_is_taken_up() -> None:
    old, new = two_tasks()
    definition = TorchLearner(lambda: nn.Linear(4, 2), optimizer=fast, batch=50, encoder=PLAIN)
    naive = el.learn(definition, *old, el.Strategy(chunk=500))
    moved = []
    for retention in (None, LwF(100.0)):
        after = el.learn(naive, *new, el.Strategy(chunk=500, retention=retention))
        moved.append(np.abs(after.predict_proba(old[0]) - naive.predict_proba(old[0])).mean())
    assert moved[1] < 0.3 * moved[0]


def test_samples_are_uniform_also_when_they_are_merged() -> None:
    torch.manual_seed(0)
    counts = np.zeros(60)
    for _ in range(2000):
        first, second = RowSample(10), RowSample(10)
        for start in range(0, 40, 8):
            first.offer(torch.arange(start, start + 8)[:, None])
        second.offer(torch.arange(40, 60)[:, None])
        first.merge(second)
        assert len(first) == 10
        counts[first.x[:, 0].numpy()] += 1
    # each of 60 rows is held with probability 1/6: a standard deviation of 17 in 2000
    assert abs(counts - 2000 / 6).max() < 70
    assert abs(counts[40:].sum() - 20_000 / 3) < 400


def test_a_sample_may_become_smaller() -> None:
    large, small = RowSample(40), RowSample(10)
    large.offer(torch.arange(200)[:, None])
    small.load(large.save(), torch.device("cpu"))
    small.offer(torch.arange(200, 205)[:, None])
    kept = set(small.x[:, 0].tolist())
    assert len(kept) == 10
    assert kept <= {*large.x[:, 0].tolist(), *range(200, 205)}


def test_no_step_of_agem_raises_the_loss_of_remembered_rows() -> None:
    definition = TorchLearner(lambda: nn.Linear(4, 2), batch=50, encoder=PLAIN, precision="float64")
    learner: Any = AGEM(100, draw=100).wrap(
        definition.make_learner(Columns(numbers=("a", "b", "c", "d"), target="y"), classes=2)
    )
    x, y = torch.randn(100, 4, dtype=torch.float64), torch.randint(0, 2, (100,))
    training = learner._training
    [held] = training.holders
    held.seen(x, y)
    held.settle(training)
    training.optimizer.zero_grad()
    new = training.loss(training.module(x), 1 - y, None)  # the opposite of what is remembered
    new.backward()
    held.before_step(training)
    gradients = [p.grad.clone() for p in training.moving.values()]
    old = training.loss(training.module(x), y, None)
    reference = torch.autograd.grad(old, list(training.moving.values()))
    assert sum(float((g * r).sum()) for g, r in zip(gradients, reference, strict=True)) > -1e-12


def test_other_learners_are_refused() -> None:
    with pytest.raises(SpecError, match=r"EWC holds on to weights, and .* has none"):
        el.learn(SGDClassifier(), *two_tasks()[0], el.Strategy(retention=EWC()))


def test_weights_that_are_shared_are_held() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
            self.last.weight = self.first.weight

        def forward(self, x: Any) -> Any:
            return self.last(torch.relu(self.first(x)))

    definition = TorchLearner(Tied, batch=20, encoder=PLAIN)
    for method in (EWC(), SI(), MAS(), LwF(), DarkReplay(50), AGEM(50)):
        learner: Any = method.wrap(definition.make_learner(COLUMNS, classes=2))
        for start in (0, 60):
            learner.learn(make_rows(start, start + 60, missing=False))
            learner.settle()
        again: Any = method.wrap(definition.make_learner(COLUMNS, classes=2))
        again.load(learner.save())
        for one in (learner, again):
            one.learn(make_rows(120, 180, missing=False))
        assert torch.equal(learner.module.first.weight, again.module.first.weight)


def test_a_step_that_scaled_gradients_leave_out_gains_nothing() -> None:
    definition = TorchLearner(lambda: nn.Linear(3, 2), batch=20, encoder=PLAIN)
    learner: Any = SI().wrap(definition.make_learner(COLUMNS, classes=2))
    learner.learn(make_rows(0, 60, missing=False))
    training = learner._training
    for parameter in training.moving.values():  # float16 overflowed: the optimizer does not step
        parameter.grad = torch.full_like(parameter, torch.inf)
    [held] = training.holders
    held.before_step(training)
    held.after_step(training)
    learner.settle()
    assert all(tensor.isfinite().all() for tensor in held.importance.values())


@pytest.mark.parametrize("method", [EWC(), SI(), MAS(), LwF(), DarkReplay(50), AGEM(50)])
def test_what_is_loaded_is_where_the_module_is(method: Any) -> None:
    definition = TorchLearner(lambda: nn.Linear(3, 2), batch=20, encoder=PLAIN)
    learner: Any = method.wrap(definition.make_learner(COLUMNS, classes=2))
    for start in (0, 60):
        learner.learn(make_rows(start, start + 60, missing=False))
        if not start:
            learner.settle()
    [held] = learner._training.holders
    held.load(held.save(), torch.device("meta"))  # in the place of a GPU
    found = [
        tensor
        for kept in vars(held).values()
        for tensor in (
            kept._held
            if isinstance(kept, RowSample)
            else kept.values()
            if isinstance(kept, dict)
            else ()
        )
    ]
    assert found
    assert {tensor.device.type for tensor in found} == {"meta"}
