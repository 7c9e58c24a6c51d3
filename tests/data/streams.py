"""Events to send through a stream, and what the log should hold of them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from everlearn import open as open_workspace
from everlearn.base import InputError
from everlearn.data.feedback import Label, LoggedPrediction, PredictionIds, id_text
from everlearn.data.log import FeedbackLog
from everlearn.data.streams.events import read_event
from everlearn.storage.database import Database
from everlearn.storage.schema import labels, models, predictions

UNREADABLE = [b"\xff\x00 no text", b'{"type": "label"}', b"[1, 2", b'{"type": "weather"}']


def make_events(count: int, seed: int = 0) -> list[bytes]:
    """`count` predictions, half of them named by an id of ours and half by the caller's, each with
    a label, and messages that cannot be read; in no order."""
    rng = random.Random(seed)
    events: list[dict[str, Any]] = []
    for index in range(count):
        own = {"id": id_text((index + 1) << 21)} if index % 2 else {}
        named = {"prediction_id": own["id"]} if own else {"external_id": f"bill {index}"}
        asked = {"type": "prediction", **(own or named), "features": {"a": index, "b": "x"}}
        events.append(asked | {"output": {"value": index % 3}, "at": "2026-01-01T00:00:00"})
        said = {"type": "label", **named, "value": index % 3, "at": "2026-01-02T00:00:00"}
        events.append(said | {"idempotency_key": f"label {index}", "source": f"desk {index % 4}"})
    bodies = [json.dumps(event).encode() for event in events] + UNREADABLE
    rng.shuffle(bodies)
    return bodies


def ten_times(bodies: list[bytes], seed: int = 1) -> list[bytes]:
    """Each ten times, in no order."""
    many = bodies * 10
    random.Random(seed).shuffle(many)
    return many


def content_of(log: FeedbackLog) -> set[tuple[Any, ...]]:
    """What the log holds, without numbers and times that are given on arrival. Fails if it is
    there twice, or if positions have gaps."""
    table, asked = labels.c, predictions.c
    with log.database.read() as connection:
        rows = connection.execute(
            sa.select(
                asked.features, asked.output, asked.external_id, asked.at, asked.version
            ).where(asked.model_id == log.model)
        )
        found = [tuple(row) for row in rows]
        said = sa.select(
            asked.features, table.value, table.idempotency_key, table.source, table.kind, table.at
        ).join(predictions, asked.id == table.prediction_id)
        found += [tuple(row) for row in connection.execute(said.where(table.model_id == log.model))]
        count = sa.select(sa.func.count(), sa.func.max(table.position))
        total, last = connection.execute(count.where(table.model_id == log.model)).one()
    assert total == (last or 0)
    assert len(found) == len(set(found))
    return set(found)


def expected(tmp_path: Path, bodies: list[bytes]) -> set[tuple[Any, ...]]:
    """The log after each event came once, predictions first, by the log's own means."""
    with closing(Database.open(f"sqlite:///{tmp_path}/expected.db")) as database:
        log = new_log(database)
        events: list[Any] = []
        for body in bodies:
            try:
                events.append(read_event(body, "none"))
            except InputError:
                assert body in UNREADABLE
        ids = PredictionIds()
        rows = [one for one in events if isinstance(one, LoggedPrediction)]
        log.append_predictions(
            [one if one.id >= 0 else one._replace(id=ids.take(1)[0]) for one in rows]
        )
        log.append_labels([one for one in events if isinstance(one, Label)])
        return content_of(log)


def new_log(database: Database, name: str = "bills") -> FeedbackLog:
    """The log of a new model."""
    with database.write() as connection:
        made = connection.execute(sa.insert(models).values(name=name, created_at=0))
        return FeedbackLog(database, made.inserted_primary_key[0])  # type: ignore[index]


# --- processes ---------------------------------------------------------------------------------

SPEC = """
import everlearn as el

model = el.Model("bills", schema=el.Schema(target="late"))
"""


def make_workspace(folder: Path) -> Path:
    """A workspace with the model "bills"."""
    (folder / "bills.py").write_text(SPEC)
    with open_workspace(folder / "workspace") as workspace:
        workspace.model(folder / "bills.py")
    return folder / "workspace"


def start_ingest(workspace: Path, url: str, *words: str, crash: str = "") -> subprocess.Popen[str]:
    """`everlearn ingest` in a process of its own."""
    command = [sys.executable, "-m", "everlearn.cli", "--workspace", str(workspace)]
    return subprocess.Popen(
        [*command, "ingest", "bills", url, "--json", *words],
        env={**os.environ, "EVERLEARN_CRASH": crash, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, int]:
    """What an ingest that ended well counted."""
    written, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    found: dict[str, int] = json.loads(written)
    return found


def kill_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """SIGKILL it once something holds."""
    wait_until(lambda: reached() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Look until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.01)


@contextmanager
def log_in(workspace: Path) -> Iterator[FeedbackLog]:
    """The log of "bills" in a workspace."""
    with open_workspace(workspace) as opened:
        yield opened.model("bills").log


def logged(log: FeedbackLog) -> int:
    """Predictions that are logged."""
    with log.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count(predictions.c.id))).scalar_one())


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
