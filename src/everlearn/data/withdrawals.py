"""Withdrawals: rows that a model is to be without, kept as events beside its log.

A withdrawal says which rows were withdrawn, by whom, and why. Nothing is deleted: labels keep their
positions in the log, and files are what they were. But no job learns these rows any more: labels
are set aside wherever the log is read (`LogSource`, `jobs.feed`), and a file or a table that has
such rows is planned without them, under whatever name it comes (`Withdrawals.applied`).

How rows are taken out of what versions learned::

    selection = Selection.where("source = 'bot-7' and time >= '2024-03-01'")
    selection.check([(part, columns), …])                          # all slices that were learned
    found = find(part, columns, schema, selection, blobs, log)     # of each: rows, or positions
    new = withdraw(part, found, blobs)                             # of a file or a table

    later = unlearned(log, taken)                                  # labels that no version took
    positions = Numbers.of([…]).values                             # of all slices of the log
    resettled = Resettling(log, positions, blobs)                  # once for all of them
    new = resettled(part, columns, policy)                         # each, also where it has none

    place = WithdrawnRows.of(part, found, blobs, row_digest)       # one for each source
    with database.write() as connection:
        number = store(connection, model, selection.to_json(), reason, [place, …], rows=…)

(`Selection` and `find` are in `data.selection`, the others in `data.resettle`. `withdraw` takes
slices of both kinds; of several of a log, `Resettling` looks for the labels beside them only once.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import Columns, Hashes, Ints, Json
from everlearn.data.feedback import now
from everlearn.data.files import scan
from everlearn.data.growth import prefix_digest
from everlearn.data.slices import Slice
from everlearn.data.source import open_reader
from everlearn.data.tables import BlobStore
from everlearn.data.withdrawn import NOTHING, Numbers, without_rows
from everlearn.storage.database import Database
from everlearn.storage.positions import locked_head
from everlearn.storage.schema import withdrawals

OF_LOG = "log"
"""Kind of the slices of the log."""


@dataclass(frozen=True, slots=True)
class WithdrawnRows:
    """Rows of one source that were withdrawn. JSON.

    Args:
        source, kind, start, stop, size, digest: of the slice that has them; see `Slice`.
        row_digest: running digest of its compiled rows 0 … stop - 1 ("" if unknown), by which a
            table or a file that was written anew and longer is recognised.
        blob: their numbers, as `Numbers.save` gives them; of the log their positions.
        rows: how many they are.
        ids: a blob of their ids, as hold-outs know them; "" where none can be among these.
    """

    source: str
    kind: str
    start: int
    stop: int
    size: int
    digest: str
    row_digest: str
    blob: str
    rows: int
    ids: str = ""

    @classmethod
    def of(
        cls,
        part: Slice,
        rows: Iterable[int] | Ints,
        blobs: BlobStore,
        row_digest: str = "",
        ids: Hashes | None = None,
    ) -> WithdrawnRows:
        """Rows of a slice, as `find` gives them; their numbers, and their ids, are stored."""
        numbers = Numbers.of([rows if hasattr(rows, "dtype") else list(rows)])
        return cls(
            source=part.source,
            kind=part.kind,
            start=part.start,
            stop=part.stop,
            size=part.size,
            digest=part.digest,
            row_digest=row_digest,
            blob=blobs.put(numbers.save()),
            rows=len(numbers),
            ids="" if ids is None else blobs.put(np.unique(ids).astype("<u8").tobytes()),
        )

    def to_json(self) -> dict[str, Json]:
        """As it is kept in `withdrawals.places`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> WithdrawnRows:
        """The inverse of `to_json`."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """One withdrawal of a model.

    Args:
        number: by which it is named.
        condition: JSON of the selection.
        reason: why, for people.
        author: whose decision it was, if that is known.
        rows: how many different rows: those of a label, or of a file, count once.
        places: in which sources.
        report: what had learned from them.
        job_id: of the job that folds without them; None where there was nothing to fold.
        at: microseconds since 1970 UTC.
    """

    number: int
    condition: Json
    reason: str
    author: str | None
    rows: int
    places: tuple[WithdrawnRows, ...]
    report: Json
    job_id: int | None
    at: int

    def to_json(self) -> dict[str, Json]:
        """What people are shown: not where the rows are."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "places"}


def store(
    connection: Connection,
    model: int,
    condition: Json,
    reason: str,
    places: Sequence[WithdrawnRows],
    *,
    rows: int,
    author: str | None = None,
    report: Json = None,
    job_id: int | None = None,
) -> int:
    """Store a withdrawal: from this transaction on nothing learns these rows.

    No label gets a position before the transaction ends: whoever learns labels online and sees a
    later one sees the withdrawal too.

    Args:
        connection: of a writing transaction.
        model: row id of the model.
        condition, reason, rows, author, report, job_id: see `Withdrawal`.
        places: the rows; those of the log are labels at these positions.

    Returns:
        Its number.
    """
    locked_head(connection, model)
    row = {
        "model_id": model,
        "condition": condition,
        "reason": reason,
        "author": author,
        "rows": rows,
        "places": [place.to_json() for place in places],
        "report": {} if report is None else report,
        "job_id": job_id,
        "at": now(),
    }
    made = connection.execute(sa.insert(withdrawals).values(row)).inserted_primary_key
    return int(made[0])  # type: ignore[index]


def amend(connection: Connection, number: int, *, report: Json, job_id: int | None) -> None:
    """Write what became of a withdrawal: its report, and its job."""
    change = sa.update(withdrawals).where(withdrawals.c.id == number)
    connection.execute(change.values(report=report, job_id=job_id))


class Withdrawals:
    """The withdrawals of one model.

    Args:
        database: of the workspace.
        model: row id of the model.
        blobs: where it is kept which rows were withdrawn.
    """

    def __init__(self, database: Database, model: int, blobs: BlobStore) -> None:
        self._database, self._model, self._blobs = database, model, blobs
        self._newest, self._positions = 0, NOTHING

    def all(self, connection: Connection | None = None, after: int = 0) -> list[Withdrawal]:
        """All of them with higher numbers than `after`, in the order in which they were stored."""
        if connection is None:
            with self._database.read() as reading:
                return self.all(reading, after)
        table = withdrawals.c
        query = sa.select(
            table.id, table.condition, table.reason, table.author, table.rows, table.places,
            table.report, table.job_id, table.at,
        ).where(table.model_id == self._model, table.id > after)  # fmt: skip
        found = [Withdrawal(*row) for row in connection.execute(query.order_by(table.id))]
        return [
            replace(one, places=tuple(map(WithdrawnRows.from_json, one.places)))  # type: ignore[arg-type]
            for one in found
        ]

    def positions(self, connection: Connection | None = None) -> Numbers:
        """The positions of all labels of the log that were withdrawn. Asked again, only
        withdrawals that came since are read."""
        if connection is None:
            with self._database.read() as reading:
                return self.positions(reading)
        mine = withdrawals.c.model_id == self._model
        newest = connection.execute(sa.select(sa.func.max(withdrawals.c.id)).where(mine)).scalar()
        if newest is not None and newest > self._newest:
            came = self.all(connection, self._newest)
            of_log = [one for item in came for one in item.places if one.kind == OF_LOG]
            parts = [Numbers.load(self._blobs.get(one.blob)).values for one in of_log]
            self._positions = Numbers.of([self._positions.values, *parts])
            self._newest = newest
        return self._positions

    def ids(self, connection: Connection, after: int) -> Hashes:
        """(m,) ids of the rows that were withdrawn after a moment (microseconds since 1970 UTC)."""
        late = [one for one in self.all(connection) if one.at > after]
        blobs = [place.ids for one in late for place in one.places if place.ids]
        parts = [np.frombuffer(self._blobs.get(blob), "<u8").astype(np.uint64) for blob in blobs]
        ids: Hashes = np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))
        return ids

    def applied(self, part: Slice, columns: Columns) -> Slice:
        """A slice of a file or a table, planned anew, without those of its rows that were
        withdrawn, under whatever name: of the same content, or of content that begins so. Slices of
        the log are without them as they are planned.

        Args:
            columns: how its rows are compiled.
        """
        places = [
            place
            for one in self.all()
            for place in one.places
            if place.kind == part.kind != OF_LOG and part.start < place.stop <= part.stop
        ]
        sizes = {one.size for one in places if part.kind == "csv" and one.size < part.size}
        prefixes = scan(part.location, sizes).prefixes if sizes else {}  # one pass for all of them
        for place in places:
            if self._begins(part, place, columns, prefixes):
                part = without_rows(
                    part, Numbers.load(self._blobs.get(place.blob)).values, self._blobs
                )
        return part

    def _begins(
        self, part: Slice, place: WithdrawnRows, columns: Columns, prefixes: Mapping[int, str]
    ) -> bool:
        """Whether a slice has the content that a place was in; prefixes: of a CSV, by size."""
        if part.digest == place.digest:
            return True
        if part.kind == "csv":
            return prefixes.get(place.size) == place.digest
        whole = replace(part, start=0)
        if not place.row_digest or place.stop == part.stop:
            return False
        reader = open_reader(whole, columns, self._blobs)
        return prefix_digest(reader, place.stop, columns) == place.row_digest
