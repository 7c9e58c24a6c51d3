"""A server is killed right after its guard returned to the last version, and after a label that the
learner fails on: what it knows afterwards is what the log says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

import everlearn as el
from everlearn.data.compiler import compile_rows
from everlearn.jobs.online import Tail
from tests.serving.local import LocalClient
from tests.serving.server import Server

SPEC = """
import everlearn as el
from sklearn.linear_model import SGDClassifier

class Steep(SGDClassifier):
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        if (X > 50.0).any():
            raise ValueError("too much")
        return super().partial_fit(X, y, classes, sample_weight)

model = el.Model(
    "m",
    learner=Steep(loss="hinge", learning_rate="constant", eta0=3.0),
    schema=el.Schema(target="y"),
    triggers=[el.Online(rows=100_000, seconds=1e9, margin=0.01, level=0.9)],
)
"""
URL = "/v1/models/m"


class Here:
    """A server in this process."""

    def __init__(self, client: LocalClient) -> None:
        self._client = client

    def post(self, path: str, body: Any) -> Any:
        return self._client.post(path, json=body).json()


def send(server: Server | Here, x: list[float], y: list[int]) -> None:
    """Ask, and say what was right. Raises `httpx2.TransportError` when the server is gone."""
    given = server.post(f"{URL}/predict", {"instances": [{"x": value} for value in x]})
    said = [
        {"prediction_id": item["id"], "value": value}
        for item, value in zip(given["predictions"], y, strict=True)
    ]
    server.post(f"{URL}/feedback", {"labels": said})


def outputs(server: Server | Here, x: list[float], position: int) -> list[int]:
    """What is answered once the label at a position was learned."""
    until = time.monotonic() + 30.0
    body = {"instances": [{"x": value} for value in x]}
    while time.monotonic() < until:
        rows: list[dict[str, Any]] = server.post(f"{URL}/predict", body)["predictions"]
        if rows[0].get("position") == position:
            return [row["output"] for row in rows]
        time.sleep(0.02)
    raise AssertionError(f"position {position} was never learned")


def test_what_the_guard_refused_stays_refused_and_learning_goes_on(tmp_path: Path) -> None:
    spec, folder, random = tmp_path / "spec.py", tmp_path / "workspace", np.random.default_rng(0)
    spec.write_text(SPEC)
    first = random.normal(size=300)
    lines = ["x,y", *(f"{value:.4f},{int(value > 0)}" for value in first)]
    (tmp_path / "first.csv").write_text("\n".join(lines) + "\n")
    with el.open(folder) as workspace:
        workspace.model(str(spec)).train(str(tmp_path / "first.csv"))
    with Server(folder, spec, "online.committed:1") as server:
        try:
            sent = 0
            while sent < 10_000:  # a quarter of the labels is wrong
                x = random.normal(size=100)
                wrong = random.random(100) < 0.25
                send(server, x.tolist(), ((x > 0) != wrong).astype(int).tolist())
                sent += len(x)
                outputs(server, [0.0], sent)
        except httpx2.TransportError:
            server.process.wait()
        assert server.process.returncode == -9, "the guard returned to no version"
    grid = np.linspace(-2.0, 2.0, 41).tolist()
    with el.open(folder) as workspace:
        one, refused = workspace.registry.versions("m")
        assert refused.decision.action == "refuse" and workspace.registry.on_hold("m")
        assert workspace.registry.champion("m") == one
        log, stop = workspace.updates.log("m"), refused.increments[0].stop
        assert stop <= log.head()
        with Server(folder, spec) as server:
            send(server, [0.4, 99.0, -0.4], [1, 1, 0])
            send(server, [0.2, -0.2], [1, 0])
            before = outputs(server, grid, log.head())
            server.kill()
        with LocalClient(workspace.app(["m"], learn=False)) as client:
            here = Here(client)
            assert outputs(here, grid, log.head()) == before
            send(here, [0.3], [1])
            after = outputs(here, grid, log.head())
        assert [version.number for version in workspace.registry.versions("m")] == [1, 2]
        tail = Tail.load(workspace.registry, "m", one, log, stop)
        tail.careful = True
        tail.fold_in(log.head())
        assert len(tail.failed) == 1
        batch = compile_rows([{"x": value} for value in grid], tail.fold.columns)
        assert after == tail.fold.decode(tail.fold.predict(batch).value).tolist()
