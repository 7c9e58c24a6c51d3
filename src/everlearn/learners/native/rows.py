"""What a kernel is given of a batch or of a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from everlearn.base import NO_TIME, Array, Batch, Floats, Hashes, InputError, Ints
from everlearn.learners.native.compile import kernel

Times = Literal["waves", "phases"]
"""How times become numbers: the sine and cosine of the place in the day, the week and the year
(6 columns each), or those places themselves, from 0 to 1 (3 columns each)."""

WIDTH = {"waves": 6, "phases": 3}
"""Columns of each time."""

DAY = 86_400_000_000
"""Microseconds."""


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows for a kernel: C-contiguous, never read-only by its flag, and never to be written to.

    Args:
        numbers: (n, p) float64; NaN is missing. Any value may be in here, infinities too.
        times: (n, r) float64 made of times, finite, from −1 to 1; NaN is missing.
        categories: (n, q) uint64 hashes; 0 is missing.
        starts: (n + 1,) int64 where each row begins in `places` and `values`; (0,) if not sparse.
        places: (nnz,) int64 columns of a sparse matrix.
        values: (nnz,) float64 what stands there.
    """

    numbers: Floats
    times: Floats
    categories: Hashes
    starts: Ints
    places: Ints
    values: Floats

    def __len__(self) -> int:
        return max(len(self.numbers), len(self.starts) - 1)

    def dense(self) -> Floats:
        """(n, p + r) numbers and times side by side; a view where there are no times."""
        return np.hstack([self.numbers, self.times]) if self.times.shape[1] else self.numbers

    def part(self, start: int, stop: int) -> Rows:
        """Rows start … stop − 1, as views."""
        return Rows(
            self.numbers[start:stop],
            self.times[start:stop],
            self.categories[start:stop],
            self.starts[start : stop + 1],
            self.places,
            self.values,
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """What a learner is made for.

    Args:
        numbers, times, categories: columns of `Rows`.
        sparse: whether rows are those of a sparse matrix, of any width.
        outputs: classes of a classifier, 1 otherwise.
    """

    numbers: int = 0
    times: int = 0
    categories: int = 0
    sparse: bool = False
    outputs: int = 1


_NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def rows_of_batch(batch: Batch, times: Times) -> Rows:
    """A batch's columns."""
    return Rows(
        usable(batch.numbers, np.float64),
        _of_times(batch.times, times),
        usable(batch.categories, np.uint64),
        *_NOTHING,
    )


def rows_of_matrix(X: Any, nominal: tuple[int, ...]) -> Rows:
    """The rows of an (n, p) array, or of a SciPy sparse matrix.

    Args:
        X: numbers; NaN is missing.
        nominal: columns that are categories, whatever their numbers.

    Raises:
        InputError: X is not of two dimensions, or not of numbers.
    """
    if hasattr(X, "tocsr"):
        if nominal:
            raise InputError(f"nominal={nominal}: a sparse matrix has no categories")
        return _of_sparse(X)
    matrix = numbers_of(X, "X")
    if matrix.ndim != 2:
        raise InputError(
            f"X has shape {matrix.shape}, not (n_samples, n_features). Reshape your data:"
            " X.reshape(1, -1) is one row, X.reshape(-1, 1) one column"
        )
    if matrix.shape[1] == 0:
        raise InputError(
            f"X has 0 feature(s) (shape={matrix.shape}) while a minimum of 1 is required."
        )
    rows = len(matrix)
    if not nominal:
        return Rows(
            usable(matrix, np.float64),
            np.empty((rows, 0)),
            np.empty((rows, 0), np.uint64),
            *_NOTHING,
        )
    if not all(isinstance(place, int | np.integer) for place in nominal):
        raise InputError(f"nominal={nominal} lists columns by their places, from 0")
    if max(nominal) >= matrix.shape[1] or min(nominal) < 0:
        raise InputError(f"nominal={nominal} names a column that X, {matrix.shape}, has not")
    chosen = np.ascontiguousarray(matrix[:, nominal]) + 0.0  # −0.0 is 0.0
    hashes = chosen.view(np.uint64) + np.uint64(1)
    hashes[np.isnan(chosen)] = 0
    rest = np.delete(matrix, nominal, axis=1)
    return Rows(np.ascontiguousarray(rest), np.empty((rows, 0)), hashes, *_NOTHING)


def numbers_of(values: Any, what: str) -> Floats:
    """Numbers in an array, nested lists or a data frame as float64; what is missing is NaN.

    Args:
        values: of any shape.
        what: how an error names them.

    Raises:
        InputError: some are no numbers (texts and dates are none, even if they look like one).
    """
    if isinstance(values, np.ndarray) and values.dtype == np.float64:
        return values
    try:
        array: Array = np.asarray(values)
        if array.dtype.kind == "O":
            texts = (item for item in array.flat if isinstance(item, str | bytes))
            if (text := next(texts, None)) is not None:
                advice = "; give a category's code, and name its column in nominal="
                raise TypeError(f"{text!r} is a text" + (advice if what == "X" else ""))
            if hasattr(values, "isna"):  # of pandas: it may hold pandas.NA
                return values.to_numpy(dtype=np.float64, na_value=np.nan)  # type: ignore[no-any-return]
        elif array.dtype.kind == "c":
            raise TypeError("Complex data not supported")
        elif array.dtype.kind not in "biuf":
            raise TypeError(f"it has the type {array.dtype}")
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} holds something else than numbers: {error}") from error


def usable(array: Array, dtype: Any) -> Array:
    """The same array if it is C-contiguous and of this type; a copy if not. Never marked read-only:
    for that a kernel would be compiled again. Kernels do not write to what they are given."""
    array = np.ascontiguousarray(array, dtype)
    if not array.flags.aligned:
        array = array.copy()
    if array.flags.writeable:
        return array
    return np.asarray(_Unmarked(array)) if array.size else np.empty(array.shape, dtype)


class _Unmarked:
    """The memory of a read-only array, kept alive by it."""

    def __init__(self, array: Array) -> None:
        self._array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def _of_sparse(X: Any) -> Rows:
    matrix = X.tocsr()
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf":
        raise InputError(
            f"X is a sparse matrix of {matrix.dtype} with shape {matrix.shape}; it takes numbers,"
            " (n_samples, n_features)"
        )
    starts, stored = matrix.indptr, min(len(matrix.indices), len(matrix.data))
    if (starts[1:] < starts[:-1]).any() or matrix.indices.min(initial=0) < 0 or starts[-1] > stored:
        raise InputError("X is a sparse matrix with broken indices; see its check_format()")
    if not matrix.has_canonical_format:  # what stands twice in a place is added up
        matrix = matrix.astype(np.float64)
        matrix.sum_duplicates()
    rows = matrix.shape[0]
    return Rows(
        np.empty((rows, 0)),
        np.empty((rows, 0)),
        np.empty((rows, 0), np.uint64),
        usable(matrix.indptr, np.int64),
        usable(matrix.indices, np.int64),
        usable(matrix.data, np.float64),
    )


def _of_times(times: Ints, how: Times) -> Floats:
    if times.shape[1] == 0:
        return np.empty((len(times), 0))
    out = np.empty((len(times), times.shape[1] * WIDTH[how]))
    _place_in_time(usable(times, np.int64), how == "waves", out)
    return out


@kernel
def _place_in_time(times: Ints, waves: bool, out: Floats) -> None:
    """The place of every (n, r) time in day, week and year; weeks begin on Mondays."""
    periods = (86_400_000_000.0, 604_800_000_000.0, 31_556_952_000_000.0)
    for row in range(times.shape[0]):
        for column in range(times.shape[1]):
            for index in range(3):
                since = float(times[row, column] - 345_600_000_000)
                place = since / periods[index]
                place -= np.floor(place)
                if times[row, column] == NO_TIME:
                    place = np.nan
                if waves:
                    angle = 2.0 * np.pi * place
                    out[row, 6 * column + 2 * index] = np.sin(angle)
                    out[row, 6 * column + 2 * index + 1] = np.cos(angle)
                else:
                    out[row, 3 * column + index] = place
