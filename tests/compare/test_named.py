"""Strategies as text, and those of a spec file with what has no name, in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from everlearn.base import InputError, SpecError
from everlearn.cli.app import app
from everlearn.compare.compare import compare
from everlearn.compare.named import parse, split
from everlearn.compare.strategies import BUILT_IN, make_plans
from everlearn.strategies import AGEM, EWC, Balanced, GDumb, LwF, Reservoir, Strategy

SPEC = """
import torch
import everlearn as el
from everlearn.learners import TorchLearner
torch.set_num_threads(1)
model = el.Model(
    "kinds",
    learner=TorchLearner(
        lambda: torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.ReLU(), torch.nn.Linear(8, 6)),
        optimizer=lambda parameters: torch.optim.Adam(parameters, 0.01),
        batch=32,
    ),
    schema=el.Schema(target="kind"),
    strategy=el.Strategy(chunk=64, passes=2, retention=el.strategies.EWC(10.0, rows=64)),
)
"""


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    """Six classes, two at a time."""
    generator = np.random.default_rng(0)
    centres, rows = generator.normal(size=(6, 2)) * 3.0, ["p,q,kind"]
    for number in range(360):
        kind = number // 120 * 2 + int(generator.integers(2))
        p, q = centres[kind] + generator.normal(size=2)
        rows.append(f"{p:.3f},{q:.3f},{'abcdef'[kind]}")
    (tmp_path / "spec.py").write_text(SPEC)
    path = tmp_path / "kinds.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_parts_are_joined() -> None:
    made = parse("ewc(10, decay=0.5) + Reservoir(2000, ratio=0.5)", Strategy(chunk=64))
    wanted = Strategy(retention=EWC(10, decay=0.5), memory=Reservoir(2000, ratio=0.5), chunk=64)
    assert made == wanted
    assert parse("LWF").retention == LwF()
    assert parse("GDumb(9)") == Strategy(start="scratch", memory=GDumb(9))
    assert parse("agem(5)+balanced(7)") == Strategy(retention=AGEM(5), memory=Balanced(7))
    assert split(" never, Reservoir(2, ratio=1) ,own") == ["never", "Reservoir(2, ratio=1)", "own"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("EWC(", "no strategy"),
        ("EWC+Nothing(3)", "no part of a strategy"),
        ("EWC+SI", "two parts of one kind, as retention"),
        ("EWC(open('x'))", "are numbers, texts"),
        ("EWC(colour=3)", "colour"),
        ("__import__('os')", "no part of a strategy"),
        ("Reservoir", "Reservoir"),
    ],
)
def test_what_cannot_be_said(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse(text)
    with pytest.raises(SpecError, match="strength"):
        parse("EWC('much')")


def test_names_of_built_in_ones_stay() -> None:
    assert [plan.name for plan in make_plans("never,replay,EWC(1, rows=9)+reservoir(5)")] == [
        "never",
        "replay",
        "EWC(1,rows=9)+reservoir(5)",
    ]
    own = Strategy(chunk=7, passes=3, retention=LwF())
    plans = make_plans(None, own=own)
    assert [plan.name for plan in plans] == [*BUILT_IN, "own"]
    assert {(plan.strategy.chunk, plan.strategy.passes) for plan in plans} == {(7, 3)}
    with pytest.raises(InputError, match="there is no strategy 'own'"):
        make_plans("own")


def test_a_module_of_a_spec_file_in_processes(kinds: Path, tmp_path: Path) -> None:
    """What has no name (a lambda) is made again by its place in the file."""
    pytest.importorskip("torch", reason="PyTorch is needed")
    out = tmp_path / "out"
    told = CliRunner().invoke(
        app,
        ["compare", str(kinds), "--spec", str(tmp_path / "spec.py"), "--every", "60rows",
         "--strategies", "own", "--strategy", "EWC(10, rows=64)+Reservoir(200)",
         "--workers", "2", "--out", str(out), "--metric", "accuracy"],
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    assert "own alone cannot help here: 4 of 6 classes" in told.output
    found = json.loads((out / "results.json").read_text())
    kept = {one["strategy"]: one for one in found["strategies"]}
    assert set(kept) == {"own", "EWC(10,rows=64)+Reservoir(200)"}
    assert all(one["peak_memory_mb"] for one in kept.values())  # each had its own process
    assert kept["own"]["cannot_help"].startswith("EWC alone cannot help")
    assert kept["EWC(10,rows=64)+Reservoir(200)"]["cannot_help"] is None
    assert "cannot help here" in (out / "report.html").read_text()

    again: Any = compare(
        str(kinds), spec=tmp_path / "spec.py", strategies=["own"], every="60rows",
        metric="accuracy", workers=0,
    )  # fmt: skip
    assert again["own"].metrics["accuracy"] == kept["own"]["accuracy"]


def test_a_target_is_asked_for(kinds: Path) -> None:
    with pytest.raises(InputError, match="name the target"):
        compare(str(kinds))
    assert CliRunner().invoke(app, ["compare", str(kinds)]).exit_code == 2
