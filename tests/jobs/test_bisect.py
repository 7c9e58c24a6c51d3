"""Bisection: the version that made a model worse, the source, the rows; resumed, and refused."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import everlearn as el
from everlearn.base import InputError, NotFoundError
from everlearn.data.condition import Condition
from everlearn.jobs.bisect import measurers
from everlearn.jobs.bisect.blame import Blame
from everlearn.jobs.bisect.hints import first_bad
from everlearn.jobs.bisect.probing import Probe
from everlearn.jobs.bisect.records import Bisections
from tests.jobs.poisoned import BAD, BOT, GOOD, POISONED, model, poisoned, table

SHOWN: dict[str, Any] = {"good": GOOD, "bad": BAD, "metric": "log_loss", "on": table(99, 500)}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[el.Workspace]:
    with poisoned(tmp_path_factory.mktemp("poisoned")) as made:
        yield made


@pytest.fixture(scope="module")
def report(workspace: el.Workspace) -> Any:
    return workspace.model("m").repair.bisect(**SHOWN, processes=1)


def without_time(report: Any) -> Any:
    return {**report, "cost": {**report["cost"], "seconds": None}}


@given(st.lists(st.booleans(), max_size=200), st.none() | st.integers(1, 201))
def test_the_search_finds_a_step_by_at_most_log2_questions(
    between: list[bool], likely: int | None
) -> None:
    places, asked = [False, *between, True], []
    if likely is not None:
        likely = min(likely, len(places) - 1)
    found = first_bad(len(places) - 1, lambda place: asked.append(place) or places[place], likely)
    assert places[found] and not places[found - 1]
    most = math.ceil(math.log2(len(places) - 1))
    assert len(asked) == len(set(asked)) <= most + (0 if likely is None else 2)
    if likely is not None and places[likely] and not places[likely - 1]:
        assert found == likely and len(asked) <= 2
    if sorted(between) == between:
        assert found == places.index(True)


def test_a_poisoned_increment_its_source_and_its_rows_are_found(report: Any) -> None:
    assert report["decision"]["action"] == "found"
    assert (report["version"], report["parent"]) == (POISONED, POISONED - 1)
    assert [one["source"] for one in report["increment"]] == [f"week-{POISONED}"]
    assert report["next"] == f"everlearn excise m --where \"source = '{BOT}'\""
    assert report["blame"]["found"]["said"] == f"source = '{BOT}'"
    assert report["step"]["worse_by"]["low"] > 0 and report["step"]["share"] > 1
    blame = report["blame"]
    assert blame["reproduced"] is None, "it was not folded again as a whole"
    first = blame["levels"][0]
    assert (first["by"], first["found"]) == ("source", BOT)
    harm = {one["name"]: one["alone"]["worse_by"]["low"] for one in first["groups"]}
    assert [name for name, low in harm.items() if low > 0] == [BOT]
    assert sum(one["rows"] for one in first["groups"]) == first["rows"] == blame["found"]["of"]
    assert first["left_out"][0]["share"] > 0.8
    assert [level["found"] for level in blame["levels"][1:]] == [None] * (len(blame["levels"]) - 1)
    rows, source = blame["rows"], table(POISONED, 150, BOT)
    assert len(rows) == 20 and all(one["source"] == BOT for one in rows)
    assert [one["damage"] for one in rows] == sorted((one["damage"] for one in rows), reverse=True)
    assert all(int(one["id"]) == source["id"][one["row"]] for one in rows)
    assert all(one["label"] == source["late"][one["row"]] for one in rows)
    assert all(one["predicted"] != one["label"] for one in rows)
    cost = report["cost"]
    assert cost["evaluations"] == len(report["probes"]) <= 2 + math.ceil(math.log2(BAD - GOOD))


def test_the_increment_that_surprised_most_is_judged_first(report: Any) -> None:
    hint, cost = report["likely"], report["cost"]
    assert hint["version"] == POISONED and hint["value"] > 2 * hint["usual"]
    assert sorted(one["version"] for one in report["probes"]) == [2, POISONED - 1, POISONED, BAD]
    sides = [(one["version"], one["side"]) for one in report["probes"]]
    assert sides == [(2, "good"), (POISONED - 1, "good"), (POISONED, "bad"), (BAD, "bad")]
    learned = report["blame"]["found"]["of"]
    left = learned - report["blame"]["levels"][0]["left_out"][0]["rows"]
    assert cost["replays_named"] == 1.0
    assert cost["replays_confirmed"] == pytest.approx(1.0 + left / learned)
    assert cost["replays"] >= cost["replays_confirmed"]


def test_a_source_that_did_all_alone_is_found_though_the_rest_does_harm_too(
    workspace: el.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blame, "_left_out", lambda self, name, members: -0.5)
    found = workspace.model("m").repair.bisect(**{**SHOWN, "on": table(98, 500)}, processes=1)
    assert (found["version"], found["blame"]["found"]["proof"]) == (POISONED, "alone")
    assert found["blame"]["found"]["said"] == f"source = '{BOT}'"
    [note] = found["notes"]
    worse = found["step"]["worse_by"]["mean"] + 0.5
    assert f"the rest ends {worse:+.4f} against version {POISONED - 1}" in note


def test_what_is_to_be_excised_is_what_was_found(workspace: el.Workspace, report: Any) -> None:
    where = report["blame"]["found"]["where"]
    assert str(Condition.parse(where)) == where
    would = workspace.model("m").repair.excise(where=where, dry_run=True).report
    rows = {one["version"]: one["rows"] + one["held_out"] for one in would["learned_from_it"]}
    source = table(POISONED, 150, BOT)["source"]
    assert rows[POISONED] == int((source == BOT).sum())


def test_it_is_the_same_with_several_processes(
    workspace: el.Workspace, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Bisections(workspace.database, "m").listed()[-1]
    with workspace.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM bisections")
    monkeypatch.setattr(measurers, "PATIENCE", 0.0)
    seen: list[Probe] = []
    again = workspace.model("m").repair.bisect(**SHOWN, processes=2, progress=seen.append)
    assert without_time(again) == without_time(report)
    assert len(seen) == again["cost"]["measurements"] == len(row.probes)
    assert [one.phase for one in seen][:2] == ["versions", "versions"]


def test_an_answer_is_read_and_a_question_with_other_rows_is_another(
    workspace: el.Workspace, report: Any
) -> None:
    seen: list[Probe] = []
    repair = workspace.model("m").repair
    assert repair.bisect(**SHOWN, progress=seen.append)["version"] == POISONED
    assert not seen
    held = repair.bisect(good=GOOD, bad=BAD, metric="accuracy", progress=seen.append)
    assert seen and (held["on"], held["version"]) == ("hold-outs", POISONED)
    assert held["greater_is_better"] and held["damage"]["value"] < held["damage"]["before"]


def test_where_nothing_is_worse_there_is_nothing_to_find(workspace: el.Workspace) -> None:
    found = workspace.model("m").repair.bisect(good=1, bad=4, metric="log_loss", on=SHOWN["on"])
    assert found["decision"]["action"] == "nothing"
    assert (found["version"], found["blame"], found["cost"]["evaluations"]) == (None, None, 2)
    assert [one["side"] for one in found["probes"]] == [None, None]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"good": BAD, "bad": GOOD}, "swap them"),
        ({"good": 3, "bad": 3}, "name two versions"),
        ({"metric": "mae"}, "cannot judge a classifier: use one of log_loss"),
        ({"on": {"id": [1], "x0": [1.0], "x1": [1.0], "x2": [1.0], "late": [None]}}, "no rows"),
        ({"on": {"x0": [1.0]}}, "no column"),
        ({"processes": 0}, "at least 1"),
    ],
)
def test_questions_that_cannot_be_answered(
    workspace: el.Workspace, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        workspace.model("m").repair.bisect(**{**SHOWN, **asked})
    with pytest.raises(NotFoundError):
        workspace.model("m").repair.bisect(**{**SHOWN, "bad": 99})


def test_versions_that_are_on_two_branches(tmp_path: Path) -> None:
    with poisoned(tmp_path, versions=3) as workspace:
        handle = workspace.model("m")
        handle.rollback(2)
        handle.train(table(7, 50), source="beside")
        with pytest.raises(InputError, match="both came from version 2"):
            handle.repair.bisect(good=3, bad=4, metric="log_loss", on=SHOWN["on"])


def test_versions_whose_state_was_removed_are_passed_over_and_folded_again(
    tmp_path: Path, report: Any
) -> None:
    with poisoned(tmp_path) as workspace:
        for number in (3, 4, 5):
            workspace.registry.drop("m", number)
        found = workspace.model("m").repair.bisect(**SHOWN)
        assert found["passed_over"] == [3, 4, 5]
        assert (found["version"], found["parent"]) == (POISONED, POISONED - 1)
        assert found["blame"] == report["blame"]
        with pytest.raises(InputError, match="state of version 5"):
            workspace.model("m").repair.bisect(**{**SHOWN, "bad": 5})


def test_where_the_rows_are_gone_it_ends_at_the_increment(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    with el.open(tmp_path / "workspace") as workspace:
        handle = workspace.model(model())
        for number in range(1, 4):
            file = tmp_path / f"week-{number}.parquet"
            flipped = BOT if number == 3 else None
            pyarrow.parquet.write_table(pa.table(table(number, 200, flipped)), file)
            handle.train(str(file))
        file.unlink()
        found = handle.repair.bisect(good=1, bad=3, metric="log_loss", on=SHOWN["on"])
    assert (found["decision"]["action"], found["version"]) == ("found", 3)
    assert found["blame"] is None and "cannot be told" in found["decision"]["reason"]
    assert "week-3.parquet" in found["decision"]["reason"]


def test_sources_that_matter_only_together_are_not_blamed_alone(tmp_path: Path) -> None:
    rows = table(5, 200)
    rows["late"] = 1 - rows["late"]
    with poisoned(tmp_path, versions=4) as workspace:
        handle = workspace.model("m")
        handle.train(rows, source="all-wrong")
        found = handle.repair.bisect(good=2, bad=5, metric="log_loss", on=SHOWN["on"])
    assert (found["decision"]["action"], found["version"]) == ("found", 5)
    assert "no single group" in found["decision"]["reason"]
    assert found["blame"]["found"] is None and found["next"] is None
    sources = found["blame"]["levels"][0]
    assert all(one["alone"]["worse_by"]["low"] > 0 for one in sources["groups"])


def test_a_drift_is_no_single_increment(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with poisoned(tmp_path, versions=2) as workspace:
        handle = workspace.model("m")
        for number in range(3, 13):
            rows = table(number, 60)
            wrong = rng.random(60) < 0.05 * (number - 2)
            rows["late"] = np.where(wrong, 1 - rows["late"], rows["late"])
            handle.train(rows, source=f"week-{number}")
        found = handle.repair.bisect(good=2, bad=12, metric="log_loss", on=SHOWN["on"])
    assert found["decision"]["action"] == "not one increment"
    assert "small steps" in found["decision"]["reason"]
    assert 0 < found["step"]["share"] < 0.25 and found["next"] is None
    assert any(step["from"] >= found["version"] for step in found["steps"])


def labelled(handle: Any, seed: int, rows: int, liar: str | None) -> list[int]:
    """Ask, and answer from several people; who lies says the opposite. Positions of the lies."""
    rng = np.random.default_rng(seed)
    asked = [{"a": float(a), "b": float(b)} for a, b in rng.normal(size=(rows, 2)).round(4)]
    answers = handle.predict(asked, keys=[f"user-{at % 9}" for at in range(rows)])
    labels, lies, head = [], [], handle.log.head()
    for at, (row, answer) in enumerate(zip(asked, answers, strict=True)):
        source, reviewer = ("people", ("kim", "mo")[at % 2]) if at % 4 else ("bot", None)
        lie = liar is not None and reviewer == liar
        value = int((row["a"] > row["b"]) != lie)
        said = {"value": value, "source": source, "reviewer": reviewer}
        labels.append({"prediction_id": answer.id, **said})
        lies += [head + at + 1] * lie
    handle.feedback_many(labels)
    return lies


def tables(workspace: el.Workspace) -> set[str]:
    """The blobs to which rows were spooled."""
    blobs = workspace.blobs
    return {one.digest for one in blobs.list() if blobs.get(one.digest)[:6] == b"ARROW1"}


def test_labels_are_traced_to_the_reviewer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300))
    with el.open(tmp_path / "workspace") as workspace:
        schema = el.Schema(target="late", numeric=("a", "b"))
        handle = workspace.model(model(schema=schema, holdout=0.0))
        handle.train({"a": a, "b": b, "late": (a > b).astype(int)}, source="first")
        lies: list[int] = []
        for seed in range(2, 6):
            lies += labelled(handle, seed, 100, "mo" if seed == 4 else None)
            handle.update()
        a, b = rng.normal(size=(2, 500))
        on = {"a": a, "b": b, "late": (a > b).astype(int)}
        spooled = tables(workspace)
        found = handle.repair.bisect(good=2, bad=5, metric="log_loss", on=on)
        assert found["version"] == 4
        assert tables(workspace) == spooled, "labels are not left in a form that nobody asks for"
        where = "reviewer = 'mo'"
        assert found["next"] == f'everlearn excise m --where "{where}"'
        first = found["blame"]["levels"][0]  # the reviewer's rows surprised more than the source's
        assert (first["by"], first["found"]) == ("reviewer", "mo")
        assert found["blame"]["found"]["rows"] == len(lies)
        assert {one["position"] for one in found["blame"]["rows"]} <= set(lies)
        worst = found["blame"]["rows"][0]
        assert (worst["reviewer"], worst["source"]) == ("mo", "people")
        assert worst["key"].startswith("user-") and len(worst["prediction"]) > 10


def test_a_version_that_learned_nothing_is_told_as_such(tmp_path: Path) -> None:
    with poisoned(tmp_path, versions=3) as workspace:
        handle = workspace.model("m")
        rows = [{f"x{k}": float(v) for k, v in enumerate(x)} for x in np.eye(3).tolist()]
        edits = [{"features": row, "output": 1 - handle.predict(row, log=False).value,
                  "reason": "wrong"} for row in rows]  # fmt: skip
        assert handle.repair.patch(edits, way="weights").version == 4
        found = handle.repair.bisect(good=3, bad=4, metric="log_loss", on=SHOWN["on"])
    assert (found["decision"]["action"], found["version"]) == ("found", 4)
    assert "learned nothing: answers of its parent were patched" in found["decision"]["reason"]
    assert found["increment"] == [] and found["blame"] is None


def test_a_source_that_goes_on_with_it_is_traced_to_where_it_began(tmp_path: Path) -> None:
    with poisoned(tmp_path, versions=4) as workspace:
        handle = workspace.model("m")
        for number in range(5, 13):
            rows = table(number, 60, "eve" if number >= 7 else None)
            handle.train(rows, source=f"week-{number}")
        found = handle.repair.bisect(good=1, bad=12, metric="log_loss", on=SHOWN["on"])
    assert found["decision"]["action"] == "found"
    assert found["step"]["share"] < 0.75 and found["version"] >= found["since"] == 7
    assert "since version 7" in found["decision"]["reason"]
    assert found["next"] == "everlearn excise m --where \"source = 'eve'\""


KILLED = """
import json, sys
import everlearn as el
from tests.jobs.poisoned import BAD, GOOD, table
with el.open(sys.argv[1], create=False) as workspace:
    repair = workspace.model("m").repair
    found = repair.bisect(good=GOOD, bad=BAD, metric="log_loss", on=table(99, 500), processes=1)
print(json.dumps(found))
"""


def test_killed_it_goes_on_from_what_was_measured(tmp_path: Path, report: Any) -> None:
    with poisoned(tmp_path) as workspace:
        kept = Bisections(workspace.database, "m")
        measured = [0]
        for crash in ("bisect.probe:4", ""):
            done = subprocess.run(
                [sys.executable, "-c", KILLED, str(tmp_path / "workspace")],
                env={
                    **os.environ,
                    "EVERLEARN_CRASH": crash,
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == (-signal.SIGKILL if crash else 0), done.stderr
            [row] = kept.listed()
            measured.append(len(row.probes))
        assert measured[1] == 4 and measured[2] > 4
        assert row.state == "done"
    assert without_time(json.loads(done.stdout)) == without_time(json.loads(json.dumps(report)))


def test_a_step_that_did_the_whole_damage_is_found_though_its_parent_was_bad_too(
    tmp_path: Path,
) -> None:
    learned = ((5, 50, "eve"), (6, 450, BOT), (7, 600, None), (8, 60, None))
    with poisoned(tmp_path, versions=4) as workspace:
        handle = workspace.model("m")
        for number, rows, liar in learned:  # the honest rows undo most of it
            handle.train(table(number, rows, liar), source=f"week-{number}")
        found = handle.repair.bisect(good=4, bad=8, metric="log_loss", on=SHOWN["on"])
    assert (found["version"], found["likely"]["version"]) == (6, 6)
    sides = [(one["version"], one["side"]) for one in found["probes"]]
    assert sides == [(4, "good"), (5, "bad"), (6, "bad"), (8, "bad")]
    assert found["step"]["share"] >= 1.0 and found["next"].endswith(f"source = '{BOT}'\"")
    assert [(one["from"], one["to"]) for one in found["steps"]] == [(4, 5), (6, 8)]
