"""Rows are withdrawn more than once, after refusals and failures: none of them comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.base import ConflictError, Decision, InputError, Json
from everlearn.data.selection import Selection
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.run import Run
from tests.jobs.test_excise import excise

Rows = list[dict[str, Any]]
BY_ID = el.Schema(target="y", id="number", ignore=("who",))
BY_KEY = el.Schema(target="y", id="number", key="who")


def rows(n: int, seed: int, first: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    return [
        {"number": first + k, "x": float(x), "who": f"p{int(rng.integers(4))}", "y": int(x > 0)}
        for k, x in enumerate(rng.normal(size=n).round(4))
    ]


TABLES = {"a": rows(90, 1), "b": rows(60, 2, 90), "c": rows(50, 3, 150)}


def write(folder: Path, name: str, data: Rows) -> str:
    folder.mkdir(exist_ok=True)
    lines = [",".join(data[0]), *(",".join(map(str, row.values())) for row in data)]
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return str(folder / f"{name}.csv")


def model(schema: el.Schema = BY_ID, **strategy: Any) -> el.Model:
    return el.Model(
        "m",
        learner=el.learners.LogisticRegression(),
        schema=schema,
        strategy=el.Strategy(chunk=16, **{"memory": el.Reservoir(20), **strategy}),
        holdout=0.3,
        gate=None,
    )


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether jobs are refused from now on."""
    judge = Run._judge

    def change(whether: bool) -> None:
        refused = Decision("refuse", "not good enough")
        monkeypatch.setattr(Run, "_judge", (lambda *args: refused) if whether else judge)

    return change


def withdraw(workspace: Any, **asked: Any) -> Json:
    return excise(workspace, "m", Selection.of(**asked))


def held(workspace: Any) -> set[int]:
    """The ids of the rows on which the newest version was judged."""
    newest = workspace.model("m").versions()[-1]["number"]
    version = workspace.registry.version("m", newest)
    periods = HoldOuts.load(workspace.registry.holdouts("m", version)).periods
    return {int(number) for period in periods for number in period.batch.ids}


def aside(workspace: Any) -> list[Json]:
    """What the champion set aside, increment by increment."""
    return [one.reasons["set_aside"] for one in workspace.registry.version("m").increments]


def test_after_a_refusal_nothing_is_judged_on_the_rows(tmp_path: Path, refuse: Any) -> None:
    gone = [row for name in "bc" for row in TABLES[name] if row["x"] > 1]
    gone += [row for row in TABLES["c"] if row["x"] < -1]
    with el.open(tmp_path / "one") as workspace:
        handle = workspace.model(model())
        for name, data in TABLES.items():
            handle.train(write(tmp_path, name, data))
        refuse(True)
        withdraw(workspace, where="not source like '%a.csv' and x > 1")
        refuse(False)
        withdraw(workspace, where="source like '%c.csv' and x < -1")
        found = held(workspace)
        assert sum(one["withdrawn"] for one in aside(workspace)) == len(gone)
    with el.open(tmp_path / "other") as workspace:
        handle = workspace.model(model())
        for name, data in TABLES.items():
            kept = [row for row in data if row not in gone]
            handle.train(write(tmp_path / "kept", name, kept))
        assert found == held(workspace)


def test_rows_of_a_refused_version_leave_the_hold_outs(tmp_path: Path, refuse: Any) -> None:
    first, second, third = (write(tmp_path, name, data) for name, data in TABLES.items())
    with el.open(tmp_path / "one") as workspace:
        handle = workspace.model(model())
        handle.train(first)
        refuse(True)
        handle.train(second)
        refuse(False)
        found = withdraw(workspace, where="source like '%b.csv'")
        assert (found["marked"], found["job"]) == ([2], None)
        handle.train(third)
        found = held(workspace)
    with el.open(tmp_path / "other") as workspace:
        handle = workspace.model(model())
        handle.train(first)
        handle.train(third)
        assert found == held(workspace)


def test_a_job_from_before_a_withdrawal_is_not_retried(tmp_path: Path, refuse: Any) -> None:
    with el.open(tmp_path / "one") as workspace:
        handle = workspace.model(model())
        for name, data in TABLES.items():
            handle.train(write(tmp_path, name, data))
        first = handle.repair.excise(where="source like '%b.csv' and x < -1", queue=True).report[
            "job"
        ]
        workspace.skip(first)
        workspace.retry(first)  # its own withdrawal does not hinder it
        workspace.skip(first)
        refuse(True)
        withdraw(workspace, where="source like '%c.csv' and x > 1")
        with pytest.raises(ConflictError, match=r"withdrawn since.*excise again"):
            workspace.retry(first)


def test_nothing_is_withdrawn_where_a_later_file_is_gone(tmp_path: Path) -> None:
    with el.open(tmp_path / "one") as workspace:
        handle = workspace.model(model())
        files = [write(tmp_path, name, data) for name, data in TABLES.items()]
        for file in files:
            handle.train(file)
        Path(files[2]).unlink()
        with pytest.raises(InputError, match=r"rows 0 to 49 of .*c\.csv.* cannot be read any more"):
            withdraw(workspace, rows=[f"{files[1]}:3-5"])
        assert not handle.repair.withdrawals() and handle.champion() == 3


def test_keys_are_found_where_a_first_schema_named_none(tmp_path: Path) -> None:
    file = write(tmp_path, "a", TABLES["a"])
    with el.open(tmp_path / "one") as workspace:
        workspace.model(model()).train(file)
        workspace.model(model(BY_KEY, start="scratch", memory=None)).train(file, again=True)
        found = withdraw(workspace, key="p3")
    assert found["rows"] == sum(row["who"] == "p3" for row in TABLES["a"])
    assert found["marked"] == [1, 2]


def test_an_erasure_folds_nothing_in_that_was_withdrawn(tmp_path: Path, refuse: Any) -> None:
    with el.open(tmp_path / "one") as workspace:
        handle = workspace.model(model(BY_KEY))
        handle.train(TABLES["a"], source="first")
        handle.train(TABLES["b"], source="second")
        refuse(True)
        withdraw(workspace, where="source = 'second' and x > 1")
        refuse(False)
        found = workspace.erase("m", "p3")["refold"]
        assert found["result"]["decision"]["action"] == "promote"
        gone = [row for row in TABLES["b"] if row["x"] > 1]
        assert aside(workspace)[1]["withdrawn"] == len(gone)


def test_rows_that_were_learned_again_are_so_after_an_erasure(tmp_path: Path) -> None:
    digests = []
    for name, who in (("one", "p3"), ("other", "nobody")):
        kept = [row for row in TABLES["a"] if name == "one" or row["who"] != "p3"]
        with el.open(tmp_path / name) as workspace:
            handle = workspace.model(model(BY_KEY))
            handle.train(kept, source="first")
            handle.train(kept, source="first", again=True)
            workspace.erase("m", who)
            digests.append(workspace.registry.version("m").state_digest)
    assert digests[0] == digests[1]


def test_what_came_from_a_marked_champion_is_marked_in_the_end(tmp_path: Path, refuse: Any) -> None:
    with el.open(tmp_path / "one") as workspace:
        handle = workspace.model(model())
        handle.train(write(tmp_path, "a", TABLES["a"]))
        handle.train(write(tmp_path, "b", TABLES["b"]))
        refuse(True)
        assert withdraw(workspace, where="source like '%b.csv' and x > 1")["marked"] == [2]
        refuse(False)
        handle.train(write(tmp_path, "c", TABLES["c"]))  # from the marked champion
        refuse(True)
        handle.train(write(tmp_path, "d", rows(40, 4, 200)))
        refuse(False)
        found = withdraw(workspace, where="source like '%d.csv' and x > 1")
        assert (found["base"], found["marked"], handle.champion()) == (1, [4, 5], 6)
        with pytest.raises(ConflictError, match="cannot become champion again"):
            handle.promote(4)


def test_the_gate_is_that_of_today(tmp_path: Path) -> None:
    with el.open(tmp_path / "one") as workspace:
        handle = workspace.model(model())
        handle.train(write(tmp_path, "a", TABLES["a"]))
        handle.train(write(tmp_path, "b", TABLES["b"]))
        workspace.model(model().replace(gate=el.NonInferior("log_loss", margin=0.5)))
        found = withdraw(workspace, where="source like '%b.csv' and x > 1")
        assert "log_loss" in found["result"].decision.reason
