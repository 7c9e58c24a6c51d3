"""Learning again what has an id, jobs tried again by hand, and what checkpoints leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

import everlearn as el
from everlearn.base import ConflictError, NotFoundError, StorageError
from everlearn.jobs.checkpoint import Pace, is_lasting
from everlearn.jobs.processes import is_gone, worker_name
from everlearn.jobs.queue import MAX_ATTEMPTS
from everlearn.storage.blobs import FolderBlobs


def write(path: Path, n: int, seed: int, first_id: int = 0) -> str:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)).round(4)
    lines = [f"{first_id + i},{a},{b},{int(a > b)}\n" for i, (a, b) in enumerate(x.tolist())]
    path.write_text("id,a,b,y\n" + "".join(lines))
    return str(path)


def model(**changes: object) -> el.Model:
    given: dict[str, object] = {
        "learner": SGDClassifier(loss="log_loss", random_state=0),
        "schema": el.Schema(target="y", id="id"),
        "strategy": el.Strategy(memory=el.Everything(), chunk=50),
    }
    return el.Model("m", **(given | changes))  # type: ignore[arg-type]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as opened:
        yield opened


def test_rows_with_ids_are_learned_again_when_asked_for(ws: el.Workspace, tmp_path: Path) -> None:
    handle = ws.model(model())
    file = write(tmp_path / "a.csv", 300, seed=0)
    [first] = handle.train(file).increments
    [again] = handle.train(file, again=True).increments
    counts = ("rows", "held_out", "duplicates")
    assert [again[name] for name in counts] == [first[name] for name in counts]
    assert again["rows"] > 250
    overlap = write(tmp_path / "b.csv", 200, seed=1, first_id=200)  # 100 of its ids are known
    [third] = handle.train(overlap).increments
    assert third["duplicates"] == 100
    seen = handle.load().others
    assert sum(len(part.arrays["ids"]) for part in seen.values()) == 400


def test_an_id_that_stands_twice_is_a_duplicate_also_when_learned_again(
    ws: el.Workspace, tmp_path: Path
) -> None:
    handle = ws.model(model())
    files = [write(tmp_path / "a.csv", 100, 0), write(tmp_path / "b.csv", 100, 1, first_id=50)]
    handle.train(files[0])
    result = handle.train(files, again=True)
    assert [item["duplicates"] for item in result.increments] == [0, 50]


def test_a_checkpoint_neither_reads_nor_writes_what_the_base_has(
    ws: el.Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = el.Strategy(memory=el.Reservoir(20_000, ratio=0.0), chunk=50)
    ws.model(model(strategy=calm)).train(write(tmp_path / "a.csv", 20_000, seed=0))
    ws.close()
    written: list[str] = []
    put = FolderBlobs.put

    def noting(self: FolderBlobs, data: bytes) -> str:
        written.append(put(self, data))
        return written[-1]

    monkeypatch.setattr(FolderBlobs, "put", noting)
    with el.open(tmp_path / "workspace") as again:
        again.runner.pace = lambda: Pace(rows=100)
        again.model("m").train(write(tmp_path / "b.csv", 400, seed=1, first_id=50_000))
        base = again.registry.version("m", 1).manifest
    blocks = {entry["blob"] for name, entry in base.items() if is_lasting(f"fold/{name}")}
    assert blocks and not blocks & set(written)


def test_a_job_that_has_its_version_is_only_promoted_when_retried(
    ws: el.Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = ws.model(model())
    number = handle.plan(write(tmp_path / "a.csv", 200, seed=0))
    assert isinstance(number, int)

    def away(*_: object) -> None:
        raise StorageError("the network is away")

    with monkeypatch.context() as patch:
        patch.setattr(ws.queue, "finish", away)
        for _ in range(MAX_ATTEMPTS):
            with pytest.raises(StorageError, match="away"):
                ws.run(number)
    assert (ws.job(number).state, ws.job(number).version) == ("dead", 1)
    ws.retry(number)
    assert ws.job(number).state == "committed"
    assert ws.run(number).decision.action == "promote"
    assert [item["number"] for item in handle.versions()] == [1]


def test_a_job_is_not_retried_beside_another_of_its_model(ws: el.Workspace, tmp_path: Path) -> None:
    handle = ws.model(model())
    first = handle.plan(write(tmp_path / "a.csv", 200, seed=0))
    assert isinstance(first, int)
    ws.skip(first)
    second = handle.plan(write(tmp_path / "b.csv", 200, seed=1, first_id=1000))
    with pytest.raises(ConflictError, match=f"before job {second}"):
        ws.retry(first)
    assert ws.work(once=True) == 1
    ws.retry(first)
    assert ws.job(first).state == "queued"


def test_there_is_no_version_0_to_predict_with(ws: el.Workspace, tmp_path: Path) -> None:
    handle = ws.model(model())
    handle.train(write(tmp_path / "a.csv", 200, seed=0))
    with pytest.raises(NotFoundError, match="no version 0"):
        handle.predict({"a": 1.0, "b": 0.0}, version=0)


def test_only_a_process_of_this_very_machine_is_known_to_have_ended() -> None:
    machine, pid, started = worker_name().rsplit(":", 2)
    assert not is_gone(worker_name())
    assert is_gone(f"{machine}:{pid}:{int(started or 0) + 1}")
    assert not is_gone(f"{machine}-beside:{pid}:1")
