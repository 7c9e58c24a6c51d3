"""What is new in a source that can only be compared row by row: a file written anew, a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from everlearn.base import ChangedError, Columns
from everlearn.data.compiler import Compiler
from everlearn.data.hashing import RowDigest
from everlearn.data.slices import Consumed, PieceReader, Slice


def unconsumed(
    whole: Slice,
    known: Sequence[Consumed],
    columns: Columns | None,
    reader: Callable[[Slice, Columns], PieceReader],
) -> Slice | None:
    """The rows of `whole` that no consumption covers; None if there are none.

    Args:
        whole: the source from row 0 to its end.
        known: what was consumed before, of any source.
        columns: by which the rows were compiled; needed only where a source of the same name has
            other content, to see whether it merely grew.
        reader: opens the source for reading.

    Raises:
        ChangedError: rows that were consumed are no longer in their place.
    """
    if whole.rows == 0 or any(item.digest == whole.digest for item in known):
        return None
    mine = [item for item in known if _same_place(item, whole)]
    if not mine:
        return whole
    longest = max(mine, key=lambda item: item.stop)
    begins = (
        columns is not None
        and longest.stop <= whole.stop
        and bool(longest.row_digest)
        and prefix_digest(reader(whole, columns), longest.stop, columns) == longest.row_digest
    )
    if not begins:
        raise ChangedError(
            f"{whole.source!r} was changed since {longest.stop} rows of it were learned: its first "
            "rows are not what they were. Give new rows in a new file or at the end, or learn the "
            "whole once more with --again"
        )
    if longest.stop == whole.stop:
        return None
    values = whole.to_json() | {"start": longest.stop}
    return Slice.from_json(values).with_options(row_digest=longest.row_digest)


def _same_place(item: Consumed, whole: Slice) -> bool:
    if whole.kind == "spool":
        return item.kind == "spool" and item.source == whole.source
    return item.location == whole.location


def prefix_digest(reader: PieceReader, stop: int, columns: Columns) -> str:
    """The running digest of the first `stop` compiled rows."""
    compiler = Compiler(columns)
    total = RowDigest.parse("")
    try:
        for piece in reader.pieces(None):
            row = piece.place.row
            if row >= stop:
                break
            content = compiler.compile(piece.table.slice(0, stop - row), piece.bad).content
            total = total + RowDigest.sums(content, row)[-1]
    finally:
        reader.close()
    return RowDigest.text(total)
