"""Predictive maintenance: a thousand sensors over MQTT, which drift while machines wear out.

Every machine has a sensor that sends a reading a day (vibration, temperature, current, load) to an
MQTT broker. Whether the machine failed within five days becomes known when it fails, or when the
five days are over; the workshop sends that over MQTT too. `ModelHandle.ingest`, which is
`everlearn ingest MODEL URL`, logs both, each event once. A job learns what is new whenever
200 labels have come (`Volume`): each day.

Sensors of one make age: what they measure drifts a little each day. A first model is trained on a
history; the same readings are judged by it, frozen, and by the loop. The workshop has time to
look at 8 % of the machines a day: what counts is how many of those that fail are among them.

    python examples/maintenance.py                    # starts a broker: needs mosquitto
    python examples/maintenance.py --broker mqtt://host:1883
    python examples/maintenance.py --quick            # fewer sensors and days
    python examples/maintenance.py --json

It needs paho-mqtt (`pip install 'everlearn[mqtt]'`). A broker of one's own should queue as many
messages as a day has (mosquitto: `max_queued_messages 0`).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

import everlearn as el
from everlearn.base import Floats
from everlearn.evaluation.intervals import mean_interval

AHEAD = 5
"""Days within which a failure counts."""

LOOKED_AT = 0.08
"""Share of the machines that the workshop can look at each day."""

FIRST = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)

model = el.Model(
    "maintenance",
    learner=el.learners.LogisticRegression(learning_rate=0.03),
    schema=el.Schema(target="fails", id="reading", categorical=("make",)),
    triggers=(el.Volume(200),),
    holdout=0.0,
)


class Plant:
    """Machines that wear out, and sensors that drift."""

    def __init__(self, machines: int) -> None:
        self.random = np.random.default_rng(0)
        self.left = self.random.exponential(60.0, machines)
        """Days until each machine fails; then it is repaired."""
        self.offset = np.zeros((machines, 2))
        self.day = -1

    def next(self, drifts: bool = True) -> tuple[list[dict[str, Any]], Floats]:
        """The readings of the next day, and how many days each machine has left."""
        random, n = self.random, len(self.left)
        self.day += 1
        self.left -= 1.0
        broken = self.left < 0.0
        self.left[broken] = random.exponential(60.0, int(broken.sum())) + 1.0
        if drifts:
            aged = np.arange(n) % 2 == 1
            self.offset[aged] += random.normal([0.08, 0.04], 0.02, (int(aged.sum()), 2))
        worn = np.clip((12.0 - self.left) / 8.0, 0.0, 1.0)
        load = random.uniform(0.3, 1.0, n)
        vibration = 1.0 + load + 1.2 * worn + self.offset[:, 0] + random.normal(0.0, 0.3, n)
        heat = 40.0 + 20.0 * load + 5.0 * (worn + self.offset[:, 1]) + random.normal(0.0, 3.0, n)
        current = 5.0 + 8.0 * load + 1.5 * worn * load + random.normal(0.0, 0.5, n)
        columns = {"vibration": vibration, "heat": heat, "current": current, "load": load}
        rows = [
            {"reading": f"{self.day}-{machine}", "make": "AB"[machine % 2]}
            | {name: round(float(values[machine]), 4) for name, values in columns.items()}
            for machine in range(n)
        ]
        return rows, self.left.copy()


@contextmanager
def own_broker(folder: Path) -> Iterator[str]:
    """A mosquitto that ends with the example; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "mosquitto.conf"
    settings.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n"
    )
    program = [str(shutil.which("mosquitto")), "-c", str(settings)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30.0
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class Senders:
    """Sensors and workshop, over one connection.

    Args:
        broker: its URL.
        topic: above the topics of all.
    """

    def __init__(self, broker: str, topic: str) -> None:
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        at = urlsplit(broker)
        self._client, self._topic = paho.Client(CallbackAPIVersion.VERSION2), topic
        self._client.max_queued_messages_set(0)
        if at.username:
            self._client.username_pw_set(at.username, at.password)
        self._client.connect(str(at.hostname), at.port or 1883)
        self._client.loop_start()
        self.sent = 0

    def send(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Publish events under their topics, and wait until the broker has them all."""
        for published in [
            self._client.publish(f"{self._topic}/{name}", json.dumps(event), qos=1)
            for name, event in events
        ]:
            published.wait_for_publish(60.0)
        self.sent += len(events)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def reading(row: dict[str, Any], at: dt.datetime) -> tuple[str, dict[str, Any]]:
    """The message of a sensor."""
    event = {"type": "prediction", "external_id": row["reading"], "features": row}
    machine = row["reading"].split("-")[1]
    return f"sensors/{machine}", event | {"key": machine, "at": at.isoformat()}


def verdict(name: str, fails: bool, at: dt.datetime) -> tuple[str, dict[str, Any]]:
    """The message of the workshop about a reading."""
    event = {"type": "label", "external_id": name, "value": int(fails), "kind": "system"}
    return "workshop", event | {"source": "workshop", "at": at.isoformat()}


def chances(answers: Any) -> Floats:
    """The probability of a failure in each answer."""
    return np.array([answer.probabilities[1] for answer in answers])


def caught(fails: Floats, score: Floats) -> float:
    """The share of machines about to fail that are among those looked at."""
    looked_at = np.argsort(-score, kind="stable")[: round(LOOKED_AT * len(score))]
    return float(fails[looked_at].sum() / fails.sum())


def run(broker: str, folder: Path, machines: int, days: int) -> dict[str, Any]:
    """Live through the days; what frozen model and loop caught, each day before they learn it."""
    plant = Plant(machines)
    topic = f"everlearn-{uuid.uuid4().hex[:12]}"
    url = f"{broker.rstrip('/')}/{topic}/%23"
    with el.open(folder) as workspace:
        loop, frozen = workspace.model(model), workspace.model(model)
        past = []
        for _ in range(10):
            rows, left = plant.next(drifts=False)
            labels = [int(one < AHEAD) for one in left]
            past += [row | {"fails": label} for row, label in zip(rows, labels, strict=True)]
        loop.train(pa.Table.from_pylist(past), source="history")
        loop.ingest(url, idle=0.0)  # from here on the broker keeps messages for us
        senders, received, jobs = Senders(broker, topic), 0, 0
        seen: list[tuple[Floats, Floats, Floats]] = []
        waiting: list[tuple[int, str, bool]] = []
        for day in range(days):
            at = FIRST + dt.timedelta(days=day)
            rows, left = plant.next()
            fails = (left < AHEAD).astype(np.float64)
            if day >= AHEAD:
                first = frozen.predict(rows, version=1, log=False)
                now = loop.predict(rows, log=False)
                seen.append((fails, chances(first), chances(now)))
            for row, one in zip(rows, left, strict=True):
                known = day + int(np.ceil(min(float(one) + 1e-9, AHEAD)))
                waiting.append((known, row["reading"], bool(one < AHEAD)))
            said = [verdict(name, bad, at) for known, name, bad in waiting if known <= day]
            waiting = [one for one in waiting if one[0] > day]
            senders.send([reading(row, at) for row in rows] + said)
            end = time.monotonic() + 120.0
            while received < senders.sent:
                counts = loop.ingest(url, idle=0.1)
                received += counts["predictions"] + counts["labels"]
                if time.monotonic() > end:
                    sys.exit(
                        f"{senders.sent - received} messages did not come back: does the"
                        " broker queue that many (mosquitto: max_queued_messages 0)?"
                    )
            loop.trigger()
            jobs += workspace.work(once=True)
        senders.close()
    return {"messages": received, "jobs": jobs, **judged(seen)}


def judged(seen: list[tuple[Floats, Floats, Floats]]) -> dict[str, Any]:
    """Means by model, and the gain with its interval over the days."""

    def loss(fails: Floats, score: Floats) -> float:
        right = np.where(fails == 1.0, score, 1.0 - score)
        return float(-np.log(np.clip(right, 1e-6, 1.0)).mean())

    shares = np.array([[caught(day[0], day[place]) for place in (1, 2)] for day in seen])
    losses = np.array([[loss(day[0], day[place]) for place in (1, 2)] for day in seen])
    return {
        "days": len(seen),
        "models": {
            name: {"caught": float(shares[:, at].mean()), "log_loss": float(losses[:, at].mean())}
            for at, name in enumerate(("frozen", "loop"))
        },
        "gain": {
            "caught": mean_interval(shares[:, 1] - shares[:, 0]).to_json(),
            "log_loss": mean_interval(losses[:, 1] - losses[:, 0]).to_json(),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--broker", metavar="URL", help="mqtt://host:port; one is started unless")
    parser.add_argument("--quick", action="store_true", help="200 sensors, 18 days")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    if given.broker is None and shutil.which("mosquitto") is None:
        sys.exit(
            "This example needs an MQTT broker, and the program mosquitto is not on this machine:"
            " install it (Debian: apt install mosquitto), or name one: --broker mqtt://host:1883"
        )
    size = (200, 18) if given.quick else (1000, 30)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.broker is not None:
            found = run(given.broker, folder / "workspace", *size)
        else:
            with own_broker(folder) as broker:
                found = run(broker, folder / "workspace", *size)
    if given.json:
        print(json.dumps(found))
        return
    print(f"{size[0]:,} sensors, {found['messages']:,} messages, {found['jobs']} jobs")
    print(f"{'':10}{'failures caught':>16}{'log loss':>10}")
    for name, metrics in found["models"].items():
        print(f"{name:10}{metrics['caught']:16.1%}{metrics['log_loss']:10.4f}")
    gain = found["gain"]["caught"]
    print(
        f"Of machines about to fail, the loop catches {gain['mean']:+.1%} more (95 % over days:"
        f" {gain['low']:+.1%} to {gain['high']:+.1%})."
    )


if __name__ == "__main__":
    main()
