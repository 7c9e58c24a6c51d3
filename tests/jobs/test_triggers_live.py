"""Triggers over a real log: what they find, what is stored, and that one event makes one job."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.base import Decision, Json, StorageError
from everlearn.data.feedback import Label, LoggedPrediction, id_text
from everlearn.storage.schema import jobs as table
from everlearn.testing.database import temporary_schema
from everlearn.workspace import ModelHandle

SCHEMA = el.Schema(target="late", time="seen")
BASE = {"x": 0.0, "color": "red", "seen": "2024-01-01"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> str:
    x = np.random.default_rng(0).normal(size=300)
    rows = [f"{value:.4f},red,2024-01-01,{int(value > 0)}" for value in x]
    path = tmp_path_factory.mktemp("data") / "first.csv"
    path.write_text("\n".join(["x,color,seen,late", *rows]) + "\n")
    return str(path)


def made(folder: Path | str, first: str, *triggers: Any) -> ModelHandle:
    model = el.Model("m", learner="logistic", schema=SCHEMA, triggers=triggers)
    place = folder / "workspace" if isinstance(folder, Path) else folder
    handle = el.open(place).model(model)
    assert handle.train(first).version == 1
    return handle


class Traffic:
    """Logs answers and labels of a version that serves."""

    def __init__(self, handle: ModelHandle, seed: int = 0) -> None:
        self.handle, self.generator = handle, np.random.default_rng(seed)

    def answer(
        self, rows: int, shift: float = 0.0, color: str = "red", wrong: float | None = None
    ) -> list[int]:
        """Log answers; with labels, of which a share says that the answer was wrong."""
        version = self.handle.champion()
        assert version is not None
        ids = self.handle.workspace.ids.take(rows)
        features = [BASE | {"x": x, "color": color} for x in self.generator.normal(shift, 1, rows)]
        said = [int(row["x"] > 0) for row in features]
        log = self.handle.log
        log.append_predictions(
            [
                LoggedPrediction(
                    number, row, {"value": value, "probabilities": None}, version=version
                )
                for number, row, value in zip(ids, features, said, strict=True)
            ]
        )
        if wrong is not None:
            flips = self.generator.random(rows) < wrong
            log.append_labels(
                [
                    Label(abs(value - int(flip)), id_text(number))
                    for number, value, flip in zip(ids, said, flips, strict=True)
                ]
            )
        return ids


def decisions(handle: ModelHandle) -> list[Json]:
    return list(reversed(handle.workspace.updates.decisions("m")))


def fired(handle: ModelHandle) -> list[Json]:
    return [one for one in decisions(handle) if one["action"] == "learn"]


def carried_out(handle: ModelHandle) -> None:
    handle.workspace.work(once=True)


# --- performance ---


def test_answers_that_become_worse_are_found_once(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.Performance(window=200, worse_by=0.05))
    traffic = Traffic(handle)
    assert "insufficient data" in handle.trigger().reason
    for _ in range(4):
        traffic.answer(200, wrong=0.1)
        assert handle.trigger().action == "wait"
    traffic.answer(200, wrong=0.5)
    found = handle.trigger()
    assert found.action == "learn" and found.evidence["metric"] == "accuracy"
    assert 0.05 < found.evidence["at_least"] < 0.4
    assert "has not ended" in handle.trigger().reason
    carried_out(handle)
    assert handle.champion() == 2
    assert "insufficient data" in handle.trigger().reason
    assert len(fired(handle)) == 1 and fired(handle)[0]["job_id"] == found.evidence["job"]


def test_a_small_rise_is_no_reason(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.Performance(window=500, worse_by=0.3))
    traffic = Traffic(handle)
    traffic.answer(500, wrong=0.1)
    handle.trigger()
    traffic.answer(500, wrong=0.3)
    assert "not surely worse by 0.3" in handle.trigger().reason


def test_it_does_not_fire_again_before_another_champion_serves(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.Performance(window=100))
    traffic = Traffic(handle)
    traffic.answer(100, wrong=0.0)
    handle.trigger()
    traffic.answer(100, wrong=1.0)
    found = handle.trigger()
    assert found.action == "learn"
    handle.workspace.skip(found.evidence["job"])
    traffic.answer(100, wrong=1.0)
    assert "waits for the next one" in handle.trigger().reason
    assert len(fired(handle)) == 1


def test_corrected_labels_count_once(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.Performance(window=100))
    traffic = Traffic(handle)
    ids = traffic.answer(100, wrong=0.0)
    handle.log.append_labels([Label(None, id_text(number)) for number in ids[:20]])
    handle.log.append_labels([Label(1, id_text(number), source="b") for number in ids[20:40]])
    assert "80 of 100" in handle.trigger().reason


# --- drift ---


def test_a_feature_that_moves_is_found(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.Drift(window=200))
    traffic = Traffic(handle)
    traffic.answer(200, wrong=0.1)
    assert "insufficient data" in handle.trigger().reason
    for _ in range(3):
        traffic.answer(200, wrong=0.1)
        assert "none of 4 columns moved" in handle.trigger().reason
    traffic.answer(200, shift=3.0)
    found = handle.trigger()
    assert found.action == "learn" and "a change of the rule alone" in found.reason
    moved = [one["column"] for one in found.evidence["moved"]]
    assert moved[0] == "x" and "color" not in moved and "seen" not in moved


def test_categories_outputs_and_labels_move_too(tmp_path: Path, first: str) -> None:
    for n, (change, column) in enumerate(
        [({"color": "blue"}, "color"), ({"shift": -3.0}, "(output)"), ({"wrong": 1.0}, "(label)")]
    ):
        handle = made(tmp_path / str(n), first, el.Drift(window=200))
        traffic = Traffic(handle)
        traffic.answer(200, shift=1.0, wrong=0.0)
        handle.trigger()
        traffic.answer(200, **({"shift": 1.0, "wrong": 0.0} | change))
        found = handle.trigger()
        assert column in [one["column"] for one in found.evidence["moved"]]


def test_drift_does_not_see_a_changed_rule_and_performance_does(tmp_path: Path, first: str) -> None:
    blind, sees = el.Drift(window=200), el.Performance(window=200)
    handle = made(tmp_path, first, blind, sees)
    traffic = Traffic(handle)
    traffic.answer(200, wrong=0.0)
    handle.trigger()
    traffic.answer(200, wrong=0.5)  # half of the ones are zeros now, and the other way round
    assert "mean loss" in handle.trigger().reason
    (only,) = fired(handle)
    assert only["name"].startswith("Performance")


def test_drift_without_labels_waits_for_them(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.Drift(window=100, columns=["x"]))
    traffic = Traffic(handle)
    traffic.answer(100)
    handle.trigger()
    traffic.answer(100, shift=3.0)
    assert "no label is new" in handle.trigger().reason
    assert fired(handle) == []
    traffic.answer(5, wrong=0.0)
    assert handle.trigger().action == "learn"


# --- cost ---


def test_learning_waits_until_waiting_is_dearer(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.CostAware(1.0, label_hour=1e-9))
    assert handle.trigger().reason == "no label is new"
    Traffic(handle).answer(50, wrong=0.0)
    found = handle.trigger()
    assert found.action == "wait" and "learning costs" in found.reason
    dear = made(tmp_path / "dear", first, el.CostAware(1.0, label_hour=1e9))
    Traffic(dear).answer(50, wrong=0.0)
    assert dear.trigger().action == "learn"


def test_loss_beyond_the_reference_is_a_cost(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.CostAware(1.0, error=1.0, window=100))
    seconds = 3600.0 * 30.0
    with handle.workspace.database.write() as connection:
        end = table.c.started_at + int(seconds * 1e6)
        connection.execute(table.update().values(finished_at=end))
    traffic = Traffic(handle)
    for _ in range(3):
        traffic.answer(100, wrong=0.0)
        assert handle.trigger().action == "wait"
    traffic.answer(20, wrong=1.0)
    assert handle.trigger().reason == "waiting has cost 20, learning costs 30"
    traffic.answer(20, wrong=1.0)
    assert handle.trigger().action == "learn"


def test_for_nothing_it_learns_at_once(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.CostAware(training_hour=0.0))
    Traffic(handle).answer(1, wrong=0.0)
    assert handle.trigger().action == "learn"


# --- what is stored ---


def test_waits_are_stored_when_their_reason_changes(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, el.Volume(30), el.Volume(30))
    traffic = Traffic(handle)
    for _ in range(5):
        traffic.answer(5, wrong=0.0)
        handle.trigger()
    assert [one["name"] for one in decisions(handle)] == ["Volume(n=30)", "Volume(n=30) #2"]
    traffic.answer(5, wrong=0.0)
    job = handle.trigger().evidence["job"]
    both = fired(handle)
    assert [one["job_id"] for one in both] == [job, job]
    assert both[0]["evidence"]["labels"] == 30
    carried_out(handle)
    handle.trigger()
    handle.trigger()
    assert [one["action"] for one in decisions(handle)] == ["wait"] * 2 + ["learn"] * 2 + [
        "wait"
    ] * 2


class Told:
    """Fires whenever a file says so: for one event, as long as it does not remember it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def decide(self, facts: Any) -> Decision:
        event = Path(self.path).read_text()
        if event == facts.state.get("event", ""):
            return Decision("wait", "nothing happened")
        facts.state["event"] = event
        return Decision("learn", "it happened")

    def learn(self) -> None:
        """Marks the class as one that may stand in a definition."""


class Broken(Told):
    """Always fails."""

    def decide(self, facts: Any) -> Decision:
        raise ZeroDivisionError("division by zero")


def test_a_trigger_that_fails_does_not_silence_the_others(tmp_path: Path, first: str) -> None:
    handle = made(tmp_path, first, Broken(""), el.Volume(5))
    Traffic(handle).answer(4, wrong=0.0)
    assert "ZeroDivisionError" in handle.trigger().reason
    Traffic(handle).answer(4, wrong=0.0)
    assert handle.trigger().action == "learn"
    assert [one["name"] for one in decisions(handle)] == ["Broken", "Volume(n=5)", "Volume(n=5)"]


CHILD = """
import sys, everlearn as el
from tests.jobs.test_triggers_live import Told, SCHEMA
handle = el.open(sys.argv[1]).model(el.Model("m", learner="logistic", schema=SCHEMA,
    triggers=[Told(sys.argv[2])]))
print(handle.trigger().action)
"""


@pytest.mark.parametrize(
    ("point", "jobs"), [("trigger.decided", 0), ("trigger.queued", 0), ("trigger.fired", 1)]
)
def test_one_event_makes_one_job_whenever_the_process_is_killed(
    tmp_path: Path, first: str, point: str, jobs: int
) -> None:
    (tmp_path / "event").write_text("")
    handle = made(tmp_path, first, Told(str(tmp_path / "event")))
    Traffic(handle).answer(20, wrong=0.0)
    (tmp_path / "event").write_text("one")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "workspace"), str(tmp_path / "event")]
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "EVERLEARN_CRASH": point, "PYTHONPATH": f"{root}:{root / 'src'}"}
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(handle.workspace.queue.jobs("m")) == 1 + jobs
    assert len(fired(handle)) == jobs
    for _ in range(2):
        handle.trigger()
        carried_out(handle)
        Traffic(handle).answer(20, wrong=0.0)
    assert len(handle.workspace.queue.jobs("m")) == 2
    assert len(fired(handle)) == 1


def test_of_two_processes_that_see_one_event_one_fires(tmp_path: Path, first: str) -> None:
    (tmp_path / "event").write_text("")
    handle = made(tmp_path, first, Told(str(tmp_path / "event")))
    traffic = Traffic(handle)
    traffic.answer(20, wrong=0.0)
    (tmp_path / "event").write_text("one")
    updates = handle.workspace.updates
    asked, _ = updates._ask("m", handle.definition)
    assert handle.trigger().action == "learn"
    carried_out(handle)
    traffic.answer(20, wrong=0.0)
    with pytest.raises(el.ConflictError, match="another process"):
        updates._fire("m", handle.definition, asked, asked[0].decision)
    assert len(handle.workspace.queue.jobs("m")) == 2


def test_the_same_on_postgresql(tmp_path: Path, first: str) -> None:
    try:
        with temporary_schema() as url:
            triggers = [el.Drift(window=100), el.Performance(window=100)]
            triggers += [el.CostAware(1.0, label_hour=1e-9, error=1e-9, window=100)]
            handle = made(f"{url}&blobs={tmp_path / 'blobs'}", first, *triggers)
            traffic = Traffic(handle)
            for shift, wrong in ((0.0, 0.0), (0.0, 0.0), (3.0, 1.0)):
                traffic.answer(100, shift=shift, wrong=wrong)
                found = handle.trigger()
            assert found.action == "learn"
            assert [one["job_id"] for one in fired(handle)] == [found.evidence["job"]] * 2
            carried_out(handle)
            assert handle.champion() == 2 and handle.trigger().action == "wait"
            handle.workspace.close()
    except StorageError as error:
        pytest.skip(str(error))
