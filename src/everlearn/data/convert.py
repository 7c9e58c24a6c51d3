"""Arrow columns of any type → numpy columns of the kinds that learning knows.

Each function takes one Arrow array and says which cells could not be converted. What a value is
called does not depend on the format it was read from: 5, 5.0 and "5" are one category.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from everlearn.base import NO_TIME, Array, Floats, Hashes, InputError, Ints, TargetKind
from everlearn.data.buffers import codes, nulls, values
from everlearn.data.hashing import hash_exact_texts, hash_texts

Mask = npt.NDArray[np.bool_]

_MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "<na>"))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds texts."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def _value_type(array: pa.Array) -> pa.DataType:
    kind = array.type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def plain(array: pa.Array) -> pa.Array:
    """Without dictionary; texts in the form for which Arrow has most functions."""
    if pa.types.is_dictionary(array.type):
        if pa.types.is_string_view(array.type.value_type):  # a Polars Categorical or Enum
            texts = array.dictionary.cast(pa.large_string())
            array = pa.DictionaryArray.from_arrays(array.indices, texts)
        array = array.dictionary_decode()
    return array.cast(pa.large_string()) if pa.types.is_string_view(array.type) else array


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _is_moment(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_timestamp, pa.types.is_date))


def _refuse(array: pa.Array, name: str, wanted: str) -> InputError:
    return InputError(
        f"column {name!r} has the type {array.type}, which cannot be read as {wanted}; "
        "convert it, or leave it out with Schema(ignore=[…])"
    )


# --- numbers -----------------------------------------------------------------------------------


def to_numbers(array: pa.Array, name: str) -> tuple[Floats, Mask | None]:
    """(n,) float64 with NaN where missing, and which cells are no numbers (None: no such cell).

    Truth values become 0 and 1, moments seconds since 1970.

    Raises:
        InputError: a type that holds no numbers (lists, structs, binary).
    """
    array = plain(array)
    kind = array.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return _floats(array), None
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan), None
    if pa.types.is_boolean(kind):
        return _floats(array.cast(pa.uint8())), None
    if pa.types.is_decimal(kind):
        return _floats(array.cast(pa.string()).cast(pa.float64())), None  # the nearest float
    if _is_moment(kind):
        moments, _ = to_times(array, name)
        return np.where(moments == NO_TIME, np.nan, moments / 1e6), None
    if is_text(kind):
        return _parse_each(array, _number, np.nan, np.float64)
    raise _refuse(array, name, "numbers")


def _floats(array: pa.Array) -> Floats:
    found: Floats = values(array).astype(np.float64, copy=False)
    gone = nulls(array)
    if gone is None:
        return found
    return np.where(gone, np.nan, found)


def _number(text: str) -> float | None:
    """The number that a text is; NaN if it says that it is missing, None if it is none."""
    text = text.strip()
    lower = text.lower()
    if lower in _MISSING:
        return np.nan
    if lower in ("true", "false"):
        return float(lower == "true")
    return float(text) if _NUMBER.fullmatch(text) else None


def _parse_each(
    array: pa.Array, parse: Callable[[str], Any], missing: Any, dtype: Any
) -> tuple[Array, Mask | None]:
    """Parse each different text once. `parse` answers None for what cannot be parsed."""
    coded = pc.dictionary_encode(array)
    parsed = [parse(str(text)) for text in coded.dictionary.to_pylist()]
    bad = np.array([value is None for value in parsed] + [False])
    found = np.array([missing if value is None else value for value in parsed] + [missing], dtype)
    at = codes(coded, len(parsed))
    return found[at], (bad[at] if bad.any() else None)


# --- categories --------------------------------------------------------------------------------


def to_texts(array: pa.Array, name: str) -> pa.Array:
    """The canonical texts of any column: whole numbers without a point, ISO moments.

    Raises:
        InputError: a type that has none (lists, structs).
    """
    kind = _value_type(array)
    if pa.types.is_string_view(array.type):
        return plain(array)
    if is_text(kind):
        return array
    if pa.types.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(array.indices, to_texts(array.dictionary, name))
    if pa.types.is_floating(kind):
        array = array.cast(pa.float64())
        floats = _floats(array)
        with np.errstate(invalid="ignore"):
            whole = (floats == np.trunc(floats)) & (np.abs(floats) < 2**53)
        integers = pa.array(np.where(whole, floats, 0.0).astype(np.int64), mask=np.isnan(floats))
        short = array.filter(pa.array(~whole)).cast(pa.string())
        texts = integers.cast(pa.string())
        return pc.replace_with_mask(texts, pa.array(~whole), short)
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _refuse(array, name, "categories") from error


def to_categories(array: pa.Array, name: str) -> Hashes:
    """(n,) hashes of the texts; 0 where missing or empty."""
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.uint64)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    return hash_texts(to_texts(array, name))


# --- texts kept as they are --------------------------------------------------------------------


def to_strings(array: pa.Array, name: str) -> tuple[Array, Hashes, Mask | None]:
    """(n,) objects that are `str` ("" where missing), their hashes (0 for ""), and which cells are
    not UTF-8 (None: no such cell).

    Raises:
        InputError: a type that has no texts (lists, structs).
    """
    if pa.types.is_null(array.type):
        return np.full(len(array), "", object), np.zeros(len(array), np.uint64), None
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    array = plain(to_texts(array, name)).cast(pa.large_string())
    found, bad = np.empty(len(array), object), None
    try:
        found[:] = ["" if text is None else text for text in array.to_pylist()]
    except UnicodeDecodeError:  # Arrow takes the bytes of files as they are
        raw = array.cast(pa.large_binary()).to_pylist()
        texts = [(cell or b"").decode(errors="replace") for cell in raw]
        found[:] = texts
        bad = np.array([t.encode() != (c or b"") for t, c in zip(texts, raw, strict=True)])
    return found, hash_exact_texts(array), bad


# --- times -------------------------------------------------------------------------------------


def to_times(array: pa.Array, name: str) -> tuple[Ints, Mask | None]:
    """(n,) int64 microseconds since 1970 UTC, and which cells are no times.

    Texts are ISO 8601; a moment without zone is taken as UTC. Numbers are seconds, milliseconds,
    microseconds or nanoseconds since 1970 by their size (below 1e11, 1e14, 1e17, and above).

    Raises:
        InputError: a type that holds no moments.
    """
    array = plain(array)
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), NO_TIME), None
    if _is_moment(kind):
        target = pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else pa.timestamp("us")
        whole = pc.cast(array, target, safe=False).cast(pa.int64())
        gone = nulls(whole)
        times: Ints = values(whole)
        return (times if gone is None else np.where(gone, NO_TIME, times)), None
    if _is_number(kind):
        return _epoch(array)
    if is_text(kind):
        return _parse_texts(array)
    raise _refuse(array, name, "times")


def _epoch(array: pa.Array) -> tuple[Ints, Mask | None]:
    floats, _ = to_numbers(array, "")
    size = np.abs(floats)
    factor = np.select([size < 1e11, size < 1e14, size < 1e17], [1e6, 1e3, 1.0], 1e-3)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(floats * factor)
    missing, bad = np.isnan(scaled), np.abs(scaled) > 9.2e18
    times = np.where(missing | bad, 0.0, scaled).astype(np.int64)
    times[missing | bad] = NO_TIME
    return times, (bad if bad.any() else None)


def _parse_texts(array: pa.Array) -> tuple[Ints, Mask | None]:
    for target in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return to_times(pc.cast(array, target), "")
        except pa.ArrowInvalid:
            continue
    return _parse_each(array, _moment, NO_TIME, np.int64)


def _moment(text: str) -> int | None:
    """Microseconds of a text; NO_TIME if it says that it is missing, None if it is no time."""
    text = text.strip()
    if text.lower() in _MISSING:
        return NO_TIME
    if _NUMBER.fullmatch(text):
        times, bad = _epoch(pa.array([float(text)]))
        return None if bad is not None else int(times[0])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


# --- target ------------------------------------------------------------------------------------


def to_target(array: pa.Array, kind: TargetKind, name: str) -> tuple[Array, Mask, Mask | None]:
    """The target's values, where they are missing, and where they cannot be read.

    Returns:
        float64 (NaN where missing), or for a text target objects that are str (None where missing).
    """
    if kind != "text":
        numbers, bad = to_numbers(array, name)
        missing = np.isnan(numbers)
        return numbers, (missing if bad is None else missing & ~bad), bad
    if pa.types.is_null(array.type):
        return np.full(len(array), None, object), np.ones(len(array), bool), None
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    texts = to_texts(array, name)
    coded = texts if pa.types.is_dictionary(texts.type) else pc.dictionary_encode(texts)
    known = np.array([*coded.dictionary.to_pylist(), None], object)
    known[known == ""] = None
    y = known[codes(coded, len(known) - 1)]
    return y, y == None, None  # noqa: E711 (cell by cell)
