"""Rows that are withdrawn: what was learned is folded again, as if they had never been there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pytest

import everlearn as el
from everlearn.base import ConflictError, InputError, Json
from everlearn.data.selection import Selection
from everlearn.jobs.excise.excising import Excising
from tests.jobs.scenarios import models, table, write


def excise(workspace: Any, name: str, selection: Selection, **given: Any) -> Json:
    """Withdraw rows, and fold without them; the report, with the version that was made."""
    log = workspace.updates.log(name)
    report = Excising(workspace.registry, workspace.queue, name, log)(selection, **given)
    if report["job"] is not None:
        report["result"] = workspace.run(report["job"])
    return report


@pytest.fixture(scope="module")
def tables() -> list[pa.Table]:
    return [table(700, seed=1), table(350, seed=2, first_id=700), table(200, seed=3, first_id=1050)]


def files(folder: Path, tables: list[pa.Table]) -> list[str]:
    folder.mkdir()
    return [str(write(folder / f"{k}.parquet", rows)) for k, rows in enumerate(tables)]


def learned(folder: Path, model: el.Model, tables: list[pa.Table]) -> Any:
    """A workspace in which a model learned tables, one job each."""
    folder.mkdir()
    workspace = el.open(folder / "workspace")
    handle = workspace.model(model)
    for file in files(folder / "files", tables):
        handle.train(file)
    return workspace


@pytest.mark.parametrize("name", list(models()))
def test_it_ends_as_if_the_rows_had_never_been_there(
    name: str, tables: list[pa.Table], tmp_path: Path
) -> None:
    bad = [pc.and_(pc.greater_equal(one["x0"], 0.7), pc.greater(one["id"], 699)) for one in tables]
    clean = [one.filter(pc.invert(mask)) for one, mask in zip(tables, bad, strict=True)]
    with learned(tmp_path / "with", models()[name], tables) as workspace:
        found = excise(
            workspace, name, Selection.where("x0 >= 0.7 and not source like '%0.parquet'")
        )
        made = workspace.registry.version(name, found["result"].version)
    assert (found["base"], found["folded"], found["marked"]) == (1, [2, 3], [2, 3])
    assert found["rows"] == sum(pc.sum(mask).as_py() for mask in bad)
    assert (made.parent, len(made.increments)) == (1, 2)
    with learned(tmp_path / "without", models()[name], clean) as other:
        assert other.registry.version(name, 3).state_digest == made.state_digest


Said = list[tuple[float, str, int]]
"""(x, who says so, label), in order."""


def told(folder: Path, model: el.Model, jobs: list[Said], withdrawn: str | None = None) -> str:
    """The state in which a model ends that learned labels, a job for each list; without those of a
    source, if one is named."""
    with el.open(folder) as workspace:
        handle = workspace.model(model)
        handle.train({"x": [-1.0, 1.0, -2.0, 2.0], "y": [0, 1, 0, 1]})
        for said in jobs:
            answers = handle.predict([{"x": x} for x in dict.fromkeys(x for x, _, _ in said)])
            asked = {
                x: one.id
                for x, one in zip(dict.fromkeys(x for x, _, _ in said), answers, strict=True)
            }
            for x, source, value in said:
                handle.feedback(asked[x], value, source=source)
            handle.update()
        if withdrawn is None:
            return str(handle.versions()[-1]["state_digest"])
        found = excise(workspace, model.name, Selection.where(f"source = '{withdrawn}'"))
        assert found["result"].decision.action == "promote"
        return str(handle.versions()[-1]["state_digest"])


@pytest.mark.parametrize("strategy", [el.Strategy(), el.Strategy(memory=el.Reservoir(20))])
def test_labels_that_others_had_given_count_again(strategy: el.Strategy, tmp_path: Path) -> None:
    """A source that is withdrawn had outvoted, repeated and corrected what others said."""
    rng = np.random.default_rng(0)
    jobs: list[Said] = []
    for _ in range(3):
        said: Said = []
        for x in rng.normal(size=30).round(3).tolist():
            said.append((x, "web", int(x > 0)))
            if rng.random() < 0.4:
                said.insert(int(rng.integers(len(said))), (float(rng.normal()), "bot", 0))
            if rng.random() < 0.3:
                said.append((x, "bot", int(x <= 0)))
        jobs.append(said)
    learner = el.learners.LogisticRegression()
    model = el.Model(
        "m", learner=learner, schema=el.Schema(target="y"), strategy=strategy, holdout=0.0
    )
    honest = [[one for one in said if one[1] != "bot"] for said in jobs]
    assert told(tmp_path / "a", model, jobs, "bot") == told(tmp_path / "b", model, honest)


def test_what_cannot_be_folded_again_is_said(tables: list[pa.Table], tmp_path: Path) -> None:
    model = models()["reservoir"]
    with learned(tmp_path / "one", model, tables) as workspace:
        with pytest.raises(InputError, match=r"no column 'y0'.*'x0'"):
            excise(workspace, model.name, Selection.where("y0 > 1"))
        with pytest.raises(InputError, match="has learned, and is to learn, no such row: x0 > 100"):
            excise(workspace, model.name, Selection.where("x0 > 100"))
        with pytest.raises(InputError, match="nothing that 'reservoir' learned is left"):
            excise(workspace, model.name, Selection.where("late in (0, 1)"))
        (tmp_path / "one" / "files" / "2.parquet").unlink()
        with pytest.raises(InputError, match=r"2\.parquet"):
            excise(workspace, model.name, Selection.where("x0 > 1"))
        assert not workspace.queue.jobs(model.name, ("queued",))


def test_versions_that_learned_the_rows_are_champion_no_more(
    tables: list[pa.Table], tmp_path: Path
) -> None:
    model = models()["plain"]
    with learned(tmp_path / "one", model, tables) as workspace:
        handle = workspace.model(model)
        asked = Selection.where("x0 > 1 and source like '%1.parquet'")
        found = excise(workspace, model.name, asked, dry_run=True)
        assert (found["base"], found["marked"], found["withdrawal"]) == (1, [2, 3], None)
        assert len(handle.versions()) == 3
        assert excise(workspace, model.name, asked)["result"].version == 4
        with pytest.raises(ConflictError, match=r"version 3 .* cannot become champion again"):
            handle.promote(3)
        assert handle.rollback()["version_to"] == 1
        with pytest.raises(InputError, match="were withdrawn before"):
            excise(workspace, model.name, asked)


def test_after_an_erasure_nobody_can_tell_that_the_person_was_there(tmp_path: Path) -> None:
    strategy, schema = el.Strategy(memory=el.Reservoir(20)), el.Schema(target="y", key="who")
    learner = el.learners.LogisticRegression()
    model = el.Model("m", learner=learner, schema=schema, strategy=strategy)
    rng = np.random.default_rng(1)
    rows = [
        {"x": float(x), "who": f"person {int(rng.integers(5))}", "y": int(x > 0)}
        for x in rng.normal(size=300).round(4)
    ]
    digests = []
    for name, kept in (("a", rows), ("b", [row for row in rows if row["who"] != "person 3"])):
        with el.open(tmp_path / name) as workspace:
            handle = workspace.model(model)
            handle.train([row for row in kept if row["x"] < 1.0], source="first")
            handle.train([row for row in kept if row["x"] >= 1.0], source="second")
            if name == "a":
                found = workspace.erase("m", "person 3")["refold"]
                assert (found["base"], found["folded"]) == (None, [1, 2, 3])
                assert found["result"]["decision"]["action"] == "promote"
                again = workspace.erase("m", "person 3")["refold"]
                assert again["job"] is None and "has learned nothing of it" in again["reason"]
            digests.append(handle.versions()[-1]["state_digest"])
    assert digests[0] == digests[1]
