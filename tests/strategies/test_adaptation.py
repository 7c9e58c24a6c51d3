"""Adaptation: what may move of a PyTorch module."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.linear_model import SGDClassifier

torch = pytest.importorskip("torch", reason="PyTorch is needed")

from torch import nn  # noqa: E402

import everlearn as el  # noqa: E402
from everlearn.base import Columns, InputError, Learner, SpecError  # noqa: E402
from everlearn.learners.encoder import Encoder  # noqa: E402
from everlearn.learners.neural.definition import TorchLearner  # noqa: E402
from everlearn.registry.config import from_config, to_config  # noqa: E402
from everlearn.strategies import AGEM, EWC, MAS, SI, DarkReplay, Expand, Freeze, LoRA, LwF  # noqa: E402
from everlearn.testing.learner import COLUMNS, LearnerSuite, copied, make_rows  # noqa: E402

torch.set_num_threads(1)

PLAIN = Encoder(numbers="as_is", categories="drop", times="drop", missing="mean")
ONEHOT = Encoder(categories="onehot", buckets=8)


def net() -> nn.Module:
    return nn.Sequential(
        nn.LazyLinear(16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 12),
        nn.Dropout(0.1),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


def fast(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def definition(**more: Any) -> TorchLearner:
    return TorchLearner(net, optimizer=fast, batch=20, encoder=ONEHOT, **more)


def adapted(adaptation: Any, classes: int = 2, seed: int = 0, **more: Any) -> Any:
    return adaptation.wrap(definition(**more).make_learner(COLUMNS, classes=classes, seed=seed))


class Adapted(LearnerSuite):
    adaptation: Any

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = definition().make_learner(columns, classes=classes, seed=seed)
        return self.adaptation.wrap(made)  # type: ignore[no-any-return]

    def taught(self, rows: int = 300, seed: int = 0) -> Learner:
        learner = super().taught(rows, seed)
        if rows:
            learner.settle()  # type: ignore[attr-defined]
            for batch in self.rows(rows, rows + 120).split(50):
                learner.learn(batch)
        return learner


class TestFreeze(Adapted):
    adaptation = Freeze(until="3", rates={"3": 0.5})


class TestThawing(Adapted):
    adaptation = Freeze(thaw=1)
    learns = False  # a head alone, on features that nothing learned


class TestLoRA(Adapted):
    adaptation = LoRA(2, dropout=0.1)


class TestPeft(Adapted):
    adaptation = LoRA(2, through="peft")

    @pytest.fixture(autouse=True)
    def _peft(self) -> None:
        pytest.importorskip("peft", reason="peft is needed")


def moves(adaptation: Any, module: Any = net) -> list[str]:
    made = TorchLearner(module, optimizer=fast, batch=20, encoder=ONEHOT)
    learner = adaptation.wrap(made.make_learner(COLUMNS, classes=2))
    before = {k: v.clone() for k, v in learner.module.state_dict().items()}
    learner.learn(make_rows(0, 100))
    after = learner.module.state_dict()
    return [name for name, value in after.items() if not torch.equal(value, before[name])]


LAST = ["6.weight", "6.bias"]
MIDDLE = ["3.weight", "3.bias"]
STATISTICS = ["1.running_mean", "1.running_var", "1.num_batches_tracked"]


@pytest.mark.parametrize(
    ("adaptation", "moved"),
    [
        (Freeze(), LAST),
        (Freeze(last=2), MIDDLE + LAST),
        (Freeze(until="3"), MIDDLE + LAST),
        (Freeze(all_but=("6", "3.bias")), ["3.bias", *LAST]),
        (Freeze(all_but="*.bias"), ["0.bias", "1.bias", *STATISTICS, "3.bias", "6.bias"]),
        (Freeze(rates={"0": 0.0}), ["1.weight", "1.bias", *STATISTICS, *MIDDLE, *LAST]),
        (LoRA(2), ["0.lora_B", "3.lora_B", *LAST]),
        (LoRA(2, targets="3", head=False), ["3.lora_B"]),
    ],
)
def test_only_what_may_move_moves(adaptation: Any, moved: list[str]) -> None:
    found = [name for name in moves(adaptation) if not name.endswith("lora_A")]
    assert found == moved


def test_a_rate_is_a_factor_of_the_optimizers() -> None:
    def plain(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    made = TorchLearner(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2)),
        optimizer=plain,
        encoder=PLAIN,
    )
    rows = make_rows(0, 50, missing=False)
    steps = {}
    for name, adaptation in {
        "whole": None,
        "named": Freeze(rates={"0": 0.1, "2": 0.5, "2.bias": 2.0}),
        "layers": Freeze(rates=0.5),
    }.items():
        learner: Any = made.make_learner(COLUMNS, classes=2)
        if adaptation is not None:
            learner = adaptation.wrap(learner)
        before = {k: v.clone() for k, v in learner.module.state_dict().items()}
        learner.learn(rows)
        steps[name] = {k: v - before[k] for k, v in learner.module.state_dict().items()}
    for name, factors in {
        "named": {"0.weight": 0.1, "0.bias": 0.1, "2.weight": 0.5, "2.bias": 2.0, "3.weight": 1.0},
        "layers": {"0.weight": 0.25, "2.weight": 0.5, "3.weight": 1.0},
    }.items():
        for key, factor in factors.items():
            torch.testing.assert_close(
                steps[name][key], factor * steps["whole"][key], rtol=1e-4, atol=1e-6
            )


def test_a_row_alone_is_learned_where_no_normalisation_moves() -> None:
    learner = adapted(Freeze(all_but="6"))
    before = learner.module[6].weight.detach().clone()
    statistics = learner.module[1].running_mean.clone()
    learner.learn(make_rows(0, 1))
    assert not torch.equal(learner.module[6].weight, before)
    assert torch.equal(learner.module[1].running_mean, statistics)


def test_layers_thaw_with_each_increment_that_has_rows() -> None:
    learner = adapted(Freeze(thaw=1))
    found = []
    for start in range(0, 400, 100):
        found.append(sorted({name.split(".")[0] for name in learner._training.moving}))
        learner.learn(make_rows(start, start + 100))
        learner.settle()
        learner.settle()  # an increment without rows
    assert found == [["6"], ["3", "6"], ["1", "3", "6"], ["0", "1", "3", "6"]]
    assert not learner.save()["module/frozen"].arrays


def test_first_answers_are_the_modules_own() -> None:
    trained = definition().make_learner(COLUMNS, classes=2)
    trained.learn(make_rows(0, 200))
    rows = make_rows(200, 300)
    for adaptation in (LoRA(4), LoRA(2, alpha=16.0, targets=("0", "6")), Freeze()):
        learner = adapted(adaptation, seed=5)
        learner.load(copied(trained.save()))
        np.testing.assert_array_equal(learner.predict(rows).proba, trained.predict(rows).proba)


@pytest.mark.parametrize("through", [None, "peft"])
def test_adapters_are_merged_where_they_are_taken_out(through: Any) -> None:
    if through:
        pytest.importorskip("peft", reason="peft is needed")
    learner = adapted(LoRA(2, alpha=3.0, through=through))
    for start in range(0, 300, 100):
        learner.learn(make_rows(start, start + 100))
    rows, state = make_rows(300, 400), copied(learner.save())
    expected = learner.predict(rows).proba
    for other in (
        definition().make_learner(COLUMNS, classes=2),
        adapted(LoRA(3)),
        adapted(Freeze()),
        adapted(LoRA(2, alpha=3.0, targets="3")),
    ):
        other.load(state)
        np.testing.assert_allclose(other.predict(rows).proba, expected, rtol=1e-4, atol=1e-6)
        other.learn(rows)
        assert np.isfinite(other.predict(rows).proba).all()


def test_the_state_does_not_tell_pefts_layers_from_our_own() -> None:
    pytest.importorskip("peft", reason="peft is needed")
    own, pefts = adapted(LoRA(2, alpha=4.0)), adapted(LoRA(2, alpha=4.0, through="peft"))
    own.learn(make_rows(0, 200))
    pefts.load(copied(own.save()))
    rows = make_rows(200, 300)
    np.testing.assert_allclose(pefts.predict(rows).proba, own.predict(rows).proba, rtol=1e-5)
    assert {k: p.digest for k, p in pefts.save().items()} == {
        k: p.digest for k, p in own.save().items()
    }
    for learner in (own, pefts):
        learner.learn(make_rows(200, 300))
    np.testing.assert_allclose(
        pefts.predict(rows).proba, own.predict(rows).proba, rtol=1e-3, atol=1e-5
    )


def test_what_is_still_is_stored_once() -> None:
    for adaptation in (LoRA(1), Freeze()):
        learner = adapted(adaptation)
        learner.learn(make_rows(0, 100))
        first = learner.save()
        learner.learn(make_rows(100, 200))
        second = learner.save()
        assert second["module/frozen"] is first["module/frozen"]
        assert second["module/moving"].digest != first["module/moving"].digest
        assert "0.weight" in second["module/frozen"].arrays
        assert "1.running_mean" in second["module/frozen"].arrays
        again = adapted(adaptation)
        again.load(second)
        assert again.save()["module/frozen"] is second["module/frozen"]


def test_a_state_of_another_architecture_is_refused_by_its_names() -> None:
    state = copied(adapted(LoRA(2)).save())
    other = TorchLearner(lambda: nn.Linear(20, 3), encoder=ONEHOT).make_learner(COLUMNS)
    with pytest.raises(InputError, match="architecture: weight is missing"):
        other.load(state)


@pytest.mark.parametrize("adaptation", [Freeze(last=2), LoRA(2)])
@pytest.mark.parametrize(
    "method",
    [EWC(10.0, rows=32), SI(1.0), MAS(1.0, rows=32), LwF(), DarkReplay(50), AGEM(50)],
    ids=lambda method: type(method).__name__,
)
def test_what_moves_is_held(adaptation: Any, method: Any) -> None:
    learner: Any = method.wrap(adapted(adaptation))
    for start in (0, 100):
        learner.learn(make_rows(start, start + 100))
        learner.settle()
    again: Any = method.wrap(adapted(adaptation))
    again.load(copied(learner.save()))
    for one in (learner, again):
        one.learn(make_rows(200, 300))
    assert {k: p.digest for k, p in learner.save().items()} == {
        k: p.digest for k, p in again.save().items()
    }
    if isinstance(method, EWC):
        [held] = learner._training.holders
        assert set(held.importance) == set(learner._training.moving)


def test_importance_of_adapters_is_that_of_rows_in_one_go() -> None:
    from torch.func import functional_call, grad, vmap

    learner: Any = EWC(1.0).wrap(adapted(LoRA(2)))
    learner.learn(make_rows(0, 60))
    module, training = learner.module.eval(), learner._training
    fixed = {k: v.detach() for k, v in training.moving.items()}
    rows = learner._tensor(learner._encoding.transform(make_rows(0, 8)))

    def of_row(parameters: Any, row: Any) -> Any:
        return functional_call(module, parameters, (row[None],)).square().sum()

    many = vmap(grad(of_row), in_dims=(None, 0))(fixed, rows)
    for index in range(8):
        one = grad(of_row)(fixed, rows[index])
        for name, value in one.items():
            torch.testing.assert_close(many[name][index], value, rtol=1e-4, atol=1e-6)


def test_attention_whose_weights_are_read_gets_no_adapter() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(20, 24)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.out = nn.Linear(24, 3)

        def forward(self, x: Any) -> Any:
            return self.out(self.block(self.up(x).reshape(-1, 3, 8)).reshape(-1, 24))

    found = {name.rpartition(".")[0] for name in moves(LoRA(2), Attending)}
    assert found == {"up", "block.linear1", "block.linear2", "out"}
    with pytest.raises(SpecError, match=r"'block.self_attn.out_proj' is read and not called"):
        moves(LoRA(2, targets="out_proj"), Attending)
    with pytest.raises(SpecError, match=r"names 'query', and there is none; .* up, block.linear1"):
        moves(LoRA(2, targets="query"), Attending)


def test_transformers_get_adapters_at_queries_and_values() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is needed")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, num_labels=3, max_position_embeddings=40,
    )  # fmt: skip

    class Bert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertForSequenceClassification(config)

        def forward(self, x: Any) -> Any:
            return self.bert(input_ids=x.abs().long() % 50).logits

    for through in (None, "peft"):
        found = moves(LoRA(2, through=through), Bert)
        layers = {name.split(".self.")[1].split(".")[0] for name in found if ".self." in name}
        assert layers == {"query", "value"}
        assert "bert.classifier.weight" in found
        assert len(found) == 2 * 2 * 2 + 2


def test_a_strategy_may_change_what_moves() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 4))
    tasks = [(X[:, 0] > 0).astype(int), (X[:, 1] > 0).astype(int)]
    made = TorchLearner(net, optimizer=fast, batch=50, encoder=PLAIN)
    whole = el.learn(made, X, tasks[0], el.Strategy(chunk=500, passes=3))
    learned = whole
    for adaptation in (LoRA(4), LoRA(2), Freeze(), None, Freeze(rates=0.5)):
        strategy = el.Strategy(chunk=500, passes=2, adaptation=adaptation, retention=LwF(0.1))
        learned = el.learn(learned, X, tasks[1], strategy)
    assert (learned.predict(X) == tasks[1]).mean() > 0.93


def test_jobs_learn_what_may_move_and_roll_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def rows(column: str) -> Any:
        frame = pandas.DataFrame(rng.normal(size=(600, 3)), columns=list("abc"))
        return frame.assign(kind=(frame[column] > 0).astype(int))

    model = el.Model(
        "kinds",
        learner=TorchLearner(net, optimizer=fast, batch=32),
        schema=el.Schema(target="kind"),
    )
    lora = model.replace(strategy=el.Strategy(adaptation=LoRA(4), passes=4))
    low = {"a": 2.0, "b": -2.0, "c": 0.0}
    with el.open(tmp_path / "ws") as ws:
        ws.model(model.replace(strategy=el.Strategy(passes=4))).train(rows("a"))
        assert ws.model("kinds").predict(low).value == 1
        ws.model(lora).train(rows("b"))
        assert ws.model("kinds").predict(low).value == 0
        ws.model(lora).train(rows("b"))
        manifests = [ws.registry.version("kinds", number).manifest for number in (2, 3)]
        frozen = {manifest["learner/module/frozen"]["blob"] for manifest in manifests}
        assert len(frozen) == 1
        ws.model("kinds").rollback(to=1)
        assert ws.model("kinds").predict(low).value == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Freeze(until="a", last=1), "one of until=, all_but= and last="),
        (lambda: Freeze(last=0), r"Freeze\(last=\) is a whole number"),
        (lambda: Freeze(rates={"a": -1}), "at least 0"),
        (lambda: LoRA(0), r"LoRA\(rank=\) is a whole number"),
        (lambda: LoRA(dropout=1.0), "below 1"),
        (lambda: LoRA(targets=()), "names of layers"),
        (lambda: LoRA(through="magic"), "'peft' or None"),  # type: ignore[arg-type]
    ],
)
def test_arguments_that_cannot_be_are_refused(make: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()


@pytest.mark.parametrize(
    ("adaptation", "said"),
    [
        (Freeze(until="layer4"), "nothing named 'layer4'; it has 0, 1, 3, 6"),
        (Freeze(rates={"backbone": 0.1}), "nothing named 'backbone'"),
        (LoRA(targets="q"), "there is none"),
    ],
)
def test_names_that_a_module_lacks_are_refused(adaptation: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        adapted(adaptation)


def test_other_learners_are_refused() -> None:
    X, y = np.zeros((10, 2)), np.arange(10) % 2
    for adaptation in (LoRA(), Freeze()):
        with pytest.raises(SpecError, match="PyTorch module"):
            el.learn(SGDClassifier(), X, y, el.Strategy(adaptation=adaptation))


@pytest.mark.parametrize(
    "part", [Freeze(rates={"a": 0.1}), Freeze(last=2), LoRA(targets=("a", "b"))]
)
def test_they_are_rebuilt_from_json(part: Any) -> None:
    assert from_config(to_config(part)) == part
    assert "adapting" in el.Strategy(adaptation=part).describe()


class TestExpand(Adapted):
    adaptation = Expand(at_most=2, rows=64)


class TestExpandHeads(Adapted):
    """Two columns with heads of their own."""

    adaptation = Expand(at_most=3, rows=64, own="6")

    def taught(self, rows: int = 300, seed: int = 0) -> Learner:
        learner: Any = LearnerSuite.taught(self, rows, seed)
        if rows:
            learner.settle()
            for batch in self.elsewhere().split(100):
                learner.learn(batch)
            assert len(learner.module.columns) == 2
        return learner

    learns = False

    def elsewhere(self) -> Any:
        rows = self.rows(300, 420)
        return replace(rows, numbers=rows.numbers + 3.0, y=1 - rows.y)  # type: ignore[operator]


def corners(which: int, n: int = 600, flip: bool = False) -> Any:
    """Rows at one of some places, where a class of their own is what matters there."""
    rng = np.random.default_rng(which)
    X = rng.normal(size=(n, 6))
    y = (X[:, which] > 0) ^ flip
    X[:, 3:] += 6.0 * np.eye(3)[which]
    return X, y.astype(int)


def columns_of(increments: list[Any], adaptation: Any) -> tuple[Any, list[int]]:
    made = TorchLearner(
        lambda: nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 2)),
        optimizer=fast,
        batch=50,
        encoder=PLAIN,
    )
    learner: Any = None
    learned = []
    for X, y in increments:
        strategy = el.Strategy(adaptation=adaptation, chunk=200, passes=4)
        learner = el.learn(made if learner is None else learner, X, y, strategy)
        learned.append(learner._fold.learner.module.current if adaptation else 0)
    return learner, learned


def test_an_increment_that_does_not_fit_gets_a_column() -> None:
    rounds = [corners(0), corners(1), corners(2), corners(0), corners(2)]
    alone, _ = columns_of(rounds, None)
    learner, learned = columns_of(rounds, Expand())
    assert learned == [0, 1, 2, 0, 2]
    accuracy = [
        [float((one.predict(X) == y).mean()) for X, y in rounds[:3]] for one in (alone, learner)
    ]
    assert min(accuracy[1]) > 0.9
    assert min(accuracy[0]) < 0.9
    mixed = np.concatenate([X[:50] for X, _ in rounds[:3]])
    shuffled = np.random.default_rng(0).permutation(len(mixed))
    np.testing.assert_allclose(
        learner.predict_proba(mixed)[shuffled], learner.predict_proba(mixed[shuffled]), rtol=1e-5
    )


def test_growth_has_a_bound_and_the_nearest_learns_on() -> None:
    learner, learned = columns_of([corners(0), corners(1), corners(2)], Expand(at_most=2))
    assert learned[:2] == [0, 1]
    assert len(learner._fold.learner.module.columns) == 2
    X, y = corners(2)
    assert (learner.predict(X) == y).mean() > 0.9


def test_rows_that_look_alike_get_no_column_of_their_own() -> None:
    learner, learned = columns_of([corners(0), corners(0, flip=True)], Expand())
    assert learned == [0, 0]
    X, y = corners(0, flip=True)
    assert (learner.predict(X) == y).mean() > 0.9


def test_columns_that_do_not_learn_are_still_and_shared_layers_are_stored_once() -> None:
    first = corners(0)
    for adaptation in (Expand(), Expand(own="2")):
        learner, _ = columns_of([first, corners(1)], adaptation)
        before, _ = columns_of([first], adaptation)
        ours, theirs = (one.state["learner/module/frozen"].arrays for one in (learner, before))
        assert not theirs
        whole = before.state["learner/module/moving"].arrays
        assert set(ours) == set(whole)
        assert all(np.array_equal(ours[name], whole[name]) for name in whole)
        new = set(learner.state["learner/module/moving"].arrays)
        heads = {"expand.1.2.weight", "expand.1.2.bias"}
        assert new == heads | (
            set() if adaptation.own else {"expand.1.0.weight", "expand.1.0.bias"}
        )


def test_statistics_of_a_further_column_are_saved_each_time() -> None:
    learner = adapted(Expand(rows=64), pretrained=True)
    rows = make_rows(0, 400, missing=False)
    learner.learn(rows)
    learner.settle()
    away = replace(rows, numbers=rows.numbers * 5 + 20, y=1 - rows.y)  # type: ignore[operator]
    for part in away.split(200):  # a checkpoint after each
        learner.learn(part)
        again = adapted(Expand(rows=64), pretrained=True)
        again.load(copied(learner.save()))
        found, whole = again.module.state_dict(), learner.module.state_dict()
        assert "columns.1.1.running_mean" in whole
        assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())


def test_one_column_is_the_module_and_several_are_not() -> None:
    one, _ = columns_of([corners(0)], Expand())
    X, y = corners(0)
    assert (el.learn(one, X, y, el.Strategy()).predict(X) == y).mean() > 0.95
    two, _ = columns_of([corners(0), corners(1)], Expand())
    with pytest.raises(InputError, match="has 2 columns, which are no one module"):
        el.learn(two, X, y, el.Strategy())


def test_columns_grow_with_classes_and_a_row_alone_adds_none() -> None:
    learner: Any = Expand(rows=64).wrap(
        TorchLearner(
            lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)),
            optimizer=fast, batch=20, encoder=PLAIN, grow=True,
        ).make_learner(COLUMNS, classes=2)
    )  # fmt: skip
    rows = make_rows(0, 200, missing=False)
    learner.learn(rows)
    learner.settle()
    away = replace(rows, numbers=rows.numbers * 5 + 20, y=1 - rows.y)  # type: ignore[operator]
    learner.learn(away.take(slice(0, 1)))
    learner.settle()
    assert len(learner.module.columns) == 1
    learner.learn(away)
    assert len(learner.module.columns) == 2
    assert learner.grow(4)
    assert [column[2].out_features for column in learner.module.columns] == [4, 4]
    again: Any = Expand(rows=64).wrap(learner.definition.make_learner(COLUMNS, classes=0))
    again.load(copied(learner.save()))
    np.testing.assert_array_equal(again.predict(rows).proba, learner.predict(rows).proba)
