"""Edits of a key whose data is erased: which they are, and which versions answer by them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import Columns, Json, NotFoundError
from everlearn.data.erasure import Found
from everlearn.data.log import FeedbackLog
from everlearn.registry import edits
from everlearn.registry.models import model_id
from everlearn.registry.versions import Version
from everlearn.storage import schema
from everlearn.storage.bulk import rows_among
from everlearn.storage.parts import Manifest, PartStore
from everlearn.strategies.patch import Edit, edits_in

EDITS = "patch/edits"
"""The part of a state that has its edits as they were asked for."""


@dataclass(slots=True)
class EditsOfKey:
    """Edits that are of one key.

    Args:
        numbers: of the edits.
        holding: versions that answer by some of them.
        blobs: of the patches of these, of removed versions too.
        asked: what predictions of the key asked.
    """

    numbers: set[int] = field(default_factory=set)
    holding: set[int] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)
    asked: list[Mapping[str, Json]] = field(default_factory=list)


def edits_of_key(
    connection: Connection,
    log: FeedbackLog,
    model: str,
    known: Sequence[Version],
    parts: PartStore,
    found: Found,
    key: str,
) -> EditsOfKey:
    """The edits of a key: those that put a prediction of it right, that ask what one of them asked,
    or that name it: as the key of their input, as their author, in their reason, or in a text of
    their input or of the answer wanted.

    Args:
        known: the versions of the model.
        found: the rows of the log that are of the key.
    """
    listed = [one.edit for one in edits.listed(connection, model)]
    held: dict[str, tuple[Edit, ...]] = {}
    columns = Columns()
    for version in known:
        if EDITS not in version.manifest:
            continue
        with suppress(NotFoundError):  # of a version that was removed
            state = parts.load({name: version.manifest[name] for name in (EDITS, "columns")})
            held[version.manifest[EDITS]["digest"]] = edits_in(state[EDITS])
            columns = Columns.from_json(state["columns"].meta)
    every = [*listed, *(edit for some in held.values() for edit in some)]
    predicted = _features(connection, log, found)
    if not every:
        return EditsOfKey(asked=predicted)
    names = {*columns.numbers, *columns.categories, *columns.times, *columns.texts}
    asked = {_content(features, names) for features in predicted}
    word = re.compile(rf"(?<!\w){re.escape(key)}(?!\w)")

    def is_of_key(edit: Edit) -> bool:
        if edit.prediction_id is not None and edit.prediction_id in found.ids:
            return True
        named = None if columns.key is None else edit.features.get(columns.key)
        if key in (str(named), edit.author) or word.search(edit.reason):
            return True
        said = (edit.output, *edit.features.values())  # a category that is called so is not the key
        if any(isinstance(text, str) and text != key and word.search(text) for text in said):
            return True
        return edit.prediction_id is None and _content(edit.features, names) in asked

    made = EditsOfKey({edit.number for edit in every if is_of_key(edit)}, asked=predicted)
    for version in known:
        digest = version.manifest.get(EDITS, {}).get("digest")
        if made.numbers & {edit.number for edit in held.get(str(digest), ())}:
            made.blobs |= {entry["blob"] for entry in patch_of(version.manifest).values()}
            if version.dropped_at is None:
                made.holding.add(version.number)
    return made


def patch_of(manifest: Manifest) -> Manifest:
    """The parts of a patch."""
    return {name: entry for name, entry in manifest.items() if name.startswith("patch/")}


def erase_edits(connection: Connection, model: str, gone: EditsOfKey, at: int) -> None:
    """Leave of edits only that they were there; of what versions told of them, only that.

    Args:
        connection: a writing transaction.
        at: microseconds.
    """
    edits.erase(connection, model, gone.numbers, at)
    table = schema.versions
    mine = table.c.model_id == model_id(connection, model)
    if not gone.numbers:
        return
    for row in connection.execute(sa.select(table.c.id, table.c.metrics).where(mine)).all():
        lost = (row.metrics.get("patch") or {}).get("lost") or []
        if gone.numbers & {one["edit"] for one in lost}:
            kept = [
                one | {"reason": edits.ERASED} if one["edit"] in gone.numbers else one
                for one in lost
            ]
            metrics = row.metrics | {"patch": row.metrics["patch"] | {"lost": kept}}
            change = sa.update(table).where(table.c.id == row.id)
            connection.execute(change.values(metrics=metrics))


def _content(features: Mapping[str, Json], names: set[str]) -> str:
    """What a row says in these columns."""
    said = {name: value for name, value in features.items() if name in names and value is not None}
    return json.dumps(said, sort_keys=True)


def _features(connection: Connection, log: FeedbackLog, found: Found) -> list[Mapping[str, Json]]:
    """What the predictions of the key asked."""
    hot = rows_among(connection, schema.predictions, ("features",), "id", found.hot, None)
    texts = [row.features for row in hot]
    for segment, _ in found.files:
        rows = log.archive.table(segment)
        if "features" in rows.schema.names:
            mine = pc.is_in(rows.column("id"), pa.array(sorted(found.ids), pa.int64()))
            texts += rows.column("features").filter(mine).to_pylist()
    return [json.loads(text) for text in texts]
