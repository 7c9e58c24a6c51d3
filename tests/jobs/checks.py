"""What must be true of a workspace at any moment, and when a job has ended."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import everlearn as el
from everlearn.base import state_digest
from everlearn.jobs.queue import OPEN

COUNTS = ("rows", "held_out", "set_aside", "duplicates")
COMPARED = ("source", "start", "stop", *COUNTS, "digest")
JOB_STATES = ("queued", "running", "committed", "done")


Place = Path | str
"""A folder, or the URL of a workspace on PostgreSQL."""


def summary(workspace: Place, model: str) -> list[dict[str, Any]]:
    """What two workspaces that learned the same must agree on: one item a version."""
    with el.open(workspace, create=False) as ws:
        return [_told(version) for version in ws.model(model).versions()]


def _told(version: dict[str, Any]) -> dict[str, Any]:
    increments = [{key: item[key] for key in COMPARED} for item in version["increments"]]
    told = {key: version[key] for key in ("number", "parent", "state_digest", "metrics", "aliases")}
    return told | {"increments": increments}


def check_any_moment(workspace: Place, model: str, expected: list[dict[str, Any]]) -> int:
    """A workspace after a kill: it is the one before or after some commit, and can be served from.

    Args:
        expected: `summary` of the workspace of an uninterrupted run.

    Returns:
        How many versions there are.
    """
    if isinstance(workspace, Path) and not (workspace / "everlearn.db").exists():
        return 0
    _check_database(workspace)
    with el.open(workspace) as ws:
        if model not in ws.registry.models():
            return 0
        handle = ws.model(model)
        found = handle.versions()
        for version, good in zip(found, expected, strict=False):
            assert version["state_digest"] == good["state_digest"]
            assert version["parent"] == good["parent"]
        assert len(found) <= len(expected)
        champion = handle.champion()
        assert (champion or 0) in (len(found), len(found) - 1)
        if champion is not None:
            check_loads(ws, model, champion)
        assert all(job.state in JOB_STATES for job in ws.jobs(model))
        assert len(ws.queue.jobs(model, OPEN)) <= 1
        return len(found)


def check_ended(
    workspace: Place, model: str, expected: list[dict[str, Any]], rows: list[int]
) -> None:
    """All of it was learned, each row exactly once, and nothing is left over.

    Args:
        rows: of each file.
    """
    assert summary(workspace, model) == expected
    with el.open(workspace, create=False) as ws:
        handle = ws.model(model)
        increments = [item for version in handle.versions() for item in version["increments"]]
        assert [item["start"] for item in increments] == [0] * len(rows)
        assert [item["stop"] for item in increments] == rows
        assert [sum(item[name] for name in COUNTS) for item in increments] == rows
        assert not ws.queue.jobs(model, OPEN)
        assert handle.champion() == len(rows)
        moves = [item["version_to"] for item in handle.history() if item["name"] == "champion"]
        assert moves == list(range(1, len(rows) + 1))
        for number in range(1, len(rows) + 1):
            check_loads(ws, model, number)
    _check_database(workspace)


def check_loads(ws: el.Workspace, model: str, number: int) -> None:
    """A version loads whole, memory included, with the digest that is recorded; and predicts."""
    handle = ws.model(model)
    version = handle.versions()[number - 1]
    with ws.database.read() as connection:
        from everlearn.registry import versions

        state = ws.parts.load(versions.get(connection, model, number).manifest)
    for part in state.values():
        _ = part.arrays
    assert state_digest(state) == version["state_digest"]
    row = {"x0": 0.1, "x1": -1.0, "x2": 0.0, "x3": 0.5}
    handle.predict(row, version=number)


def _check_database(workspace: Place) -> None:
    if isinstance(workspace, str):
        return
    connection = sqlite3.connect(workspace / "everlearn.db")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()
