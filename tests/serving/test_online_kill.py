"""A server that learns online is killed again and again: nothing acknowledged is lost or learned
twice, and what it knows is what the log says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import everlearn as el
from everlearn.jobs.online import Tail
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

CRASHES = ["online.saved:1", "online.committing:3", ""]
"""Where the servers kill themselves, one after the other; "" is killed from outside."""


class Sender:
    """Asks and labels over and over, and remembers what was acknowledged."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.acknowledged: dict[str, int] = {}

    def send(self, server: Server, rows: int) -> None:
        """Raises `httpx2.TransportError` when the server is gone."""
        x = self.random.normal(size=rows)
        body = {"instances": [{"x": float(value)} for value in x]}
        given = server.post("/v1/models/m/predict", body)["predictions"]
        said: list[dict[str, Any]] = [
            {"prediction_id": item["id"], "value": int(value > 0), "idempotency_key": item["id"]}
            for item, value in zip(given, x, strict=True)
        ]
        server.post("/v1/models/m/feedback", {"labels": said})
        self.acknowledged |= {item["prediction_id"]: item["value"] for item in said}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.py"
    path.write_text(SPEC)
    x = np.random.default_rng(0).normal(size=200)
    lines = ["x,y", *(f"{value:.4f},{int(value > 0)}" for value in x)]
    (tmp_path / "first.csv").write_text("\n".join(lines) + "\n")
    with el.open(tmp_path / "workspace") as workspace:
        workspace.model(str(path)).train(str(tmp_path / "first.csv"))
    return path


def test_nothing_acknowledged_is_lost_or_learned_twice(spec: Path, tmp_path: Path) -> None:
    folder, sender = tmp_path / "workspace", Sender()
    for crash in CRASHES:
        before = len(sender.acknowledged)
        with Server(folder, spec, crash) as server:
            try:
                until = time.monotonic() + 60.0
                while time.monotonic() < until:
                    sender.send(server, 17)
                    time.sleep(0.05)
                    if not crash and len(sender.acknowledged) > before + 100:
                        server.kill()
            except httpx2.TransportError:
                server.process.wait()
            assert server.process.returncode is not None, f"{crash} was never reached"
    with el.open(folder) as workspace:
        log = workspace.updates.log("m")
        logged = [row.prediction.id for row in log.read()]
        assert len(logged) == len(set(logged)) == log.head()
        assert {f"{number:016x}" for number in logged} >= set(sender.acknowledged)
        found = workspace.registry.versions("m")
        assert len(found) >= 3
        assert [version.parent for version in found[1:]] == [item.number for item in found[:-1]]
        edges = [(item.increments[0].start, item.increments[0].stop) for item in found[1:]]
        assert [start for start, _ in edges] == [0, *(stop for _, stop in edges[:-1])]
        last = edges[-1][1]
        whole = Tail.load(workspace.registry, "m", found[0], log, 0)
        whole.fold_in(last)
        parts = Tail.load(workspace.registry, "m", found[-1], log, last)
        assert learner_digests(whole) == learner_digests(parts)


def learner_digests(tail: Tail) -> dict[str, str]:
    return {name: part.digest for name, part in tail.fold.learner.save().items()}
