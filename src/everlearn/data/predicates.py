"""What a condition on rows is made of: predicates over columns, with SQL's three truth values.

A predicate says of each row of an Arrow table that it holds, that it does not, or that this is
unknown (null), which it is where a value is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everlearn.base import NO_TIME, InputError
from everlearn.data.convert import is_text, plain, to_times
from everlearn.data.slices import nearest

Literal = str | int | float | bool

KEYWORDS = frozenset(("and", "or", "not", "in", "like", "is", "null", "true", "false"))
"""Words that are no names of columns, unless they are put in double quotes."""

_BARE = re.compile(r"[^\W\d]\w*")
_COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
SIGNS = tuple(_COMPARED)
"""The comparisons, as they are written."""

_INT64 = 2**63


class Predicate(Protocol):
    """A part of a condition; `str` gives the text from which it is read again."""

    def columns(self) -> Iterator[str]:
        """The columns that it looks at, in the order of its text."""
        ...

    def truth(self, table: pa.Table) -> pa.Array:
        """(n,) true, false or null of each row.

        Raises:
            InputError: no such column, or a literal that its values cannot be compared with.
        """
        ...


@dataclass(frozen=True, slots=True)
class Compare:
    """A column compared with a literal: sign is one of `SIGNS`."""

    column: str
    sign: str
    value: Literal

    def columns(self) -> Iterator[str]:
        yield self.column

    def truth(self, table: pa.Table) -> pa.Array:
        return _compared(_column(table, self.column), self.column, self.sign, self.value)

    def __str__(self) -> str:
        return f"{name_text(self.column)} {self.sign} {literal_text(self.value)}"


@dataclass(frozen=True, slots=True)
class Among:
    """A column that equals one of some literals."""

    column: str
    values: tuple[Literal, ...]

    def columns(self) -> Iterator[str]:
        yield self.column

    def truth(self, table: pa.Table) -> pa.Array:
        values = _column(table, self.column)
        if _kind(values.type, self.column) == "text" and all(type(v) is str for v in self.values):
            found = pc.is_in(values, pa.array(self.values, pa.large_string()))
            return pc.if_else(values.is_null(), None, found)
        each = [_compared(values, self.column, "=", value) for value in self.values]
        return _joined(each, pc.or_kleene)

    def __str__(self) -> str:
        return f"{name_text(self.column)} in {self._list()}"

    def _list(self) -> str:
        return f"({', '.join(literal_text(value) for value in self.values)})"

    def negated(self) -> str:
        """The text of what holds where this does not."""
        return f"{name_text(self.column)} not in {self._list()}"


@dataclass(frozen=True, slots=True)
class Like:
    """A column of texts that match a pattern: % is any text, _ any one letter; capitals count."""

    column: str
    pattern: str

    def columns(self) -> Iterator[str]:
        yield self.column

    def truth(self, table: pa.Table) -> pa.Array:
        values = _column(table, self.column)
        kind = _kind(values.type, self.column)
        if kind == "nothing":
            return pa.nulls(len(values), pa.bool_())
        if kind != "text":
            raise InputError(
                f"like compares texts, and column {self.column!r} holds {_HOLDS[kind]}"
            )
        return pc.match_substring_regex(values, _regex(self.pattern))

    def __str__(self) -> str:
        return f"{name_text(self.column)} like {literal_text(self.pattern)}"

    def negated(self) -> str:
        """The text of what holds where this does not."""
        return f"{name_text(self.column)} not like {literal_text(self.pattern)}"


@dataclass(frozen=True, slots=True)
class Missing:
    """A column that has no value in a row; never unknown."""

    column: str

    def columns(self) -> Iterator[str]:
        yield self.column

    def truth(self, table: pa.Table) -> pa.Array:
        return _column(table, self.column).is_null()

    def __str__(self) -> str:
        return f"{name_text(self.column)} is null"

    def negated(self) -> str:
        """The text of what holds where this does not."""
        return f"{name_text(self.column)} is not null"


@dataclass(frozen=True, slots=True)
class Not:
    """Holds where a predicate does not; unknown where that is."""

    part: Predicate

    def columns(self) -> Iterator[str]:
        yield from self.part.columns()

    def truth(self, table: pa.Table) -> pa.Array:
        return pc.invert(self.part.truth(table))

    def __str__(self) -> str:
        if isinstance(self.part, (Among, Like, Missing)):
            return self.part.negated()
        return f"not {_within(self.part)}"


@dataclass(frozen=True, slots=True)
class And:
    """Two or more predicates that all hold."""

    parts: tuple[Predicate, ...]

    def columns(self) -> Iterator[str]:
        for part in self.parts:
            yield from part.columns()

    def truth(self, table: pa.Table) -> pa.Array:
        return _joined([part.truth(table) for part in self.parts], pc.and_kleene)

    def __str__(self) -> str:
        return " and ".join(_within(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """Two or more predicates of which one holds."""

    parts: tuple[Predicate, ...]

    def columns(self) -> Iterator[str]:
        for part in self.parts:
            yield from part.columns()

    def truth(self, table: pa.Table) -> pa.Array:
        return _joined([part.truth(table) for part in self.parts], pc.or_kleene)

    def __str__(self) -> str:
        return " or ".join(_within(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Anything:
    """A predicate of which is not known whether it holds."""

    def columns(self) -> Iterator[str]:
        yield from ()

    def truth(self, table: pa.Table) -> pa.Array:
        return pa.nulls(len(table), pa.bool_())


def narrowed(predicate: Predicate, names: Collection[str]) -> Predicate:
    """A predicate as it is where only some columns are known."""
    if isinstance(predicate, (And, Or)):
        return type(predicate)(tuple(narrowed(part, names) for part in predicate.parts))
    if isinstance(predicate, Not):
        return Not(narrowed(predicate.part, names))
    return predicate if all(name in names for name in predicate.columns()) else Anything()


def name_text(name: str) -> str:
    """A column's name as a condition has it."""
    if _BARE.fullmatch(name) and name.lower() not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def literal_text(value: Literal) -> str:
    """A literal as a condition has it."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _within(part: Predicate) -> str:
    return f"({part})" if isinstance(part, (And, Or)) else str(part)


def _joined(parts: list[pa.Array], join: Callable[[Any, Any], Any]) -> pa.Array:
    found = parts[0]
    for part in parts[1:]:
        found = join(found, part)
    return found


# --- values ------------------------------------------------------------------------------------

_HOLDS = {"text": "texts", "number": "numbers", "time": "times"}


def _column(table: pa.Table, name: str) -> pa.Array:
    """The values of a column; NaN is missing."""
    if name not in table.schema.names:
        raise InputError(f"the rows have no column {name!r}: {nearest(name, table.schema.names)}")
    column = table.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values = plain(column)
    if is_text(values.type):
        return values.cast(pa.large_string())
    return pc.if_else(pc.is_nan(values), None, values) if _is_float(values.type) else values


def _is_float(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind))


def _kind(kind: pa.DataType, name: str) -> str:
    """ "text", "number", "time" or "nothing"."""
    tests: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
        "text": (is_text,),
        "number": (pa.types.is_boolean, pa.types.is_integer, _is_float, pa.types.is_decimal),
        "time": (pa.types.is_timestamp, pa.types.is_date),
        "nothing": (pa.types.is_null,),
    }
    for found, these in tests.items():
        if any(test(kind) for test in these):
            return found
    raise InputError(f"column {name!r} has the type {kind}, which no condition can compare")


def _compared(values: pa.Array, name: str, sign: str, value: Literal) -> pa.Array:
    kind = _kind(values.type, name)
    if kind == "nothing":
        return pa.nulls(len(values), pa.bool_())
    if kind == "number" and not isinstance(value, str):
        return _numbers_compared(values, sign, value)
    if kind == "text" and isinstance(value, str):
        return _COMPARED[sign](values, pa.scalar(value, pa.large_string()))
    if kind == "time" and isinstance(value, str):
        times, _ = to_times(values, name)
        moments = pa.array(times, mask=times == NO_TIME)
        return _COMPARED[sign](moments, pa.scalar(_moment(value, name)))
    hint = {
        "text": f"write it in quotes: {literal_text(str(value))}",
        "number": "write a number, without quotes",
        "time": "write an ISO text, such as '2024-03-01T12:00:00'",
    }[kind]
    raise InputError(
        f"column {name!r} holds {_HOLDS[kind]}, which cannot be compared with "
        f"{literal_text(value)}; {hint}"
    )


def _numbers_compared(values: pa.Array, sign: str, value: int | float | bool) -> pa.Array:
    """Whole numbers exactly, others as float64; truth values are 0 and 1."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int64())
    if isinstance(value, int) and pa.types.is_integer(values.type):
        if -_INT64 <= value < _INT64 and not pa.types.is_uint64(values.type):
            return _COMPARED[sign](values.cast(pa.int64()), pa.scalar(int(value), pa.int64()))
        if 0 <= value < 2 * _INT64 and pa.types.is_uint64(values.type):
            return _COMPARED[sign](values, pa.scalar(int(value), pa.uint64()))
        zeros = pa.array(np.zeros(len(values), np.int64), mask=values.is_null().to_numpy(False))
        return _COMPARED[sign](zeros, pa.scalar(1 if value > 0 else -1))  # it is beyond them all
    floats = values.cast(pa.float64(), safe=False)
    return _COMPARED[sign](floats, pa.scalar(float(value)))


def _moment(text: str, name: str) -> int:
    times, bad = to_times(pa.array([text]), name)
    if bad is not None or times[0] == NO_TIME:
        raise InputError(
            f"column {name!r} holds times, and {literal_text(text)} is none; "
            "write an ISO text, such as '2024-03-01T12:00:00'"
        )
    return int(times[0])


def _regex(pattern: str) -> str:
    """The pattern as a regular expression of RE2, which takes time linear in the text."""
    made = []
    for letter in pattern:
        if letter in "%_":
            made.append(".*" if letter == "%" else ".")
        elif letter.isascii() and not letter.isalnum():
            made.append(f"\\x{ord(letter):02x}")
        else:
            made.append(letter)
    return rf"(?s)\A{''.join(made)}\z"
