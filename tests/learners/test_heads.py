"""Heads of PyTorch modules: new ones, and those that grow with the classes that come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is needed")

from torch import nn  # noqa: E402

import everlearn as el  # noqa: E402
from everlearn.base import Columns, InputError, Learner, SpecError  # noqa: E402
from everlearn.learners.encoder import Encoder  # noqa: E402
from everlearn.learners.neural.definition import TorchLearner  # noqa: E402
from everlearn.strategies import EWC, MAS, SI, DarkReplay, Expand, Freeze, LoRA, LwF, Personal  # noqa: E402
from everlearn.testing.learner import COLUMNS, LearnerSuite, copied, make_rows  # noqa: E402

torch.set_num_threads(1)

PLAIN = Encoder(numbers="as_is", categories="drop", times="drop", missing="mean")
ONEHOT = Encoder(categories="onehot", buckets=8)


def net(outputs: int = 2) -> nn.Module:
    return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, outputs))


def fast(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def growing(**more: Any) -> TorchLearner:
    return TorchLearner(net, optimizer=fast, batch=20, encoder=ONEHOT, grow=True, **more)


class TestGrowing(LearnerSuite):
    scores = "step"

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        return growing().make_learner(columns, classes=classes, seed=seed)


class TestGrowingWhileHeld(LearnerSuite):
    scores = "step"

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = growing().make_learner(columns, classes=classes, seed=seed)
        return EWC(1.0, rows=32).wrap(made)


def three(start: int, stop: int) -> Any:
    return make_rows(start, stop, classes=3)


def test_old_outputs_stay_as_they_are() -> None:
    learner = growing().make_learner(COLUMNS, classes=2)
    learner.learn(make_rows(0, 200))
    head: Any = learner.module[2]  # type: ignore[index]
    weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
    moment = learner._training.optimizer.state[head.weight]["exp_avg"].clone()
    before = learner.predict(make_rows(0, 50)).proba
    assert learner.grow(5)
    assert learner.module[2] is head  # type: ignore[index]
    assert torch.equal(head.weight[:2], weight)
    assert torch.equal(head.bias[:2], bias)
    bound = 1 / np.sqrt(16)
    assert 0 < float(head.weight[2:].detach().abs().max()) <= bound
    grown = learner._training.optimizer.state[head.weight]["exp_avg"]
    assert torch.equal(grown[:2], moment)
    assert not grown[2:].any()
    after = learner.predict(make_rows(0, 50)).proba
    assert before is not None and after is not None and after.shape == (50, 5)
    np.testing.assert_allclose(
        after[:, :2] / after[:, :2].sum(1, keepdims=True), before, rtol=1e-5, atol=1e-7
    )


def test_new_outputs_are_drawn_from_the_learners_own_generator() -> None:
    one, other = (growing().make_learner(COLUMNS, classes=2, seed=s) for s in (3, 3))
    torch.manual_seed(1)
    one.grow(4)
    torch.rand(10)
    other.grow(4)
    assert torch.equal(one.module[2].weight, other.module[2].weight)  # type: ignore[index]


@pytest.mark.parametrize(
    "method",
    [EWC(1.0), EWC(1.0, decay=0.9), SI(1.0), MAS(1.0), LwF(), DarkReplay(60)],
    ids=lambda method: type(method).__name__,
)
@pytest.mark.parametrize("between", [False, True])
def test_what_is_held_grows_too(method: Any, between: bool) -> None:
    learner: Any = method.wrap(growing().make_learner(COLUMNS, classes=2))
    learner.learn(make_rows(0, 100))
    learner.settle()
    if between:  # classes come in the middle of an increment
        learner.learn(make_rows(100, 160))
    state = copied(learner.save())
    again: Any = method.wrap(growing().make_learner(COLUMNS, classes=0))
    again.load(state)
    for one in (learner, again):
        assert one.grow(3)
        one.learn(three(200, 400))
        one.settle()
        one.learn(three(400, 500))
    ours, theirs = learner.save(), again.save()
    assert {k: p.digest for k, p in ours.items()} == {k: p.digest for k, p in theirs.items()}
    assert np.isfinite(learner.predict(three(0, 20)).proba).all()


@pytest.mark.parametrize("adaptation", [Personal(rank=2), Expand(rows=40)])
def test_answers_of_the_start_have_room_for_what_grew(adaptation: Any) -> None:
    def made(classes: int) -> Any:
        columns = replace(COLUMNS, key="who")
        plain = replace(growing(), encoder=PLAIN)
        return LwF().wrap(adaptation.wrap(plain.make_learner(columns, classes=classes)))

    def keyed(batch: Any) -> Any:
        return replace(batch, key=(batch.ids % np.uint64(9)) + np.uint64(1))

    learner = made(2)
    rows = keyed(make_rows(0, 200, missing=False))
    learner.learn(rows)
    learner.settle()
    away = replace(rows, numbers=rows.numbers * 5 + 20, y=1 - rows.y)
    learner.learn(away)  # a column more
    assert adaptation != Expand(rows=40) or len(learner.module.columns) == 2
    learner.settle()
    again = made(0)
    again.load(copied(learner.save()))
    for one in (learner, again):
        assert one.grow(3)
        one.learn(keyed(three(200, 400)))
        one.settle()
        one.learn(away)
    ours, theirs = learner.save(), again.save()
    assert {k: p.digest for k, p in ours.items()} == {k: p.digest for k, p in theirs.items()}


def test_importance_of_old_outputs_is_what_it_was() -> None:
    learner: Any = EWC(1.0).wrap(growing().make_learner(COLUMNS, classes=2))
    learner.learn(make_rows(0, 100))
    learner.settle()
    [held] = learner._training.holders
    before = held.importance["2.weight"].clone()
    learner.grow(3)
    assert torch.equal(held.importance["2.weight"][:2], before)
    assert not held.importance["2.weight"][2:].any()


def test_the_scores_of_remembered_rows_have_none_for_later_classes() -> None:
    learner: Any = DarkReplay(30, beta=0.0).wrap(growing().make_learner(COLUMNS, classes=2))
    learner.learn(make_rows(0, 100))
    learner.grow(3)
    [held] = learner._training.holders
    learner.learn(three(100, 110))
    scores = held._sample._held[2]
    assert scores.shape[1] == 3
    assert scores[:, 2].isnan().any() and not scores[:, :2].isnan().any()


@pytest.mark.parametrize("adaptation", [Freeze(), LoRA(2), LoRA(2, head=False, targets=("0", "2"))])
def test_what_is_adapted_grows(adaptation: Any) -> None:
    learner: Any = adaptation.wrap(growing().make_learner(COLUMNS, classes=2))
    learner.learn(make_rows(0, 100))
    assert learner.grow(3)
    for _ in range(20):
        learner.learn(three(0, 300))
    rows = three(0, 300)
    assert (learner.predict(rows).value == rows.y).mean() > 0.6
    again: Any = adaptation.wrap(growing().make_learner(COLUMNS, classes=0))
    again.load(copied(learner.save()))
    np.testing.assert_array_equal(again.predict(rows).proba, learner.predict(rows).proba)


def test_room_that_is_there_is_used_first() -> None:
    wide = TorchLearner(lambda: net(4), batch=20, encoder=ONEHOT, grow=True)
    learner = wide.make_learner(COLUMNS, classes=2)
    weight = learner.module[2].weight  # type: ignore[index]
    assert learner.grow(4)
    assert learner.module[2].weight is weight  # type: ignore[index]
    assert learner.grow(5)
    assert learner.module[2].out_features == 5  # type: ignore[index]


def test_a_module_does_not_grow_unless_it_is_said() -> None:
    learner = TorchLearner(net, encoder=ONEHOT).make_learner(COLUMNS, classes=2)
    assert not learner.grow(3)


def test_a_state_with_more_outputs_is_not_that_of_a_fixed_module() -> None:
    grown = growing().make_learner(COLUMNS, classes=3)
    grown.learn(three(0, 20))
    fixed = TorchLearner(net, optimizer=fast, encoder=ONEHOT).make_learner(COLUMNS)
    with pytest.raises(InputError, match=r"2\.weight has \(3, 16\)"):
        fixed.load(copied(grown.save()))


def test_a_pretrained_module_gets_a_new_head() -> None:
    pretrained = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1000))
    definition = TorchLearner(pretrained, classes=2, encoder=PLAIN, new_head=True)
    learner = definition.make_learner(COLUMNS, classes=2)
    assert learner.module[2].weight.shape == (2, 8)  # type: ignore[index]
    assert torch.equal(learner.module[0].weight, pretrained[0].weight)  # type: ignore[index]
    assert pretrained[2].out_features == 1000
    number = replace(COLUMNS, target_kind="number")
    quantity = TorchLearner(pretrained, "mse", encoder=PLAIN, new_head="2").make_learner(number)
    assert quantity.module[2].out_features == 1  # type: ignore[index]
    both = TorchLearner(pretrained, encoder=PLAIN, new_head=True, grow=True)
    assert both.make_learner(COLUMNS, classes=3).grow(6)


class Scaled(nn.Module):
    """Its answer is not that of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Any) -> Any:
        return self.out(torch.relu(self.body(x))) * 2.0


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
        self.last.weight = self.first.weight

    def forward(self, x: Any) -> Any:
        return self.last(torch.relu(self.first(x)))


def test_a_head_may_be_named() -> None:
    with pytest.raises(SpecError, match="not that of a linear layer: name"):
        TorchLearner(Scaled, encoder=PLAIN, grow=True).make_learner(COLUMNS)
    with pytest.raises(SpecError, match="no linear layer 'head'; it has body, out"):
        TorchLearner(Scaled, encoder=PLAIN, grow="head").make_learner(COLUMNS)
    learner = TorchLearner(Scaled, encoder=PLAIN, grow="out").make_learner(COLUMNS, classes=2)
    assert learner.grow(4)
    assert learner.predict(make_rows(0, 3)).proba.shape == (3, 4)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (TorchLearner(Tied, encoder=PLAIN, grow=True), "are another layer's too"),
        (TorchLearner(lambda: nn.Linear(3, 1), "bce", encoder=PLAIN, grow=True), "cross_entropy"),
        (TorchLearner(net, encoder=PLAIN, new_head=True), "needs classes="),
    ],
)
def test_heads_that_cannot_be_are_refused(definition: TorchLearner, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        definition.make_learner(COLUMNS, classes=2)


def test_classes_that_come_in_later_jobs_are_learned_and_rolled_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def rows(kinds: int, n: int = 400) -> dict[str, Any]:
        kind = rng.integers(kinds, size=n)
        x = rng.normal(size=(n, 2)) + 4.0 * np.column_stack([kind == 1, kind == 2])
        return {"a": x[:, 0], "b": x[:, 1], "kind": np.array(["red", "green", "blue"])[kind]}

    model = el.Model(
        "kinds",
        learner=TorchLearner(net, optimizer=fast, batch=32, grow=True),
        schema=el.Schema(target="kind"),
        strategy=el.Strategy(memory=el.Reservoir(500), passes=4),
    )
    with el.open(tmp_path / "ws") as ws:
        kinds = ws.model(model)
        kinds.train(pandas.DataFrame(rows(2)))
        assert set(kinds.predict({"a": 0.0, "b": 4.0}).probabilities) == {"red", "green"}
        kinds.train(pandas.DataFrame(rows(3)))
        assert kinds.predict({"a": 0.0, "b": 4.0}).value == "blue"
        assert kinds.predict({"a": 4.0, "b": 0.0}).value == "green"
        kinds.rollback()
        assert set(kinds.predict({"a": 0.0, "b": 4.0}).probabilities) == {"red", "green"}
