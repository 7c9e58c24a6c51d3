"""Kills servers with SIGKILL while callers ask and label, and counts what survived.

    python -m benchmarks.live_kills [--kills 200] [--seed 0] [--out FILE]

A server answers for two models: one learns every label as it arrives and cuts versions, the other
learns by jobs that a trigger asks for, and tries what they make in a canary. Four callers ask,
label late, label before they ask, correct, and say again what they said. The server is killed at a
random moment, at a crash point, or while it starts. After each kill the workspace is looked at (see
`live_checks.py`), then the next server goes on with it, and the callers send again what nobody
acknowledged. After `LIVES` servers a new workspace is begun.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np

import everlearn as el
from benchmarks.live_callers import Answer, Caller
from benchmarks.live_checks import (
    check_answers,
    check_batch,
    check_events,
    check_file,
    check_online,
)
from benchmarks.live_server import Forked
from everlearn.jobs.online import Tail

ONLINE, BATCH = "online", "batch"
SPECS = {
    ONLINE: """
import everlearn as el

model = el.Model(
    "online",
    learner=el.learners.LogisticRegression(learning_rate=0.05),
    schema=el.Schema(target="y"),
    triggers=[el.Online(rows=60, margin=10.0)],
)
""",
    BATCH: """
import everlearn as el

model = el.Model(
    "batch",
    learner=el.learners.LogisticRegression(learning_rate=0.05),
    schema=el.Schema(target="y"),
    triggers=[el.Volume(30)],
    rollout=el.Canary([20, 60], metric="accuracy", margin=0.9, labels=10),
)
""",
}

POINTS = {
    "online.saved": 3,
    "online.committing": 3,
    "trigger.decided": 1,
    "trigger.queued": 1,
    "trigger.fired": 1,
    "job.judged": 1,
    "job.saved": 1,
    "job.committing": 1,
    "job.committed": 1,
    "job.done": 1,
}
"""Crash point → the last of its passages at which a server may kill itself."""

LIVES = 20
"""Servers of one workspace, one after the other."""

LONGEST = 1.0
"""Seconds of traffic before a kill from outside."""

PATIENCE = 3.0
"""Seconds that a crash point may take to be reached; then it is a kill from outside."""

PROBES = [-2.0, -0.5, 0.0, 0.1, 0.7, 3.0]


@dataclass
class Counts:
    """What all came to."""

    kills: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    rollouts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)


def main() -> None:
    """Kill until there were enough, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    began, counts, number = time.perf_counter(), Counts(), 0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        specs = prepare(folder)
        while counts.kills.total() < options.kills:
            shutil.copytree(folder / "first", folder / f"trial-{number}")
            trial = Trial(folder / f"trial-{number}", specs, [options.seed, number], counts)
            trial.run(min(LIVES, options.kills - counts.kills.total()))
            shutil.rmtree(trial.folder)
            number += 1
            text = table(counts, options.kills, options.seed, number, time.perf_counter() - began)
            if options.out:
                options.out.write_text(text)
    print(text)
    if counts.violations:
        raise SystemExit(1)


def prepare(folder: Path) -> list[Path]:
    """A workspace in which both models have a first version; and their definitions."""
    x = np.random.default_rng(0).normal(size=300)
    lines = ["x,y", *(f"{value:.4f},{int(value > 0)}" for value in x)]
    (folder / "first.csv").write_text("\n".join(lines) + "\n")
    paths = []
    with el.open(folder / "first") as workspace:
        for name, text in SPECS.items():
            paths.append(folder / f"{name}.py")
            paths[-1].write_text(text)
            workspace.model(str(paths[-1])).train(str(folder / "first.csv"))
    return paths


class Trial:
    """One workspace, and its servers.

    Args:
        folder: of the workspace.
        specs: of the models.
        seed: of callers and kills.
        counts: to add to.
    """

    def __init__(self, folder: Path, specs: list[Path], seed: list[int], counts: Counts) -> None:
        self.folder, self._specs, self._counts = folder, specs, counts
        self._random = np.random.default_rng(seed)
        self._callers = {
            model: [
                Caller(f"{model} {n}", model, int(self._random.integers(2**31))) for n in range(2)
            ]
            for model in (ONLINE, BATCH)
        }
        self._compared: set[str] = set()
        self._start = 1.0
        self._whole: Tail | None = None

    def run(self, lives: int) -> None:
        """One server after the other, each killed, then one that is left in peace."""
        for life in range(lives + 1):
            self._workspace = None
            try:
                if life < lives:
                    how, seconds = self._live()
                    self._counts.kills[how] += 1
                else:
                    how, seconds = self._last()
                self._check(sent_again=life == lives)
            except AssertionError as error:
                how, seconds = "violation", 0.0
                where = traceback.extract_tb(error.__traceback__)[-1]
                what = str(error) or f"{where.name}: {where.line}"
                self._counts.violations.append(f"{self.folder.name}, life {life}: {what}")
                print(self._counts.violations[-1], flush=True)
            total = self._counts.kills.total()
            print(f"{total:4} {self.folder.name} {how} after {seconds:.2f} s", flush=True)
        self._add_up()

    def _live(self) -> tuple[str, float]:
        """A server until it is dead: how, and after how many seconds of traffic."""
        if self._random.random() < 0.1:
            return self._killed_while_it_starts()
        crash = ""
        if self._random.random() < 0.4:
            name = list(POINTS)[int(self._random.integers(len(POINTS)))]
            crash = f"{name}:{int(self._random.integers(1, POINTS[name] + 1))}"
        server, began = self._server(crash), time.perf_counter()
        wait = PATIENCE if crash else float(self._random.uniform(0.0, LONGEST))
        if server.wait_until_it_answers():
            self._start = time.perf_counter() - began
            self._counts.restarts.append(self._start)
            self._probe(server)
        began = time.perf_counter()
        threads = [caller.begin(server.client) for caller in self._all()]
        server.process.join(wait)
        reached, seconds = server.process.exitcode is not None, time.perf_counter() - began
        server.kill()
        for thread in threads:
            thread.join()
        server.client.close()
        assert server.process.exitcode == -signal.SIGKILL, server.log.read_text()
        return (crash.partition(":")[0] if reached else "a random moment"), seconds

    def _killed_while_it_starts(self) -> tuple[str, float]:
        server = self._server()
        wait = float(self._random.uniform(0.0, 1.2 * self._start))
        server.process.join(wait)
        server.kill()
        server.client.close()
        return "while it starts", wait

    def _last(self) -> tuple[str, float]:
        """A server that has the time to take what was in doubt, and ends when it is told to."""
        server, began = self._server(), time.perf_counter()
        assert server.wait_until_it_answers(), server.log.read_text()
        self._probe(server)
        for caller in self._all():
            caller.send_again(server.client)
        server.end()
        return "the last one", time.perf_counter() - began

    def _server(self, crash: str = "") -> Forked:
        return Forked(self.folder, self._specs, self.folder.with_suffix(".log"), crash)

    def _probe(self, server: Forked) -> None:
        """What a server knows when it is back is the fold of the log."""
        if self._whole is None:
            return
        body = {"instances": [{"x": value} for value in PROBES]}
        until = time.perf_counter() + 30.0
        while True:
            try:
                given = server.post(f"/v1/models/{ONLINE}/predict", body)["predictions"]
            except httpx2.TransportError:
                return  # its crash point came first
            self._callers[ONLINE][0].memory.unheard += len(given)  # nobody labels these
            if given[0].get("position") == self._whole.position:
                break
            assert time.perf_counter() < until, f"it does not catch up: {given[0]}"
            time.sleep(0.01)
        answers = [
            Answer(item["id"], {"probabilities": item["probabilities"]}, x, 0, "", None, None)
            for item, x in zip(given, PROBES, strict=True)
        ]
        check_answers(self._whole.fold, answers)
        self._counts.events["states compared after a restart"] += 1

    def _check(self, sent_again: bool) -> None:
        """All that must hold now."""
        check_file(self.folder)
        with el.open(self.folder) as workspace:
            for model in (ONLINE, BATCH):
                memories = [caller.memory for caller in self._callers[model]]
                for memory in memories:
                    assert not memory.violations, memory.violations
                check_events(workspace.updates.log(model), memories, sent_again)
            self._whole, compared = check_online(workspace, ONLINE, self._new(ONLINE))
            compared += check_batch(workspace, BATCH, self._new(BATCH))
            self._counts.events["answers compared with their state"] += compared
            if sent_again:
                dead = [job for job in workspace.jobs() if job.state in ("dead", "failed")]
                assert all(job.state == "dead" for job in dead), dead
                self._counts.events["jobs given up, after three kills each"] += len(dead)
                for model in (ONLINE, BATCH):
                    self._counts.versions[model] += len(workspace.registry.versions(model)) - 1
                states = [one.state for one in workspace.rollouts.listed(BATCH)]
                self._counts.rollouts.update(states)

    def _new(self, model: str) -> list[Answer]:
        """Acknowledged answers that were not compared yet."""
        found = [
            answer
            for caller in self._callers[model]
            for answer in caller.memory.answers.values()
            if answer.id not in self._compared
        ]
        self._compared |= {answer.id for answer in found}
        return found

    def _add_up(self) -> None:
        memories = [caller.memory for caller in self._all()]
        self._counts.events.update(
            {
                "predictions acknowledged": sum(len(one.answers) for one in memories),
                "labels acknowledged": sum(len(one.said) for one in memories),
                "labels sent and acknowledged again": sum(one.twice for one in memories),
                "rows asked, no answer came": sum(one.unheard for one in memories),
                "answers 503, sent again": sum(one.refused for one in memories),
            }
        )

    def _all(self) -> list[Caller]:
        return [caller for callers in self._callers.values() for caller in callers]


def table(counts: Counts, kills: int, seed: int, trials: int, seconds: float) -> str:
    """The result as Markdown."""
    lines = [
        "# Servers killed while they answer and learn",
        "",
        f"{counts.kills.total()} times SIGKILL in {trials} workspaces on SQLite "
        f"(`python -m benchmarks.live_kills --kills {kills} --seed {seed}`, {seconds:.0f} s, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}). Four "
        "callers; one model learns online, one by triggers, jobs and canaries.",
        "",
        f"**Violations: {len(counts.violations)}.** After each kill: the database is sound; every "
        "acknowledged prediction and label is in the log, once, as it was acknowledged, at the "
        "position that was acknowledged, and nothing is there that nobody sent; positions have no "
        "gaps; each version goes on where its parent ended, and accounts for every label; "
        "every version that was cut online is bit-equal to the fold of the log from the first one; "
        "every acknowledged answer is exactly what the state says that it names (version; version "
        "and position online); aliases agree with their history; a rollout counted each labelled "
        "answer once. After each restart: the server answers as the fold of the log.",
        "",
        "| killed | times |",
        "|---|---:|",
        *(f"| {name} | {counts.kills[name]} |" for name in sorted(counts.kills)),
        "",
        "| what | how many |",
        "|---|---:|",
        *(f"| {name} | {counts.events[name]:,} |" for name in sorted(counts.events)),
        *(f"| versions, {name} | {number:,} |" for name, number in counts.versions.items()),
        *(f"| rollouts {name} | {number:,} |" for name, number in sorted(counts.rollouts.items())),
        f"| seconds from start to first answer, median | {np.median(counts.restarts):.1f} |",
    ]
    if counts.violations:
        lines += ["", "Violations:", "", *(f"- {text}" for text in counts.violations)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
