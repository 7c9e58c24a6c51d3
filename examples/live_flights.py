"""A year of New York flights through a server that keeps its model learning.

January trains the first version. A server, as a process of its own, then answers for every later
flight two hours before its schedule, and is told whether it was late when it has landed. The
console shows it live. What happens by itself:

- the share of late flights drifts: a trigger asks for a job, the gate passes its candidate, a
  canary tries it on a share of the flights and makes it champion;
- from June on, one of five feeds says of every flight the opposite of what happened: its labels
  are quarantined before they are learned;
- in September somebody trains on a table in which `late` was turned round. What is held out of it
  is just as wrong, so the gate passes the candidate; the canary rolls it back.

At the end it is told what the year gained over the version of January.

    python examples/live_flights.py
    python examples/live_flights.py --out out/live --days-per-second 2 --stay
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nyc_flights import flights
from rich.console import Console
from rich.table import Table
from sklearn.metrics import log_loss, roc_auc_score

import everlearn as el

SPEC = Path(__file__).with_name("served_flights.py")
NAME = "flight-delays"
FEATURES = ["carrier", "origin", "dest", "distance", "announced"]
COLUMNS = [*FEATURES, "scheduled", "late"]
FEEDS = ["tower", "airline", "airport", "radar", "app"]
LIAR = "app"
LIES_FROM = "2013-06-01"
MISTAKE_AT = "2013-09-15"
AHEAD = pd.Timedelta(hours=2)
MOST = 1000
"""Rows of a request."""

BLOCK = pd.Timedelta(hours=6)
"""Of the year, that is replayed at once."""


def main(out: Path, days_per_second: float, days: int | None, stay: bool) -> dict[str, Any]:
    """Train, serve, replay, and tell what happened. Everything is written to `out`."""
    if out.exists():
        raise SystemExit(f"{out} is there already: remove it, or name another folder with --out")
    out.mkdir(parents=True)
    table = with_announcements(flights(also=["flight", "dep_delay"]))
    january = table["scheduled"] < "2013-02-01"
    table.loc[january, COLUMNS].to_csv(out / "january.csv", index=False)
    august = table[table["scheduled"].between("2013-08-01", MISTAKE_AT)]
    august.assign(late=1 - august["late"])[COLUMNS].to_csv(out / "turned.csv", index=False)
    print(f"January: {january.sum():,} flights, {table.loc[january, 'late'].mean():.1%} late")
    everlearn(out, "train", str(SPEC), str(out / "january.csv")).wait()
    year = table[~january].reset_index(drop=True)
    if days is not None:
        year = year[year["scheduled"] < year["scheduled"].min() + pd.Timedelta(days=days)]
    with Server(out) as server, el.open(out / "workspace") as workspace:
        print(f"\nThe console: {server.url}/console/models/{NAME}\n", flush=True)
        story = Story(server.url)
        handle, mistake = workspace.model(str(SPEC)), str(out / "turned.csv")
        client = el.Client(server.url)
        answered = replay(year, client, story, lambda: handle.plan(mistake), days_per_second)
        story.stop()
        if stay:
            input("The server goes on until you press Enter. ")
        year[COLUMNS].to_csv(out / "year.csv", index=False)
        frozen = handle.predict(str(out / "year.csv"), version=1)
    told = {**story.told, **gain(year, answered, [answer.probabilities[1] for answer in frozen])}
    (out / "outcome.json").write_text(json.dumps(told, indent=2) + "\n")
    return told


def with_announcements(table: pd.DataFrame) -> pd.DataFrame:
    """Add `announced`, the delay in minutes that is known two hours ahead: of half of those that
    will be an hour and a half or longer; and who tells how a flight ended."""
    chance = np.random.default_rng(0).random(len(table))
    known = (table["dep_delay"] >= 90) & (chance < 0.5)
    feeds = np.random.default_rng(1).choice(FEEDS, len(table))
    return table.assign(announced=table["dep_delay"].where(known, 0.0), feed=feeds)


def replay(
    year: pd.DataFrame,
    client: el.Client,
    story: Story,
    mistake: Callable[[], object],
    days_per_second: float,
) -> np.ndarray:
    """Ask for each flight before it departs and tell how it ended after it landed, in the order in
    which that happened; the probability of being late that was answered for each.

    Args:
        mistake: queues a job that should not be; done once, when nothing else goes on.
    """
    rows = year[FEATURES].assign(scheduled=year["scheduled"].astype(str)).to_dict("records")
    keys = (year["carrier"] + year["flight"].astype(str)).tolist()
    said = labels(year)
    asked_at, landed = (year["scheduled"] - AHEAD).to_numpy(), year["arrived"].to_numpy()
    landing = np.argsort(landed, kind="stable")
    moments = pd.date_range(asked_at[0], landed.max() + BLOCK, freq=BLOCK)
    asked_upto = np.searchsorted(asked_at, moments)
    landed_upto = np.searchsorted(landed[landing], moments)
    ids: list[str] = []
    chances: list[float] = []
    told = 0
    mistaken = False
    began = time.monotonic()
    for number, moment in enumerate(moments):
        while len(ids) < asked_upto[number]:
            part = slice(len(ids), min(len(ids) + MOST, asked_upto[number]))
            for answer in client.predict(NAME, rows[part], keys=keys[part]):
                ids.append(answer["id"])
                chances.append(answer["probabilities"]["1"])
        while told < landed_upto[number]:
            some = landing[told : min(told + MOST, landed_upto[number])]
            client.feedback(NAME, [said[row] | {"prediction_id": ids[row]} for row in some])
            told += len(some)
        story.moment = moment
        if not mistaken and moment >= pd.Timestamp(MISTAKE_AT) and story.is_quiet():
            with suppress(el.ConflictError):  # a trigger was faster
                mistake()
                mistaken = True
                story.say("somebody trains on a table in which `late` was turned round")
        due = (moment - moments[0]) / pd.Timedelta(days=1) / days_per_second
        time.sleep(max(0.0, began + due - time.monotonic()))
    return np.array(chances)


def labels(year: pd.DataFrame) -> list[dict[str, Any]]:
    """What the feeds say of the flights."""
    lies = (year["feed"] == LIAR) & (year["arrived"] >= LIES_FROM)
    said = pd.DataFrame(
        {
            "value": year["late"] ^ lies.astype(int),
            "source": year["feed"],
            "at": year["arrived"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
    return said.to_dict("records")


class Story:
    """Prints what happens to the model while it happens, from the server's stream of events.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self.moment: pd.Timestamp | None = None
        self.told: dict[str, int] = {}
        self._url = f"{url}/v1/models/{NAME}"
        self._known: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Print what is left."""
        time.sleep(2.0)
        self._stopped.set()
        self._thread.join()

    def say(self, text: str) -> None:
        """Print a line, with the day of the year that is replayed."""
        day = "" if self.moment is None else f"{self.moment:%d %b}"
        print(textwrap.fill(text, 100, initial_indent=f"{day:>6}  ", subsequent_indent=" " * 8))

    def is_quiet(self) -> bool:
        """Whether no job is going on, and no rollout."""
        going = self._get("jobs")["jobs"] + self._get("rollouts")["rollouts"]
        return not any(one["state"] in ("queued", "running", "committed") for one in going)

    def _follow(self) -> None:
        since, last = "0", False
        while not last:
            last = self._stopped.is_set()
            with urllib.request.urlopen(f"{self._url}/events?since={since}&seconds=2") as stream:
                event: dict[str, str] = {}
                for line in stream:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name:
                        event[name] = value
                    elif "data" in event:
                        since = event["id"]
                        self._tell(event["event"], json.loads(event["data"]))
                        event = {}

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        action = data.get("action", "")
        if kind == "trigger" and action == "learn":
            self._once(
                "triggers", f"{data['name'].partition('(')[0]} fires: {data['reason']}", data["at"]
            )
        elif kind == "job" and data["state"] in ("done", "failed"):
            reason = data["error"] or data["decision"]["reason"]
            self._once("jobs", f"job {data['id']} is {data['state']}: {reason}", data["id"])
            for source in self._get("quarantine")["quarantine"]:
                said = f"labels of {source['source']!r} are quarantined: {source['reason']}"
                self._once("quarantined", said, source["source"])
        elif kind == "rollout" and action != "hold":
            stage = f"rollout {data['rollout_id']}, stage {data['stage'] + 1}"
            self._once(action, f"{stage}: {action}: {data['reason']}", data["at"])
        elif kind == "alias" and data["name"] == "champion":
            self._once("champions", f"version {data['version_to']} serves", data["version_to"])

    def _once(self, what: str, text: str, number: object) -> None:
        if f"{what} {number}" not in self._known:
            self._known.add(f"{what} {number}")
            self.told[what] = self.told.get(what, 0) + 1
            self.say(text)

    def _get(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/{what}", timeout=60) as answer:
            return json.load(answer)


class Server:
    """`everlearn serve` in a process of its own, on a port that is free.

    Args:
        out: where the workspace is.
    """

    def __init__(self, out: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = everlearn(out, "serve", str(SPEC), "--port", str(port))

    def __enter__(self) -> Server:
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/readyz").close()
                return self
            except OSError:
                if self._process.poll() is not None:
                    raise SystemExit("the server did not start") from None
                time.sleep(0.1)

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()


def everlearn(out: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a command over the workspace in `out`; what it prints goes to a file there."""
    command = [sys.executable, "-m", "everlearn.cli", "--workspace", str(out / "workspace"), *words]
    with (out / f"{words[0]}.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def gain(year: pd.DataFrame, answered: np.ndarray, january: Sequence[float]) -> dict[str, Any]:
    """Log loss and AUC, month by month, of what was answered and of the version of January."""
    frozen = np.array(january)
    shown = Table("month", "flights", "late", box=None, pad_edge=False)
    for title in ("log loss", "frozen", "AUC", "frozen"):
        shown.add_column(title, justify="right")
    told = {}
    month = year["scheduled"].dt.strftime("%m %b")
    for name in [*sorted(month.unique()), "all"]:
        rows = (month == name).to_numpy() if name != "all" else np.ones(len(year), bool)
        y = year["late"].to_numpy()[rows]
        figures = [
            figure
            for metric in (log_loss, roc_auc_score)
            for figure in (metric(y, answered[rows]), metric(y, frozen[rows]))
        ]
        shown.add_row(name, f"{rows.sum():,}", f"{y.mean():.1%}", *(f"{f:.4f}" for f in figures))
        told[name] = dict(
            zip(("log_loss", "frozen_log_loss", "auc", "frozen_auc"), figures, strict=True)
        )
    Console().print(shown)
    return {"months": told}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A year of New York flights, served.")
    parser.add_argument("--out", type=Path, default=Path("out/live"), metavar="DIR")
    parser.add_argument("--days-per-second", type=float, default=4.0, metavar="N")
    parser.add_argument("--days", type=int, metavar="N", help="replay so many days only")
    parser.add_argument("--stay", action="store_true", help="serve on until Enter is pressed")
    given = parser.parse_args()
    main(given.out, given.days_per_second, given.days, given.stay)
