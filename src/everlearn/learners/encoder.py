"""From a batch's columns to the matrix that an estimator learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from everlearn.base import (
    NO_TIME,
    Array,
    Batch,
    Columns,
    Floats,
    Hashes,
    InputError,
    Ints,
    Part,
    SpecError,
)
from everlearn.learners.moments import Moments

DAY = 86_400_000_000
"""Microseconds."""

PERIODS = (DAY, 7 * DAY, 365.2425 * DAY)
"""Day, week and year, in microseconds."""

MONDAY = 4 * DAY
"""The first Monday after 1970-01-01, which was a Thursday."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """How columns become numbers. What it learns on the way (means, spreads, classes of a
    category) is state, and updated by every learned row before that row is encoded.

    Columns of the matrix, from the left: for each number its value and, with `indicator`, whether
    it is missing; for each time the sine and cosine of its place in the day, the week and the
    year (all zero where missing; nothing absolute, which would never come again); for categories
    `buckets` columns that all categories share, 1 (times its scale) where a row falls into them.

    Args:
        numbers: "standardize" (mean 0, standard deviation 1, by running moments) or "as_is".
        categories: "hash" into buckets (Weinberger et al. 2009, "Feature hashing", without
            signs; a missing one has its own bucket), "onehot" (a bucket for each class in order
            of appearance; classes after the last bucket, and unseen ones, are all zero) or "drop".
        buckets: columns for all categories together.
        times: "cyclic" or "drop".
        missing: "indicator" (mean, and a column of its own that says so) or "mean".
        clip: standardised numbers are limited to ± this many standard deviations.
        scales: what the columns of numbers, times and categories are multiplied by. For gradient
            descent, the square of a scale is the share of the step that its columns get.

    Raises:
        SpecError: an argument that is none of these.

    Example:
        >>> Encoder(categories="onehot", buckets=64)
        Encoder(numbers='standardize', categories='onehot', buckets=64, times='cyclic', missing='indicator', clip=10.0, scales=(1.0, 1.0, 1.0))
    """  # noqa: E501

    numbers: Literal["standardize", "as_is"] = "standardize"
    categories: Literal["hash", "onehot", "drop"] = "hash"
    buckets: int = 1024
    times: Literal["cyclic", "drop"] = "cyclic"
    missing: Literal["indicator", "mean"] = "indicator"
    clip: float = 10.0
    scales: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        choices = {
            "numbers": ("standardize", "as_is"),
            "categories": ("hash", "onehot", "drop"),
            "times": ("cyclic", "drop"),
            "missing": ("indicator", "mean"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise SpecError(
                    f"Encoder({name}=) is one of {allowed}, not {getattr(self, name)!r}"
                )
        if not isinstance(self.buckets, int) or not 1 <= self.buckets <= 2**30:
            raise SpecError(f"Encoder(buckets=) is a number from 1 to 2**30, not {self.buckets!r}")
        if not self.clip > 0:
            raise SpecError(f"Encoder(clip=) is above 0, not {self.clip!r}")
        scales = tuple(self.scales)
        if len(scales) != 3 or not all(0 < scale < float("inf") for scale in scales):
            raise SpecError(f"Encoder(scales=) is three numbers above 0, not {self.scales!r}")
        object.__setattr__(self, "scales", scales)


class Encoding:
    """An encoder in use: the layout of its matrix, and what it has learned.

    Args:
        encoder: the definition.
        columns: what batches hold.
        sparse: whether the estimator takes CSR matrices; they are used where they are much
            smaller.
    """

    def __init__(self, encoder: Encoder, columns: Columns, *, sparse: bool) -> None:
        self.encoder = encoder
        refuse_texts(columns, "an Encoder")
        self._counts = (len(columns.numbers), len(columns.categories), len(columns.times))
        p, q, r = self._counts
        self._stride = 2 if encoder.missing == "indicator" else 1
        self._q = 0 if encoder.categories == "drop" else q
        self._r = 0 if encoder.times == "drop" else r
        self._moments = Moments(p, spread=encoder.numbers == "standardize")
        self._bias, self._inverse = np.zeros(p), np.ones(p)
        self._vocabulary = np.zeros(0, np.uint64)
        self._dense_width = p * self._stride + 6 * self._r
        self.width = self._dense_width + (encoder.buckets if self._q else 0)
        slots = p + 6 * self._r + self._q
        self.is_sparse = sparse and self._q > 0 and 3 * slots < self.width
        self._plain = self.width == p and encoder.numbers == "as_is" and encoder.scales[0] == 1.0
        self._salts = _salts(self._q)
        if self.width == 0:
            raise SpecError("there is no feature column left to learn from; check the Schema")

    def learn(self, batch: Batch) -> None:
        """Update the statistics by (n,) rows."""
        self._check(batch)
        if len(batch) == 0:
            return
        self._moments.update(batch.numbers)
        if self._moments.m2_ is not None:
            self._bias, self._inverse = self._moments.mean_, 1.0 / self._moments.scale()
        if self.encoder.categories == "onehot" and len(self._vocabulary) < self.encoder.buckets:
            self._extend(self._mixed(batch.categories))

    def transform(self, batch: Batch) -> Any:
        """(n, width) float64 of (n,) rows, or a CSR matrix of float64. Always finite.

        Raises:
            InputError: the batch has other columns, or an infinite number that is to be taken
                as it is.
        """
        self._check(batch)
        if self._plain and np.isfinite(batch.numbers.sum()):
            return batch.numbers
        values, missing = self._numbers(batch.numbers)
        times = cyclic(batch.times) if self._r else None
        of_numbers, of_times, _ = self.encoder.scales
        if of_numbers != 1.0:
            values = values * of_numbers
        if times is not None and of_times != 1.0:
            times *= of_times
        return (self._csr if self.is_sparse else self._dense)(values, missing, times, batch)

    def snapshot(self) -> Any:
        """What `restore` goes back to; cheap, because arrays are replaced, never written to."""
        kept = [self._moments.count_, self._moments.mean_, self._moments.m2_]
        return kept, self._bias, self._inverse, self._vocabulary

    def restore(self, snapshot: Any) -> None:
        """Forget what was learned since the snapshot."""
        (count, mean, m2), self._bias, self._inverse, vocabulary = snapshot
        self._moments.count_, self._moments.mean_, self._moments.m2_ = count, mean, m2
        if len(vocabulary) < len(self._vocabulary):
            self._vocabulary = vocabulary[:0]
            self._remember(vocabulary)

    def save(self) -> Part:
        """The statistics."""
        arrays: dict[str, Array] = {"count": self._moments.count_, "mean": self._moments.mean_}
        if self._moments.m2_ is not None:
            arrays["m2"] = self._moments.m2_
        if self.encoder.categories == "onehot":
            arrays["vocabulary"] = self._vocabulary
        return Part(arrays, {"width": self.width})

    def load(self, part: Part) -> None:
        """The inverse of `save`.

        Raises:
            InputError: the statistics are of other columns.
        """
        arrays = {name: np.array(array) for name, array in part.arrays.items()}
        expected = set(self.save().arrays)
        if set(arrays) != expected or part.meta.get("width") != self.width:
            raise InputError(f"the state is of another encoder than {self.encoder}")
        if arrays["count"].shape != self._moments.count_.shape:
            raise InputError("the state is of an encoder with other columns")
        self._moments.count_, self._moments.mean_ = arrays["count"], arrays["mean"]
        if self._moments.m2_ is not None:
            self._moments.m2_ = arrays["m2"]
            self._bias, self._inverse = self._moments.mean_, 1.0 / self._moments.scale()
        if "vocabulary" in arrays:
            self._vocabulary = np.zeros(0, np.uint64)
            self._remember(arrays["vocabulary"])

    def _check(self, batch: Batch) -> None:
        p, q, r = self._counts
        if (
            batch.numbers.shape[1] != p
            or batch.categories.shape[1] != q
            or batch.times.shape[1] != r
        ):
            found = [a.shape[1] for a in (batch.numbers, batch.categories, batch.times)]
            raise InputError(
                f"rows have {p} numbers, {q} categories and {r} times, but {found} were given"
            )

    def _numbers(self, numbers: Floats) -> tuple[Floats, Array | None]:
        """(n, p) filled and, if asked for, scaled; and where they were missing, if anywhere."""
        if self.encoder.numbers == "standardize":
            clip = self.encoder.clip
            with np.errstate(over="ignore", invalid="ignore"):
                values = numbers - self._bias
                values *= self._inverse
            np.clip(values, -clip, clip, out=values)
            if np.isfinite(values.sum()):
                return values, None
            missing = np.isnan(values)
            values[missing] = 0.0
            return values, missing
        if np.isfinite(numbers.sum()):
            return numbers, None
        if np.isinf(numbers).any():
            raise InputError("an infinite number; set such rows aside, or standardize")
        missing = np.isnan(numbers)
        return np.where(missing, self._moments.mean_, numbers), missing

    def _dense(
        self, values: Floats, missing: Array | None, times: Floats | None, batch: Batch
    ) -> Floats:
        rows, p = values.shape
        if self.width == p:
            return values
        matrix = np.zeros((rows, self.width))
        matrix[:, 0 : p * self._stride : self._stride] = values
        if missing is not None and self._stride == 2:
            matrix[:, 1 : 2 * p : 2] = missing * self.encoder.scales[0]
        if times is not None:
            matrix[:, p * self._stride : self._dense_width] = times
        if self._q:
            places, ones = self._places(batch.categories)
            row = np.repeat(np.arange(rows), self._q)
            np.add.at(matrix, (row, places.ravel()), ones.ravel())
        return matrix

    def _csr(
        self, values: Floats, missing: Array | None, times: Floats | None, batch: Batch
    ) -> Any:
        """A missing number's slot in the row points at its indicator, so rows have equal slots."""
        from scipy.sparse import csr_matrix

        rows, p = values.shape
        dense = p + 6 * self._r
        slots = dense + self._q
        data = np.empty((rows, slots))
        where = np.empty((rows, slots), np.int32)
        data[:, :p] = values
        where[:, :p] = np.arange(0, p * self._stride, self._stride)
        if missing is not None and self._stride == 2:
            data[:, :p][missing] = self.encoder.scales[0]
            where[:, :p][missing] += 1
        if times is not None:
            data[:, p:dense] = times
            where[:, p:dense] = np.arange(p * self._stride, self._dense_width)
        where[:, dense:], data[:, dense:] = self._places(batch.categories)
        starts = np.arange(0, rows * slots + 1, slots, dtype=np.int32)
        return csr_matrix((data.ravel(), where.ravel(), starts), shape=(rows, self.width))

    def _places(self, categories: Hashes) -> tuple[Ints, Floats]:
        """(n, q) columns of the matrix, and what stands there: the scale; 0 if unseen."""
        mixed = self._mixed(categories)
        if self.encoder.categories == "hash":
            places = (mixed % np.uint64(self.encoder.buckets)).astype(np.int64)
            return places + self._dense_width, np.full(places.shape, self.encoder.scales[2])
        slots = self._slots(mixed.ravel()).reshape(mixed.shape)
        known = slots >= 0
        scale = np.float64(self.encoder.scales[2])
        return np.where(known, slots, 0) + self._dense_width, np.where(known, scale, 0.0)

    def _mixed(self, categories: Hashes) -> Hashes:
        """(n, q) hashes in which a column's own salt is mixed (the finaliser of SplitMix64)."""
        mixed = categories + self._salts
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        return mixed

    def _slots(self, mixed: Hashes) -> Ints:
        """The place of each hash in the vocabulary, −1 for none."""
        if len(self._vocabulary) == 0:
            return np.full(len(mixed), -1, np.int64)
        at = np.searchsorted(self._sorted, mixed)
        np.minimum(at, len(self._sorted) - 1, out=at)
        return np.where(self._sorted[at] == mixed, self._sorted_slots[at], -1)

    def _extend(self, mixed: Hashes) -> None:
        flat = mixed.ravel()
        unseen = flat[self._slots(flat) < 0]
        if len(unseen):
            found, first = np.unique(unseen, return_index=True)
            self._remember(found[np.argsort(first)])

    def _remember(self, hashes: Hashes) -> None:
        joined = np.concatenate([self._vocabulary, hashes])[: self.encoder.buckets]
        self._vocabulary = joined
        self._sorted_slots = np.argsort(joined, kind="stable")
        self._sorted = joined[self._sorted_slots]


def refuse_texts(columns: Columns, reader: str) -> None:
    """Raises `SpecError` where there are columns of texts, which this reader would pass over."""
    if columns.texts:
        raise SpecError(
            f"{reader} does not read texts, and Schema(text=) names {list(columns.texts)}; give a"
            " learner that does (TorchLearner(…, encoder=Tokens(…))), name the columns in"
            " categorical= to learn from their values as categories, or in ignore="
        )


def encoding_of(encoder: Any, columns: Columns) -> Any:
    """An encoder in use, of dense rows: an `Encoding`, or what else an encoder makes that does as
    it does (tokens of texts, say).

    Args:
        encoder: an `Encoder`, an object with ``encoding(columns)``, or None for an `Encoder()`.
        columns: what batches hold.
    """
    made = getattr(encoder, "encoding", None)
    return made(columns) if made else Encoding(encoder or Encoder(), columns, sparse=False)


def learned_rows(encoding: Any, batch: Batch) -> Array:
    """(n, width) the rows, after an encoding in use has learned them; if it refuses them, it is as
    it was before."""
    before = encoding.snapshot()
    try:
        encoding.learn(batch)
        matrix: Array = encoding.transform(batch)
        return matrix
    except InputError:
        encoding.restore(before)
        raise


def cyclic(times: Ints) -> Floats:
    """(n, 6 r) sine and cosine of the place in day, week and year of (n, r) times; 0 if missing."""
    parts = np.empty((*times.shape, 6))
    since = times - MONDAY
    for index, period in enumerate(PERIODS):
        angle = np.mod(since, int(period)) * (2.0 * np.pi / period)
        np.sin(angle, out=parts[..., 2 * index])
        np.cos(angle, out=parts[..., 2 * index + 1])
    missing = times == NO_TIME
    if missing.any():
        parts[missing] = 0.0
    return parts.reshape(len(times), 6 * times.shape[1])


def _salts(columns: int) -> Hashes:
    """(q,) multiples of the golden ratio's odd 64-bit constant."""
    steps = np.arange(1, columns + 1, dtype=np.uint64)
    return steps * np.uint64(0x9E3779B97F4A7C15)
