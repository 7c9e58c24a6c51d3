"""What was withdrawn is not learned: by jobs over files and over the log, and label by label."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.base import ConflictError, state_digest
from everlearn.data.feedback import Label, LoggedPrediction, id_text
from everlearn.data.resettle import unlearned
from everlearn.data.slices import Slice
from everlearn.data.source import open_sources
from everlearn.data.withdrawals import WithdrawnRows, store
from everlearn.jobs.online import Online, Tail
from everlearn.jobs.plan import Request
from everlearn.strategies.replay import Replay

SAID = [(k % 17, ("desk", "bot", "human")[k % 3], (k // 5) % 2) for k in range(60)]
"""(prediction, source, value) of labels; most predictions are judged more than once."""

HONEST = [said for said in SAID if said[1] != "bot"]


class Made:
    """A workspace with a model that learned a file, and a log with predictions and labels."""

    def __init__(self, folder: Path, *triggers: Any) -> None:
        folder.mkdir()
        x = np.random.default_rng(0).normal(size=60)
        lines = ["x,number,y", *(f"{v:.4f},{k},{int(v > 0)}" for k, v in enumerate(x))]
        self.path = folder / "first.csv"
        self.path.write_text("\n".join(lines) + "\n")
        self.workspace = el.open(folder / "workspace")
        model = el.Model(
            "m",
            learner=el.learners.LogisticRegression(learning_rate=0.3),
            schema=el.Schema(target="y", id="number"),
            strategy=el.Strategy(memory=Replay(20), chunk=7),
            triggers=triggers,
            gate=None,
            holdout=0.2,
        )
        self.handle = self.workspace.model(model)
        self.handle.train(str(self.path))
        self.log = self.workspace.updates.log("m")

    def hear(self, said: list[tuple[int, str, int]], first: int = 0) -> None:
        if not first:
            asked = [
                LoggedPrediction(1000 + k, {"x": k / 10 - 0.8}, {"value": 0}) for k in range(17)
            ]
            self.log.append_predictions(asked)
        for number, (place, source, value) in enumerate(said, start=first):
            label = Label(value, id_text(1000 + place), source=source, at=number)
            self.log.append_labels([label])

    def withdraw(self, part: Slice, rows: Any) -> None:
        blobs = self.workspace.registry.parts.blobs
        place = WithdrawnRows.of(part, rows, blobs)
        with self.log.database.write() as connection:
            store(connection, self.log.model, {}, "poisoned", [place], rows=len(rows))

    def positions(self, source: str) -> list[int]:
        return [label.position for label in self.log.read() if label.source == source]

    def digest(self, number: int) -> str:
        return self.workspace.registry.version("m", number).state_digest


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as open_ones:

        def make(name: str, *triggers: Any) -> Made:
            one = Made(tmp_path / name, *triggers)
            open_ones.callback(one.workspace.close)
            return one

        yield make


def test_labels_that_were_withdrawn_are_not_learned_online(made: Any) -> None:
    one, other = made("a", Online()), made("b", Online())
    one.hear(SAID)
    other.hear(HONEST)
    one.withdraw(unlearned(one.log, 0), one.positions("bot"))
    digests = set()
    for it, steps in ((one, (1, 7, 60)), (other, (60,))):
        for step in steps:
            version = it.workspace.registry.version("m", 1)
            tail = Tail.load(it.workspace.registry, "m", version, it.log, 0)
            while tail.position < it.log.head():
                tail.fold_in(min(it.log.head(), tail.position + step))
            digests.add(state_digest(tail.state()))
    assert len(digests) == 1


def test_labels_that_were_withdrawn_are_not_learned_by_jobs(made: Any) -> None:
    one, other = made("a"), made("b")
    one.hear(SAID[:30])
    other.hear([said for said in SAID[:30] if said[1] != "bot"])
    one.withdraw(unlearned(one.log, 0), one.positions("bot"))
    results = [it.handle.update() for it in (one, other)]
    assert [result.version for result in results] == [2, 2]
    assert one.digest(2) == other.digest(2)
    (increment,) = one.workspace.registry.version("m", 2).increments
    assert increment.reasons["set_aside"]["withdrawn"] == len(one.positions("bot"))


def test_a_file_is_learned_again_without_the_rows_that_were_withdrawn(made: Any) -> None:
    one, other = made("a"), made("b")
    (part,) = [source.slice(again=True) for source in open_sources(str(one.path))]
    one.withdraw(part, [3, 30, 4])
    lines = other.path.read_text().splitlines()
    lines = [line for k, line in enumerate(lines) if k - 1 not in (3, 4, 30)]
    other.path.write_text("\n".join(lines) + "\n")
    for it in (one, other):
        assert it.handle.train(str(it.path), again=True).version == 2
    assert one.digest(2) == other.digest(2)
    (increment,) = one.workspace.registry.version("m", 2).increments
    assert increment.reasons["set_aside"] == {"withdrawn": 3}
    assert (increment.start, increment.stop) == (0, 60)


def test_a_plan_that_was_made_while_rows_were_withdrawn_is_made_anew(made: Any) -> None:
    one = made("a")
    (source,) = open_sources(str(one.path))

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(source, name)

        def slice(self, *args: Any) -> Any:
            part = source.slice(again=True)
            one.withdraw(part, [1])
            return part

    request = Request(str(one.path), again=True)
    planner = one.workspace.planner
    with pytest.raises(ConflictError, match="was changed while a job was planned"):
        planner.plan("m", 1, request, [Slow()])
