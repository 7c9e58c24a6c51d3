"""Adapters of many keys on one PyTorch module."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is needed")

from torch import nn  # noqa: E402

import everlearn as el  # noqa: E402
from everlearn.base import Batch, Columns, InputError, Learner, SpecError  # noqa: E402
from everlearn.learners.encoder import Encoder  # noqa: E402
from everlearn.learners.neural.definition import TorchLearner  # noqa: E402
from everlearn.learners.neural.keyed import halves, wholes  # noqa: E402
from everlearn.strategies import (  # noqa: E402
    AGEM,
    EWC,
    MAS,
    SI,
    DarkReplay,
    Expand,
    LoRA,
    LwF,
    Personal,
)
from everlearn.testing.learner import COLUMNS, LearnerSuite, copied, make_rows  # noqa: E402

torch.set_num_threads(1)

PLAIN = Encoder(numbers="as_is", missing="mean", categories="drop", times="drop")
NUMBERS = Columns(numbers=("a", "b", "c"), target="y", target_kind="integer", key="who")


def fast(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def net() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def keyed(rows: Batch, keys: int = 7) -> Batch:
    return replace(rows, key=(np.arange(len(rows)) % keys + 1).astype(np.uint64))


class Suite(LearnerSuite):
    method: Any
    grow = False
    columns = replace(COLUMNS, key="who")

    def rows(self, start: int, stop: int, classes: int = 2) -> Batch:
        return keyed(super().rows(start, stop, classes))

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        encoder = Encoder(categories="onehot", buckets=8)
        made = TorchLearner(net, optimizer=fast, batch=20, encoder=encoder, grow=self.grow)
        return self.method.wrap(  # type: ignore[no-any-return]
            made.make_learner(columns, classes=classes, seed=seed)
        )


class TestPersonal(Suite):
    method = Personal(rank=4)
    grow = True


class TestStillModule(Suite):
    method = Personal(rank=4, targets="*", shared=False, at_most=5)


def users(n: int = 4000, seed: int = 0) -> Batch:
    """Users who want the opposite of each other."""
    rng = np.random.default_rng(seed)
    X, who = rng.normal(size=(n, 3)), rng.integers(20, size=n)
    wants = np.random.default_rng(5).normal(size=(20, 3))
    return Batch(
        numbers=X,
        categories=np.zeros((n, 0), np.uint64),
        times=np.zeros((n, 0), np.int64),
        y=((X * wants[who]).sum(1) > 0).astype(np.int64),
        ids=np.arange(n).astype(np.uint64),
        key=(who + 1000).astype(np.uint64),
    )


def taught(method: Any = None, rows: Batch | None = None, **more: Any) -> Any:
    made = TorchLearner(
        lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), optimizer=fast, batch=50,
        encoder=PLAIN, **more,
    )  # fmt: skip
    learner: Any = made.make_learner(NUMBERS, classes=2)
    learner = learner if method is None else method.wrap(learner)
    for piece in (users() if rows is None else rows).split(500):
        learner.learn(piece)
    learner.settle()
    return learner


def right(learner: Any, rows: Batch) -> float:
    return float((learner.predict(rows).value == rows.y).mean())


def test_each_user_is_answered_as_each_wants() -> None:
    test = users(1000, seed=1)
    alike, own = taught(), taught(Personal())
    assert right(own, test) > right(alike, test) + 0.2
    still = taught(Personal(shared=False))
    assert right(still, test) > 0.8
    stranger = replace(test, key=np.full(len(test), 9, np.uint64))
    nobody = replace(test, key=None)
    np.testing.assert_array_equal(own.predict(stranger).proba, own.predict(nobody).proba)
    assert right(own, stranger) < right(own, test) - 0.2


def test_a_user_moves_no_other_users_adapter() -> None:
    learner = taught(Personal(shared=False, shrink=0.1))
    table = learner._change.table
    before = {k: v.clone() for k, v in table.matrices.items()}
    rows = users(300, seed=2)
    assert rows.key is not None
    learner.learn(rows.take(rows.key == 1003))
    moved = {
        name: {int(row) for row in torch.nonzero((m != before[name]).flatten(1).any(1))[:, 0]}
        for name, m in table.matrices.items()
    }
    assert moved == {"1": {int(table._place[table._numbers[1003]])}}


def test_rows_of_many_users_are_answered_as_one_by_one() -> None:
    learner = taught(Personal(targets="*", rank=2))
    rows = users(40, seed=3)
    together = learner.predict(rows).proba
    alone = [learner.predict(rows.take(slice(i, i + 1))).proba[0] for i in range(40)]
    np.testing.assert_allclose(np.array(alone), together, rtol=1e-5, atol=1e-7)


def test_a_step_is_that_of_the_sum_of_a_users_gradients() -> None:
    made = TorchLearner(
        lambda: nn.Linear(3, 1, bias=False), "mse", optimizer=fast, encoder=PLAIN,
        precision="float64",
    )  # fmt: skip
    learner: Any = Personal(rate=0.5, shrink=0.0).wrap(made.make_learner(NUMBERS))
    rows = users(30)
    assert rows.key is not None and rows.y is not None
    rows = rows.with_y(rows.y.astype(float))
    weight = learner.module.module.weight.detach().clone()
    learner.learn(rows)
    for key in sorted(set(rows.key.tolist()))[:3]:
        own = rows.key == key
        X, y = torch.from_numpy(rows.numbers[own]), torch.from_numpy(rows.y[own])
        gradient = 2 * ((X @ weight[0] - y)[:, None] * X).sum(0)
        expected = -0.5 * gradient / (1 + gradient.square().sum()).sqrt()
        table = learner._change.table
        found = table.matrices[""][table._place[table._numbers[key]], 0]
        torch.testing.assert_close(found, expected)


def test_shrinking_draws_users_to_what_all_share() -> None:
    sizes = [
        float(learner._change.table.matrices["1"].norm())
        for learner in (taught(Personal(shrink=shrink)) for shrink in (0.0, 0.1, 10.0))
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_only_what_moved_is_stored_anew() -> None:
    learner = taught(Personal(shared=False))
    first = learner.save()
    rows = users(300, seed=2)
    assert rows.key is not None
    learner.learn(rows.take(rows.key == 1003))
    second = learner.save()
    shards = [name for name in first if name.startswith("change/personal/")]
    assert len(shards) == 20
    assert [n for n in shards if second[n] is not first[n]] == [f"change/personal/{1003 % 256:02x}"]
    assert second["module/frozen"] is first["module/frozen"]
    again: Any = Personal(shared=False).wrap(
        TorchLearner(
            lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), optimizer=fast, encoder=PLAIN
        ).make_learner(NUMBERS, classes=2)
    )
    again.load(copied(second))
    np.testing.assert_array_equal(again.predict(rows).proba, learner.predict(rows).proba)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.int64])
def test_no_two_of_very_many_users_have_one_number(kind: Any) -> None:
    numbers = torch.tensor([0, 1, 2**20 - 1, 2**20, 2**24 + 1, 2**24 + 2, 2**40 + 3])
    columns = halves(numbers, torch.zeros(1, 3, dtype=kind))
    assert columns.dtype == kind and columns.shape == (7, 2)
    assert torch.equal(wholes(columns), numbers)


def test_who_learned_longest_ago_gives_way() -> None:
    learner = taught(Personal(at_most=3), users(0))
    rows = users(4000)
    assert rows.key is not None
    for key in (1000, 1001, 1002, 1000, 1003):
        learner.learn(rows.take(rows.key == key))
    table = learner._change.table
    assert set(table._numbers) == {1000, 1002, 1003}
    lost = rows.take(rows.key == 1001)
    stranger = replace(lost, key=np.full(len(lost), 5, np.uint64))
    np.testing.assert_array_equal(learner.predict(lost).proba, learner.predict(stranger).proba)
    learner.learn(rows)  # more users than there is room for
    assert len(table) == 3


def test_a_user_can_be_forgotten() -> None:
    learner = taught(Personal())
    rows = users(300)
    assert rows.key is not None
    own = rows.take(rows.key == 1004)
    before = learner.save()
    assert learner.erase(keys=np.array([1004, 77], np.uint64)) == 1
    stranger = replace(own, key=np.full(len(own), 5, np.uint64))
    np.testing.assert_array_equal(learner.predict(own).proba, learner.predict(stranger).proba)
    after = learner.save()
    assert set(before) - set(after) == {f"change/personal/{1004 % 256:02x}"}


def test_what_all_share_is_kept_without_it() -> None:
    for shared in (True, False):
        learner = taught(Personal(shared=shared))
        rows = replace(users(50), key=None)
        for other in (taught(None, users(0)), taught(LoRA(2), users(0))):
            other.load(copied(learner.save()))
            np.testing.assert_allclose(
                other.predict(rows).proba, learner.predict(rows).proba, rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize("method", [EWC(1.0, rows=32), LwF(), DarkReplay(50)])
def test_what_all_share_is_held(method: Any) -> None:
    learners = []
    for _ in range(2):
        learner = Personal().wrap(
            TorchLearner(net, optimizer=fast, batch=20, encoder=PLAIN).make_learner(
                replace(COLUMNS, key="who"), classes=2
            )
        )
        learners.append(method.wrap(learner))
    for start in (0, 100):
        learners[0].learn(keyed(make_rows(start, start + 100)))
        learners[0].settle()
    learners[1].load(copied(learners[0].save()))
    for learner in learners:
        learner.learn(keyed(make_rows(200, 300)))
        learner.settle()
    one, other = (learner.save() for learner in learners)
    assert {k: p.digest for k, p in one.items()} == {k: p.digest for k, p in other.items()}


@pytest.mark.parametrize("method", [AGEM(40), DarkReplay(40)])
@pytest.mark.parametrize("first", [True, False])
def test_remembered_rows_stay_where_it_is_put_in_or_taken_out(method: Any, first: bool) -> None:
    def made(personal: bool) -> Any:
        learner: Any = TorchLearner(net, optimizer=fast, batch=20, encoder=PLAIN).make_learner(
            NUMBERS, classes=2
        )
        return method.wrap(Personal().wrap(learner) if personal else learner)

    one, other = made(first), made(not first)
    one.learn(users(100))
    one.settle()
    other.load(copied(one.save()))
    for start in (1, 2):
        other.learn(users(100, start))
        other.settle()
    again = made(not first)
    again.load(copied(other.save()))
    rows = users(50, 3)
    np.testing.assert_array_equal(again.predict(rows).proba, other.predict(rows).proba)


def test_threads_that_ask_at_once_are_answered_for_their_own_users() -> None:
    learner = taught(Personal())
    asked = [users(n, n) for n in (3, 40, 300)]
    expected = [learner.predict(rows).proba for rows in asked]
    wrong: list[Any] = []

    def ask(which: int) -> None:
        for _ in range(60):
            try:
                found = learner.predict(asked[which]).proba
                np.testing.assert_allclose(found, expected[which], atol=1e-5)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_rows_without_keys_are_refused_beforehand() -> None:
    learner = TorchLearner(net, encoder=PLAIN).make_learner(COLUMNS, classes=2)
    with pytest.raises(SpecError, match=r"name the column in Schema\(key="):
        Personal().wrap(learner)


def test_layers_that_see_more_than_one_input_a_row_are_refused() -> None:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = nn.Linear(1, 4), nn.Linear(12, 2)

        def forward(self, x: Any) -> Any:
            return self.out(self.inner(x.reshape(-1, 1)).reshape(len(x), -1))

    made = TorchLearner(Pairs, encoder=PLAIN, batch=20)
    learner = Personal(targets="inner").wrap(made.make_learner(NUMBERS, classes=2))
    with pytest.raises(InputError, match="'inner' sees 60 inputs for 20 rows"):
        learner.learn(users(20))
    with pytest.raises(SpecError, match="at least 1"):
        Personal(rank=0)


def test_jobs_learn_for_each_user(tmp_path: Path) -> None:
    batch = users(2000)
    assert batch.key is not None
    frame = pandas.DataFrame(batch.numbers, columns=list("abc"))
    frame = frame.assign(who=[f"user {key}" for key in batch.key], y=batch.y)
    model = el.Model(
        "wishes",
        learner=TorchLearner(net, optimizer=fast, batch=50),
        schema=el.Schema(target="y", key="who"),
        strategy=el.Strategy(adaptation=Personal(), passes=3),
    )
    with el.open(tmp_path / "ws") as ws:
        wishes = ws.model(model)
        wishes.train(frame[:1000])
        wishes.train(frame[1000:])
        rows = frame[:200].drop(columns="y").to_dict("records")
        found = [answer.value for answer in wishes.predict(rows)]
        assert np.mean(np.array(found) == batch.y[:200]) > 0.8
        wishes.rollback()
        assert wishes.predict(rows[:1])[0].version == 1


@pytest.mark.parametrize("method", [EWC(50.0, rows=32), SI(5.0), MAS(5.0, rows=32)])
@pytest.mark.parametrize("other", [Personal(), Expand()])
@pytest.mark.parametrize("first", [True, False])
def test_importances_follow_the_weights_where_it_is_put_in_or_taken_out(
    method: Any, other: Any, first: bool
) -> None:
    def made(changed: bool) -> Any:
        learner: Any = TorchLearner(net, optimizer=fast, batch=20, encoder=PLAIN).make_learner(
            NUMBERS, classes=2
        )
        return method.wrap(other.wrap(learner) if changed else learner)

    one, after = made(first), made(not first)
    one.learn(users(100))
    one.settle()
    after.load(copied(one.save()))
    before, now = (learner._training.holders[-1] for learner in (one, after))
    moving = after._training.moving
    held = {name: tensor for name, tensor in now.importance.items() if name in moving}
    assert sum(len(t.flatten()) for t in held.values()) == 3 * 16 + 16 + 16 * 3 + 3
    for name, tensor in held.items():
        same = [old for old in before.importance if name.endswith(old) or old.endswith(name)]
        assert any(torch.equal(tensor, before.importance[old]) for old in same)
        assert torch.equal(now.anchor[name], moving[name].detach())
    after.learn(users(100, 1))
    after.settle()
