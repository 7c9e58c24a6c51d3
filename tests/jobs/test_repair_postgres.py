"""Repair on PostgreSQL: what is found and made is what SQLite finds and makes, and two who repair
at once do not undo each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import ConflictError, Json, StorageError
from everlearn.jobs.excise import excising
from everlearn.jobs.patch import patches
from everlearn.registry import aliases
from everlearn.registry.models import model_id
from everlearn.testing.database import temporary_schema
from tests.jobs.poisoned import BAD, BOT, GOOD, POISONED, model, table

TIMES = {"seconds", "created_at", "started_at", "finished_at", "at", "ended_at", "expires_at"}
MOMENTARY = TIMES | {"worker", "who", "prediction_id", "patch.seconds"}


@pytest.fixture
def locations(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A workspace of SQLite and one of PostgreSQL."""
    try:
        with temporary_schema() as url:
            yield str(tmp_path / "here"), f"{url}&blobs={tmp_path / 'blobs'}"
    except StorageError as error:
        pytest.skip(str(error))


def lasting(found: Json) -> Json:
    """What was found, without what depends on the moment."""
    if isinstance(found, dict):
        return {key: lasting(value) for key, value in found.items() if key not in MOMENTARY}
    return [lasting(one) for one in found] if isinstance(found, list) else found


def edit(x0: float, x1: float, output: int) -> dict[str, Any]:
    features = {"id": 1, "x0": x0, "x1": x1, "x2": 0.0}
    return {"features": features, "output": output, "reason": "called"}


def poisoned(workspace: el.Workspace) -> el.ModelHandle:
    """Of the model of `poisoned`, all versions."""
    handle = workspace.model(model())
    for number in range(1, BAD + 1):
        rows = 300 if number < POISONED else 150 if number == POISONED else 30
        wrong = BOT if number == POISONED else None
        handle.train(table(number, rows, wrong), source=f"week-{number}")
    return handle


def repaired(location: str) -> list[Json]:
    """What all kinds of repair say, one after the other, in one workspace."""
    with el.open(location) as workspace:
        handle = poisoned(workspace)
        repair = handle.repair
        asked = {"good": GOOD, "bad": BAD, "metric": "log_loss", "on": table(99, 300)}
        told = [repair.bisect(**asked, processes=1)]
        told += [repair.patch([edit(2.0, -2.0, 0), edit(-2.0, 2.0, 1)]).to_json()]
        told += [repair.excise(where=f"source = '{BOT}'").to_json(), repair.withdrawals()]
        told += [repair.edits(), repair.revoke_edit(1).to_json(), repair.edits()]
        told += [handle.show(POISONED), handle.show(BAD + 2), handle.versions(), handle.history()]
        return [lasting(one) for one in told]


def test_it_says_what_it_says_on_sqlite(locations: tuple[str, str]) -> None:
    here, there = (repaired(location) for location in locations)
    assert there == here
    assert here[0]["version"] == POISONED and here[2]["base"] is None


def test_labels_are_folded_away_with_their_archive(locations: tuple[str, str]) -> None:
    digests = []
    for place, location in enumerate(locations):
        with el.open(location) as workspace:
            handle = workspace.model(
                el.Model(
                    "m",
                    learner=el.learners.LogisticRegression(),
                    schema=el.Schema(target="y"),
                    strategy=el.Strategy(memory=el.Reservoir(20)),
                    holdout=0.0,
                )
            )
            handle.train({"x": [-1.0, 1.0, -2.0, 2.0], "y": [0, 1, 0, 1]})
            for job in range(2):
                asked = handle.predict([{"x": float(x) + job} for x in range(-5, 5)])
                assert isinstance(asked, list)
                for number, one in enumerate(asked):
                    source = "bot" if number % 3 == 0 else "web"
                    if source == "web" or place == 0:  # the other one never hears of them
                        handle.feedback(one.id, int(number > 4), source=source)
                handle.update()
                workspace.compact("m", older_than="0s")
            if place == 0:
                handle.repair.excise(where="source = 'bot'")
            digests.append(handle.versions()[-1]["state_digest"])
    assert digests[0] == digests[1]


def test_a_champion_that_moves_meanwhile_is_not_patched(
    locations: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    solved, raised = threading.Event(), list[ConflictError]()
    monkeypatch.setattr(patches, "crash_point", lambda name: solved.set())
    with el.open(locations[1]) as workspace:
        handle = workspace.model(model())
        for number in (1, 2):
            handle.train(table(number), source=f"week-{number}")

        def patch() -> None:
            try:
                handle.repair.patch([edit(2.0, -2.0, 0)])
            except ConflictError as error:
                raised.append(error)

        with workspace.database.write() as connection:
            model_id(connection, "m", lock=True)
            other = threading.Thread(target=patch)
            other.start()
            assert solved.wait(60)
            aliases.move(connection, "m", aliases.CHAMPION, to=1, expected=2, reason="by hand")
        other.join(60)
        assert len(raised) == 1 and "moved from version 2 to 1" in str(raised[0])
        assert (len(handle.versions()), handle.repair.edits()) == (2, [])
        assert handle.repair.patch([edit(2.0, -2.0, 0)]).version == 3


def test_an_excision_of_a_model_that_is_patched_meanwhile_is_prepared_again(
    locations: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with el.open(locations[1]) as workspace:
        handle = workspace.model(model())
        for number in (1, 2):
            handle.train(table(number), source=f"week-{number}")
        passed = list[str]()

        def patch_once(name: str) -> None:
            passed.append(name)
            if passed == ["excise.prepared"]:
                handle.repair.patch([edit(2.0, -2.0, 0)])

        monkeypatch.setattr(excising, "crash_point", patch_once)
        found = handle.repair.excise(rows=["week-2:0-50"])
        assert passed.count("excise.prepared") == 2
        assert (found.report["base"], found.report["folded"]) == (1, [2, 3])
        assert found.result is not None and found.result.decision.action == "promote"
        [one] = handle.repair.edits()
        assert one["state"] == "standing", "what was patched meanwhile is carried on"
