"""Several processes on one SQLite workspace: none is told that the database is locked."""

from __future__ import annotations

import threading
from pathlib import Path

import everlearn as el
from tests.jobs.checks import COUNTS, check_ended, check_loads
from tests.jobs.conftest import Uninterrupted
from tests.jobs.driver import Driver
from tests.jobs.scenarios import ROWS

FOUR = ("plain", "reservoir", "passes", "gate")


def test_four_models_learn_at_once_while_others_read(
    driver: Driver, files: list[str], uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    expected = {model: uninterrupted(model)[0] for model in FOUR}
    workspace = tmp_path / "workspace"
    runs = {
        model: driver.start(workspace=str(workspace), model=model, files=files, checkpoint_rows=25)
        for model in FOUR
    }
    done, troubles, read = threading.Event(), [], [0, 0]

    def reader(number: int) -> None:
        try:
            while not done.is_set():
                with el.open(workspace) as ws:
                    for model in ws.registry.models():
                        handle = ws.model(model)
                        champion = handle.champion()
                        if champion is not None:
                            check_loads(ws, model, champion)
                            read[number] += 1
                    ws.jobs()
        except Exception as error:
            troubles.append(error)

    readers = [threading.Thread(target=reader, args=(number,)) for number in (0, 1)]
    for thread in readers:
        thread.start()
    ended = {model: driver.wait(pid) for model, pid in runs.items()}
    done.set()
    for thread in readers:
        thread.join()
    assert not troubles
    assert min(read) > 0
    for model in FOUR:
        assert ended[model].error is None
        check_ended(workspace, model, expected[model], [ROWS, ROWS // 2])


def test_several_workers_share_a_queue(
    driver: Driver, files: list[str], uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    for model in FOUR:
        driver.run(workspace=str(workspace), model=model, files=files[:1], task="plan")
    workers = [driver.start(workspace=str(workspace), files=[], task="worker") for _ in range(3)]
    results = [item for pid in workers for item in driver.wait(pid).results]
    assert sorted(item["job"] for item in results) == [1, 2, 3, 4]
    assert all(item["error"] is None for item in results)
    with el.open(workspace) as ws:
        for model in FOUR:
            [version] = ws.model(model).versions()
            assert version["state_digest"] == uninterrupted(model)[0][0]["state_digest"]


def test_the_same_files_trained_by_several_processes_are_learned_once(
    driver: Driver, files: list[str], uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    runs = [
        driver.start(workspace=str(workspace), model="reservoir", files=files) for _ in range(4)
    ]
    ended = [driver.wait(pid) for pid in runs]
    assert [item.error for item in ended] == [None] * 4
    check_ended(workspace, "reservoir", uninterrupted("reservoir")[0], [ROWS, ROWS // 2])


def test_different_files_trained_by_several_processes_are_all_learned(
    driver: Driver, files: list[str], tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    runs = [driver.start(workspace=str(workspace), model="plain", files=[file]) for file in files]
    assert [driver.wait(pid).error for pid in runs] == [None] * 2
    with el.open(workspace) as ws:
        versions = ws.model("plain").versions()
        assert [item["parent"] for item in versions] == [None, 1]
        learned = [item for version in versions for item in version["increments"]]
        assert sorted(item["stop"] for item in learned) == [ROWS // 2, ROWS]
        assert sum(item[name] for item in learned for name in COUNTS) == ROWS + ROWS // 2
        assert ws.model("plain").champion() == 2
