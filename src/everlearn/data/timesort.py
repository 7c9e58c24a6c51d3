"""All rows of an increment in the order of their event times, in bounded memory.

An external merge sort (Knuth, The Art of Computer Programming, volume 3, 5.4): runs that fit in
memory are sorted and spilled, then merged. Rows of one time stay in the order of the stream.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import IO, Any

import numpy as np

from everlearn.base import Array, Batch, Ints, Json, StorageError
from everlearn.data.blocks import Block, BlockReader
from everlearn.data.tally import HELD, LEARNED, Account
from everlearn.data.texts import TextFile

RUN_BYTES = 64 << 20
"""Bytes of rows that are sorted in memory at a time."""

Rows = dict[str, Array]
"""Column name → (n, …) array: the fields of a batch, "held", "part" and "row"."""

_Column = tuple[int, "np.dtype[Any]", tuple[int, ...]]
"""Where a column of a run begins, and of what its values are."""

_EXTRA = ("held", "part", "row")


@dataclass(slots=True)
class Sorted:
    """Rows in the order of time; a `Segment`.

    Args:
        first: number of the segment's first row, among all that are learned or held out.
        batch: the rows to learn and those held out.
        held: (n,) which are held out.
        parts, rows: (n,) slice number and source row of each.
        delta: what else is to be counted when the first row is given out; None once it was.
    """

    first: int
    batch: Batch
    held: Array
    parts: Ints
    rows: Ints
    delta: Account | None = None
    given: int = 0
    cursor: int = 0

    @property
    def left(self) -> int:
        return int(len(self.held) - self.held.sum()) - self.given

    def take(self, n: int, account: Account | None) -> tuple[Batch, Batch | None]:
        places = np.flatnonzero(~self.held)[self.given : self.given + n]
        self.given += n
        return self.batch.take(places), self._pass(int(places[-1]) + 1, account)

    def drain(self, account: Account | None) -> Batch | None:
        return self._pass(len(self.held), account)

    def _pass(self, stop: int, account: Account | None) -> Batch | None:
        start, self.cursor = self.cursor, stop
        chosen = start + np.flatnonzero(self.held[start:stop])
        delta, self.delta = self.delta, None
        if account is not None:
            if delta is not None:
                account.merge(delta)
            size = len(account.counts)
            held = np.bincount(self.parts[chosen], minlength=size)
            account.counts[:, HELD] += held
            account.counts[:, LEARNED] += np.bincount(self.parts[start:stop], minlength=size) - held
        return self.batch.take(chosen) if len(chosen) else None

    def position(self) -> Json:
        return {"sorted": self.first + self.cursor}

    def origins(self, start: int, stop: int) -> tuple[Ints, Ints]:
        places = np.flatnonzero(~self.held)[start:stop]
        return self.parts[places], self.rows[places]


def sorted_segments(blocks: BlockReader, position: Json = None) -> Iterator[Sorted]:
    """Segments in the order of time. After a position everything is read and sorted once more.

    Raises:
        StorageError: there is no room for the runs in the folder for temporary files.
    """
    skip = position["sorted"] if position else 0
    if position:
        blocks.restart()
    with ExitStack() as files:
        sorter = _Sorter(files)
        delta = Account.empty(blocks.slices)
        for block in blocks.blocks():
            sorter.add(block, delta)
        delta.counts[:, (LEARNED, HELD)] = 0
        first: Account | None = None if skip else delta
        seen = 0
        for rows in sorter.merged():
            end = seen + len(rows["part"])
            if end > skip or (first is not None):
                cut = max(skip - seen, 0)
                segment = sorter.segment({k: v[cut:] for k, v in rows.items()}, seen + cut)
                segment.delta, first = first, None
                yield segment
            seen = end


class _Sorter:
    """Sorted runs of rows: in memory as long as one is enough, else in files.

    Args:
        files: what closes the files.
    """

    def __init__(self, files: ExitStack) -> None:
        self._files = files
        self._texts: dict[str, int] = {}  # of a text target, for numbers in place of objects
        self._textual = False
        self._columns: TextFile | None = None  # of texts, likewise
        self._pending: list[Rows] = []
        self._bytes = 0
        self._runs: list[_Run] = []

    def add(self, block: Block, account: Account) -> None:
        """Take all rows of a block that are learned or held out."""
        block.drain(account)
        both = Batch.concat([block.learn, block.held])
        rows: Rows = {item.name: getattr(both, item.name) for item in fields(Batch)}
        rows = {name: value for name, value in rows.items() if value is not None}
        places = np.concatenate([block.learn_at, block.held_at])
        rows["held"] = np.arange(len(places)) >= len(block.learn_at)
        rows["part"] = np.full(len(places), block.part)
        rows["row"] = places + block.first
        if "y" in rows and rows["y"].dtype == object:
            self._textual = True
            known = self._texts
            codes = [known.setdefault(text, len(known)) for text in rows["y"]]
            rows["y"] = np.array(codes, np.int64)
        if "texts" in rows:
            rows["texts"] = self._kept(rows["texts"])
        order = np.argsort(places)
        self._pending.append({name: value[order] for name, value in rows.items()})
        self._bytes += sum(value.nbytes for value in rows.values())
        if self._bytes > RUN_BYTES:
            self._runs.append(_Run.write(self._files, self._sort()))

    def _kept(self, texts: Array) -> Ints:
        try:
            self._columns = self._columns or TextFile(self._files)
            return self._columns.add(texts)
        except OSError as error:
            raise _no_room(error) from error

    def _sort(self) -> Rows:
        names = self._pending[0]
        rows = {name: np.concatenate([part[name] for part in self._pending]) for name in names}
        self._pending, self._bytes = [], 0
        order = np.argsort(rows["time"], kind="stable")
        return {name: value[order] for name, value in rows.items()}

    def merged(self) -> Iterator[Rows]:
        """All rows in order, in tables of bounded size; at least one table if any block came."""
        last = self._sort() if self._pending else None
        if not self._runs:
            if last is not None:
                yield last
            return
        if last is not None:
            self._runs.append(_Run.write(self._files, last))
        yield from _merge(self._runs)

    def segment(self, rows: Rows, first: int) -> Sorted:
        columns = {name: value for name, value in rows.items() if name not in _EXTRA}
        if self._textual:
            texts = np.array([*self._texts, None], object)[:-1]
            columns["y"] = texts[columns["y"]]
        if self._columns is not None:
            columns["texts"] = self._columns.read(columns["texts"])
        return Sorted(first, Batch(**columns), rows["held"], rows["part"], rows["row"])


class _Run:
    """Sorted rows in a file that has no name: nothing is left of it if the process is killed.

    Args:
        file: one column after the other.
        columns: name → (first byte, dtype, shape of one row's value).
        rows: how many there are.
    """

    def __init__(self, file: IO[bytes], columns: dict[str, _Column], rows: int) -> None:
        self._file, self._columns, self.rows = file, columns, rows

    @classmethod
    def write(cls, files: ExitStack, rows: Rows) -> _Run:
        columns: dict[str, _Column] = {}
        try:
            file = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (closed by files)
            for name, value in rows.items():
                columns[name] = (file.tell(), value.dtype, value.shape[1:])
                file.write(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
            file.flush()
        except OSError as error:
            raise _no_room(error) from error
        return cls(file, columns, len(rows["part"]))

    def read(self, start: int, stop: int) -> Rows:
        rows = {}
        for name, (first, dtype, shape) in self._columns.items():
            width = int(np.prod(shape, dtype=np.int64))
            values = np.empty((stop - start) * width, dtype)
            if values.size:
                place = first + start * width * dtype.itemsize
                got = os.preadv(self._file.fileno(), [values.data.cast("B")], place)
                if got != values.nbytes:
                    raise StorageError(f"sorted rows could not be read back: {got} bytes of {name}")
            rows[name] = values.reshape(stop - start, *shape)
        return rows

    @property
    def row_bytes(self) -> int:
        return sum(
            dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            for _, dtype, shape in self._columns.values()
        )


def _no_room(error: OSError) -> StorageError:
    return StorageError(
        f"no room to sort rows by time in {tempfile.gettempdir()} ({error.strerror}); "
        "set TMPDIR to a folder with more"
    )


class _Cursor:
    """The rows of a run that were read and not given out, and what comes after them."""

    def __init__(self, run: _Run, step: int) -> None:
        self._run, self._step, self._next = run, step, 0
        self.rows: Rows = {}
        self.fill()

    @property
    def more(self) -> bool:
        """Whether there are rows that were not read yet."""
        return self._next < self._run.rows

    def fill(self) -> None:
        """Read on if nothing is left."""
        if self.more and (not self.rows or not len(self.rows["part"])):
            stop = min(self._next + self._step, self._run.rows)
            self.rows = self._run.read(self._next, stop)
            self._next = stop

    def split(self, count: int) -> Rows:
        """Give out the first `count` rows."""
        head = {name: value[:count] for name, value in self.rows.items()}
        self.rows = {name: value[count:] for name, value in self.rows.items()}
        return head


def _merge(runs: list[_Run]) -> Iterator[Rows]:
    """Merge by (time, number of the run): whatever is not above the smallest last row that was
    read of a run with more to come is final."""
    step = max(1024, RUN_BYTES // (len(runs) * max(runs[0].row_bytes, 1)))
    cursors = [_Cursor(run, step) for run in runs]
    while True:
        for cursor in cursors:
            cursor.fill()
        open_runs = [
            (int(cursor.rows["time"][-1]), number)
            for number, cursor in enumerate(cursors)
            if cursor.more
        ]
        heads = []
        for number, cursor in enumerate(cursors):
            times = cursor.rows["time"]
            count = len(times)
            if open_runs:
                time, among = min(open_runs)
                side = "right" if number <= among else "left"
                count = int(np.searchsorted(times, time, side=side))  # type: ignore[call-overload]
            heads.append(cursor.split(count))
        rows = {name: np.concatenate([head[name] for head in heads]) for name in heads[0]}
        order = np.argsort(rows["time"], kind="stable")
        yield {name: value[order] for name, value in rows.items()}
        if not open_runs:
            return
