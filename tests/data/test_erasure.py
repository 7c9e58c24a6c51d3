"""Erasure of one key's data: nothing of it is left in database, blobs, memory or hold-outs."""

import json
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

import everlearn as el
from everlearn.base import ConflictError, NotFoundError, StorageError
from everlearn.data.compaction import Bounds, compact
from everlearn.data.erasure import erase, find
from everlearn.data.feedback import ERASED, ERASED_DATA, Label, LoggedPrediction, id_text
from everlearn.data.hashing import hash_texts
from everlearn.data.segments import File
from everlearn.jobs.queue import OPEN
from everlearn.registry.retention import collect, drop
from everlearn.storage.blobs import FolderBlobs
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore
from everlearn.storage.schema import audit, jobs, labels, metadata, stream_set_aside
from everlearn.testing.database import temporary_schema
from everlearn.workspace import Workspace
from everlearn.workspace import open as open_workspace
from tests.data.killed import killer
from tests.serving.local import LocalClient

SECRET = "ann-secret-key"
TOLD = "told-by-ann"
NUMBER = 4711.125

SPEC = """
import everlearn as el

model = el.Model(
    "m",
    schema=el.Schema(target="y", id="id", key="person"),
    learner=el.learners.LogisticRegression(),
    strategy=el.Strategy(memory=el.Reservoir(100)),
    holdout=0.2,
)
"""

NETWORK = """
import torch, everlearn as el

model = el.Model(
    "m",
    schema=el.Schema(target="y", id="id", key="person"),
    learner=el.learners.TorchLearner(
        torch.nn.LazyLinear(2),
        encoder=el.learners.Encoder(numbers="as_is", categories="drop"),
        batch=10,
    ),
    strategy=el.Strategy(retention=el.strategies.RETENTION),
    holdout=0,
)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    blobs = FolderBlobs(tmp_path / "blobs")
    (tmp_path / "m.py").write_text(SPEC)
    if request.param == "sqlite":
        with Workspace(Database.open(f"sqlite:///{tmp_path}/workspace.db"), blobs) as opened:
            yield opened
        return
    try:
        with temporary_schema() as url, closing(Database.open(url)) as database:
            yield Workspace(database, blobs)
    except StorageError as error:
        pytest.skip(str(error))


def ask(
    handle: Any, rows: int, mine: range = range(0), more: dict[str, Any] | None = None
) -> list[str]:
    """Predictions of which some are of the key; their ids, all labelled."""
    numbers = handle.workspace.ids.take(rows)
    asked = []
    for place, number in enumerate(numbers):
        is_mine = place in mine
        features = {"x": NUMBER if is_mine else float(place % 7), "c": TOLD if is_mine else "a"}
        features |= more or {}
        key = SECRET if is_mine else f"person {place}"
        asked.append(LoggedPrediction(number, features, {"value": TOLD if is_mine else 0}, key=key))
    handle.log.append_predictions(asked)
    ids = [id_text(number) for number in numbers]
    handle.log.append_labels(
        [Label(place % 2, one, idempotency_key=f"k-{one}") for place, one in enumerate(ids)]
    )
    return ids


def leftovers(workspace: Workspace) -> list[str]:
    """Where something of the key's data still is."""
    secrets = [text.encode() for text in (SECRET, TOLD, str(NUMBER))]
    found = []
    with workspace.database.read() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                text = json.dumps([str(value) for value in row]).encode()
                found += [table.name for secret in secrets if secret in text]
    for info in workspace.blobs.list():
        data = workspace.blobs.get(info.digest)
        if data[:4] == b"PAR1":
            data = json.dumps(File(data).table().to_pylist()).encode()
        found += [info.digest for secret in (*secrets, struct.pack("<d", NUMBER)) if secret in data]
    return found


def test_nothing_is_left_and_what_learned_is_listed(workspace: Workspace, tmp_path: Path) -> None:
    handle = workspace.model(tmp_path / "m.py")
    first = ask(handle, 60, range(10, 20))
    assert handle.update().version == 1
    ask(handle, 60)
    assert handle.update().version == 2
    ask(handle, 40, range(3))
    assert leftovers(workspace)
    report = workspace.erase("m", SECRET, refold=False)
    assert leftovers(workspace) == []
    assert (report["predictions"], report["labels"]) == (13, 13)
    learned = [(one["version"], one["rows"], one["serves"]) for one in report["learned_from_it"]]
    assert learned == [(1, 10, True)]
    assert report["no_longer_loadable"] == [1, 2] and report["version"] == 3
    assert handle.champion() == 3
    with pytest.raises(NotFoundError):
        handle.load(2)
    (answer,) = handle.predict([{"x": 1.0, "c": "a"}], log=False)  # type: ignore[misc]
    assert answer.version == 3
    assert handle.log.head() == 160, "positions stay"
    gone = [row for row in handle.log.read() if row.prediction.arm == ERASED]
    assert len(gone) == 13 and {row.value for row in gone} == {None}
    assert handle.update().version == 4, "the next increment goes on from there"
    fresh = workspace.registry.version("m", 4).increments[0]
    assert fresh.reasons["set_aside"][ERASED_DATA] == 3
    again = handle.log.append_labels([Label(0, first[10], idempotency_key=f"k-{first[10]}")])
    assert again[0].state == "known", "its idempotency key is still recognised"
    late = handle.log.append_labels([Label(TOLD, first[11], source="late")])
    assert late[0].position == 161 and leftovers(workspace) == []
    with workspace.database.read() as connection:
        (entry,) = connection.execute(sa.select(audit)).mappings()
    assert (entry["action"], entry["detail"]["digest"]) == ("erase", report["digest"])
    second = workspace.erase("m", SECRET, refold=False)
    assert (second["predictions"], second["version"], second["learned_from_it"]) == (0, None, [])


@pytest.mark.parametrize("retention", ["DarkReplay(50)", "AGEM(50)"])
def test_rows_that_a_network_holds_are_forgotten(tmp_path: Path, retention: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is needed")
    (tmp_path / "m.py").write_text(NETWORK.replace("RETENTION", retention))
    number = struct.pack("<f", NUMBER)
    with open_workspace(tmp_path / "ws") as workspace:
        handle = workspace.model(tmp_path / "m.py")
        ask(handle, 40, range(10, 20))
        assert handle.update().version == 1
        ask(handle, 20)
        assert handle.update().version == 2
        blobs = workspace.blobs
        assert any(number in blobs.get(info.digest) for info in blobs.list())
        assert workspace.erase("m", SECRET, refold=False)["no_longer_loadable"] == [1, 2]
        assert not any(number in blobs.get(info.digest) for info in blobs.list())
        assert leftovers(workspace) == []
        ask(handle, 20)
        assert handle.update().version == 4
        assert workspace.erase("m", "person 3", refold=False)["no_longer_loadable"] == [4]


def test_an_adapter_of_the_keys_own_is_forgotten(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is needed")
    spec = NETWORK.replace(
        "retention=el.strategies.RETENTION", "adaptation=el.strategies.Personal()"
    )
    (tmp_path / "m.py").write_text(spec)
    with open_workspace(tmp_path / "ws") as workspace:
        handle = workspace.model(tmp_path / "m.py")
        ask(handle, 40, range(10, 20))
        assert handle.update().version == 1
        assert workspace.erase("m", SECRET, refold=False)["no_longer_loadable"] == [1]
        state = workspace.registry.state("m", workspace.registry.version("m", 2))
        whose = state["learner/change/keys"].arrays["keys"]
        erased, other = hash_texts(pa.array([SECRET, "person 3"]))
        assert erased not in whose
        assert other in whose


def test_what_waits_and_was_set_aside_is_erased_where_it_names_the_key(
    workspace: Workspace, tmp_path: Path
) -> None:
    handle = workspace.model(tmp_path / "m.py")
    ask(handle, 5)
    waiting = [
        Label(TOLD, external_id=SECRET, reviewer=SECRET, idempotency_key="k-1"),
        Label(TOLD, external_id=SECRET, source="desk"),
        Label(1, external_id="of somebody"),
    ]
    handle.log.append_labels(waiting)
    bodies = {
        "a": json.dumps({"type": "prediction", "key": SECRET, "features": TOLD}),
        "b": json.dumps({"type": "label", "external_id": SECRET}),
        "c": f"no JSON of {SECRET}",
        "d": json.dumps({"type": "prediction", "key": "another", "features": 1}),
    }
    with workspace.database.write() as connection:
        for name, body in bodies.items():
            what = {"stream": "s", "partition": 0, "digest": name, "reason": "", "body": body}
            row = {"model_id": handle.log.model, "count": 1, "at": 0, **what}
            connection.execute(sa.insert(stream_set_aside).values(row))
    assert leftovers(workspace)
    report = workspace.erase("m", SECRET, refold=False)
    assert (report["predictions"], report["waiting"], report["set_aside"]) == (0, 2, 3)
    assert leftovers(workspace) == []
    with workspace.database.read() as connection:
        waits = sa.select(labels.c.external_id).where(labels.c.position.is_(None))
        assert set(connection.execute(waits).scalars()) == {None, "of somebody"}
    assert handle.log.append_labels(waiting[:1])[0].state == "known", "said again, it stays erased"
    assert workspace.erase("m", SECRET, refold=False)["waiting"] == 0


def test_archived_rows_are_erased_too(workspace: Workspace, tmp_path: Path) -> None:
    handle = workspace.model(tmp_path / "m.py")
    ids = ask(handle, 60, range(10, 20))
    assert handle.update().version == 1
    others = [row for row in handle.log.read() if row.prediction.key != SECRET]
    assert workspace.compact("m", older_than="0s")["m"]["labels"] == 59
    report = workspace.erase("m", SECRET, refold=False)
    assert leftovers(workspace) == []
    assert (report["predictions"], report["labels"], report["archived_files"]) == (10, 10, 2)
    rows = list(handle.log.read())
    assert len(rows) == 60 and [row for row in rows if row.prediction.arm != ERASED] == others
    receipts = handle.log.append_labels([Label(TOLD, ids[12], source="late")])
    assert receipts[0].position == 61 and leftovers(workspace) == []


def test_labels_that_are_archived_meanwhile_are_erased_too(
    workspace: Workspace, tmp_path: Path
) -> None:
    handle = workspace.model(tmp_path / "m.py")
    ids = ask(handle, 60, range(10, 20))
    assert handle.update().version == 1
    workspace.compact("m", older_than="0s")
    handle.log.append_labels([Label(TOLD, one, source="late") for one in ids[12:15]])
    ask(handle, 1)
    with workspace.database.read() as connection:
        found = find(handle.log, connection, SECRET, workspace.blobs)
    compact(handle.log, workspace.blobs, Bounds(workspace.database.clock() + 1, 63))
    with pytest.raises(ConflictError, match="archived"), workspace.database.write() as connection:
        erase(handle.log, connection, SECRET, found)
    assert workspace.erase("m", SECRET, refold=False)["labels"] == 13
    assert leftovers(workspace) == []


def test_a_version_whose_state_was_removed_hides_no_rows(
    workspace: Workspace, tmp_path: Path
) -> None:
    scratch = SPEC.replace("Strategy(", 'Strategy(start="scratch", ')
    (tmp_path / "m.py").write_text(scratch)
    handle = workspace.model(tmp_path / "m.py")
    rows = [{"id": f"r{n}", "x": float(n % 7), "c": "a", "y": n % 2} for n in range(60)]
    of_key = {"x": NUMBER, "c": TOLD, "person": SECRET}
    handle.train([row | (of_key if n < 10 else {"person": "bo"}) for n, row in enumerate(rows)])
    ask(handle, 60, more={"z": 1.0})
    assert handle.update().version == 2
    handle.promote(2)
    with workspace.database.write() as connection:
        drop(connection, "m", 1)
    collect(workspace.database, workspace.blobs, grace=0.0, exclusive=True)
    fresh = Workspace(workspace.database, workspace.blobs)  # with no part in memory
    assert not fresh.blobs.has(fresh.registry.version("m", 1).manifest["columns"]["blob"])
    report = fresh.erase("m", SECRET, refold=False)
    assert report["no_longer_loadable"] == [2] and report["version"] == 3
    assert leftovers(workspace) == []


def test_a_replay_says_that_rows_were_erased(workspace: Workspace, tmp_path: Path) -> None:
    handle = workspace.model(tmp_path / "m.py")
    ask(handle, 60, range(10, 20))
    assert handle.update().version == 1
    workspace.erase("m", SECRET, refold=False)
    part = workspace.registry.version("m", 1).increments[0]
    assert part.slice["options"]["erased"] == 10
    shown = workspace.accounts.increment(1)
    assert shown["erased"] == 10
    whole = handle.train(workspace.updates.source("m", handle.definition), again=True)
    assert whole.version == 3
    (again,) = workspace.registry.version("m", 3).increments
    assert again.reasons["set_aside"][ERASED_DATA] == 10


def test_a_job_that_has_not_ended_comes_first(workspace: Workspace, tmp_path: Path) -> None:
    handle = workspace.model(tmp_path / "m.py")
    ask(handle, 60, range(10, 20))
    job = handle.plan(workspace.updates.source("m", handle.definition))
    assert isinstance(job, int)
    with pytest.raises(ConflictError, match=f"job {job}"):
        workspace.erase("m", SECRET, refold=False)
    workspace.skip(job)
    assert workspace.erase("m", SECRET, refold=False)["version"] is None
    assert leftovers(workspace) == [], "the plan of the job that was skipped had rows too"
    workspace.retry(job)
    assert workspace.run(job).version == 1
    (part,) = workspace.registry.version("m", 1).increments
    assert part.reasons["set_aside"][ERASED_DATA] == 10
    with workspace.database.read() as connection:
        assert not connection.execute(sa.select(jobs.c.id).where(jobs.c.state.in_(OPEN))).all()


WORK = """
from contextlib import closing

import alembic.command, numba, pandas, scipy.linalg
from everlearn.learners import LogisticRegression
from everlearn.data.log import FeedbackLog
from everlearn.jobs.erasing import Erasing
from everlearn.jobs.queue import Queue
from everlearn.registry.registry import Registry
from everlearn.storage.blobs import FolderBlobs
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore

numba.core.registry.cpu_target.target_context.refresh()  # what its first call imports

def work(folder, model, key):
    blobs = FolderBlobs(folder + "/blobs")
    with closing(Database.open(f"sqlite:///{folder}/everlearn.db")) as database:
        erasing = Erasing(Registry(database, PartStore(blobs)), Queue(database))
        erasing("m", key, FeedbackLog(database, model, blobs))
"""


def test_a_kill_at_any_step_erases_all_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(SPEC)
    with killer(WORK) as run, open_workspace(tmp_path / "w") as workspace:
        handle = workspace.model(tmp_path / "m.py")
        ask(handle, 60, range(10, 20))
        assert handle.update().version == 1
        before = list(handle.log.read())
        for crash in ("erase.prepared", "erase.committing"):
            assert run(crash, 1, f"{tmp_path}/w", handle.log.model, SECRET) == -9
            assert list(handle.log.read()) == before and handle.champion() == 1
        assert run("erase.committed", 1, f"{tmp_path}/w", handle.log.model, SECRET) == -9
        assert handle.champion() == 2 and leftovers(workspace), "blobs are removed later"
        report = workspace.erase("m", "somebody else", refold=False)
        assert (report["predictions"], report["version"]) == (0, None)
        assert leftovers(workspace) == []


def test_online_learning_goes_on_without_the_rows(tmp_path: Path) -> None:
    with el.open(tmp_path / "w") as workspace:
        model = el.Model(
            "m",
            schema=el.Schema(target="y", id="id", key="person"),
            learner=el.learners.LogisticRegression(),
            strategy=el.Strategy(memory=el.Reservoir(100)),
            triggers=(el.Online(rows=1000),),
        )
        handle = workspace.model(model)
        ask(handle, 60)
        assert handle.update().version == 1

        def position(client: Any) -> int:
            body = {"instances": [{"x": 1.0, "c": "a"}]}
            answer = client.post("/v1/models/m/predict", json=body)
            (row,) = answer.json()["predictions"]
            return int(row.get("position", -1))

        def until(client: Any, wanted: int) -> None:
            end = time.monotonic() + 30
            while position(client) != wanted:
                assert time.monotonic() < end
                time.sleep(0.01)

        with LocalClient(workspace.app(["m"])) as client:
            ask(handle, 40, range(5))
            until(client, 100)
            report = workspace.erase("m", SECRET, refold=False)
            assert report["version"] == 2
            ask(handle, 10)
            until(client, 110)
            assert client.get("/v1/models/m").json()["champion"] == 2
        memory = workspace.registry.state("m", workspace.registry.version("m"))
        assert memory
        assert leftovers(workspace) == []


def test_parts_that_others_share_stay(workspace: Workspace, tmp_path: Path) -> None:
    handle = workspace.model(tmp_path / "m.py")
    ask(handle, 60, range(10, 20))
    assert handle.update().version == 1
    workspace.erase("m", SECRET, refold=False)
    version = workspace.registry.version("m")
    parts = PartStore(workspace.blobs).load(version.manifest)
    assert all(part.digest for part in parts.values())
    assert handle.load() is not None


def test_over_http_it_is_for_admins(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(SPEC)
    with el.open(tmp_path / "w") as workspace:
        handle = workspace.model(tmp_path / "m.py")
        ask(handle, 60, range(10, 20))
        assert handle.update().version == 1
        secret = workspace.keys.create("admin")[1]
        with LocalClient(workspace.app(["m"], learn=False)) as client:
            url, bearer = "/v1/models/m", {"Authorization": f"Bearer {secret}"}
            assert client.post(f"{url}/erase", json={"key": SECRET}).status_code == 401
            assert client.post(f"{url}/erase", json={}, headers=bearer).status_code == 422
            answer = client.post(f"{url}/erase", json={"key": SECRET}, headers=bearer)
            assert answer.status_code == 200, answer.text
            assert answer.json()["predictions"] == 10 and SECRET not in answer.text
            assert client.get(url, headers=bearer).json()["serving"]["version"] == 2
        assert leftovers(workspace) == []
