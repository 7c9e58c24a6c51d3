"""Where people, and what they asked for, named a key whose data is erased: withdrawals, bisections,
the audit log, and why aliases were moved."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import Hashes, Json
from everlearn.data.erasure import Found
from everlearn.data.feedback import id_text
from everlearn.data.tables import BlobStore
from everlearn.data.withdrawals import OF_LOG, WithdrawnRows
from everlearn.data.withdrawn import Numbers
from everlearn.jobs.bisect.records import ERASED_MEANWHILE, FAILED, RUNNING
from everlearn.jobs.patch.erased import EditsOfKey
from everlearn.registry.edits import ERASED
from everlearn.registry.models import now
from everlearn.storage import schema

ERASED_ROWS: Json = {"erased": "rows of a key whose data was erased"}
"""In place of a condition."""

WHO = ("user", "where", "address", "did")
"""What an entry of the audit log says of who did what; it is no text of theirs."""


@dataclass(frozen=True, slots=True)
class Mentions:
    """Looks for what names a key, and leaves only that it was there.

    Args:
        model: row id.
        name: of the model.
        key: that is erased.
        found: the rows of the log that are of it.
        ids: (m,) of its rows in slices, as hold-outs know them.
        edits: those that are of it.
        blobs: where it is kept which rows were withdrawn.
    """

    model: int
    name: str
    key: str
    found: Found
    ids: Hashes
    edits: EditsOfKey
    blobs: BlobStore
    _word: re.Pattern[str] = field(init=False)
    _predictions: frozenset[str] = field(init=False)
    _asked: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        forms = {self.key, self.key.replace("'", "''"), repr(self.key)[1:-1]}
        either = "|".join(map(re.escape, sorted(forms)))
        object.__setattr__(self, "_word", re.compile(rf"(?<!\w)(?:{either})(?!\w)"))
        object.__setattr__(self, "_predictions", frozenset(map(id_text, self.found.ids)))
        asked = frozenset(json.dumps(one, sort_keys=True) for one in self.edits.asked if one)
        object.__setattr__(self, "_asked", asked)

    def names(self, value: Json) -> bool:
        """Whether something in it names the key, or a prediction of it, or is what one asked."""
        return any(
            json.dumps(item, sort_keys=True) in self._asked
            if isinstance(item, dict)
            else item in self._predictions or self._word.search(item) is not None
            for item in _said(value)
        )

    def erase(self, connection: Connection, *, touched: bool) -> set[str]:
        """Erase them; the blobs that may have rows of the key.

        Args:
            connection: a writing transaction.
            touched: whether the key has data: what is being bisected may read it just now.
        """
        self._withdrawals(connection)
        self._audit(connection)
        table = schema.alias_history
        query = sa.select(table.c.id, table.c.reason).where(table.c.model_id == self.model)
        for row in connection.execute(query).all():
            if self.names(row.reason):
                change = sa.update(table).where(table.c.id == row.id)
                connection.execute(change.values(reason=ERASED))
        return self._bisections(connection, touched)

    def _withdrawals(self, connection: Connection) -> None:
        """The rows stay withdrawn; how they were asked for, by whom and why, is not told any more
        where that names the key, or nothing but rows of the key was withdrawn."""
        table = schema.withdrawals
        query = sa.select(table).where(table.c.model_id == self.model)
        for row in connection.execute(query).all():
            mine = self._is_of_key([WithdrawnRows.from_json(place) for place in row.places])
            values: dict[str, Json] = {}
            if {"where", "key"} & row.condition.keys() and (mine or self.names(row.condition)):
                values["condition"] = ERASED_ROWS
                if "selection" in row.report:
                    values["report"] = row.report | {"selection": ERASED_ROWS}
            if mine or self.names(row.reason):
                values["reason"] = ERASED
            if self.names(row.author):
                values["author"] = None
            if values:
                connection.execute(sa.update(table).where(table.c.id == row.id).values(values))

    def _is_of_key(self, places: list[WithdrawnRows]) -> bool:
        """Whether all rows that were withdrawn are of the key."""
        return bool(places) and all(
            self.found.positions.issuperset(self._numbers(place))
            if place.kind == OF_LOG
            else place.ids and np.isin(self._hashes(place), self.ids).all()
            for place in places
        )

    def _numbers(self, place: WithdrawnRows) -> list[int]:
        numbers: list[int] = Numbers.load(self.blobs.get(place.blob)).values.tolist()
        return numbers

    def _hashes(self, place: WithdrawnRows) -> Hashes:
        return np.frombuffer(self.blobs.get(place.ids), "<u8").astype(np.uint64)

    def _bisections(self, connection: Connection, touched: bool) -> set[str]:
        """Those that name the key, and those that are going on, have failed, and are not gone on
        with: asked again, they are begun anew."""
        table, blobs = schema.bisections, set[str]()
        query = sa.select(table).where(table.c.model_id == self.model)
        for row in connection.execute(query).all():
            if touched and "blob" in row.asked:
                blobs.add(row.asked["blob"])
            going = touched and row.state == RUNNING
            if row.fingerprint and (going or self.names([row.probes, row.report])):
                values = {
                    "state": FAILED,
                    "fingerprint": "",
                    "probes": {},
                    "report": {"error": ERASED_MEANWHILE},
                    "finished_at": row.finished_at or now(),
                    "revision": row.revision + 1,
                }
                connection.execute(sa.update(table).where(table.c.id == row.id).values(values))
        return blobs

    def _audit(self, connection: Connection) -> None:
        """What was sent, and reasons that were given, go where they name the key, or an edit of it
        was asked for; who did what, and when, stays."""
        table = schema.audit
        query = sa.select(table.c.id, table.c.detail).where(table.c.model == self.name)
        for row in connection.execute(query).all():
            edits = row.detail.get("edits")
            of_edits = isinstance(edits, list) and not self.edits.numbers.isdisjoint(edits)
            blank = {
                name: ERASED if isinstance(value, str) else None
                for name, value in row.detail.items()
                if name not in WHO and (self.names(value) or (of_edits and name == "body"))
            }
            if blank:
                change = sa.update(table).where(table.c.id == row.id)
                connection.execute(change.values(detail=row.detail | blank))


def _said(value: Json) -> Iterator[str | dict[str, Json]]:
    """All texts, names and objects in JSON; of a text that is JSON itself, what is in it too."""
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):
            with suppress(ValueError, RecursionError):
                yield from _said(json.loads(value))
    elif isinstance(value, dict):
        yield value
        for name, item in value.items():
            yield name
            yield from _said(item)
    elif isinstance(value, list):
        for item in value:
            yield from _said(item)
