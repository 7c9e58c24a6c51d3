"""64-bit hashes of texts, rows and row sequences: vectorised, and equal on every machine.

The mixing steps are those of MurmurHash3's 64-bit finaliser (Appleby 2011) and of SplitMix64
(Steele, Lea & Flood 2014). The hashes identify rows and categories; they are no protection against
somebody who looks for collisions on purpose. Wrap-around of uint64 arithmetic is intended.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everlearn.base import Array, Hashes, Ints
from everlearn.data.buffers import codes, nulls

_U = np.uint64
_SEED = _U(0x9E3779B97F4A7C15)
_C1 = _U(0xFF51AFD7ED558CCD)
_C2 = _U(0xC4CEB9FE1A85EC53)
_VALUES = 32_768  # values hashed at a time: what is worked on stays in the cache


def mix(values: Hashes) -> Hashes:
    """Scramble each value so that every input bit moves every output bit (a bijection)."""
    out = values ^ (values >> _U(33))
    out *= _C1
    out ^= out >> _U(33)
    out *= _C2
    out ^= out >> _U(33)
    return out


def _never_zero(values: Hashes) -> Hashes:
    values[values == 0] = 1
    return values


def _multipliers(count: int) -> Hashes:
    """`count` odd multipliers, one per column, from the SplitMix64 sequence."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * _SEED
    return mix(steps) | _U(1)


# --- texts -------------------------------------------------------------------------------------


def hash_texts(texts: pa.Array) -> Hashes:
    """(n,) hashes of a string, large_string or dictionary array; 0 where null or empty.

    "5.0" hashes like "5", and "True" like "true", because the same column is written in either way
    by CSV, Parquet and data frames.
    """
    if pa.types.is_dictionary(texts.type):
        known = np.append(hash_texts(texts.dictionary), _U(0))
        return known[codes(texts, len(known) - 1)]
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = texts.cast(pa.large_string())
    starts, lengths, data = _buffers(_one_spelling(texts))
    hashes = _hash_spans(starts, lengths, data)
    hashes[lengths == 0] = 0
    return hashes


def hash_exact_texts(texts: pa.Array) -> Hashes:
    """(n,) hashes of a large_string array by its bytes alone; 0 where null or empty."""
    starts, lengths, data = _buffers(texts)
    hashes = _hash_spans(starts, lengths, data)
    hashes[lengths == 0] = 0
    return hashes


def _buffers(texts: pa.Array) -> tuple[Ints, Ints, Array]:
    """Where each text starts, its length in bytes (0 for null), and the bytes plus 8 zeros."""
    wide = pa.types.is_large_string(texts.type)
    _, offset_buffer, data_buffer = texts.buffers()
    if len(texts) == 0 or offset_buffer is None:
        nothing = np.zeros(len(texts), np.int64)
        return nothing, nothing, np.zeros(8, np.uint8)
    stored = np.frombuffer(offset_buffer, np.int64 if wide else np.int32)
    offsets: Ints = stored[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    data = np.zeros(last - first + 8, np.uint8)
    if last > first:
        data[:-8] = np.frombuffer(data_buffer, np.uint8)[first:last]
    starts: Ints = offsets[:-1] - first
    lengths: Ints = offsets[1:] - offsets[:-1]
    gone = nulls(texts)
    if gone is not None:
        lengths[gone] = 0
    return starts, lengths, data


def _hash_spans(starts: Ints, lengths: Ints, data: Array) -> Hashes:
    """Hash of data[start : start + length] for each span, eight bytes at a step."""
    # every byte offset of `data` as the start of a little-endian word
    words = np.ndarray(shape=(len(data) - 7,), dtype="<u8", buffer=data.data, strides=(1,))
    hashes = mix(lengths.astype(np.uint64) * _C1 ^ _SEED)
    rows: Ints | None = None
    longest = int(lengths.max(initial=0))
    for step in range(0, longest, 8):
        if step:
            rows = np.flatnonzero(lengths > step)
        at = starts if rows is None else starts[rows]
        left = (lengths if rows is None else lengths[rows]) - step
        word = words[at + step]
        keep = np.clip(left, 0, 8).astype(np.uint64) * _U(8)
        mask = np.where(keep == 64, ~_U(0), (_U(1) << (keep & _U(63))) - _U(1))
        word &= mask
        if rows is None:
            hashes = mix(hashes ^ word) + _SEED
        else:
            hashes[rows] = mix(hashes[rows] ^ word) + _SEED
    return _never_zero(hashes)


def _one_spelling(texts: pa.Array) -> pa.Array:
    """Whole numbers without ".0", truth values in lower case; nearly always nothing to do."""
    odd = pc.match_substring_regex(texts, r"^(-?[0-9]+\.0+|True|TRUE|False|FALSE)$")
    if not odd.true_count:
        return texts
    plain = pc.replace_substring_regex(texts, r"\.0+$", "")
    plain = pc.if_else(pc.match_substring_regex(plain, "^(T|F)"), pc.utf8_lower(plain), plain)
    return pc.if_else(pc.fill_null(odd, False), plain, texts)


# --- rows --------------------------------------------------------------------------------------


def hash_rows(columns: Sequence[Array], n: int) -> Hashes:
    """(n,) hashes over all columns of a row, never 0. Cost: about 2 ns a value.

    Args:
        columns: (n,) arrays of float64, int64 or uint64, or (k, n) arrays of k columns. Among
            floats -0.0 equals 0.0, and every NaN equals every other.
        n: rows.

    A row's hash is the sum over the columns j of f((x_j ^ x_j >> 32) * m_j), with odd multipliers
    m_j and f(u) = u ^ u >> 29, mixed at the end.
    """
    total = np.zeros(n, np.uint64)
    tables = [np.atleast_2d(column) for column in columns]
    factors = _multipliers(sum(map(len, tables)))
    together = max(1, _VALUES // max(n, 1))
    done = 0
    with np.errstate(invalid="ignore", over="ignore"):
        for table in tables:
            for first in range(0, len(table), together):
                block = table[first : first + together]
                _add_hashes(block, factors[done : done + len(block), None], total)
                done += len(block)
    return _never_zero(mix(total))


def _add_hashes(block: Array, factors: Hashes, total: Hashes) -> None:
    """Add what (k, n) columns with (k, 1) multipliers contribute to (n,) hashes."""
    rows = max(1, _VALUES // len(block))
    for start in range(0, block.shape[1], rows):
        value = _canonical_bits(block[:, start : start + rows])
        value ^= value >> _U(32)
        value *= factors
        value ^= value >> _U(29)
        total[start : start + rows] += value.sum(axis=0)


def _canonical_bits(columns: Array) -> Hashes:
    """A copy of the bits by which columns are hashed."""
    if columns.dtype != np.float64:
        return columns.view(np.uint64).copy()
    floats = columns + 0.0  # -0.0 becomes 0.0
    total = floats.sum()
    if total != total:
        floats[np.isnan(floats)] = np.nan
    return floats.view(np.uint64)


def combine(*hashes: Sequence[Hashes] | Hashes) -> Hashes:
    """(n,) one hash for several (n,) arrays of 64-bit integers; the order of arguments counts."""
    total = np.zeros(len(hashes[0]), np.uint64)
    for array in hashes:
        total = mix(total + _SEED ^ np.asarray(array).view(np.uint64))
    return total


# --- sequences of rows -------------------------------------------------------------------------


class RowDigest:
    """A 128-bit digest of a sequence of row hashes that can be continued, and read at any row.

    The digest of h_0 … h_(n-1) is the pair of sums over i of mix(h_i + i·g) and of
    mix(h_i·c + i·g'), modulo 2^64: each row counts together with its position, so that a change, a
    swap or a loss shows, and the sums of a prefix are continued by those of the rows after it.
    """

    @staticmethod
    def sums(hashes: Hashes, start: int) -> Hashes:
        """(n+1, 2) running sums; row k holds what rows `start` … `start + k - 1` contribute."""
        place = np.arange(start, start + len(hashes), dtype=np.uint64)
        out = np.zeros((len(hashes) + 1, 2), np.uint64)
        np.cumsum(mix(hashes + place * _SEED), out=out[1:, 0])
        np.cumsum(mix(hashes * _C1 + place * _C2), out=out[1:, 1])
        return out

    @staticmethod
    def text(sums: Hashes) -> str:
        """The digest as 32 hexadecimal digits."""
        return f"{int(sums[0]):016x}{int(sums[1]):016x}"

    @staticmethod
    def parse(text: str) -> Hashes:
        """The inverse of `text`; an empty text is the digest of no rows."""
        if not text:
            return np.zeros(2, np.uint64)
        return np.array([int(text[:16], 16), int(text[16:], 16)], np.uint64)
