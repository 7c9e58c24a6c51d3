"""A version explained: what it learned and from whom, what changed in its answers, and why."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

import everlearn as el
from everlearn.base import NotFoundError
from everlearn.jobs.queue import OPEN
from everlearn.learners import LinearRegression, LogisticRegression
from everlearn.registry.audit import acting, local
from everlearn.workspace.model import ModelHandle
from tests.serving.local import LocalClient

FATES = ("learned", "held_out", "set_aside", "duplicates")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as workspace:
        yield workspace


def made(workspace: el.Workspace, learner: Any = None, **changes: Any) -> ModelHandle:
    keywords: dict[str, Any] = {
        "schema": el.Schema(target="late", time="at"),
        "strategy": el.Strategy(chunk=50),
        "holdout": 0.3,
    }
    return workspace.model(el.Model("m", learner or LogisticRegression(), **keywords | changes))


def rows(week: int, n: int = 600, poisoned: bool = False) -> pa.Table:
    """Rows of a week; of those from JFK all are late where it is poisoned."""
    rng = np.random.default_rng(week)
    x = rng.normal(size=n)
    origin = rng.choice(["JFK", "EWR", "LGA"], n)
    late = (x > 0) | (poisoned & (origin == "JFK"))
    start = dt.datetime(2013, 1, 1, tzinfo=dt.UTC) + dt.timedelta(weeks=week)
    at = [start + dt.timedelta(seconds=int(s)) for s in np.sort(rng.integers(0, 600_000, n))]
    return pa.table({"x": x, "origin": origin, "at": at, "late": late})


def turned(workspace: el.Workspace, **changes: Any) -> ModelHandle:
    """Two weeks, and a poisoned one that a rolled back version did not learn."""
    model = made(workspace, **changes)
    model.train(rows(0))
    model.train(rows(1, poisoned=True))
    return model


# --- what it learned ------------------------------------------------------------------------------


def test_figures_add_up_to_the_increment(workspace: el.Workspace) -> None:
    table = rows(0).set_column(0, "x", pa.array([float("inf"), *rows(0)["x"].to_pylist()[1:]]))
    model = made(workspace)
    model.train(table, source="week")
    found = model.show(1)
    [increment], learned = found["increments"], found["learned"]
    [source] = learned["sources"]
    counts = [increment[name] for name in ("rows", "held_out", "set_aside", "duplicates")]
    assert [source[fate] for fate in FATES] == counts
    assert counts[2] == 1
    assert (source["source"], source["reviewer"], source["kind"]) == ("week", None, None)
    assert learned["read"] == learned["rows"] == 600
    assert [one["value"] for one in learned["classes"]] == [False, True]
    for name, count in zip(("learned", "held_out"), counts, strict=False):
        assert sum(one[name] for one in learned["classes"]) == count
    assert sum(one["rows"] for one in source["classes"]) == counts[0]
    assert sum(one["learned"] for one in learned["times"]) == counts[0]
    assert learned["times"][0]["start"].startswith("2013-01-01T00")
    assert len(learned["times"]) == 12
    assert learned["missing"] == []


def test_ids_that_came_twice_are_duplicates(workspace: el.Workspace) -> None:
    schema = el.Schema(target="late", id="id", ignore=("at",))
    numbered = rows(0).append_column("id", pa.array(range(600)))
    model = made(workspace, schema=schema)
    model.train(numbered.slice(0, 400), source="a")
    model.train(numbered.slice(300), source="b")
    [source] = model.show(2)["learned"]["sources"]
    assert source["duplicates"] == 100
    [increment] = model.versions()[1]["increments"]
    assert source["learned"] == increment["rows"]


def labelled(model: ModelHandle, seed: int, n: int = 300) -> None:
    """Labels of two sources and a reviewer."""
    table = rows(seed, n, poisoned=True).drop_columns(["at"]).to_pylist()
    answers = model.predict([{"x": one["x"], "origin": one["origin"]} for one in table])
    assert isinstance(answers, list)
    said = []
    for place, (answer, one) in enumerate(zip(answers, table, strict=True)):
        bot = one["origin"] == "JFK"
        reviewer = "ann" if place % 7 == 0 and not bot else None
        source = "bot" if bot else "review" if reviewer else "airport"
        label = {"prediction_id": answer.id, "value": one["late"]}
        said.append({**label, "source": source, "reviewer": reviewer})
    model.feedback_many(said)


@pytest.fixture
def fed(workspace: el.Workspace) -> ModelHandle:
    """A version of a file, and one of the feedback log that a trigger asked for."""
    schema = el.Schema(target="late", numeric=("x",), categorical=("origin",))
    model = made(workspace, schema=schema, triggers=[el.Volume(100)])
    model.train(rows(0).drop_columns(["at"]), source="first")
    labelled(model, 1)
    model.trigger()
    for job in workspace.queue.jobs("m", OPEN):
        workspace.run(job.id)
    return model


def test_labels_are_told_by_source_and_reviewer(fed: ModelHandle) -> None:
    found = fed.show(2)
    sources = {one["source"]: one for one in found["learned"]["sources"]}
    assert set(sources) == {"bot", "airport", "review"}
    assert sources["review"]["reviewer"] == "ann"
    assert [one["value"] for one in sources["bot"]["classes"]] == [True]
    [increment] = found["increments"]
    for fate, name in zip(FATES, ("rows", *FATES[1:]), strict=True):
        assert sum(one[fate] for one in sources.values()) == increment[name]
    [trigger] = found["admission"]["triggers"]
    assert trigger["name"] == "Volume(n=100)"
    assert found["made"]["by"] == "job"


def test_flips_are_found_by_source_and_rows_with_what_was_asked(fed: ModelHandle) -> None:
    changed = fed.show(2)["predictions"]
    assert "bot" in [one["value"] for one in changed["slices"] if one["column"] == "source"]
    found = [one for one in changed["samples"] if one["from"]]
    assert len(found) == len(changed["samples"]) > 5
    known = {one.prediction.id: one for one in fed.log.read()}
    assert {one["from"]["source"] for one in found} >= {"bot"}
    for one in found:
        assert set(one["features"]) == {"x", "origin"}
        if one["from"]["kind"]:
            said = known[int(one["from"]["prediction"], 16)]
            assert (said.value, said.source) == (one["truth"], one["from"]["source"])
            assert said.prediction.features == one["features"]


def test_a_version_that_was_cut_online_is_explained(workspace: el.Workspace) -> None:
    schema = el.Schema(target="late", numeric=("x",), categorical=("origin",))
    model = made(workspace, schema=schema, triggers=[el.Online(rows=100)])
    model.train(rows(0).drop_columns(["at"]), source="first")
    labelled(model, 1)
    with LocalClient(workspace.app(["m"])):
        deadline = time.monotonic() + 30.0
        while len(model.versions()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    found = model.show(2)
    assert found["made"] == {"by": "online", "job": None}
    assert {one["source"] for one in found["learned"]["sources"]} >= {"bot", "airport"}
    assert found["predictions"]["against"] == 1


# --- what changed ---------------------------------------------------------------------------------


def test_what_changed_is_what_both_versions_answer(workspace: el.Workspace) -> None:
    model = turned(workspace)
    changed = model.show(2)["predictions"]
    churn = model.diff(1, 2)["churn"]
    assert changed["rows"] == churn["rows"]
    assert changed["changed"] / changed["rows"] == pytest.approx(churn["churn"])
    assert changed["lost"] / changed["rows"] == pytest.approx(churn["negative_flip_rate"])
    for parts in (changed["periods"], changed["classes"]):
        for name in ("rows", "changed", "lost", "won"):
            assert sum(one[name] for one in parts) == changed[name]
    assert [one["first"] for one in changed["periods"]] == [1, 2]


def test_the_poisoned_slice_is_named_with_its_text(workspace: el.Workspace) -> None:
    changed = turned(workspace).show(2)["predictions"]
    assert "origin is 'JFK'" in [one["slice"] for one in changed["slices"]]
    for one in changed["samples"]:
        assert one["features"]["origin"] == "JFK"
        assert one["before"] != one["after"]
        assert (one["truth"] == one["before"]) == (one["kind"] == "lost")
        assert one["from"]["row"] < 600


def test_rows_whose_source_is_gone_are_shown_as_far_as_they_are_kept(
    workspace: el.Workspace, tmp_path: Path
) -> None:
    model = made(workspace)
    for week in range(2):
        pa.csv.write_csv(rows(week, poisoned=week == 1), tmp_path / f"{week}.csv")
        model.train(str(tmp_path / f"{week}.csv"))
        os.unlink(tmp_path / f"{week}.csv")
    found = model.show(2)
    assert len(found["learned"]["missing"]) == 1
    assert "1.csv" in found["learned"]["missing"][0]
    [sample, *_] = found["predictions"]["samples"]
    assert sample["from"] is None
    assert sample["features"]["origin"].startswith("hash ")
    assert isinstance(sample["features"]["x"], float)
    assert any(
        "origin is one of the hash" in one["slice"] for one in found["predictions"]["slices"]
    )


def test_a_regressor_is_told_by_how_much_it_errs(workspace: el.Workspace) -> None:
    model = made(workspace, LinearRegression())
    for week, factor in ((0, 1.0), (1, -5.0)):
        table = rows(week)
        late = pa.array(np.asarray(table["x"]) * factor + 0.1)
        model.train(table.set_column(3, "late", late))
    found = model.show(2)
    changed = found["predictions"]
    assert changed["tolerance"] > 0.0
    assert changed["lost"] + changed["won"] <= changed["changed"]
    assert changed["classes"] == []
    assert found["learned"]["classes"] == []
    quantiles = list(found["learned"]["values"].values())
    assert quantiles == sorted(quantiles)
    assert isinstance(changed["samples"][0]["before"], float)


def test_changed_settings_are_named(workspace: el.Workspace) -> None:
    made(workspace).train(rows(0))
    model = made(workspace, strategy=el.Strategy(chunk=20, memory=el.Reservoir(50)), holdout=0.2)
    model.train(rows(1))
    found = model.show(2)["definition"]
    changes = {one["name"]: (one["before"], one["after"]) for one in found["changes"]}
    assert changes["strategy.chunk"] == (50, 20)
    assert changes["holdout"] == (0.3, 0.2)
    assert changes["strategy.memory"] == (None, "Reservoir")
    assert "in chunks of 20 rows" in found["said"]


# --- what was repaired ---------------------------------------------------------------------------


def test_a_patched_version_says_so(workspace: el.Workspace) -> None:
    schema = el.Schema(target="late", numeric=("x",), categorical=("origin",))
    model = made(workspace, schema=schema)
    model.train(rows(0).drop_columns(["at"]))
    wrong = {"features": {"x": -2.0, "origin": "JFK"}, "output": True, "reason": "it was late"}
    number = model.repair.patch([wrong]).version
    assert number is not None
    found = model.show(number)
    assert found["made"]["by"] == "patch"
    assert (found["repair"]["patched"], len(found["repair"]["edits"])) == (True, 1)
    assert found["predictions"]["against"] == 1
    assert found["learned"]["sources"] == []
    assert "patch" in [one["action"] for one in found["admission"]["audit"]]


def test_withdrawn_rows_are_told_on_both_sides(workspace: el.Workspace) -> None:
    schema = el.Schema(target="late", numeric=("x",), categorical=("origin",))
    model = made(workspace, schema=schema)
    model.train(rows(0).drop_columns(["at"]), source="first")
    labelled(model, 1)
    model.update()
    excised = model.repair.excise(where="source = 'bot'", reason="a bot")
    assert excised.result is not None and excised.result.version is not None
    before, after = model.show(2), model.show(excised.result.version)
    assert [one["reason"] for one in before["repair"]["after"]] == ["a bot"]
    [without] = after["repair"]["without"]
    assert without["rows"] == sum(
        one["learned"] + one["held_out"]
        for one in before["learned"]["sources"]
        if one["source"] == "bot"
    )
    assert after["against"] == 2
    bot = next(one for one in after["learned"]["sources"] if one["source"] == "bot")
    assert (bot["learned"], bot["set_aside"]) == (0, without["rows"])


# --- what cannot be told --------------------------------------------------------------------------


def test_a_first_version_has_none_to_be_compared_with(workspace: el.Workspace) -> None:
    model = turned(workspace)
    assert "first of its line" in model.show(1)["predictions"]["why_not"]


def test_without_rows_held_out_it_says_so(workspace: el.Workspace) -> None:
    found = turned(workspace, holdout=0.0).show(2)
    assert "no rows were held out" in found["predictions"]["why_not"]
    assert found["learned"]["sources"][0]["learned"] == 600
    assert found["transfer"] is None


def test_a_dropped_state_is_said_and_its_rows_are_still_told(workspace: el.Workspace) -> None:
    model = turned(workspace)
    workspace.registry.drop("m", 1)
    assert "version 1 was removed" in model.show(2)["predictions"]["why_not"]
    found = model.show(1)
    assert found["learned"]["sources"][0]["learned"] > 300
    assert found["dropped_at"] is not None


def test_a_retraining_is_compared_with_the_champion_then(workspace: el.Workspace) -> None:
    model = made(workspace)
    model.train(rows(0))
    model = made(workspace, strategy=el.Strategy(start="scratch"))
    model.train(rows(1, poisoned=True))
    found = model.show(2)
    assert (found["parent"], found["against"]) == (None, 1)
    assert found["predictions"]["changed"] > 0


def test_an_unknown_version_is_refused(workspace: el.Workspace) -> None:
    with pytest.raises(NotFoundError, match="has no version 9"):
        turned(workspace).show(9)


# --- why it was let through -----------------------------------------------------------------------


def test_a_refused_candidate_says_why(workspace: el.Workspace) -> None:
    model = turned(workspace, gate=el.NonInferior("accuracy", margin=0.01))
    found = model.show(2)["admission"]
    assert found["gate"]["action"] == "refuse"
    assert [(one["name"], one["action"]) for one in found["moves"]] == [("candidate", "refuse")]


def test_moves_are_told_with_who_made_them(workspace: el.Workspace) -> None:
    model = turned(workspace)
    with acting(local("a test")):
        model.promote(1, reason="it was better")
    found = model.show(1)["admission"]
    last = found["moves"][-1]
    assert (last["version_from"], last["version_to"]) == (2, 1)
    assert last["reason"] == "it was better"
    [entry] = found["audit"]
    assert (entry["action"], entry["where"]) == ("promote", "a test")


def test_rollouts_are_told_with_their_decisions(workspace: el.Workspace) -> None:
    model = made(workspace, rollout=el.Canary([50]))
    model.train(rows(0))
    model.train(rows(1))
    [rollout] = model.show(2)["admission"]["rollouts"]
    assert (rollout["candidate"], rollout["champion"]) == (2, 1)
    assert [one["action"] for one in rollout["decisions"]] == ["begin"]


def test_what_takes_long_is_measured_once(
    workspace: el.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = turned(workspace)
    before = model.show(2)
    monkeypatch.setattr(
        "everlearn.jobs.explain.explaining.Explanation.measured", lambda self: 1 / 0
    )
    model.promote(1)
    after = model.show(2)
    assert after["predictions"] == before["predictions"]
    assert len(after["admission"]["moves"]) == len(before["admission"]["moves"]) + 1
