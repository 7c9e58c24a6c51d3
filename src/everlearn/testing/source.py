"""The conformance suite of sources: what everlearn relies on, for ours and for third parties'.

Subclass it in a test module, and say how a table becomes a source::

    class TestMySource(SourceSuite):
        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.path = tmp_path / "rows.mine"

        def open_source(self, table):
            write_mine(table, self.path)      # always the same name
            return MySource(self.path)
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from everlearn.base import ChangedError, Columns, Schema
from everlearn.data.columns import resolve
from everlearn.data.compiler import Compiler
from everlearn.data.increment import Chunk, Reader
from everlearn.data.slices import Consumed, Place, Slice
from everlearn.data.source import Source, open_reader

SCHEMA = Schema(target="label", time="moment", label_time="known")


def example_table(rows: int = 500, start: int = 0) -> pa.Table:
    """Rows `start` … of one endless table with numbers, texts, truth values, times and gaps.

    Every thirteenth row has no label; every seventeenth knows its label before its event.
    """
    number = np.arange(start, start + rows)
    moment = number * 60_000_000 + 1_577_836_800_000_000
    known = moment + np.where(number % 17 == 3, -1, 5) * 1_000_000
    gaps = number % 7 == 2
    return pa.table(
        {
            "amount": pa.array(np.sin(number) * 10.0 ** (number % 9), mask=gaps),
            "count": pa.array(number % 10),
            "open": pa.array(number % 3 == 0),
            "word": pa.array([f"word {k % 23}, é" for k in number], mask=number % 11 == 5),
            "moment": pa.array(moment, pa.timestamp("us")),
            "known": pa.array(known, pa.timestamp("us")),
            "label": pa.array(number % 5 % 2, mask=number % 13 == 4),
        }
    )


class SourceSuite(ABC):
    """Tests that every `Source` must pass."""

    blobs: Any = None
    """Where the source spools to, if it does."""

    @abstractmethod
    def open_source(self, table: pa.Table) -> Source:
        """A source that has exactly these rows, always under the same name."""

    def columns(self, source: Source) -> Columns:
        """The columns that the example table must resolve to in every format."""
        columns = resolve(SCHEMA, [source], target_is_class=True)
        assert columns.numbers == ("amount", "count", "open")
        assert (columns.categories, columns.times) == (("word",), ("moment",))
        assert columns.target_kind == "integer"
        return columns

    def chunks(self, slices: Sequence[Slice], columns: Columns, **options: Any) -> list[Chunk]:
        with Reader(slices, columns, blobs=self.blobs, **options) as reader:
            return list(reader)

    def contents(self, part: Slice, columns: Columns, place: Place | None = None) -> np.ndarray:
        """(n, 2) source row and hash of every row after a place."""
        reader, compiler = open_reader(part, columns, self.blobs), Compiler(columns)
        found = [np.zeros((0, 2), np.uint64)]
        for piece in reader.pieces(place):
            content = compiler.compile(piece.table, piece.bad).content
            rows = np.arange(len(content), dtype=np.uint64) + np.uint64(piece.place.row)
            found.append(np.stack([rows, content], axis=1))
        reader.close()
        return np.concatenate(found)

    def test_names_and_sample_are_those_of_the_table(self) -> None:
        table = example_table()
        source = self.open_source(table)
        assert source.names == tuple(table.schema.names)
        sample = source.sample()
        assert sample.schema.names == table.schema.names and sample.num_rows > 0

    def test_every_row_is_read_once_and_compiled_like_the_table(self) -> None:
        table = example_table()
        source = self.open_source(table)
        columns = self.columns(source)
        part = source.slice()
        assert part is not None and (part.start, part.stop) == (0, 500)
        expected = Compiler(columns).compile(table.to_batches()[0]).content
        found = self.contents(part, columns)
        assert found[:, 0].tolist() == list(range(500))
        assert (found[:, 1] == expected).all()

    def test_a_slice_survives_json(self) -> None:
        part = self.open_source(example_table()).slice()
        assert part is not None
        again = Slice.from_json(json.loads(json.dumps(part.to_json())))
        assert again == part and again.fingerprint == part.fingerprint

    def test_what_was_consumed_is_not_read_again_unless_asked_for(self) -> None:
        source = self.open_source(example_table())
        part = source.slice()
        assert part is not None
        known = [Consumed.of(part)]
        assert source.slice(known) is None
        assert source.slice(known, again=True) == part

    def test_of_a_grown_source_only_the_tail_is_read(self) -> None:
        source = self.open_source(example_table(300))
        columns = self.columns(source)
        first = source.slice()
        assert first is not None
        known = [self._consumed(first, columns)]
        source = self.open_source(example_table(500))
        tail = source.slice(known, columns)
        assert tail is not None and (tail.start, tail.stop) == (300, 500)
        whole = source.slice()
        assert whole is not None and tail.digest == whole.digest
        assert (self.contents(tail, columns) == self.contents(whole, columns)[300:]).all()
        known.append(self._consumed(tail, columns))
        assert known[1].row_digest == self._consumed(whole, columns).row_digest
        assert source.slice(known, columns) is None
        last = self.open_source(example_table(520)).slice(known, columns)
        assert last is not None and (last.start, last.stop) == (500, 520)

    def _consumed(self, part: Slice, columns: Columns) -> Consumed:
        with Reader([part], columns, blobs=self.blobs) as reader:
            list(reader)
            return Consumed.of(part, reader.tallies[0].reasons["row_digest"])

    def test_a_source_that_changed_or_shrank_is_refused(self) -> None:
        source = self.open_source(example_table(300))
        columns = self.columns(source)
        part = source.slice()
        assert part is not None
        known = [self._consumed(part, columns)]
        other = example_table(400, start=1)
        for table in (example_table(299), other, other.slice(0, 300)):
            changed = self.open_source(table)
            with pytest.raises(ChangedError, match="again"):
                changed.slice(known, columns)
            assert changed.slice(known, columns, again=True) is not None

    @pytest.mark.parametrize("order", ["stream", "time"])
    def test_reading_goes_on_after_any_mark(self, order: str) -> None:
        source = self.open_source(example_table())
        columns, part = self.columns(source), source.slice()
        assert part is not None
        options = {"chunk": 64, "holdout": 0.2, "order": order}
        chunks = self.chunks([part], columns, **options)
        assert [len(chunk) for chunk in chunks[:-1]] == [64] * (len(chunks) - 1)
        for number, chunk in enumerate(chunks):
            mark = json.loads(json.dumps(chunk.mark))
            rest = self.chunks([part], columns, after=mark, **options)
            assert _same(rest, chunks[number + 1 :])

    def test_every_row_is_accounted_for(self) -> None:
        source = self.open_source(example_table())
        columns, part = self.columns(source), source.slice()
        assert part is not None
        with Reader([part], columns, chunk=50, holdout=0.2, blobs=self.blobs) as reader:
            for _ in reader:
                for tally in reader.tallies:
                    known = tally.rows + tally.held_out + tally.set_aside + tally.duplicates
                    assert known == tally.stop - tally.start
            (tally,) = reader.tallies
        assert (tally.start, tally.stop, tally.digest) == (0, 500, part.digest)
        unlabelled = sum(k % 13 == 4 for k in range(500))
        early = sum(k % 17 == 3 and k % 13 != 4 for k in range(500))
        expected = {"target missing": unlabelled, "label known before the event": early}
        assert tally.reasons["set_aside"] == expected
        assert tally.set_aside == unlabelled + early
        assert len(tally.reasons["examples"]) == 20


def _same(some: list[Chunk], others: list[Chunk]) -> bool:
    def key(chunk: Chunk) -> list[bytes]:
        held = b"" if chunk.held is None else chunk.held.ids.tobytes()
        return [chunk.batch.ids.tobytes(), chunk.batch.numbers.tobytes(), held]

    return [key(chunk) for chunk in some] == [key(chunk) for chunk in others]
