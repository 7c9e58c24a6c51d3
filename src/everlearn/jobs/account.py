"""What became of every row of an increment, and of a label: read again from what was kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from everlearn.base import Columns, InputError, Json, NotFoundError, State, under
from everlearn.data.archive import Archive
from everlearn.data.blocks import BlockReader
from everlearn.data.feedback import id_number, id_text
from everlearn.data.ids import SeenIds
from everlearn.data.join import LOG, LogSource
from everlearn.data.slices import Slice
from everlearn.data.source import open_reader
from everlearn.jobs.online import online_of
from everlearn.jobs.queue import OPEN
from everlearn.registry import aliases, lineage
from everlearn.registry.models import as_text
from everlearn.registry.registry import Registry
from everlearn.storage import schema
from everlearn.storage.parts import PartStore

FATES = ("rows", "held_out", "set_aside", "duplicates")
"""What becomes of rows; the names of their counts."""


class Accounts:
    """Accounts of one workspace.

    Args:
        registry, parts: of the workspace.
    """

    def __init__(self, registry: Registry, parts: PartStore) -> None:
        self._registry, self._database, self._parts = registry, registry.database, parts

    def increments(self, model: str | None = None) -> list[Json]:
        """All increments with their counts, oldest first; of one model or of all."""
        with self._database.read() as connection:
            query = _increments()
            if model is not None:
                query = query.where(schema.models.c.name == model)
            return [_shown(row) for row in connection.execute(query)]

    def increment(self, number: int) -> Json:
        """One increment, with the id of every row under what became of it.

        Returns:
            JSON: its counts, and "ids": fate → ids. The id of a row is that of the schema's column;
            without one, of a label's row that of its prediction (the caller's own, where it has
            one), of another its number in the source. "exact" says whether counts and ids agree:
            of rows that a learner refused, only examples are known.

        Raises:
            NotFoundError: there is no such increment.
            EverlearnError: its rows are not kept any more.
        """
        with self._database.read() as connection:
            query = _increments().where(schema.increments.c.id == number)
            row = connection.execute(query).first()
        if row is None:
            raise NotFoundError(f"there is no increment {number} (everlearn increment list)")
        names, found = self._names(row), {fate: list[Any]() for fate in FATES}
        for at, (fate, _) in sorted(self._fates(row).items()):
            found[fate].append(names.get(at, at))
        exact = all(len(found[fate]) == getattr(row, fate) for fate in FATES)
        return _shown(row) | {"ids": found, "exact": exact}

    def labels(self, name: str, model: str | None = None) -> Json:
        """What is known of a prediction, and what became of each of its labels.

        Args:
            name: id of the prediction as it was answered, number of a label, or the caller's id.
            model: the only one to look at; all unless given.

        Raises:
            NotFoundError: no prediction and no label is called so.
        """
        with self._database.read() as connection:
            said = _said(connection, name, model)
            about = said[0].prediction_id if said else None
            asked = _asked(connection, name, model, [about])
            if asked is None:
                called = name if about is None else id_text(about)
                found = self._archived(connection, called, model)
                said, asked = (said, None) if found is None else found
        if not said and asked is None:
            raise NotFoundError(f"no prediction and no label is called {name!r}")
        return {
            "prediction": asked,
            "labels": [_label(row) | self._became(row) for row in said],
        }

    def _became(self, label: Any) -> Json:
        """The state of a label, and the reason."""
        if label.position is None:
            return _state("waiting", f"no prediction is called {label.external_id!r} yet")
        with self._database.read() as connection:
            path = _path(connection, label.model)
            query = _increments().where(
                schema.models.c.name == label.model,
                schema.increments.c.source == LOG,
                schema.increments.c.start < label.position,
                schema.increments.c.stop >= label.position,
            )
            rows = connection.execute(query).all()
            table = schema.jobs.c
            jobs = connection.execute(
                sa.select(table.id, table.state, table.plan)
                .where(table.model_id == label.model_id, table.state.in_(OPEN))
                .order_by(table.id)
            ).all()
        mine = [row for row in rows if row.version in path] or rows
        if mine:
            return self._learned(mine[-1], label, mine[-1].version in path)
        for job in jobs:
            for part in job.plan.get("slices", ()):
                if part["source"] == LOG and part["start"] < label.position <= part["stop"]:
                    return _state(job.state, f"job {job.id} is to learn it") | {"job": job.id}
        if online_of(self._registry.definition(label.model).model()) is not None:
            return _state(
                "new", "a server learns it online; the next version that is cut counts it"
            )
        return _state("new", "no job has taken it yet: a trigger decides when, or a call of update")

    def _learned(self, row: Row[Any], label: Any, serves: bool) -> Json:
        """What became of a label that an increment has."""
        fate, reason = self._fates(row).get(label.position - 1, ("set_aside", "it is not kept"))
        told = {
            "rows": f"version {row.version} learned it",
            "held_out": f"version {row.version} is judged by it: it is kept out of learning",
            "set_aside": f"version {row.version} set it aside: {reason}",
            "duplicates": f"version {row.version} left it out: its id was learned before",
        }
        state = {"rows": "learned", "duplicates": "duplicate"}.get(fate, fate.replace("_", " "))
        text = told[fate]
        if not serves:
            text = f"{text}; but that version is not champion, nor is the champion made from it"
        return _state(state, text) | {
            "version": row.version,
            "increment": row.id,
            "champion": serves,
        }

    # --- inside ---

    def _archived(
        self, connection: Connection, name: str, model: str | None
    ) -> tuple[list[Any], Json] | None:
        """The labels of an archived prediction, as `_said`, and the prediction, as `_asked`."""
        known = sa.select(schema.models.c.id, schema.models.c.name)
        for number, owner in connection.execute(known).all():
            archive = Archive(number, self._parts.blobs)
            if model not in (None, owner):
                continue
            found = list(archive.named(connection, [name]).values())
            with suppress(InputError):
                found += archive.predictions(connection, [id_number(name)]).values()
            for row in found[:1]:
                older = archive.judging(connection, [row["id"]])
                said = [SimpleNamespace(**label, model=owner) for label in older]
                return said + list(_said(connection, id_text(row["id"]), owner)), _about(row, owner)
            label = archive.label(connection, int(name)) if _is_number(name) else None
            if label is not None:
                asked = archive.predictions(connection, [label["prediction_id"]])
                about = _about(asked[label["prediction_id"]], owner)
                return [SimpleNamespace(**label, model=owner)], about
        return None

    def _fates(self, row: Row[Any]) -> dict[int, tuple[str, str]]:
        """Row of the source → its fate, and the reason; gone over as when it was learned."""
        version = self._registry.version(row.model, row.version)
        model = self._registry.definition(row.model, version.definition).model()
        columns, slices = self._columns(row.model, row.version)
        seen = None if columns.id is None else self._seen(row, version.parent)
        reader = BlockReader(slices, columns, self._parts.blobs, model.holdout, seen)
        found: dict[int, tuple[str, str]] = {}
        for block in reader.blocks():
            if block.part != row.ordinal:
                continue
            places = {
                "rows": block.learn_at.tolist(),
                "held_out": block.held_at.tolist(),
                "duplicates": block.twice_at.tolist(),
            }
            for fate, at in places.items():
                found |= {block.first + place: (fate, "") for place in at}
            found |= {block.first + at: ("set_aside", reason) for at, reason in block.aside}
        for item in row.reasons.get("examples", ()):  # what the learner itself refused
            if found.get(item["row"], ("", ""))[0] == "rows":
                found[item["row"]] = ("set_aside", item["reason"])
        return found

    def _columns(self, model: str, number: int) -> tuple[Columns, list[Slice]]:
        """How the rows of a version were read, and which."""
        version = self._registry.version(model, number)
        columns = Columns.from_json(self._parts.load(version.manifest)["columns"].meta)
        return columns, [Slice.from_json(increment.slice) for increment in version.increments]

    def _seen(self, row: Row[Any], parent: int | None) -> SeenIds:
        """The ids that were known before."""
        state: State = {}
        if parent is not None:
            state = self._parts.load(self._registry.version(row.model, parent).manifest)
        return SeenIds(under("ids", state), again=bool((row.plan or {}).get("again")))

    def _names(self, row: Row[Any]) -> dict[int, Any]:
        """Row of the source → its id, where it has one."""
        columns, slices = self._columns(row.model, row.version)
        part = slices[row.ordinal]
        if columns.id is not None:
            found: dict[int, Any] = {}
            reader = open_reader(part, columns, self._parts.blobs)
            try:
                for piece in reader.pieces(None):
                    texts = piece.table.column(columns.id).to_pylist()
                    found |= {piece.place.row + at: text for at, text in enumerate(texts)}
            finally:
                reader.close()
            return found
        return self._judged(row, part) if part.kind == LogSource.kind else {}

    def _judged(self, row: Row[Any], part: Slice) -> dict[int, Any]:
        """Row of a slice of the log → id of the prediction that its label judges."""
        labels, asked = schema.labels.c, schema.predictions.c
        query = (
            sa.select(labels.position, asked.id, asked.external_id)
            .join(schema.predictions, asked.id == labels.prediction_id)
            .where(
                labels.model_id == row.model_id,
                labels.position > part.start,
                labels.position <= part.stop,
            )
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            found = {one.position - 1: one.external_id or id_text(one.id) for one in rows}
            if len(rows) < part.rows:
                archive = Archive(row.model_id, self._parts.blobs)
                for label, one in archive.judged(connection, part.start, part.stop):
                    found[label["position"] - 1] = one["external_id"] or id_text(one["id"])
        return found


def _increments() -> sa.Select[Any]:
    made, learned = schema.versions, schema.increments
    return (
        sa.select(
            learned,
            made.c.number.label("version"),
            made.c.model_id,
            schema.models.c.name.label("model"),
            schema.jobs.c.plan,
        )
        .join(made, made.c.id == learned.c.version_id)
        .join(schema.models, schema.models.c.id == made.c.model_id)
        .outerjoin(schema.jobs, schema.jobs.c.id == made.c.job_id)
        .order_by(learned.c.id)
    )


def _shown(row: Row[Any]) -> dict[str, Json]:
    names = ("id", "model", "version", "source", "start", "stop", "digest", *FATES, "reasons")
    shown = {name: getattr(row, name) for name in names}
    return shown | {"erased": row.slice["options"].get("erased", 0)}


def _said(connection: Connection, name: str, model: str | None) -> Sequence[Row[Any]]:
    """The labels of a prediction, or the one of a number, in the order in which they came."""
    table = schema.labels.c
    query = sa.select(schema.labels, schema.models.c.name.label("model")).join(
        schema.models, schema.models.c.id == table.model_id
    )
    query = query.order_by(table.id)
    if model is not None:
        query = query.where(schema.models.c.name == model)
    for chosen in _called(name, table.prediction_id, table.external_id):
        if found := connection.execute(query.where(chosen)).all():
            return found
    asked = schema.predictions.c
    named = sa.select(asked.id).where(asked.external_id == name)
    if found := connection.execute(query.where(table.prediction_id.in_(named))).all():
        return found
    if _is_number(name):
        return connection.execute(query.where(table.id == int(name))).all()
    return []


def _is_number(name: str) -> bool:
    """Whether it may be the number of a label."""
    return name.isascii() and name.isdigit() and len(name) < 19


def _asked(
    connection: Connection, name: str, model: str | None, known: Sequence[int | None]
) -> Json:
    """The prediction that is called so, or that labels judge; None if there is none."""
    table = schema.predictions.c
    query = sa.select(schema.predictions, schema.models.c.name.label("model")).join(
        schema.models, schema.models.c.id == table.model_id
    )
    if model is not None:
        query = query.where(schema.models.c.name == model)
    for chosen in [table.id.in_(known), *_called(name, table.id, table.external_id)]:
        row = connection.execute(query.where(chosen)).mappings().first()
        if row is not None:
            return _about(row, row["model"])
    return None


def _about(row: Mapping[Any, Any], model: str) -> Json:
    """A prediction."""
    return {
        "id": id_text(row["id"]),
        "model": model,
        **{name: row[name] for name in ("external_id", "version", "arm", "key")},
        "features": json.loads(row["features"]),
        "output": json.loads(row["output"]),
        "at": as_text(row["at"]),
    }


def _called(name: str, ids: Any, names: Any) -> list[sa.ColumnElement[bool]]:
    """What a name may be: an id of ours, or the caller's."""
    try:
        return [ids == id_number(name), names == name]
    except InputError:
        return [names == name]


def _label(row: Any) -> dict[str, Json]:
    names = ("id", "model", "position", "external_id", "kind", "source", "reviewer", "weight")
    shown: dict[str, Json] = {name: getattr(row, name) for name in names}
    shown["value"] = None if row.value is None else json.loads(row.value)
    return shown | {"selection": row.selection, "at": as_text(row.at)}


def _state(state: str, reason: str) -> dict[str, Json]:
    return {"state": state, "reason": reason}


def _path(connection: Connection, model: str) -> set[int]:
    """The champion's ancestors and its own number."""
    champion = aliases.current(connection, model)
    return set() if champion is None else set(lineage.lineage(connection, model, champion))
