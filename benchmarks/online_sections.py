"""The sections of benchmarks/online.py: what is measured, and against which goal."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable

from jobs import one_thread
from online_bench import BASELINES, Bench, Side
from online_table import Check, figures, rate, share

WATCHED = 200_000
"""Values that drift detectors get."""

SOME = {"flights": 100_000, "synthetic": 100_000}
"""Rows of those streams on which peers run that learn a row at a time from Python."""

SEEDS = ("{round}1", "{round}2", "{round}3")
"""Of the forests of one measurement of ours; a peer has one seed a round."""

DETECTORS = {"ADWIN": 20, "PageHinkley": 20, "DDM": 20, "HDDM_A": 20, "HDDM_W": 20, "KSWIN": 100}
"""Name → how many times as fast as River's ours should be."""

FIRST = """
import json, time
import everlearn as el
begin = time.perf_counter()
import numpy as np
generator = np.random.default_rng(0)
X = generator.normal(size=(1000, 10))
learner = el.learners.{learner}
learner.partial_fit(X, (X[:, 0] > 0).astype(int))
learner.predict(X[:1])
print(json.dumps(time.perf_counter() - begin))
"""
"""A thousand rows are learned and one is predicted, so that all kernels are needed."""

FOREST_ROWS = {"Elec2": 20_000, "flights": 5_000, "synthetic": 5_000}

LEARNERS = {
    "logistic": "LogisticRegression(classes=2)",
    "tree": "HoeffdingTreeClassifier(classes=2)",
    "forest": "AdaptiveRandomForestClassifier(classes=2, n_models=10, seed=1)",
    "Auto": "Auto(classes=2)",
}

COLD = ("logistic", "Auto")


# --- the sections ------------------------------------------------------------------------------


def baselines(bench: Bench) -> None:
    """What is right on each stream without looking at any column."""
    for name in bench.shapes:
        right = [share(bench.baseline(kind, name)["accuracy"]) for kind in BASELINES]
        bench.add(
            Check(
                "streams",
                " / ".join(BASELINES),
                name,
                " / ".join(right),
                "",
                ", ".join(f"{kind} {each}" for kind, each in zip(BASELINES, right, strict=True)),
                "",
                "",
                None,
            )
        )


def linear(bench: Bench) -> None:
    """Logistic regression: River, scikit-learn, Vowpal Wabbit, files, single rows, a plain sum."""
    sides: dict[str, dict[str, Side]] = {}
    for name in bench.shapes:
        few, whole = bench.first(name, SOME.get(name)), bench.first(name)
        text = bench.file(name, "vw")
        sides[name] = {
            "river": Side("river_logistic", name, few),
            "ours, few": Side("logistic", name, few, ("sgd",)),
            "one": Side("one", name, few),
            "ours": Side("logistic", name, whole, ("sgd",)),
            "adaptive": Side("logistic", name, whole, ("adagrad",)),
            "default": Side("logistic", name, whole, ("default",)),
            "sgd": Side("sklearn_sgd", name, whole),
            "cache": Side("vw", name, whole, (text, "cache")),
            "text": Side("vw", name, whole, (text, "text")),
            "csv": Side("file", name, whole, (bench.file(name, "csv"),)),
            "parquet": Side("file", name, whole, (bench.file(name, "parquet"),)),
            "sum": Side("memory", name, whole),
        }
    bench.measure(side for found in sides.values() for side in found.values())
    for side in sides.values():
        bench.faster("River LogisticRegression", side["ours, few"], side["river"], 250, "equal")
        bench.faster("River, `learn_one` of both", side["one"], side["river"], 8, "equal")
        bench.faster(
            "scikit-learn SGD, chunks of 1,000", side["ours"], side["sgd"], 15, "not below"
        )
        bench.faster("Vowpal Wabbit, from its cache", side["ours"], side["cache"], 8)
        bench.faster("the same, against our AdaGrad", side["adaptive"], side["cache"], None)
        bench.faster("the same, against our default", side["default"], side["cache"], None)
        bench.faster("Vowpal Wabbit's text, our Parquet", side["parquet"], side["text"], 2)
        bench.faster("Vowpal Wabbit's text, our CSV", side["csv"], side["text"], 2)
    for name, side in sides.items():
        _memory(bench, name, side["ours"], side["sum"])


def _memory(bench: Bench, name: str, ours: Side, total: Side) -> None:
    """The share of memory's speed, where the stream is larger than the processor's caches."""
    part = bench.rate(ours) / bench.rate(total)
    large = bench.first(name) * bench.shapes[name][1] > 10_000_000
    bench.add(
        Check(
            "streams",
            "a plain sum over the array",
            name,
            f"{100 * part:.1f} %{'' if large else ' (in cache)'}",
            f"{rate(bench.rate(ours))} rows/s",
            f"{rate(bench.rate(total))} rows/s",
            f"{100 * part:.1f} %",
            "15 %, from memory",
            part >= 0.15 if large else None,
        )
    )


def trees(bench: Bench) -> None:
    """Hoeffding trees: River's with its settings, CapyMOA's with its own; the other one of them is
    run once with the same settings, for its accuracy."""
    fewer = {"flights": 50_000, "synthetic": 20_000}
    for what, task, other, delta, goal, most in (
        ("River Hoeffding tree, δ = 1e-7", "river_tree", "capymoa tree", "1e-7", 80, fewer),
        ("CapyMOA Hoeffding tree, δ = 1e-3", "capymoa tree", "river_tree", "1e-3", 40, SOME),
    ):
        rows = {name: bench.first(name, most.get(name)) for name in bench.shapes}
        ours = {name: Side("tree", name, count, (delta,)) for name, count in rows.items()}
        peers = {name: Side(task, name, count, (delta,)) for name, count in rows.items()}
        others = {name: Side(other, name, count, (delta,)) for name, count in rows.items()}
        bench.measure(side for name in rows for side in (ours[name], peers[name]))
        bench.measure(others.values(), 1)
        for name in rows:
            bench.faster(what, ours[name], peers[name], goal, "near", [others[name]])


def forests(bench: Bench) -> None:
    """Adaptive random forests of ten trees, with River's number of columns a leaf (√p, rounded)
    and with CapyMOA's (.6 p, rounded)."""
    rows = {name: bench.first(name, FOREST_ROWS[name]) for name in bench.shapes}
    for what, task, other, power, part in (
        ("River forest, √p columns a leaf", "river_forest", "capymoa forest", 0.5, 1.0),
        ("CapyMOA forest, .6 p columns a leaf", "capymoa forest", "river_forest", 1.0, 0.6),
    ):
        again = ("1", "2", "3") if other.startswith("capymoa") else ("1",)
        ours, peers, others = {}, {}, {}
        for name, count in rows.items():
            columns = str(round(part * bench.shapes[name][1] ** power))
            ours[name] = Side("forest", name, count, (columns, *SEEDS))
            peers[name] = Side(task, name, count, (columns, "{round}"))
            others[name] = Side(other, name, count, (columns, *again))
        bench.measure(side for name in rows for side in (ours[name], peers[name]))
        bench.measure(others.values(), 1)
        for name in rows:
            bench.faster(what, ours[name], peers[name], 40, "near", [others[name]])


def detectors(bench: Bench) -> None:
    """Drift detectors: values a second, and the places of the alarms."""
    sides = {}
    for name in DETECTORS:
        rows = min(bench.watched, 20_000 if name == "KSWIN" else WATCHED)
        pair = ("detector", "river_detector")
        sides[name] = tuple(Side(task, "losses", rows, (name,)) for task in pair)
    bench.measure(side for pair in sides.values() for side in pair)
    for name, (ours, river) in sides.items():
        if bench.absent(river):
            continue
        times, goal = bench.rate(ours) / bench.rate(river), DETECTORS[name]
        mine, theirs = (bench.found[side][0]["alarms"] for side in (ours, river))
        same = "same alarms" if mine == theirs else "other alarms"
        bench.add(
            Check(
                "detectors",
                name,
                "River",
                f"{figures(times)}×, {same}",
                f"{rate(bench.rate(ours))} values/s, {len(mine)} alarms",
                f"{rate(bench.rate(river))} values/s, {len(theirs)} alarms",
                f"{figures(times)}×",
                f"{goal}×, same alarms",
                times >= goal and mine == theirs,
            )
        )


def auto(bench: Bench) -> None:
    """`Auto` with nothing tuned against the best of all single learners, those that it weighs and
    those with nothing tuned either, and against no change."""
    for name in bench.shapes:
        ours = Side("auto", name, bench.first(name))
        bench.measure([ours], 1)
        names = bench.found[ours][0]["singles"]
        singles = {
            Side("single", name, bench.first(name), (str(number),)): named
            for number, named in enumerate(names)
        }
        bench.measure(singles, 1)
        best = max(singles, key=bench.mean)
        right, no_change = bench.mean(ours), bench.baseline("no-change", name)["accuracy"]
        _against(bench, name, "best single learner", right, bench.mean(best), singles[best])
        _against(bench, name, "no-change", right, no_change, "no-change")


def _against(bench: Bench, name: str, what: str, right: float, rival: float, named: str) -> None:
    """Add a check of `Auto`'s accuracy: near the best single learner, above no-change on Elec2."""
    above = what == "no-change"
    asked = not above or name == "Elec2"
    bench.add(
        Check(
            "streams",
            f"`Auto`: {what}",
            name,
            f"{share(right)} / {share(rival)}",
            share(right),
            f"{share(rival)}, {named}",
            f"{right - rival:+.4f}",
            "above, on Elec2" if above else "accuracy ≥ best − .005",
            (right > rival if above else right >= rival - 0.005) if asked else None,
        )
    )


def start(bench: Bench) -> None:
    """Seconds from the import to the first prediction, kernels on disk; for the least and the most
    kernels, also where none is."""
    for name, learner in LEARNERS.items():
        code = FIRST.format(learner=learner)
        _seconds(code, {})
        warm = statistics.median(_seconds(code, {}) for _ in range(bench.rounds))
        cold = ""
        if name in COLD:
            with tempfile.TemporaryDirectory() as empty:
                cold = f"{_seconds(code, {'NUMBA_CACHE_DIR': empty}):.0f} s, nothing compiled"
        bench.add(
            Check(
                "start",
                name,
                "seconds",
                f"{warm:.2f} s" + f" ({cold})" * bool(cold),
                f"{warm:.2f} s",
                cold,
                "",
                "≤ 1.5 s",
                warm <= 1.5,
            )
        )


def _seconds(code: str, environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, env=one_thread() | environment
    )
    return float(json.loads(done.stdout))


SECTIONS: dict[str, Callable[[Bench], None]] = {
    section.__name__: section for section in (linear, trees, forests, detectors, auto, start)
}
