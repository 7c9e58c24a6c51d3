"""The same events ten times, in no order, over HTTP and from a stream: the log and what is learned
from it are those of each event once.

What is promised: an event counts once, however often it comes. Positions are given in the order in
which labels came first; learners that go over rows in the order of the log end where that order
ends. With `order="time"` a job learns by event time, whatever order its labels came in.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import everlearn as el
from everlearn.base import state_digest
from everlearn.data.feedback import PredictionIds, id_text
from everlearn.data.streams.intake import Intake, Message
from everlearn.jobs.online import Tail
from everlearn.storage.schema import labels
from tests.serving.local import LocalClient

ROWS, TIMES = 90, 10


def spec(order: Any = "stream") -> el.Model:
    """A model whose weights depend on the order of rows, and whose memory on their ids."""
    return el.Model(
        "m",
        learner=el.learners.LogisticRegression(learning_rate=0.3),
        schema=el.Schema(target="y", time="at"),
        strategy=el.Strategy(memory=el.Reservoir(50), order=order),
    )


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A workspace that answered, and a label for each answer."""
    folder = tmp_path_factory.mktemp("asked") / "workspace"
    x = np.random.default_rng(0).normal(size=ROWS)
    with el.open(folder) as workspace:
        handle = workspace.model(spec())
        workspace.model(spec("time").replace(name="by-time"))
        rows = [{"x": value, "y": int(value > 0), "at": f"2025-12-{1 + n:02}"}
                for n, value in enumerate(x[:30].tolist())]  # fmt: skip
        handle.train(rows)
        workspace.model("by-time").train(rows)
        body = {"instances": [{"x": value, "at": f"2026-01-01T00:{n // 60:02}:{n % 60:02}Z"}
                              for n, value in enumerate(x.tolist())]}  # fmt: skip
        with LocalClient(workspace.app(["m", "by-time"], learn=False)) as client:
            given = [
                client.post(f"/v1/models/{name}/predict", json=body).json()["predictions"]
                for name in ("m", "by-time")
            ]
    said = [
        {"value": int(x[n] > 0), "at": "2026-02-01T00:00:00Z", "source": f"desk {n % 3}"}
        | {"prediction_id": [one[n]["id"] for one in given], "idempotency_key": f"label {n}"}
        for n in range(ROWS)
    ]
    return folder, said


def delivered(
    asked: Path, folder: Path, name: str, said: list[dict[str, Any]], seed: int
) -> tuple[list[Any], str, str]:
    """The log (positions and content), the digest of the version that a job makes of it, and of a
    model that learns it online, after labels came over HTTP in requests of random sizes."""
    shutil.copytree(asked, folder)
    rng, left = random.Random(seed), list(said)
    with el.open(folder) as workspace:
        with LocalClient(workspace.app(["m", "by-time"], learn=False)) as client:
            while left:
                size = rng.randint(1, 40)
                body = {"labels": [one | {"prediction_id": one["prediction_id"][name != "m"]}
                                   for one in left[:size]]}  # fmt: skip
                answer = client.post(f"/v1/models/{name}/feedback", json=body)
                assert answer.status_code == 200, answer.text
                left = left[size:]
        log, registry = workspace.updates.log(name), workspace.registry
        first = registry.version(name)
        tail = Tail.load(registry, name, first, log, 0)
        tail.fold_in(log.head())
        result = workspace.model(name).update()
        assert result.decision.action == "promote"
        return content_of(log), registry.version(name).state_digest, state_digest(tail.state())


def content_of(log: Any) -> list[Any]:
    """Position, prediction and content of each label; fails if one waits."""
    table = labels.c
    columns = [table.position, table.prediction_id, table.value, table.source, table.at]
    query = sa.select(*columns, table.idempotency_key, table.digest)
    with log.database.read() as connection:
        rows = connection.execute(query.where(table.model_id == log.model).order_by(table.position))
        return [tuple(row) for row in rows]


def again(said: list[Any], seed: int) -> list[Any]:
    """Each for the first time in order, and nine times more at any later moment."""
    rng = random.Random(seed)
    late = [(rng.uniform(n, 2 * len(said)), one) for n, one in enumerate(said)
            for _ in range(TIMES - 1)]  # fmt: skip
    return [one for _, one in sorted([*enumerate(said), *late], key=lambda item: item[0])]


def test_what_comes_again_is_as_if_it_had_not(asked: Any, tmp_path: Path) -> None:
    folder, said = asked
    once = delivered(folder, tmp_path / "once", "m", said, seed=1)
    ten = delivered(folder, tmp_path / "ten", "m", again(said, 2), seed=3)
    assert len(once[0]) == ROWS
    assert ten == once


def test_in_no_order_at_all_a_job_by_event_time_learns_the_same(asked: Any, tmp_path: Path) -> None:
    folder, said = asked
    shuffled = said * TIMES
    random.Random(4).shuffle(shuffled)
    once = delivered(folder, tmp_path / "once", "by-time", said, seed=1)
    ten = delivered(folder, tmp_path / "ten", "by-time", shuffled, seed=5)
    assert [row[0] for row in ten[0]] == [row[0] for row in once[0]] == list(range(1, ROWS + 1))
    assert ten[0] != once[0]
    assert {row[1:] for row in ten[0]} == {row[1:] for row in once[0]}
    assert ten[1] == once[1]
    assert ten[2] != once[2]  # label by label, the order in which they came is what is learned


def test_the_same_key_with_another_body_is_a_conflict(asked: Any, tmp_path: Path) -> None:
    shutil.copytree(asked[0], tmp_path / "workspace")
    said = [one | {"prediction_id": one["prediction_id"][0]} for one in asked[1][:3]]
    with (
        el.open(tmp_path / "workspace") as workspace,
        LocalClient(workspace.app(["m"], learn=False)) as client,
    ):
        url = "/v1/models/m/feedback"
        assert client.post(url, json={"labels": said[:2]}).status_code == 200
        other = said[1] | {"value": 1 - said[1]["value"]}
        assert client.post(url, json={"labels": [said[2], other]}).status_code == 409
        assert workspace.updates.log("m").head() == 2


def test_a_stream_that_delivers_ten_times(tmp_path: Path) -> None:
    """Predictions and labels with ids of their own, new offsets for each delivery, in no order."""
    rng = random.Random(6)
    x = [rng.gauss(0.0, 1.0) for _ in range(ROWS)]
    events: list[dict[str, Any]] = []
    for n, value in enumerate(x):
        own, at = id_text((n + 1) << 21), f"2026-01-01T00:{n // 60:02}:{n % 60:02}Z"
        events.append(
            {"type": "prediction", "id": own, "features": {"x": value, "at": at}, "output": 0}
            | {"at": at, "external_id": f"bill {n}"}
        )
        said = {"type": "label", "external_id": f"bill {n}", "value": int(value > 0)}
        events.append(said | {"at": "2026-02-01", "idempotency_key": f"label {n}"})
    bodies = [json.dumps(event).encode() for event in events]
    shuffled = bodies * TIMES
    rng.shuffle(shuffled)
    found = [learned_from(tmp_path / str(n), sent) for n, sent in
             enumerate((bodies, shuffled))]  # fmt: skip
    assert len(found[0][0]) == ROWS
    assert found[0] == found[1]


def learned_from(folder: Path, bodies: list[bytes]) -> tuple[set[Any], str]:
    """The content of the log of a stream, and the digest of what a job learns of it."""
    rng, start = random.Random(7), 0
    with el.open(folder) as workspace:
        handle = workspace.model(spec("time"))
        intake = Intake(handle.log, PredictionIds(), "kafka://here/bills?group=g", "kafka:bills")
        messages = [Message(n % 3, n // 3, one) for n, one in enumerate(bodies)]
        while start < len(messages):
            size = rng.randint(1, 200)
            intake.take(messages[start : start + size])
            start += size
        handle.update()
        rows = {row[1:] for row in content_of(handle.log)}
        return rows, workspace.registry.version("m").state_digest
