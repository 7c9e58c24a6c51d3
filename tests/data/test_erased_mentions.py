"""Erasure of one key from what people said of it: withdrawals, bisections, the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import ConflictError
from everlearn.cli.excise import _asked as asked_in_words
from everlearn.data.erasure import Found
from everlearn.data.feedback import ERASED_DATA
from everlearn.data.tables import MemoryBlobs
from everlearn.data.withdrawn import WITHDRAWN
from everlearn.jobs.bisect.bisector import Bisector, Question
from everlearn.jobs.bisect.records import Bisections
from everlearn.jobs.excise.excising import NO_IDS
from everlearn.jobs.mentions import Mentions
from everlearn.jobs.patch.erased import EditsOfKey
from everlearn.workspace import ModelHandle
from tests.data.test_erasure import NUMBER, SECRET, TOLD, ask, leftovers
from tests.serving.local import LocalClient


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[ModelHandle]:
    with el.open(tmp_path / "workspace") as workspace:
        model = el.Model(
            "m",
            learner=el.learners.LogisticRegression(),
            schema=el.Schema(target="y", id="id", key="person"),
            strategy=el.Strategy(memory=el.Reservoir(100)),
            holdout=0.3,
        )
        yield workspace.model(model)


def test_withdrawals_go_on_without_what_was_asked(handle: ModelHandle) -> None:
    ask(handle, 60, range(10, 20))
    assert handle.update().version == 1
    asked: list[dict[str, Any]] = [
        {"key": SECRET},
        {"where": f"key = '{SECRET}' or position = 31", "reason": f"{SECRET} called"},
        {"where": "position = 32", "author": SECRET},
        {"rows": ["feedback:41-42"], "reason": f"of {SECRET}'s flat"},
        {"where": "position = 50", "reason": "a bot", "author": "bo"},
    ]
    for one in asked:
        handle.repair.excise(**one)
    ask(handle, 20, range(5))
    handle.repair.excise(where=f"position > 60 and c = '{TOLD}'", reason="Ann asked for it")
    handle.repair.excise(where=f"position = 70 or key = '{SECRET}'")
    assert {"withdrawals", "audit"} <= {*leftovers(handle.workspace)}
    before = handle.repair.withdrawals()
    handle.workspace.erase("m", SECRET, refold=False)
    assert leftovers(handle.workspace) == []
    shown = handle.repair.withdrawals()
    erased = {"erased": "rows of a key whose data was erased"}
    rows = {"rows": [["feedback", 41, 42]]}
    where = [{"where": f"position = {number}"} for number in (32, 50)]
    assert [one["condition"] for one in shown] == [
        erased,
        erased,
        where[0],
        rows,
        where[1],
        erased,
        erased,
    ]
    reasons = [
        "erased",
        "erased",
        "withdrawn by hand",
        "erased",
        "a bot",
        "erased",
        "withdrawn by hand",
    ]
    assert [one["reason"] for one in shown] == reasons
    assert [one["author"] for one in shown] == [None, None, None, None, "bo", None, None]
    kept = ("number", "rows", "job_id", "at")
    assert [[one[name] for name in kept] for one in shown] == [
        [one[name] for name in kept] for one in before
    ]
    assert shown[0]["report"] == before[0]["report"] | {"selection": erased}
    with LocalClient(handle.workspace.app(["m"], learn=False)) as client:
        assert (
            "rows of a key whose data was erased"
            in client.get("/console/models/m/withdrawals").text
        )
    assert asked_in_words(erased) == "rows of a key whose data was erased"

    made = handle.update()
    assert made.version is not None
    (part,) = handle.workspace.registry.version("m", made.version).increments
    assert part.reasons["set_aside"] == {ERASED_DATA: 5, WITHDRAWN: 1}


def test_what_was_sent_and_why_goes_from_the_audit_log(handle: ModelHandle) -> None:
    ask(handle, 60, range(10, 20))
    assert handle.update().version == 1
    (first,) = handle.predict([{"x": NUMBER, "c": TOLD}], keys=[SECRET])  # type: ignore[misc]
    wanted = {"output": 1 - first.value, "reason": "seen"}
    features = {"x": NUMBER, "c": TOLD}
    bodies = [
        {"edits": [{"features": features, **wanted}], "dry_run": True},
        {"edits": [{"features": features, **wanted, "prediction_id": first.id}]},
        {"edits": [{"features": {"x": 0.5, "c": "a"}, **wanted, "reason": "another"}]},
    ]
    with LocalClient(handle.workspace.app(["m"], learn=False)) as client:
        for body in bodies:
            client.post("/v1/models/m/patches", json=body)
        client.post("/v1/models/m/excisions", json={"where": f"who = '{SECRET}'"})
        client.post("/console/models/m/excise", data={"by": "key", "what": SECRET, "reason": "?"})
    reason = f"{SECRET} is content"
    last = handle.versions()[-1]["number"]
    handle.workspace.registry.promote("m", last, expected=handle.champion(), reason=reason)
    assert "audit" in leftovers(handle.workspace)
    before = handle.workspace.audit.listed()
    handle.workspace.erase("m", SECRET, refold=False)
    assert leftovers(handle.workspace) == []
    after = handle.workspace.audit.listed()[1:]
    assert [one["action"] for one in after] == [one["action"] for one in before]
    assert [one["detail"].get("address") for one in after] == [
        one["detail"].get("address") for one in before
    ]
    assert sum("another" in str(one) for one in after) == 1, "what others were told stays"


def test_bisections_that_name_it_or_are_going_on_are_begun_anew(handle: ModelHandle) -> None:
    for _ in range(3):
        ask(handle, 60, range(10, 20))
        handle.update()
    workspace = handle.workspace
    Bisector(workspace.registry, "m", Question(2, 3, "log_loss"), processes=1).open()
    kept = Bisections(workspace.database, "m")
    named = kept.open(
        {"good": 1, "bad": 3, "metric": "log_loss", "on": "data", "rows": 9}, "e" * 64, "a" * 64
    )
    kept.end(named.number, "done", {"blame": {"rows": [{"position": 3, "key": SECRET}]}})
    going = kept.open({"good": 1, "bad": 2, "metric": "log_loss", "rows": 9}, "f" * 64, "b" * 64)
    kept.measured(going.number, {"version 1": {"value": 0.5}})
    assert "bisections" in leftovers(workspace)
    workspace.erase("m", SECRET, refold=False)
    assert leftovers(workspace) == [], "nor the rows that it judged on"
    rows = [kept.get(number) for number in (1, named.number, going.number)]
    assert [row.state for row in rows] == ["failed"] * 3
    assert all(row.probes == {} and "erased" in row.report["error"] for row in rows)
    with pytest.raises(ConflictError, match="ask again"):
        kept.measured(going.number, {f"alone 0 key {SECRET}": {"value": 0.5}})
    assert kept.end(going.number, "done", {"found": SECRET}).report == rows[2].report
    assert kept.open(going.asked, going.fingerprint, "b" * 64).number == 4, "it is another one"
    assert leftovers(workspace) == []
    with LocalClient(workspace.app(["m"], learn=False)) as client:
        shown = client.get("/v1/models/m/bisections/2").json()
        assert "blob" not in shown["asked"] and "erased" in shown["report"]["error"]
        assert client.get("/console/models/m/bisections/2").status_code == 200


def test_what_names_a_key() -> None:
    def names(key: str, value: Any) -> bool:
        return Mentions(1, "m", key, Found(ids={7}), NO_IDS, EditsOfKey(), MemoryBlobs()).names(
            value
        )

    assert names("o'brien", {"where": "person = 'o''brien'"})
    assert names("ann", ["of ann's flat"]) and not names("ann", "annual report of joann")
    assert names("ann", {"alone 0 key ann": {}}) and names("ann", '{"features": {"a": "ann"}}')
    assert names("ann", {"prediction": "0000000000000007"})
    assert names("17", "person = 17") and not names("17", {"rows": 17})
    assert names("a(b", "a(b") and not names("ann", None)
