"""Two replicas on PostgreSQL, of which the one that cuts versions is killed while callers ask and
label: service goes on, the other one takes over, and nothing acknowledged is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import sqlalchemy as sa

import everlearn as el
from everlearn.base import StorageError
from everlearn.data.compiler import compile_rows
from everlearn.jobs.online import Tail
from everlearn.storage.schema import labels, leases
from everlearn.testing.database import temporary_schema
from tests.serving.server import Server

SPEC = """
import everlearn as el

model = el.Model(
    "m",
    learner=el.learners.LogisticRegression(learning_rate=0.05),
    schema=el.Schema(target="y"),
    triggers=[el.Online(rows=40, margin=10.0)],
)
"""
PROBES = [-1.0, 0.25, 2.0]


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class Caller:
    """Asks one replica and labels at the other, and turns to the other one where one is gone."""

    def __init__(self, servers: list[Server]) -> None:
        self._turns = cycle(servers)
        self._random = np.random.default_rng(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.said: dict[str, int] = {}
        self.tried_again = 0
        self.error: BaseException | None = None

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
        except BaseException as error:
            self.error = error

    def _turn(self) -> None:
        x = self._random.normal(size=7).tolist()
        given = self._post("predict", {"instances": [{"x": value} for value in x]})["predictions"]
        said = [
            {"prediction_id": row["id"], "value": int(value > 0), "idempotency_key": row["id"]}
            for row, value in zip(given, x, strict=True)
        ]
        self._post("feedback", {"labels": said})
        self.said |= {label["idempotency_key"]: label["value"] for label in said}

    def _post(self, path: str, body: Any) -> Any:
        for _ in range(4):
            try:
                return next(self._turns).post(f"/v1/models/m/{path}", body)
            except httpx2.TransportError:
                self.tried_again += 1
        raise AssertionError("no replica answers")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    """The workspace's URL; the model is trained."""
    (tmp_path / "spec.py").write_text(SPEC)
    x = np.random.default_rng(0).normal(size=200)
    lines = ["x,y", *(f"{value:.4f},{int(value > 0)}" for value in x)]
    (tmp_path / "first.csv").write_text("\n".join(lines) + "\n")
    try:
        with temporary_schema() as schema:
            url = f"{schema}&blobs={tmp_path / 'blobs'}"
            with el.open(url) as workspace:
                workspace.model(str(tmp_path / "spec.py")).train(str(tmp_path / "first.csv"))
            yield url
    except StorageError as error:
        pytest.skip(str(error))


def holder(workspace: el.Workspace) -> str:
    """Who holds the lease; "" if nobody does."""
    with workspace.database.read() as connection:
        return connection.execute(sa.select(leases.c.holder)).scalar() or ""


def is_of(server: Server, name: str) -> bool:
    return f":{server.process.pid}:" in name


def probed(server: Server, position: int) -> Any:
    """What a replica says once it has learned all labels up to a position."""
    body = {"instances": [{"x": value} for value in PROBES]}

    def asked() -> Any:
        given = server.post("/v1/models/m/predict", body)["predictions"]
        return given if given[0].get("position") == position else None

    return [list(row["probabilities"].values()) for row in until(asked)]


def test_one_of_two_replicas_is_killed(place: str, tmp_path: Path) -> None:
    servers = [Server(place, tmp_path / "spec.py") for _ in range(2)]
    with el.open(place) as workspace, servers[0], servers[1]:
        log, registry = workspace.updates.log("m"), workspace.registry
        with Caller(servers) as caller:
            until(lambda: len(registry.versions("m")) >= 3)
        assert caller.error is None
        held = until(lambda: holder(workspace))
        (first,) = [server for server in servers if is_of(server, held)]
        (second,) = [server for server in servers if server is not first]
        said = probed(first, log.head())
        assert said == probed(second, log.head())  # both have folded the same log

        with Caller(servers) as after:
            until(lambda: len(after.said) > 50)
            first.kill()
            here = len(after.said)
            until(lambda: len(after.said) > here + 100 or after.error)
            until(lambda: is_of(second, holder(workspace)))
            made = len(registry.versions("m"))
            until(lambda: len(registry.versions("m")) > made + 1)
        assert after.error is None
        assert after.tried_again > 0
        said = probed(second, log.head())
        _check_log(workspace, caller.said | after.said)
        _check_versions(workspace, said)


def _check_log(workspace: el.Workspace, said: dict[str, int]) -> None:
    """All that was acknowledged is there, once, and positions have no gaps."""
    with workspace.database.read() as connection:
        table = labels.c
        rows = connection.execute(sa.select(table.position, table.idempotency_key, table.value))
        found = rows.all()
    assert sorted(row.position for row in found) == list(range(1, len(found) + 1))
    by_key = {row.idempotency_key: int(row.value) for row in found}
    assert len(by_key) == len(found)
    assert by_key.items() >= said.items()


def _check_versions(workspace: el.Workspace, said: Any) -> None:
    """Versions of both replicas follow each other, and what answers is the fold of the log."""
    log, registry = workspace.updates.log("m"), workspace.registry
    found = registry.versions("m")
    assert [version.parent for version in found[1:]] == [item.number for item in found[:-1]]
    edges = [(item.increments[0].start, item.increments[0].stop) for item in found[1:]]
    assert [start for start, _ in edges] == [0, *(stop for _, stop in edges[:-1])]
    tail = Tail.load(registry, "m", found[0], log, 0)
    tail.fold_in(log.head())
    rows = compile_rows([{"x": value} for value in PROBES], tail.fold.columns)
    proba = tail.fold.predict(rows).proba
    assert proba is not None
    assert proba.tolist() == said
