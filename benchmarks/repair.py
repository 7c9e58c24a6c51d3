"""What repairs do, and what they cost.

    .venv/bin/python benchmarks/repair.py [--quick] [--out DIR] [--only SECTION …]

Each section is a function that gives the lines of its part of the table; with --out, repair.md is
written, in which sections that were not run stay as they were. One thread.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

import everlearn as el
from everlearn.base import Array, Batch, Columns
from everlearn.data.compiler import compile_rows
from everlearn.evaluation.gates import try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.learn import Fold
from everlearn.jobs.patch.report import BUDGET, measured, most_flips
from everlearn.jobs.patch.solving import solve
from everlearn.jobs.patch.wanted import Wanted
from everlearn.learners import Chain, Encoder, TorchLearner
from everlearn.strategies.patch import Edit, Patch, Way

DATA: dict[str, Callable[[], tuple[Array, Array]]] = {
    "digits": partial(load_digits, return_X_y=True),
    "breast_cancer": partial(load_breast_cancer, return_X_y=True),
}
GOALS = {"digits": 0.985, "breast_cancer": 0.97, "memory": 0.9995, "sequence": 0.96, "within": 0.95}
EDITS, SEQUENCE = 5, 25


def torch_net(widths: tuple[int, ...]) -> Any:
    """A multilayer perceptron with ReLU between its layers."""
    from torch import nn

    layers: list[Any] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.ReLU(), nn.Linear(before, after)]
    return nn.Sequential(*layers[1:])


def adam(parameters: Any) -> Any:
    from torch.optim import Adam

    return Adam(parameters, 3e-3)


def learner_of(name: str, p: int, k: int) -> tuple[Any, int]:
    """(a definition, how often it learns all rows)."""
    if name == "LR":
        return el.learners.LogisticRegression(), 3
    if name == "SGD":
        from sklearn.linear_model import SGDClassifier

        return Chain(Encoder(missing="mean"), SGDClassifier(loss="log_loss")), 3
    if name == "MLP":
        net = partial(torch_net, (p, 32, k))
        return TorchLearner(net, optimizer=adam, batch=32, encoder=Encoder(missing="mean")), 15
    return el.learners.AdaptiveRandomForestClassifier(), 2


LEARNERS = ("LR", "SGD", "MLP", "forest")


@dataclass(frozen=True)
class Case:
    """A model, rows kept out of learning, and fresh rows.

    Args:
        fold: that has learned.
        reference: rows whose answers should stay: hold-outs, and some rows that were learned.
        holdouts: for the gate.
        fresh: rows that neither the model nor the patch has seen.
    """

    fold: Fold
    reference: Batch
    holdouts: HoldOuts
    fresh: Batch

    def wrong(self, most: int) -> Wanted:
        """Edits of fresh rows that are answered wrongly."""
        said = self.fold.learner.predict(self.fresh).value
        assert self.fresh.y is not None
        rows = np.flatnonzero(said != self.fresh.y)[:most]
        edits = tuple(
            Edit(number=n + 1, features={}, output=0, reason="") for n in range(len(rows))
        )
        return Wanted(edits, self.fresh.take(rows).with_y(None), self.fresh.y[rows])

    def others(self, wanted: Wanted) -> Batch:
        """Fresh rows that are no edit."""
        return self.fresh.take(~np.isin(self.fresh.ids, wanted.batch.ids))


def case(data: str, name: str, seed: int, learned: float = 0.4) -> Case:
    """A model that has learned a share of the rows; the others are hold-outs and fresh ones."""
    x, y = DATA[data]()
    order = np.random.default_rng(seed).permutation(len(x))
    p, k = x.shape[1], len(np.unique(y))
    rows = Batch(
        numbers=np.ascontiguousarray(x[order], np.float64),
        categories=np.zeros((len(x), 0), np.uint64),
        times=np.zeros((len(x), 0), np.int64),
        ids=np.arange(1, len(x) + 1, dtype=np.uint64),
        y=y[order].astype(np.float64),
    )
    first, second = int(learned * len(x)), int((1.0 + learned) / 2.0 * len(x))
    columns = Columns(tuple(f"x{j}" for j in range(p)), target="y", target_kind="integer")
    definition, passes = learner_of(name, p, k)
    known = tuple(float(c) for c in range(k))
    fold = Fold.new(definition, columns, el.Strategy(seed=seed), classes=known)
    for _ in range(passes):
        for piece in rows.take(slice(0, first)).split(256):
            fold.learn(piece)
    held = HoldOuts()
    held.add(rows.take(slice(first, second)))
    held.settle()
    coded = rows.with_y(y[order].astype(np.int64))
    return Case(fold, coded.take(slice(0, second)), held, coded.take(slice(second, None)))


def figures(one: Case, patch: Patch, wanted: Wanted) -> dict[str, float]:
    """What a patch does on fresh rows."""
    rows, learner = one.others(wanted), one.fold.learner
    before, after = learner.predict(rows).value, patch.answer(learner, rows).value
    told = measured(one.fold, patch, learner.predict, wanted, one.reference, one.holdouts)
    return {
        "success": told["success"],
        "near": told["generalisation"],
        "locality": float((before == after).mean()),
        "flips": float(((before == rows.y) & (after != rows.y)).mean()),
        "exceptions": 0.0 if patch.exceptions is None else float(len(patch.exceptions)),
    }


def solved(one: Case, wanted: Wanted, way: Way) -> tuple[Patch, float]:
    """A patch, and the milliseconds that it took."""
    began = time.perf_counter()
    patch, _ = solve(one.fold, wanted, one.reference, way)
    assert patch is not None
    return patch, 1e3 * (time.perf_counter() - began)


def mean(found: list[dict[str, float]], name: str) -> float:
    return statistics.fmean(one[name] for one in found)


def check(value: float, goal: float) -> str:
    """A figure with whether it reaches its goal."""
    return f"{value:.4f} {'✓' if value >= goal - 5e-5 else '✗'} {goal:g}"


def patches(seeds: int) -> Iterator[str]:
    """Five wrong answers put right, by both ways."""
    yield "## Patch: five wrong answers on rows that were not learned"
    yield ""
    yield (
        f"Means over {seeds} seeds. The model learned 40 % of the rows; 30 % are hold-outs, and"
        " edits and figures are of the other 30 %. Near: copies of the edits with noise of 0.1"
        " standard deviations. Exceptions: edits that are held by them."
    )
    yield ""
    yield "| data | model | way | success | near | locality, goal | neg. flips | ms | exceptions |"
    yield "|---|---|---|---|---|---|---|---|---|"
    ways: tuple[Way, ...] = ("weights", "memory")
    for data in DATA:
        for name in LEARNERS:
            cases = [case(data, name, seed) for seed in range(seeds)]
            for way in ways:
                found, took = [], []
                for one in cases:
                    wanted = one.wrong(EDITS)
                    if wanted.edits:
                        patch, ms = solved(one, wanted, way)
                        found.append(figures(one, patch, wanted))
                        took.append(ms)
                goal = GOALS["memory" if way == "memory" else data]
                yield (
                    f"| {data} | {name} | {way} | {mean(found, 'success'):.3f}"
                    f" | {mean(found, 'near'):.3f} | {check(mean(found, 'locality'), goal)}"
                    f" | {mean(found, 'flips'):.4f} | {statistics.median(took):.1f}"
                    f" | {mean(found, 'exceptions'):.1f} |"
                )


def sequence(seeds: int) -> Iterator[str]:
    """Twenty-five edits, one after the other."""
    yield f"## Patch: {SEQUENCE} edits in sequence, each solved again with all before it"
    yield ""
    yield "Digits, by a change of weights; the model learned 25 % of the rows."
    yield ""
    yield "| model | all edits hold | locality, goal | ms of the last |"
    yield "|---|---|---|---|"
    for name in LEARNERS:
        found, took = [], []
        for seed in range(seeds):
            one = case("digits", name, seed, learned=0.25)
            wanted = one.wrong(SEQUENCE)
            for count in range(1, len(wanted.edits) + 1):
                some = wanted.take(np.arange(len(wanted.edits)) < count)
                if count in (1, len(wanted.edits)):  # those between change nothing of the last
                    patch, ms = solved(one, some, "weights")
            found.append(figures(one, patch, wanted))
            took.append(ms)
        yield (
            f"| {name} | {mean(found, 'success'):.3f}"
            f" | {check(mean(found, 'locality'), GOALS['sequence'])}"
            f" | {statistics.median(took):.1f} |"
        )


def gate(seeds: int) -> Iterator[str]:
    """How often negative flips on fresh rows keep to the budget, with the gate deciding."""
    yield "## Patch: negative flips, as the gate lets patches through"
    yield ""
    yield (
        "A change of weights that may turn more hold-outs from right to wrong than the budget of"
        f" {BUDGET:.0%} (with a chance of 5 %) gives way to exceptions. Share of patches of"
        f" {EDITS} edits after which fresh rows keep to the budget."
    )
    yield ""
    yield "| data | model | by weights | within the budget, goal | without the gate |"
    yield "|---|---|---|---|---|"
    for data in DATA:
        for name in LEARNERS:
            kept, alone, by_weights = [], [], []
            for seed in range(seeds):
                one = case(data, name, seed)
                wanted = one.wrong(EDITS)
                if not wanted.edits:
                    continue
                patch, _ = solved(one, wanted, "weights")
                alone.append(figures(one, patch, wanted)["flips"] <= BUDGET)
                candidate = replace(one.fold, patch=patch)
                told = try_candidate(candidate, one.fold, one.holdouts, None)
                by_weights.append(most_flips(told.evidence) <= BUDGET)
                if not by_weights[-1]:
                    patch, _ = solved(one, wanted, "memory")
                kept.append(figures(one, patch, wanted)["flips"] <= BUDGET)
            within = check(statistics.fmean(kept), GOALS["within"])
            yield (
                f"| {data} | {name} | {statistics.fmean(by_weights):.2f} | {within}"
                f" | {statistics.fmean(alone):.2f} |"
            )


SPEC = """
import everlearn as el
from torch import nn
from torch.optim import Adam

def net():
    return nn.Sequential(nn.Linear(64, 984), nn.ReLU(), nn.Linear(984, 984), nn.ReLU(),
                         nn.Linear(984, 10))

def adam(parameters):
    return Adam(parameters, 1e-3)

large = el.learners.TorchLearner(net, optimizer=adam, classes=10, batch=64,
                                 encoder=el.learners.Encoder(missing="mean"))
model = el.Model("digits", learner=LEARNER, schema=el.Schema(target="y"), holdout=0.2)
"""

LARGE = {"1M-parameter MLP": "large", "LR": "el.learners.LogisticRegression()"}


def million(folder: Path, learner: str, rows: int = 3000) -> tuple[Any, list[dict[str, Any]]]:
    """A model of a workspace that learned digits, and rows that it did not learn."""
    x, y = DATA["digits"]()
    x, y = np.tile(x, (3, 1)), np.tile(y, 3)
    x = x + np.random.default_rng(0).normal(0.0, 0.5, x.shape)
    names = [f"x{j}" for j in range(x.shape[1])]
    table = [
        dict(zip((*names, "y"), (*row, label), strict=True))
        for row, label in zip(x.tolist(), y.tolist(), strict=True)
    ]
    spec = folder / "digits.py"
    spec.write_text(SPEC.replace("LEARNER", learner))
    handle = el.open(folder / "workspace").model(spec)
    handle.train(table[:rows])
    return handle, table[rows:]


def wrong_rows(handle: Any, table: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Edits of rows to another class than is answered."""
    features = [{k: v for k, v in row.items() if k != "y"} for row in table[:count]]
    said = handle.predict(features, log=False)
    return [
        {"features": row, "output": (one.value + 1) % 10, "reason": "benchmark"}
        for row, one in zip(features, said, strict=True)
    ]


def seconds(seeds: int) -> Iterator[str]:
    """From the call to the version, and what exceptions cost those who ask."""
    yield "## Patch: time"
    yield ""
    yield "| what | figure | goal |"
    yield "|---|---|---|"
    for name, learner in LARGE.items():
        with tempfile.TemporaryDirectory() as folder:
            handle, table = million(Path(folder), learner)
            took = []
            for round_ in range(min(seeds, 5)):
                edits = wrong_rows(handle, table[5 * round_ :], EDITS)
                began = time.perf_counter()
                handle.repair.patch(edits)
                took.append(time.perf_counter() - began)
            yield (
                f"| {name}: {EDITS} edits, from the call to the version"
                f" | {statistics.median(took):.2f} s (first {took[0]:.2f} s) | ≤ 1 s |"
            )
            yield from _exceptions(name, handle, table)


def _exceptions(name: str, handle: Any, table: list[dict[str, Any]]) -> Iterator[str]:
    """What 1,000 exceptions cost: the quickest of many calls, in turns with those without."""
    edits = wrong_rows(handle, table[200:], 1000)
    handle.repair.patch(edits, way="memory")
    rows = [edit["features"] for edit in wrong_rows(handle, table[1300:], 1000)]
    with_, without = handle.load(), handle.load(1)
    for count in (1, 1000):
        asked = rows[:count]
        took: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(40 if count == 1000 else 400):
            for patched, fold in ((True, with_), (False, without)):
                began = time.perf_counter()
                fold.predict(compile_rows(asked, fold.columns))
                took[patched].append(time.perf_counter() - began)
        ratio = min(took[True]) / min(took[False])
        yield (
            f"| {name}: {count} row{'s' * (count > 1)} answered with 1,000 exceptions,"
            f" against without | {ratio:.2f} × | ≤ 1.2 × |"
        )


SECTIONS: dict[str, Callable[[int], Iterator[str]]] = {
    "patches": patches,
    "sequence": sequence,
    "gate": gate,
    "seconds": seconds,
}


def written(path: Path) -> dict[str, list[str]]:
    """Name of a section → the lines that a file has of it."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith("<!-- ") and line[5:-4] in SECTIONS:
            name = line[5:-4]
            found[name] = []
        elif name:
            found[name].append(line)
    return {name: "\n".join(lines).strip().splitlines() for name, lines in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 seeds instead of 20")
    parser.add_argument("--out", type=Path, help="folder of repair.md; other sections in it stay")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    asked = parser.parse_args()
    made: dict[str, list[str]] = {}
    for name in asked.only:
        made[name] = []
        for line in SECTIONS[name](2 if asked.quick else 20):
            print(line, flush=True)
            made[name].append(line)
        print(f"{name} is done", file=sys.stderr)
    if asked.out:
        path = asked.out / "repair.md"
        every = written(path) | made
        head = f"# Repair\n\nPython {platform.python_version()}, {os.cpu_count()} processors.\n"
        parts = [
            f"\n<!-- {name} -->\n" + "\n".join(every[name]) for name in SECTIONS if name in every
        ]
        path.write_text(head + "\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
