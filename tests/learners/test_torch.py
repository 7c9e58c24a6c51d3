"""PyTorch modules as learners."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is needed")

from torch import nn  # noqa: E402

import everlearn as el  # noqa: E402
from everlearn.base import (  # noqa: E402
    Batch,
    Columns,
    InputError,
    Learner,
    SpecError,
)
from everlearn.learners.encoder import Encoder  # noqa: E402
from everlearn.learners.neural.definition import TorchLearner  # noqa: E402
from everlearn.learners.neural.network import Network  # noqa: E402
from everlearn.registry.config import from_config, to_config  # noqa: E402
from everlearn.registry.spec import load_spec  # noqa: E402
from everlearn.strategies import AGEM, EWC, DarkReplay  # noqa: E402
from everlearn.testing.learner import COLUMNS, LearnerSuite, copied, make_rows  # noqa: E402

torch.set_num_threads(1)

ENCODER = Encoder(categories="onehot", buckets=8)
WIDTH = 3 * 2 + 6 + 8
COLUMNS_WIDTH = 3 + 6 + 8


def net(outputs: int = 3, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, 24), nn.ReLU(), nn.Dropout(dropout), nn.Linear(24, outputs)
    )


def one_output() -> nn.Module:
    return net(1)


def noisy() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 3)
    )


class Noise(nn.Module):
    """Its answers are random also where it predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, 2)

    def forward(self, x: Any) -> Any:
        return self.linear(nn.functional.dropout(x, 0.5, training=True))


def fast(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def slower_and_slower(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)


class TestClassifier(LearnerSuite):
    scores = "step"

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = TorchLearner(net, optimizer=fast, batch=20, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)


class TestRegressor(LearnerSuite):
    scores = "step"

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = TorchLearner(one_output, "mse", fast, batch=10, encoder=ENCODER, precision="float64")
        return made.make_learner(columns, classes=classes, seed=seed)


class TestEverythingAtOnce(LearnerSuite):
    """Dropout, batch normalisation, a scheduler, clipping, momentum and bfloat16."""

    learns = False

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = TorchLearner(
            noisy,
            "cross_entropy",
            lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
            scheduler=slower_and_slower,
            batch=25,
            encoder=ENCODER,
            clip=1.0,
            precision="bfloat16",
        )
        return made.make_learner(columns, classes=classes, seed=seed)


def taught(definition: TorchLearner, columns: Columns = COLUMNS, rows: int = 200) -> Network:
    learner = definition.make_learner(columns, classes=2)
    learner.learn(make_rows(0, rows))
    return learner


def test_what_is_scored_is_what_the_module_answered_in_its_steps() -> None:
    encoder = Encoder(numbers="as_is", missing="mean", categories="onehot", buckets=8)
    width = COLUMNS_WIDTH
    made = nn.Sequential(nn.Linear(width, 12), nn.Tanh(), nn.Linear(12, 3))
    learner = TorchLearner(made, optimizer=fast, batch=16, encoder=encoder).make_learner(
        COLUMNS, classes=2
    )
    calls: list[tuple[Any, Any]] = []
    learner.module.register_forward_hook(
        lambda module, given, output: calls.append((given[0].clone(), output.detach().clone()))
    )
    first, rows = make_rows(0, 40), make_rows(40, 100)
    begun = learner.learn(first, score=40)
    assert begun is not None and begun.proba is not None
    given = torch.tensor(learner._encoding.transform(first), dtype=torch.float32)
    step = calls[-3][0]  # the first of three
    asked = [bool((step == row).all(dim=1).any()) for row in given]
    assert (begun.proba == 0.5).all(axis=1).tolist() == asked  # in the first step: the prior
    calls.clear()
    answer = learner.learn(rows, score=50)
    assert answer is not None and answer.proba is not None and len(answer) == 50
    assert [len(x) for x, _ in calls] == [16, 16, 16, 12]  # and nothing was computed twice
    seen, outputs = torch.cat([x for x, _ in calls]), torch.cat([out for _, out in calls])
    given = torch.tensor(learner._encoding.transform(rows), dtype=torch.float32)
    for row in range(50):
        (at,) = torch.nonzero((seen == given[row]).all(dim=1))[:, 0].tolist()
        expected = torch.softmax(outputs[at, :2].double(), 0).numpy()
        np.testing.assert_allclose(answer.proba[row], expected, rtol=1e-12)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(12)])
def test_a_module_that_learns_otherwise_than_it_answers_is_asked_first(layer: nn.Module) -> None:
    encoder = Encoder(numbers="as_is", missing="mean", categories="onehot", buckets=8)
    made = nn.Sequential(nn.Linear(COLUMNS_WIDTH, 12), layer, nn.Linear(12, 2))
    learner = TorchLearner(made, optimizer=fast, batch=16, encoder=encoder).make_learner(
        COLUMNS, classes=2
    )
    learner.learn(make_rows(0, 100))
    rows = make_rows(100, 160)
    expected = learner.predict(rows)
    answer = learner.learn(rows, score=60)
    assert answer is not None and answer.proba is not None and expected.proba is not None
    assert np.array_equal(answer.proba, expected.proba)


def test_is_the_loop_that_users_write_bit_by_bit() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(1030, 5))
    y = (X[:, 0] + generator.normal(size=len(X)) > 0).astype(int)

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))

    definition = TorchLearner(
        make, optimizer=fast, encoder=Encoder(numbers="as_is", missing="mean")
    )
    learned = el.learn(definition, X, y, el.Strategy(chunk=100, seed=7))
    torch.manual_seed(7)
    by_hand = make()
    optimizer = fast(by_hand.parameters())
    for start in range(0, len(X), 100):
        rows = torch.from_numpy(X[start : start + 100]).float()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(by_hand(rows), torch.from_numpy(y[start : start + 100]))
        loss.backward()
        optimizer.step()
    expected = by_hand(torch.from_numpy(X).float()).argmax(1).numpy()
    assert (learned.predict(X) == expected).all()
    ours = learned._fold.learner.module.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in by_hand.state_dict().items())


def test_a_weight_is_a_row_so_many_times() -> None:
    rows = make_rows(0, 60, missing=False)
    plain = Encoder(numbers="as_is", categories="drop", times="drop", missing="mean")
    definition = TorchLearner(lambda: nn.Linear(3, 2), encoder=plain, precision="float64")
    weighted, repeated = (definition.make_learner(COLUMNS, classes=2) for _ in range(2))
    weighted.learn(replace(rows, weight=np.repeat([3.0, 1.0], [20, 40])))
    repeated.learn(Batch.concat([rows, rows.take(slice(20)), rows.take(slice(20))]))
    for name, value in weighted.module.state_dict().items():
        assert torch.allclose(value, repeated.module.state_dict()[name], rtol=0, atol=1e-12)


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    learner = taught(TorchLearner(net, optimizer=fast, batch=20, encoder=ENCODER))
    with torch.no_grad():
        learner.module[0].weight[0, 0] = torch.inf  # type: ignore[index]
    with pytest.raises(InputError, match=r"loss is nan in step 11, of 20 rows; lower"):
        learner.learn(make_rows(200, 240))
    with pytest.raises(InputError, match=r"0\.weight is not finite after 10 steps"):
        learner.save()


@pytest.mark.parametrize("retention", [None, DarkReplay(50), AGEM(50), EWC(1.0)])
def test_a_refused_step_leaves_nothing_behind(retention: Any) -> None:
    plain = Encoder(numbers="as_is", categories="drop", times="drop", missing="mean")
    definition = TorchLearner(
        lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), encoder=plain, batch=20
    )
    learner = taught(definition) if retention is None else retention.wrap(taught(definition))
    bad = make_rows(200, 220, missing=False)
    bad = replace(bad, numbers=bad.numbers * 1e39)  # infinite in float32
    with pytest.raises(InputError, match="the loss is nan"):
        learner.learn(bad)
    for _ in range(2):
        learner.learn(make_rows(0, 200, missing=False))
        learner.settle()
    assert all(
        np.isfinite(a).all() for part in learner.save().values() for a in part.arrays.values()
    )


def test_a_state_of_another_architecture_is_refused_by_its_names() -> None:
    state = taught(TorchLearner(net, encoder=ENCODER)).save()
    other = TorchLearner(noisy, encoder=ENCODER).make_learner(COLUMNS, classes=2)
    with pytest.raises(InputError, match=r"architecture: 1\.running_mean is missing|1\.weight"):
        other.load(copied(state))
    wider = TorchLearner(lambda: net(4), encoder=ENCODER).make_learner(COLUMNS, classes=2)
    with pytest.raises(InputError, match=r"3\.weight has \(3, 24\) float32, not \(4, 24\)"):
        wider.load(copied(state))


def test_memory_that_runs_out_halves_the_step_and_not_its_gradient() -> None:
    class Hungry(nn.Module):
        def __init__(self, most: int) -> None:
            super().__init__()
            self.inner, self.most = net(), most

        def forward(self, x: Any) -> Any:
            if len(x) > self.most:
                raise torch.OutOfMemoryError(f"{len(x)} rows")
            return self.inner(x)

    whole, parts = (
        taught(
            TorchLearner(
                lambda most=most: Hungry(most), optimizer=fast, encoder=ENCODER, precision="float64"
            )
        )
        for most in (1000, 30)
    )
    for name, value in whole.module.state_dict().items():
        assert torch.allclose(parts.module.state_dict()[name], value, atol=1e-9)
    whole.module.most = 0
    with pytest.raises(torch.OutOfMemoryError, match="1 rows"):
        whole.learn(make_rows(200, 210))


def test_the_processs_own_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    learner = taught(TorchLearner(noisy, encoder=ENCODER, batch=10))
    learner.predict(make_rows(0, 10))
    assert torch.equal(torch.rand(3), expected)


def test_what_is_learned_is_the_same_while_others_answer_in_other_threads() -> None:
    definition = TorchLearner(lambda: net(dropout=0.5), batch=2, encoder=ENCODER)
    alone = taught(definition).save()
    other, over, rows = taught(definition), threading.Event(), make_rows(0, 5)
    noise = TorchLearner(Noise, encoder=ENCODER).make_learner(COLUMNS, classes=2)
    noise.learn(rows)

    def answer() -> None:
        while not over.is_set():
            other.predict(rows)
            noise.predict(rows)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        beside = taught(definition).save()
    finally:
        over.set()
        thread.join()
    assert {name: part.digest for name, part in beside.items()} == {
        name: part.digest for name, part in alone.items()
    }


def test_a_module_that_brings_weights_begins_with_them() -> None:
    module = nn.Sequential(nn.Linear(WIDTH, 2))
    definition = TorchLearner(module, encoder=ENCODER, pretrained=True)
    learner = definition.make_learner(COLUMNS, classes=2)
    assert learner.predict(make_rows(0, 5)).proba.std() > 0  # type: ignore[union-attr]
    learner.learn(make_rows(0, 100))
    assert not torch.equal(module[0].weight, learner.module[0].weight)  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"module": 3}, "is a module or makes one"),
        ({"loss": "log"}, "there are cross_entropy, bce, mse"),
        ({"loss": 3}, "is a name or a function"),
        ({"optimizer": torch.optim.SGD(net().parameters(), lr=0.1)}, "is a function that makes it"),
        ({"batch": 0}, "is a number of rows"),
        ({"clip": -1.0}, "a norm above 0"),
        ({"precision": "int8"}, "is one of"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        TorchLearner(**{"module": net, **arguments})


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (TorchLearner(lambda: nn.Linear(2, 2), encoder=ENCODER), r"cannot take \(1, 20\) numbers"),
        (TorchLearner(lambda: nn.Linear(WIDTH, 2), "bce", encoder=ENCODER), r"answers \(1, 2\)"),
        (TorchLearner(net, classes=9, encoder=ENCODER), "says 9, but the module has 3 outputs"),
        (TorchLearner(nn.Flatten, encoder=ENCODER), "no parameter"),
        (TorchLearner(dict, encoder=ENCODER), "which is no torch.nn.Module"),
    ],
)
def test_modules_that_do_not_go_with_the_rows_are_refused(
    definition: TorchLearner, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        definition.make_learner(COLUMNS, classes=2)


@pytest.mark.parametrize("loss", ["mse", "l1", "huber", "poisson", nn.MSELoss(reduction="none")])
def test_quantities_are_learned_by_every_loss(loss: Any) -> None:
    definition = TorchLearner(one_output, loss, fast, batch=10, encoder=ENCODER)
    learner = definition.make_learner(replace(COLUMNS, target_kind="number"))
    rows = make_rows(0, 400, classes=0)
    for _ in range(10):
        learner.learn(rows)
    assert rows.y is not None
    assert np.mean((learner.predict(rows).value - rows.y) ** 2) < 0.3 * np.var(rows.y)


def test_one_score_for_two_classes() -> None:
    learner = TorchLearner(one_output, "bce", fast, batch=10, encoder=ENCODER).make_learner(
        COLUMNS, classes=2
    )
    rows = make_rows(0, 400)
    learner.learn(rows)
    answer = learner.predict(rows)
    assert answer.proba is not None and answer.proba.shape == (400, 2)
    assert (answer.value == rows.y).mean() > 0.9
    assert not learner.grow(3)


SPEC = """\
import torch
from torch import nn
import everlearn as el

torch.set_num_threads(1)
model = el.Model(
    "kinds",
    learner=el.learners.TorchLearner(
        nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, 2)),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        batch=32,
    ),
    schema=el.Schema(target="kind"),
    strategy=el.Strategy(memory=el.Reservoir(100), passes=2),
)
"""


def test_a_file_says_what_the_model_is_and_other_processes_find_it_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    lines = [f"{a:.4f},{b:.4f},{c:.4f},{int(a > b)}" for a, b, c in x]
    for name, part in (("first", lines[:400]), ("second", lines[400:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,c,kind", *part]) + "\n")
    (tmp_path / "spec.py").write_text(SPEC)
    with el.open(tmp_path / "ws") as ws:
        assert ws.model(str(tmp_path / "spec.py")).train(str(tmp_path / "first.csv")).version == 1
    run = partial(
        subprocess.run,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    everlearn = [sys.executable, "-m", "everlearn.cli", "--workspace", "ws"]
    trained = run([*everlearn, "train", "spec.py", "second.csv", "--json"])
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["version"] == 2
    (tmp_path / "spec.py").unlink()
    answered = run([*everlearn, "predict", "kinds", '{"a": 2.0, "b": -2.0, "c": 0.0}'])
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["value"] == 1


OWN_CLASS = """\
import torch
import everlearn as el

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x)

net = Net()
net.load_state_dict({"linear.weight": torch.eye(2), "linear.bias": torch.zeros(2)})
model = el.Model("m", learner=el.learners.TorchLearner(net, pretrained=True))
"""


def test_a_module_of_a_class_of_the_file_is_rebuilt_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "spec.py").write_text(OWN_CLASS)
    model, text = load_spec(tmp_path / "spec.py")
    rebuilt = from_config(to_config(model, text), text).learner.module
    assert torch.equal(rebuilt.linear.weight, torch.eye(2))
    with pytest.raises(SpecError, match="give a class or function that makes it"):
        to_config(model)


def test_a_row_that_is_left_over_joins_the_step_before_where_batches_are_normalised() -> None:
    learner = TorchLearner(noisy, optimizer=fast, batch=32, encoder=ENCODER).make_learner(
        COLUMNS, classes=3
    )
    seen: list[int] = []
    learner.module.register_forward_hook(
        lambda module, given, output: seen.append(len(output)) if module.training else None
    )
    learner.learn(make_rows(0, 65))
    assert seen == [32, 33]
    before = {name: part.digest for name, part in learner.save().items()}
    with pytest.raises(InputError, match="one row alone has no statistics"):
        learner.learn(make_rows(0, 1))
    after = {name: part.digest for name, part in learner.save().items()}
    assert {k: v for k, v in after.items() if k.startswith("module")} == {
        k: v for k, v in before.items() if k.startswith("module")
    }


def test_a_scheduler_that_waits_for_a_score_is_refused_beforehand() -> None:
    waits = torch.optim.lr_scheduler.ReduceLROnPlateau
    with pytest.raises(SpecError, match="ReduceLROnPlateau"):
        TorchLearner(net, optimizer=fast, scheduler=waits, encoder=ENCODER).make_learner(COLUMNS)
