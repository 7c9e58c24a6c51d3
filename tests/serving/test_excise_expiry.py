"""Withdrawn labels of a model that learns online, while time passes: windows in which labels are
awaited close, and edits of its patch end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import state_digest
from everlearn.data.policy import MATURITY
from everlearn.jobs.refold import recorded, refold
from everlearn.registry.models import as_text
from tests.serving.local import LocalClient
from tests.serving.test_excise_online import champion, say
from tests.serving.test_online import Loop, until

HOUR = 3_600_000_000


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Loop]:
    policy = el.LabelPolicy(maturity="1h", unlabelled="negative", negative=0)
    loop = Loop(tmp_path, fields={"labels": policy}, rows=40, margin=10.0)
    yield loop
    loop.workspace.close()


def later(it: Loop, microseconds: int) -> None:
    """Set the clock of the workspace on."""
    now = it.workspace.database.clock() + microseconds
    it.workspace.database.clock = lambda: now


def folded_again(it: Loop, number: int) -> str:
    """The digest of the state in which the recorded increments of a version's lineage end."""
    registry = it.workspace.registry
    parts = recorded(registry, "m", registry.lineage("m", number))
    plans = [plan for one in parts[1:] for plan in one.plans]
    base = registry.state("m", parts[0].version)
    return state_digest(refold(registry, "m", base, plans).save())


def test_windows_that_close_meanwhile_are_learned_once(it: Loop) -> None:
    with LocalClient(it.workspace.app(["m"], learn=False)) as client:
        say(it, client, 50, "web", True)
        say(it, client, 50, "bot", False)
        it.ask(client, *it.random.normal(size=30))
        assert until(lambda: champion(it) >= 3)
        found = it.handle.repair.excise(where="source = 'bot'", queue=True).report
        later(it, 2 * HOUR)
        definition = it.handle.definition
        assert it.workspace.updates.mature("m", definition) == 30, "none of what the bot judged"
        result = it.workspace.run(found["job"])
        assert result.decision.action == "catch up"
        assert until(lambda: champion(it) not in found["marked"])
        last = say(it, client, 45, "web", True)
        assert until(lambda: it.position(client) == last)
    number = champion(it)
    version = it.workspace.registry.version("m", number)
    assert folded_again(it, number) == version.state_digest
    lineage = it.workspace.registry.lineage("m", number)
    learned = [
        row.source
        for one in lineage
        for part in it.workspace.registry.version("m", one).increments
        if part.slice["kind"] == "log"
        for row in it.handle.log.read(part.start, part.stop)
    ]
    assert learned.count(MATURITY) == 30


def test_an_edit_that_ends_meanwhile_does_not_bring_the_rows_back(it: Loop) -> None:
    with LocalClient(it.workspace.app(["m"], learn=False)) as client:
        say(it, client, 50, "web", True)
        say(it, client, 50, "bot", False)
        assert until(lambda: champion(it) >= 3)
        until_then = it.workspace.database.clock() + HOUR
        asked = {"x": 2.5}
        said = it.handle.predict(asked, log=False)
        assert not isinstance(said, list)
        edit: dict[str, Any] = {"features": asked, "output": 1 - said.value, "reason": "asked for"}
        ends = {"expires_at": as_text(until_then)}
        assert it.handle.repair.patch([edit | ends]).decision.action == "promote"
        found = it.handle.repair.excise(where="source = 'bot'", queue=True).report
        later(it, 2 * HOUR)
        ended = it.handle.repair.expire_edits()
        assert ended is not None and champion(it) == ended.version
        assert it.workspace.run(found["job"]).decision.action == "catch up"
        assert until(lambda: champion(it) not in {*found["marked"], ended.version})
        position = say(it, client, 5, "web", True)
        assert until(lambda: it.position(client) == position)
        answers = it.ask(client, 2.5, -1.0, 2.0, -2.0)
    assert [row["output"] for row in answers] == [1, 0, 1, 0]
    assert [one["state"] for one in it.handle.repair.edits()] == ["expired"]
    number = champion(it)
    parts = it.workspace.registry.version("m", number).manifest
    assert not [name for name in parts if name.startswith("patch/")]
