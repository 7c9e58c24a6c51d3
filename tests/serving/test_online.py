"""A served model that learns every label as it arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import everlearn as el
from everlearn.base import state_digest
from everlearn.data.compiler import compile_rows
from everlearn.jobs.online import KEPT, Online, Tail
from tests.serving.local import LocalClient as TestClient

URL = "/v1/models/m"


def until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


class Loop:
    """A workspace with a model that has learned that y is x > 0."""

    def __init__(
        self,
        folder: Path,
        learner: Any = None,
        strategy: Any = None,
        fields: dict[str, Any] | None = None,
        **online: Any,
    ) -> None:
        self.folder = folder
        learner = learner or el.learners.LogisticRegression(learning_rate=0.3)
        x = np.random.default_rng(0).normal(size=500)
        lines = ["x,y", *(f"{value:.4f},{int(value > 0)}" for value in x)]
        (folder / "first.csv").write_text("\n".join(lines) + "\n")
        self.workspace = el.open(folder / "workspace")
        self.model = el.Model(
            "m",
            learner=learner,
            schema=el.Schema(target="y"),
            strategy=strategy,
            triggers=[Online(**online)],
        ).replace(**(fields or {}))
        self.handle = self.workspace.model(self.model)
        self.handle.train(str(folder / "first.csv"))
        self.random = np.random.default_rng(1)

    def ask(self, client: TestClient, *x: float) -> list[dict[str, Any]]:
        body = {"instances": [{"x": float(value)} for value in x]}
        found: list[dict[str, Any]] = client.post(f"{URL}/predict", json=body).json()["predictions"]
        return found

    def say(self, client: TestClient, rows: list[dict[str, Any]], *values: Any) -> int:
        labels = [
            {"prediction_id": row["id"], "value": value}
            for row, value in zip(rows, values, strict=True)
        ]
        given = client.post(f"{URL}/feedback", json={"labels": labels}).json()["labels"]
        return max(item["position"] for item in given)

    def teach(self, client: TestClient, rows: int, turned: bool = False) -> int:
        """Ask and answer; the position of the last label."""
        x = self.random.normal(size=rows)
        return self.say(client, self.ask(client, *x), *(int((v > 0) != turned) for v in x))

    def tails(self, *loaded: Tail, steps: Sequence[int] = (1, 7, 1000)) -> set[str]:
        """The states in which tails of version 1 end: those that were loaded before, and others
        that look at the log in other steps."""
        registry, log = self.workspace.registry, self.workspace.updates.log("m")
        version = registry.version("m", 1)
        tails = [*loaded, *(Tail.load(registry, "m", version, log, 0) for _ in steps)]
        for tail, step in zip(tails[::-1], [*steps, 40], strict=False):
            tail.careful = True
            while tail.position < log.head():
                tail.fold_in(min(log.head(), tail.position + step))
        return {state_digest(tail.state()) for tail in tails}

    def fresh(self) -> Tail:
        """A tail of version 1 that has learned nothing."""
        registry, log = self.workspace.registry, self.workspace.updates.log("m")
        return Tail.load(registry, "m", registry.version("m", 1), log, 0)

    def position(self, client: TestClient) -> int:
        (row,) = self.ask(client, 0.1)
        return int(row.get("position", -1))


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., Loop]]:
    made: list[Loop] = []

    def make(learner: Any = None, **online: Any) -> Loop:
        made.append(Loop(tmp_path, learner, **online))
        return made[-1]

    yield make
    for one in made:
        one.workspace.close()


def test_the_first_answer_of_a_server_has_what_was_learned_online(
    loop: Callable[..., Loop],
) -> None:
    it = loop(margin=10.0)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        last = it.teach(client, 20)
        assert until(lambda: it.position(client) == last)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        assert it.position(client) == last


def test_every_label_is_learned_by_what_answers_next(loop: Callable[..., Loop]) -> None:
    it = loop()
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        assert it.ask(client, 2.0)[0]["output"] == 1
        for _ in range(4):
            last = it.teach(client, 100, turned=True)
        assert until(lambda: it.position(client) == last)
        assert it.ask(client, 2.0)[0]["output"] == 0
        assert client.get(URL).json()["champion"] == 1


def test_a_numbered_version_is_cut_and_a_restart_ends_where_it_was(
    loop: Callable[..., Loop],
) -> None:
    it = loop(rows=50, margin=10.0)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        for _ in range(3):
            it.teach(client, 40, turned=True)
        assert until(lambda: client.get(URL).json()["champion"] == 2)
        last = it.teach(client, 7, turned=True)
        assert until(lambda: it.position(client) == last)
        before = it.ask(client, 0.7, -0.3)
    version = it.workspace.registry.version("m", 2)
    (increment,) = version.increments
    assert increment.stop - increment.start >= 50
    assert increment.rows + increment.held_out == increment.stop - increment.start
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        assert until(lambda: it.position(client) == last)
        after = it.ask(client, 0.7, -0.3)
    assert [row["probabilities"] for row in after] == [row["probabilities"] for row in before]


def test_a_tail_does_not_depend_on_when_it_looked_nor_on_what_it_kept(
    loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = loop()
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        x = it.random.normal(size=60)
        rows = it.ask(client, *x)
        it.say(client, rows, *(int(v > 0) for v in x))
        it.say(client, rows[:20], *([1, 0, None, 1] * 5))  # corrected, and taken back
        it.say(client, rows[10:15], *[0, 1, 0, 1, 0])
    log = it.workspace.updates.log("m")
    version = it.workspace.registry.champion("m")
    digests = set()
    for step, kept in ((1, KEPT), (7, 0), (7, 20_000), (1000, KEPT)):
        monkeypatch.setattr("everlearn.jobs.online.KEPT", kept)
        tail = Tail.load(it.workspace.registry, "m", version, log, 0)
        while tail.position < log.head():
            tail.fold_in(min(log.head(), tail.position + step))
        (increment,) = tail.increments(it.workspace.blobs)
        assert increment.set_aside >= 5
        total = increment.rows + increment.held_out + increment.set_aside + increment.duplicates
        assert total == log.head()
        digests.add((state_digest(tail.state()), increment.digest))
    assert len(digests) == 1


def test_how_ids_are_stored_does_not_depend_on_when_a_tail_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everlearn.data.ids._RUN", 16)  # of 65,536
    (tmp_path / "first.csv").write_text("order,x,y\n" + "a,1.0,1\nb,-1.0,0\n" * 5)
    with el.open(tmp_path / "workspace") as workspace:
        schema = el.Schema(target="y", id="order")
        handle = workspace.model(
            el.Model("m", learner="logistic", schema=schema, triggers=[Online()])
        )
        handle.train(str(tmp_path / "first.csv"))
        x = np.random.default_rng(0).normal(size=50)
        given = handle.predict([{"x": float(v)} for v in x], ids=[f"o-{n}" for n in range(50)])
        for row, value in zip(given, x, strict=True):
            handle.feedback(row.id, int(value > 0))
        log, version = workspace.updates.log("m"), workspace.registry.version("m", 1)
        states = set()
        for step in (1, 7, 50):
            tail = Tail.load(workspace.registry, "m", version, log, 0)
            while tail.position < 50:
                tail.fold_in(min(50, tail.position + step))
            states.add(state_digest(tail.state()))
    assert len(states) == 1


def test_what_was_erased_after_it_was_learned_is_in_no_increment(
    loop: Callable[..., Loop],
) -> None:
    it = loop()
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        body = {"instances": [{"x": 0.5}, {"x": 0.7}], "keys": ["gone", "stays"]}
        asked = client.post(f"{URL}/predict", json=body).json()["predictions"]
        it.say(client, asked, 1, 1)
    version = it.workspace.registry.champion("m")
    tail = Tail.load(it.workspace.registry, "m", version, it.workspace.updates.log("m"), 0)
    tail.fold_in(2)
    it.workspace.erase("m", "gone")
    (increment,) = tail.increments(it.workspace.blobs)
    (piece,) = increment.slice["options"]["pieces"]
    table = pa.ipc.open_file(it.workspace.blobs.get(piece["blob"])).read_all()
    assert table.column("x").to_pylist() == [None, 0.7]


def test_the_guard_returns_to_the_last_version_and_holds_what_did_harm(
    loop: Callable[..., Loop],
) -> None:
    it = loop(el.learners.LinearSVM(learning_rate=3.0), margin=0.05, rows=100_000)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        for _ in range(40):  # a quarter of the labels is wrong: who follows each of them errs more
            x = it.random.normal(size=50)
            wrong = it.random.random(50) < 0.25
            last = it.say(client, it.ask(client, *x), *(((x > 0) != wrong).astype(int).tolist()))
            until(lambda last=last: it.position(client) in (last, -1), 2.0)
            if len(it.workspace.registry.versions("m")) > 1:
                break
        versions = until(lambda: it.workspace.registry.versions("m")[1:])
        assert versions
        assert versions[0].decision.action == "refuse"
        assert client.get(URL).json()["champion"] == 1
        assert it.workspace.registry.on_hold("m")
        log = it.workspace.updates.log("m")
        assert until(lambda: it.position(client) == log.head())
        x = np.linspace(-2.0, 2.0, 41)
        found = [row["output"] for row in it.ask(client, *x)]
    version = it.workspace.registry.version("m", 1)
    expected = Tail.load(it.workspace.registry, "m", version, log, versions[0].increments[0].stop)
    expected.fold_in(log.head())
    rows = [{"x": float(value)} for value in x]
    batch = compile_rows(rows, expected.fold.columns)
    assert found == expected.fold.decode(expected.fold.predict(batch).value).tolist()


def test_what_answers_is_not_touched_when_a_version_is_cut(
    loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = loop(rows=20, margin=10.0)
    app = it.workspace.app(["m"], learn=False)
    real, answering = Tail.cut, list[bool]()

    def cut(tail: Tail) -> None:
        answering.append(app.state.models.predictor("m").served.fold is tail.fold)
        real(tail)

    monkeypatch.setattr(Tail, "cut", cut)
    with TestClient(app) as client:
        it.teach(client, 30)
        assert until(lambda: client.get(URL).json()["serving"]["version"] == 2)
        last = it.teach(client, 5)
        assert until(lambda: it.position(client) == last)
    assert answering == [False, False]


def test_two_servers_answer_alike_and_one_cuts(loop: Callable[..., Loop]) -> None:
    it = loop(rows=60, margin=10.0)
    other = el.open(it.folder / "workspace")
    with (
        TestClient(it.workspace.app(["m"], learn=False)) as first,
        TestClient(other.app(["m"], learn=False)) as second,
    ):
        last = 0
        for _ in range(4):
            last = it.teach(first, 40)
        for client in (first, second):
            assert until(lambda client=client: it.position(client) == last)
        for _ in range(50):  # also while one follows what the other cuts
            ours, theirs = it.ask(first, 0.3, -2.0), it.ask(second, 0.3, -2.0)
            assert {row["position"] for row in ours + theirs} == {last}
        assert [row["probabilities"] for row in ours] == [row["probabilities"] for row in theirs]
        found = it.workspace.registry.versions("m")
        assert [version.parent for version in found[1:]] == [v.number for v in found[:-1]]
        stops = [version.increments[0].stop for version in found[1:]]
        assert stops == sorted(set(stops))
    other.close()


def test_a_rollback_is_obeyed_and_its_labels_are_not_learned_again(
    loop: Callable[..., Loop],
) -> None:
    it = loop(rows=30, margin=10.0)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 200, turned=True)
        assert until(lambda: client.get(URL).json()["champion"] != 1)
        assert until(lambda: it.workspace.updates.unlearned("m") == 0 or it.teach(client, 31) < 0)
        client.post(f"{URL}/rollback", json={"to": 1})
        assert until(lambda: it.ask(client, 2.0)[0]["output"] == 1)
        assert it.ask(client, 2.0)[0]["version"] == 1
