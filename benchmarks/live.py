"""The live loop, as ratios within one run: answers with a durable log against none, labels a
second, how soon a label is in what answers, and events learned against River in a plain service.

Events learned are compared as a user meets them. Ours come as a stream does: labels of predictions
that were made and logged before, many a request, each durable when acknowledged, until the last is
in what answers. River's service predicts and learns in one request; it is measured with an event a
request, as such services are written, and with 100, which is the fairer comparison and shown too.
The predictions that our labels judge are made before the clock starts; River's are within it.

    python benchmarks/live.py [--quick] [--rounds N] [--out DIR]

The server has one core to itself, and the load the other, where there are two.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jobs import machine, one_thread, say

HERE = Path(__file__).parent
COLUMNS = 10
PAIRS = 3
"""Measurements a round of the server with a shadow that hangs, and without."""

SPEC = """
import everlearn as el

model = el.Model(
    "live",
    learner=el.learners.LogisticRegression(learning_rate=0.01),
    schema=el.Schema(target="y"),
    {more}
)
"""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a second each, one round")
    parser.add_argument("--rounds", type=int, help="measurements of each side")
    parser.add_argument("--out", type=Path, help="folder for live.md and live.json")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    seconds = 1.0 if options.quick else 5.0
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        found = measured(Path(temporary), rounds, seconds)
    rows = checks(found)
    about = machine([load], ["everlearn", "fastapi", "uvicorn", "river", "sqlalchemy"])
    text = report(rows, about)
    sys.stdout.write(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "live.md").write_text(text)
        kept = {"measured": found, "checks": rows, "about": about}
        (options.out / "live.json").write_text(json.dumps(kept, indent=1) + "\n")


# --- measuring ----------------------------------------------------------------------------------


def measured(folder: Path, rounds: int, seconds: float) -> dict[str, list[Any]]:
    """What each side gave, by name: one value a round."""
    found: dict[str, list[Any]] = {}
    batch = trained(folder, "batch")
    online = trained(folder, "online", "triggers=[el.Online()],")
    tried = trained(folder, "tried", "rollout=el.Shadow(),", times=2)
    one, hundred = bodies(1, 500), bodies(100, 50)
    events = [json.dumps(event(row)).encode() for row in rows_of(5000)]
    many = [
        json.dumps({"events": [event(row) for row in rows_of(100)]}).encode() for _ in range(50)
    ]
    path = "/v1/models/live/predict"
    for number in range(1, rounds + 1):
        say(f"round {number}")
        with bare(batch) as port:
            keep(found, "bare, 64 connections", loaded(port, "/predict", one, 64, seconds))
            keep(found, "bare, 100 rows", loaded(port, "/predict", hundred, 8, seconds))
        with server(batch) as port:
            keep(found, "everlearn, 64 connections", loaded(port, path, one, 64, seconds))
            keep(found, "everlearn, 100 rows", loaded(port, path, hundred, 8, seconds))
            keep(found, "labels", labels(port, round(seconds * 20)))
        with answering("served", batch) as alone, answering("hung", tried) as beside:
            for _ in range(PAIRS):  # turn by turn: a p99 is moved by whatever the machine does
                keep(found, "no shadow", loaded(alone, path, one, 64, seconds))
                keep(found, "a shadow that hangs", loaded(beside, path, one, 64, seconds))
        with server(online) as port:
            keep(found, "label to answer", delays(port, round(40 * seconds)))
            keep(found, "learned online", learned(port, round(seconds * 10)))
        with river("river") as port:
            keep(found, "river, one event", loaded(port, "/learn", events, 64, seconds))
            keep(found, "river, 100 events", loaded(port, "/learn_many", many, 8, seconds))
        with river("stored") as port:
            keep(found, "river, stored", loaded(port, "/learn", events, 64, seconds))
    return found


def keep(found: dict[str, list[Any]], name: str, value: Any) -> None:
    """Add a measurement."""
    say(f"  {name}: {value}")
    found.setdefault(name, []).append(value)


def rows_of(count: int) -> list[dict[str, float]]:
    """Rows of normal numbers with four decimals."""
    values = np.random.default_rng(count).normal(size=(count, COLUMNS)).round(4)
    return [{f"x{j}": float(value) for j, value in enumerate(row)} for row in values]


def event(row: dict[str, float]) -> dict[str, Any]:
    """A row and its label."""
    return {"x": row, "y": label(row)}


def label(row: dict[str, float]) -> int:
    """1 where the first two columns sum to more than 0."""
    return int(row["x0"] + row["x1"] > 0)


def bodies(rows: int, count: int) -> list[bytes]:
    """Requests to predict."""
    return [json.dumps({"instances": rows_of(rows + n)[:rows]}).encode() for n in range(count)]


def trained(folder: Path, name: str, more: str = "", times: int = 1) -> Path:
    """A workspace whose model has learned 5,000 rows, so many times, and a spec beside it."""
    import everlearn

    place = folder / name
    place.mkdir()
    spec = place / "spec.py"
    spec.write_text(SPEC.format(more=more))
    names = [f"x{j}" for j in range(COLUMNS)]
    with everlearn.open(place / "workspace") as workspace:
        for time_ in range(times):
            lines = [",".join([*names, "y"])]
            given = rows_of(5000 + time_)
            lines += [",".join(map(str, [*row.values(), label(row)])) for row in given]
            (place / f"rows{time_}.csv").write_text("\n".join(lines) + "\n")
            workspace.model(str(spec)).train(str(place / f"rows{time_}.csv"))
    return place


@contextmanager
def process(words: Sequence[str | Path], port: int) -> Iterator[int]:
    """A server on a core of its own."""
    begun = subprocess.Popen(
        [sys.executable, *words],
        env=os.environ | one_thread(),
        stdout=subprocess.DEVNULL,
        preexec_fn=pin(0),
    )
    try:
        wait(port, begun)
        SERVERS[port] = begun.pid
        yield port
    finally:
        begun.terminate()
        begun.wait()


SERVERS: dict[int, int] = {}
"""Port → process."""


def processor(port: int) -> float:
    """Seconds of processor time that a server has taken; NaN where the system does not say."""
    try:
        figures = Path(f"/proc/{SERVERS[port]}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(figures[11]) + int(figures[12])) / os.sysconf("SC_CLK_TCK")


def server(place: Path) -> Any:
    """`everlearn serve`."""
    port = free_port()
    words = ["-m", "everlearn.cli", "--workspace", place / "workspace", "serve", place / "spec.py"]
    return process([*map(str, words), "--port", str(port)], port)


def bare(place: Path) -> Any:
    """The handler without a log."""
    port = free_port()
    words = [HERE / "live_peers.py", "bare", str(port), place / "workspace", "live"]
    return process(words, port)


def answering(kind: str, place: Path) -> Any:
    """The server as `served` or, with a shadow that never answers, `hung` of `live_peers.py`."""
    port = free_port()
    words = [HERE / "live_peers.py", kind, str(port), place / "workspace", "live"]
    return process(words, port)


def river(kind: str) -> Any:
    """River behind FastAPI: in memory ("river"), or on a shelf between two events ("stored")."""
    port = free_port()
    return process([HERE / "live_peers.py", kind, str(port)], port)


def pin(core: int) -> Any:
    """What a child runs first: keep to one core, if there are several."""
    cores = sorted(os.sched_getaffinity(0))
    chosen = {cores[core % len(cores)]}
    return lambda: os.sched_setaffinity(0, chosen)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait(port: int, begun: subprocess.Popen[bytes]) -> None:
    """Until it answers."""
    deadline = time.monotonic() + 120.0
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1.0).close()
            return
        except (urllib.error.URLError, OSError):
            if begun.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("a server did not start") from None
            time.sleep(0.05)


def loaded(port: int, path: str, texts: Sequence[bytes], connections: int, seconds: float) -> Any:
    """What `live_load.py` measures, and the seconds of processor time that a request took."""
    began = processor(port)
    done = subprocess.run(
        [sys.executable, HERE / "live_load.py", str(port), path, str(connections), str(seconds)],
        input=b"\n".join(texts),
        capture_output=True,
        check=True,
        preexec_fn=pin(1),
    )
    found = json.loads(done.stdout)
    if found["wrong"]:
        raise SystemExit(f"{found['wrong']} answers of {path} were no 200")
    return found | {"processor": (processor(port) - began) / found["requests"]}


def post(port: int, path: str, body: Any) -> Any:
    """One request."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60.0) as answer:
        return json.loads(answer.read())


def asked(port: int, count: int, rows: int) -> list[bytes]:
    """Requests that label predictions which were just made, so many a request."""
    texts = []
    for _ in range(count):
        given = rows_of(rows)
        answers = post(port, "/v1/models/live/predict", {"instances": given})["predictions"]
        said = [
            {"prediction_id": answer["id"], "value": label(row)}
            for answer, row in zip(answers, given, strict=True)
        ]
        texts.append(json.dumps({"labels": said}).encode())
    return texts


def labels(port: int, count: int) -> Any:
    """Labels a second, 500 a request, acknowledged when they are durable."""
    texts = asked(port, count, 500)
    found = loaded(port, "/v1/models/live/feedback", texts, 4, 0.0)
    return found | {"rate": found["rate"] * 500}


def delays(port: int, count: int) -> list[float]:
    """Seconds from a label's acknowledgement to an answer that has learned it, one at a time."""
    found = []
    for _ in range(count):
        (text,) = asked(port, 1, 1)
        (receipt,) = post(port, "/v1/models/live/feedback", json.loads(text))["labels"]
        began = time.perf_counter()
        row = rows_of(1)
        while True:
            (answer,) = post(port, "/v1/models/live/predict", {"instances": row})["predictions"]
            if answer["position"] >= receipt["position"]:
                break
        found.append(time.perf_counter() - began)
    return found


def learned(port: int, count: int) -> Any:
    """Labels a second until the last of them is in what answers, 1,000 a request."""
    texts, row = asked(port, count, 1000), rows_of(1)
    (answer,) = post(port, "/v1/models/live/predict", {"instances": row})["predictions"]
    last = answer["position"] + 1000 * count
    began, before = time.perf_counter(), processor(port)
    loaded(port, "/v1/models/live/feedback", texts, 4, 0.0)
    while True:
        (answer,) = post(port, "/v1/models/live/predict", {"instances": row})["predictions"]
        if answer["position"] >= last:
            labels, seconds = 1000 * count, time.perf_counter() - began
            return {"rate": labels / seconds, "processor": (processor(port) - before) / labels}
        time.sleep(0.005)


# --- what is shown ------------------------------------------------------------------------------


def checks(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """What is compared with a goal."""

    def median(name: str, figure: str = "rate") -> float:
        return statistics.median(one[figure] for one in found[name])

    delays = sorted(second for one in found["label to answer"] for second in one)
    ours, theirs = "everlearn, 64 connections", "bare, 64 connections"
    river, stored = median("river, one event"), median("river, stored")
    rate = median(ours) / median(theirs)
    tail = median(ours, "p99") / median(theirs, "p99")
    rows, labels = 100 * median("everlearn, 100 rows"), median("labels")
    middle, late = statistics.median(delays), delays[int(0.99 * len(delays))]
    learned = median("learned online")
    spent = [1e6 * median(name, "processor") for name in ("learned online", "river, one event")]
    hung = median("a shadow that hangs", "p99") / median("no shadow", "p99")
    return [
        check("requests/s against a bare handler", f"{rate:.2f}", "≥ 0.7", rate >= 0.7),
        check("p99 against its p99", f"{tail:.2f}", "≤ 2", tail <= 2.0),
        check("rows/s, 100 a request", f"{rows:,.0f}", "≥ 20,000", rows >= 20_000),
        check("labels/s, 500 a request, durable", f"{labels:,.0f}", "≥ 20,000", labels >= 20_000),
        check("p99 with a shadow that hangs, against none", f"{hung:.2f}", "≤ 1.05", hung <= 1.05),
        check("label to answer, median", f"{1000 * middle:.1f} ms", "≤ 50 ms", middle <= 0.05),
        check("label to answer, p99", f"{1000 * late:.1f} ms", "≤ 250 ms", late <= 0.25),
        check(
            "labels learned/s, 1,000 a request, against River behind FastAPI, an event a request",
            f"{learned:,.0f} / {river:,.0f}: {learned / river:.1f}×",
            "≥ 20×",
            learned >= 20 * river,
        ),
        check(
            "the same, against River that is stored at each event, as chantilly stores it",
            f"{learned:,.0f} / {stored:,.0f}: {learned / stored:.1f}×",
            "≥ 20×",
            learned >= 20 * stored,
        ),
        check(
            "processor time a label, against that of River's service an event",
            f"{spent[0]:.0f} / {spent[1]:.0f} µs: {spent[1] / spent[0]:.1f}×",
            "",
            None,
        ),
        check(
            "labels learned/s, against River with 100 events a request",
            f"{learned / (100 * median('river, 100 events')):.2f}×",
            "",
            None,
        ),
    ]


def check(what: str, figure: str, goal: str, met: bool | None) -> dict[str, Any]:
    """One line."""
    result = "" if met is None else "met" if met else "**missed**"
    return {"what": what, "figure": figure, "goal": goal, "result": result}


def report(rows: Sequence[dict[str, Any]], about: dict[str, str]) -> str:
    """The table."""
    lines = ["# The live loop", "", "| what | everlearn | goal | result |", "|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {row['figure']} | {row['goal']} | {row['result']} |" for row in rows
    ]
    lines += ["", *(f"- {name}: {value}" for name, value in about.items())]
    return "\n".join([*lines, "", "Written by `benchmarks/live.py`.", ""])


if __name__ == "__main__":
    main()
