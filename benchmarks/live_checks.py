"""What must hold of a served workspace whenever its server was killed."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks.live_callers import Answer, Memory
from everlearn.base import Json
from everlearn.data.compiler import compile_rows
from everlearn.data.feedback import id_number
from everlearn.data.log import FeedbackLog
from everlearn.jobs.learn import Fold
from everlearn.jobs.load import load_fold
from everlearn.jobs.online import Tail
from everlearn.registry.versions import Version
from everlearn.rollout.rollouts import CANDIDATE, CHAMPION
from everlearn.storage.schema import labels, predictions
from everlearn.workspace import Workspace


def check_file(folder: Path) -> None:
    """The database is sound."""
    with sqlite3.connect(folder / "everlearn.db") as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    connection.close()


def check_events(log: FeedbackLog, memories: Sequence[Memory], sent_again: bool) -> Counter[str]:
    """No acknowledged event is lost, none is there twice, and none is there that nobody sent.

    Args:
        memories: of all callers of the model.
        sent_again: whether callers had the time to send again what was in doubt.

    Returns:
        How many there are.
    """
    with log.database.read() as connection:
        asked = connection.execute(
            sa.select(predictions).where(predictions.c.model_id == log.model)
        ).all()
        said = connection.execute(sa.select(labels).where(labels.c.model_id == log.model)).all()
    by_id = {row.id: row for row in asked}
    known = {id: answer for memory in memories for id, answer in memory.answers.items()}
    for name, answer in known.items():
        row = by_id.get(id_number(name))
        assert row is not None, f"prediction {name} was acknowledged, and is lost"
        logged = json.loads(row.output), json.loads(row.features), row.version, row.arm
        assert logged == (answer.output, {"x": answer.x}, answer.version, answer.arm), name
        assert row.external_id == answer.own, name
    unheard = sum(memory.unheard for memory in memories)
    assert len(known) <= len(asked) <= len(known) + unheard, "predictions that nobody asked for"
    own = [row.external_id for row in asked if row.external_id is not None]
    assert len(own) == len(set(own)), "a prediction is there twice"
    _check_labels(said, memories, sent_again)
    return Counter(predictions=len(known), labels=sum(len(one.said) for one in memories))


def _check_labels(rows: Sequence[Any], memories: Sequence[Memory], sent_again: bool) -> None:
    by_key = {row.idempotency_key: row for row in rows}
    assert len(by_key) == len(rows), "a label is there twice"
    positions = sorted(row.position for row in rows if row.position is not None)
    assert positions == list(range(1, len(positions) + 1)), "positions have gaps"
    sent: set[str] = set()
    for memory in memories:
        for key, one in memory.said.items():
            row = by_key.get(key)
            assert row is not None, f"label {key!r} was acknowledged, and is lost"
            assert json.loads(row.value) == one.body["value"], key
            assert one.position in (None, row.position), key
            if name := one.body.get("prediction_id"):
                assert row.prediction_id == id_number(name), key
            if sent_again and one.body.get("external_id") not in memory.unasked:
                assert row.position is not None, f"label {key!r} waits, and its prediction came"
        sent |= memory.said.keys() | memory.doubtful.keys()
    assert by_key.keys() <= sent, "labels that nobody sent"


def check_online(workspace: Workspace, name: str, answers: Iterable[Answer]) -> tuple[Tail, int]:
    """Versions are cut one after the other and leave no label out, each is the fold of the log from
    the first one, and so is every acknowledged answer, at the position that it names.

    Returns:
        The fold of the whole log, and how many answers were compared.
    """
    log, registry = workspace.updates.log(name), workspace.registry
    found = registry.versions(name)
    assert [version.number for version in found] == list(range(1, len(found) + 1))
    assert [version.parent for version in found[1:]] == [item.number for item in found[:-1]]
    edges = check_increments(found)
    whole = Tail.load(registry, name, found[0], log, 0)
    at: dict[int, list[Answer]] = {}
    for answer in answers:
        assert answer.position is not None
        at.setdefault(answer.position, []).append(answer)
    versions = {stop: version for version, (_, stop) in zip(found[1:], edges, strict=True)}
    head = log.head()
    assert max([*at, *versions, 0]) <= head, "something was learned that is not in the log"
    for position in sorted({*at, *versions, head}):
        whole.fold_in(position)
        if position in versions:
            state = load_fold(registry, name, versions[position])
            assert digests(state) == digests(whole.fold), f"version {versions[position].number}"
        if position in at:
            check_answers(whole.fold, at[position])
    return whole, sum(map(len, at.values()))


def check_batch(workspace: Workspace, name: str, answers: Iterable[Answer]) -> int:
    """No label is in two increments, every acknowledged answer is what its version says, and
    aliases, their history and rollouts agree.

    Returns:
        How many answers were compared.
    """
    registry = workspace.registry
    found = {version.number: version for version in registry.versions(name)}
    assert list(found) == list(range(1, len(found) + 1))
    check_increments(list(found.values()))
    by_version: dict[int, list[Answer]] = {}
    for answer in answers:
        by_version.setdefault(answer.version, []).append(answer)
    for number, given in by_version.items():
        check_answers(load_fold(registry, name, found[number]), given)
    champion = registry.champion(name)
    moves = [move for move in registry.history(name) if move.name == "champion"]
    assert champion is not None and moves[-1].version_to == champion.number
    for before, after in itertools.pairwise(moves):
        assert after.version_from == before.version_to
    load_fold(registry, name, champion)
    rollouts = workspace.rollouts.listed(name)
    assert sum(one.state == "running" for one in rollouts) <= 1
    log = workspace.updates.log(name)
    for rollout in rollouts:
        if rollout.seen.get(CANDIDATE) is not None:
            _check_rollout(log, rollout)
    return sum(map(len, by_version.values()))


def _check_rollout(log: FeedbackLog, rollout: Any) -> None:
    """Each labelled answer of the stage was counted once, for its arm."""
    table, asked = labels.c, predictions.c
    query = (
        sa.select(asked.arm, sa.func.count(sa.distinct(asked.id)).label("n"))
        .join(labels, table.prediction_id == asked.id)
        .where(
            asked.model_id == log.model,
            asked.id >= rollout.since,
            table.position <= rollout.position,
        )
        .group_by(asked.arm)
    )
    with log.database.read() as connection:
        counted = {row.arm: row.n for row in connection.execute(query)}
    for arm in (CANDIDATE, CHAMPION):
        assert rollout.seen[arm]["n"] == counted.get(arm, 0), (
            f"rollout {rollout.id} saw {rollout.seen[arm]['n']} labels of {arm}, not {counted}"
        )


def check_increments(found: Sequence[Version]) -> list[tuple[int, int]]:
    """Each version goes on where its parent ended, or where one that was not kept did, and accounts
    for every label. Returns (start, stop) of all but the first."""
    made = {version.number: version.increments[-1] for version in found[1:]}
    stops = {version.number: 0 for version in found[:1]}
    for version in found[1:]:
        increment = made[version.number]
        counts = increment.rows + increment.held_out + increment.set_aside + increment.duplicates
        assert counts == increment.stop - increment.start, increment
        assert version.parent is not None
        before, start = stops[version.parent], increment.start
        assert start == before or (start > before and start in stops.values()), (
            f"version {version.number} learned from {start}, its parent up to {before}"
        )
        stops[version.number] = increment.stop
    return [(increment.start, increment.stop) for increment in made.values()]


def check_answers(fold: Fold, answers: Sequence[Answer]) -> None:
    """Answers are exactly what a state says."""
    rows = [{"x": answer.x} for answer in answers]
    proba = fold.predict(compile_rows(rows, fold.columns)).proba
    assert proba is not None
    given = np.array([list(answer.output["probabilities"].values()) for answer in answers])
    assert np.array_equal(proba, given), f"{len(answers)} answers are not what the state says"


def digests(fold: Fold) -> Json:
    """Of the parts of a learner."""
    return {name: part.digest for name, part in fold.learner.save().items()}
