"""Patches that are damaged, or were made to do harm: refused as they are loaded or imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.base import Array, IntegrityError, NotFoundError, Part, state_digest
from everlearn.registry import versions
from everlearn.workspace import ModelHandle

Arrays = dict[str, Array]


def rows(n: int) -> list[dict[str, Any]]:
    """Rows of two numbers, a category and a time, and the class that the first says."""
    x = np.random.default_rng(0).normal(size=(n, 2)).round(3)
    return [
        {"a": a, "b": b, "c": "xy"[at % 2], "t": f"2024-01-{at % 28 + 1:02}", "y": int(a > 0)}
        for at, (a, b) in enumerate(x.tolist())
    ]


def edit(at: int, output: Any = 0) -> dict[str, Any]:
    features = {"a": 1.0 + at / 100, "b": 2.0, "c": "x", "t": "2024-01-01"}
    return {"features": features, "output": output, "reason": "seen by a clerk"}


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[ModelHandle]:
    with el.open(tmp_path / "workspace") as workspace:
        schema = el.Schema(target="y", time="t")
        learner = el.learners.LogisticRegression()
        made = workspace.model(el.Model("m", learner=learner, schema=schema, holdout=0.3))
        made.train(rows(300))
        yield made


def tampered(handle: ModelHandle, change: Callable[[dict[str, Part]], None]) -> int:
    """The number of a version that is the champion but for its patch."""
    workspace = handle.workspace
    base = workspace.registry.version("m")
    state = workspace.registry.state("m", base)
    change(state)
    manifest = workspace.registry.parts.save(state)
    with workspace.database.write() as connection:
        return versions.add(
            connection,
            "m",
            parent=base.number,
            definition=base.definition,
            strategy=base.strategy,
            state_digest=state_digest(state),
            manifest=manifest,
            holdouts=base.holdouts,
            metrics=base.metrics,
            decision=base.decision,
        )


def check_refused(handle: ModelHandle, number: int, place: Path, *, imported: bool) -> None:
    """Nothing answers by it, and the champion goes on.

    Args:
        imported: whether a look at the patch alone says that it is none.
    """
    with pytest.raises(IntegrityError, match="patch"):
        handle.load(number)
    with pytest.raises(IntegrityError, match="patch"):
        handle.predict(edit(0)["features"], version=number, log=False)
    path = handle.export(number, place / "version")
    with el.open(place / "other") as other:
        if imported:
            with pytest.raises(IntegrityError, match="patch"):
                other.import_version(path)
            with pytest.raises(NotFoundError):
                other.model("m")
        else:
            other.import_version(path)
            with pytest.raises(IntegrityError, match="patch"):
                other.model("m").load(1)
    assert handle.predict(edit(0)["features"], log=False).value == 0  # type: ignore[union-attr]


EXCEPTIONS: dict[str, tuple[bool, Callable[[Arrays], Any]]] = {
    "a class that is none": (False, lambda a: {"wanted": a["wanted"] + 2}),
    "a class below 0": (False, lambda a: {"wanted": a["wanted"] - 2}),
    "values for classes": (False, lambda a: {"wanted": a["wanted"].astype(float)}),
    "texts for classes": (True, lambda a: {"wanted": a["wanted"].astype("U8")}),
    "an infinite value": (True, lambda a: {"wanted": a["wanted"] + np.inf}),
    "a radius that is not a number": (True, lambda a: {"radii": a["radii"] * np.nan}),
    "a radius below 0": (True, lambda a: {"radii": -a["radii"]}),
    "an infinite radius": (True, lambda a: {"radii": a["radii"] + np.inf}),
    "radii in single precision": (True, lambda a: {"radii": a["radii"].astype("f4")}),
    "more radii than centers": (True, lambda a: {"radii": np.repeat(a["radii"], 2)}),
    "a center that is not a number": (True, lambda a: {"centers": a["centers"] * np.nan}),
    "other columns": (False, lambda a: {"centers": a["centers"][:, :-1]}),
    "fewer numbers": (False, lambda a: {k: a[k][:-1] for k in ("mean", "inverse")}),
    "more means than spreads": (True, lambda a: {"mean": a["mean"][:-1]}),
    "a spread below 0": (True, lambda a: {"inverse": -a["inverse"]}),
    "no exception": (
        True,
        lambda a: {k: a[k][:0] for k in ("centers", "hashes", "radii", "wanted")},
    ),
    "no places": (True, lambda a: {"centers": np.float64(1.0)}),
}


@pytest.mark.parametrize("what", EXCEPTIONS)
def test_exceptions_that_cannot_be(handle: ModelHandle, tmp_path: Path, what: str) -> None:
    imported, change = EXCEPTIONS[what]
    handle.repair.patch([edit(0), edit(1)], way="memory")

    def tamper(state: dict[str, Part]) -> None:
        arrays = dict(state["patch/exceptions"].arrays)
        changed = {name: np.array(array) for name, array in change(arrays).items()}
        state["patch/exceptions"] = Part(arrays | changed)

    check_refused(handle, tampered(handle, tamper), tmp_path, imported=imported)


WEIGHTS: dict[str, tuple[bool, Callable[[Arrays], Any]]] = {
    "not a number": (True, lambda a: {"change": a["change"] * np.nan}),
    "single precision": (True, lambda a: {"change": a["change"].astype("f4")}),
    "no matrix": (True, lambda a: {"change": a["change"].ravel()}),
    "scores that there are not": (False, lambda a: {"change": np.repeat(a["change"], 3, axis=1)}),
    "fewer features": (True, lambda a: {"change": a["change"][:-1]}),
    "features that there are not": (False, lambda a: {"columns": a["columns"] + 2**40}),
    "features below 0": (True, lambda a: {"columns": a["columns"] - 2**40}),
    "features in no order": (True, lambda a: {"columns": a["columns"][::-1]}),
    "features that are no numbers": (True, lambda a: {"columns": a["columns"].astype(float)}),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_changes_of_weights_that_cannot_be(handle: ModelHandle, tmp_path: Path, what: str) -> None:
    imported, change = WEIGHTS[what]
    changed = handle.repair.patch([edit(0)], way="weights", dry_run=True).patch
    assert changed is not None and changed.weights is not None
    handle.repair.patch([edit(0)], way="memory")
    whole = changed.weights.save().arrays

    def tamper(state: dict[str, Part]) -> None:
        state["patch/weights"] = Part(
            whole | {name: np.array(array) for name, array in change(dict(whole)).items()}
        )

    check_refused(handle, tampered(handle, tamper), tmp_path, imported=imported)


EDITS: dict[str, Any] = {
    "no features": {"features": [1]},
    "a reason that is no text": {"reason": {"a": 1}},
    "a reason with NUL": {"reason": "a\0b"},
    "a number beyond all": {"number": 2**70},
    "a number that is a text": {"number": "1"},
    "a time that is a text": {"expires_at": "never"},
    "a field that edits have not": {"command": "rm"},
}


@pytest.mark.parametrize("what", EDITS)
def test_edits_that_cannot_be(handle: ModelHandle, tmp_path: Path, what: str) -> None:
    handle.repair.patch([edit(0)])

    def tamper(state: dict[str, Part]) -> None:
        meta = state["patch/edits"].meta
        (one,) = meta["edits"]
        state["patch/edits"] = Part(meta=meta | {"edits": [one | EDITS[what]]})

    check_refused(handle, tampered(handle, tamper), tmp_path, imported=True)


def test_a_regressor_gives_no_classes(tmp_path: Path) -> None:
    with el.open(tmp_path / "workspace") as workspace:
        learner = el.learners.LinearRegression()
        model = el.Model("m", learner=learner, schema=el.Schema(target="y"), holdout=0.3)
        handle = workspace.model(model)
        handle.train([{"a": float(at % 7), "y": at % 7 + 0.5} for at in range(100)])
        edit = {"features": {"a": 3.0}, "output": 99.5, "reason": "said"}
        handle.repair.patch([edit], way="memory")

        def tamper(state: dict[str, Part]) -> None:
            arrays = dict(state["patch/exceptions"].arrays)
            state["patch/exceptions"] = Part(arrays | {"wanted": np.zeros(1, np.int64)})

        with pytest.raises(IntegrityError, match="another kind"):
            handle.load(tampered(handle, tamper))
