"""Exception memory: a ball around each edit, within which the edit's answer is given.

The radius is a share of the distance to the nearest reference row that must keep another answer
(Hartvigsen et al. 2023, "Aging with GRACE: lifelong model editing with discrete key-value
adaptors", where the first neighbour of another class halves it).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from everlearn.base import (
    NO_TIME,
    Array,
    Batch,
    Columns,
    Floats,
    Hashes,
    IntegrityError,
    Ints,
    Part,
    Prediction,
)
from everlearn.data.hashing import hash_exact_texts, hash_rows, mix
from everlearn.learners.encoder import cyclic

Mask = npt.NDArray[np.bool_]

SHARE = 0.5
"""Radius of a ball, as a share of the distance to what it must not reach."""

SAME = 1e-9
"""Rows that are no further apart are the same row, but for rounding."""

_ROWS = 128  # compared at a time with all exceptions: what is computed stays in the cache
_DIRECTIONS = 16  # in which rows are compared first: few that are apart are not so here
_SLACK = 1e-4  # share by which single precision may be wrong; what is so near is looked at again
_FAR = 100.0  # where a coordinate is cut off before that: no two rows are further apart by it
_WIDEST = 1e9  # more than any two rows are apart that were cut off


@dataclass(frozen=True, slots=True)
class Space:
    """Where rows are compared: by their columns, whatever the learner.

    The distance of two rows is Euclidean, over numbers in standard deviations of the reference rows
    and over sines and cosines of times. It is infinite where a category or a text differs, and
    where a value is missing in one of them only.

    Args:
        mean, inverse: (p,) of the numbers: their mean, and 1 / standard deviation (1 for a column
            that is constant).
    """

    mean: Floats
    inverse: Floats

    @classmethod
    def of(cls, rows: Batch) -> Self:
        """The space in which n reference rows have variance 1."""
        known = ~np.isnan(rows.numbers)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, rows.numbers, 0.0).sum(axis=0) / count
        spread = (np.where(known, rows.numbers - mean, 0.0) ** 2).sum(axis=0) / count
        return cls(mean, 1.0 / np.sqrt(np.where(spread > 0.0, spread, 1.0)))

    def places(self, batch: Batch) -> tuple[Floats, Hashes]:
        """((n, d) coordinates, (n,) hashes of what has to be equal) of (n,) rows."""
        points = (batch.numbers - self.mean) * self.inverse
        gone = np.isnan(points)
        if gone.any():
            points[gone] = 0.0
        if batch.times.shape[1]:
            points = np.hstack([points, cyclic(batch.times)])
            gone = np.hstack([gone, batch.times == NO_TIME])
        equal: list[Array] = [np.ascontiguousarray(column) for column in batch.categories.T]
        for texts in () if batch.texts is None else batch.texts.T:
            equal.append(hash_exact_texts(pa.array(texts, pa.large_string())))
        hashes = hash_rows(equal, len(points)) if equal else np.zeros(len(points), np.uint64)
        if gone.any():
            salts = mix(np.arange(1, gone.shape[1] + 1, dtype=np.uint64))
            hashes = hashes + np.where(gone, salts, np.uint64(0)).sum(axis=1)
        return points, hashes


@dataclass(frozen=True)
class Exceptions:
    """E balls and what is answered in them.

    Args:
        space: in which they are.
        centers, hashes: (E, d) and (E,) places of the edits.
        radii: (E,) of the balls.
        wanted: (E,) class codes (int64) or values (float64).
    """

    space: Space
    centers: Floats
    hashes: Hashes
    radii: Floats
    wanted: Array

    def __len__(self) -> int:
        return len(self.radii)

    @classmethod
    def around(
        cls,
        edits: Batch,
        wanted: Array,
        reference: Batch,
        kept: Array,
        *,
        share: float = SHARE,
    ) -> Self:
        """Balls around E edits, as wide as the reference rows allow.

        Args:
            edits: (E,) rows.
            wanted: (E,) class codes or values.
            reference: (R,) rows.
            kept: (R, m) answers of which each row may have any; a row is kept out of the balls of
                all others. Of a regressor NaN, so that every row is kept out.
            share: of the distance to the nearest row that is kept out, or to the nearest edit to
                another answer, that a radius is; up to 0.5, no two balls of different answers meet.
                Where there is neither, only the edit itself is in its ball.
        """
        space = Space.of(reference if len(reference) else edits)
        centers, hashes = space.places(edits)
        nearest = np.full(len(edits), np.inf)
        both = (*space.places(reference), kept), (centers, hashes, wanted[:, None])
        for points, marks, answers in both:
            for e in range(len(edits)):
                out = (marks == hashes[e]) & (answers != wanted[e]).all(axis=1)
                apart = _apart(points[out], centers[e])
                nearest[e] = min(nearest[e], apart[apart > SAME].min(initial=np.inf))
        radii = np.where(np.isfinite(nearest), share * nearest, 0.0)
        return cls(space, centers, hashes, np.maximum(radii, SAME), wanted)

    def covering(self, batch: Batch) -> Ints:
        """(n,) number of the exception in whose ball a row is, the nearest of several (of those as
        near the first); −1 for none."""
        found = np.full(len(batch), -1, np.int64)
        if not len(batch):
            return found
        points, hashes = self.space.places(batch)
        rows, balls = self._near(points)
        if not len(rows):
            return found
        apart = _apart(points[rows], self.centers[balls])
        inside = (apart <= self.radii[balls]) & (hashes[rows] == self.hashes[balls])
        rows, balls, apart = rows[inside], balls[inside], apart[inside]
        order = np.lexsort((balls, apart))[::-1]  # the last one written is the nearest
        found[rows[order]] = balls[order]
        return found

    def answer(self, batch: Batch, prediction: Prediction) -> Prediction:
        """What is answered with the exceptions, given what is answered without. In a ball the
        wanted class and the one that was answered exchange their probabilities."""
        which = self.covering(batch)
        if which.max(initial=-1) < 0:
            return prediction
        rows = np.flatnonzero(which >= 0)
        wanted = self.wanted[which[rows]]
        value = prediction.value.copy()
        value[rows] = wanted
        proba, margin = prediction.proba, prediction.margin
        if proba is not None:
            before, proba = prediction.value[rows], proba.copy()
            proba[rows, wanted], proba[rows, before] = proba[rows, before], proba[rows, wanted]
        if margin is not None:
            margin = margin.copy()
            margin[rows] = np.maximum(np.abs(margin[rows]), SAME) * np.where(wanted > 0, 1.0, -1.0)
        return Prediction(value=value, proba=proba, margin=margin)

    @cached_property
    def _index(self) -> tuple[Floats, Floats, Array, float]:
        """((d,) the centers' mean; (d, q) their principal directions, along which no distance is
        larger than it is; (q + 1, E) twice the centers so seen over r² − |c|², in single precision;
        the largest |c|²), of centers whose coordinates are cut off where they are extreme."""
        centers = self.centers.clip(-_FAR, _FAR)
        middle = centers.mean(axis=0)
        apart = centers - middle
        directions = np.linalg.eigh(apart.T @ apart)[1][:, : -_DIRECTIONS - 1 : -1]
        seen = apart @ directions
        lengths = (seen**2).sum(axis=1)
        stacked = np.vstack([2.0 * seen.T, np.minimum(self.radii, _WIDEST) ** 2 - lengths])
        return middle, directions, stacked.astype(np.float32), float(lengths.max(initial=0.0))

    def _near(self, points: Floats) -> tuple[Ints, Ints]:
        """(rows, balls) that may be within each other, by one matrix product in single precision:
        |x − c| ≤ r where 2 x·c + r² − |c|² ≥ |x|²."""
        middle, directions, stacked, longest = self._index
        seen = (points.clip(-_FAR, _FAR) - middle) @ directions
        squares = np.einsum("ij,ij->i", seen, seen)
        least = (squares - _SLACK * (squares + longest + 1.0)).astype(np.float32)
        single = np.ones((len(points), len(stacked)), np.float32)
        single[:, :-1] = seen
        found: list[tuple[Ints, Ints]] = []
        for start in range(0, len(points), _ROWS):
            block = single[start : start + _ROWS] @ stacked
            bound = least[start : start + _ROWS]
            near = np.flatnonzero(block.max(axis=1) >= bound)
            within = np.flatnonzero(block[near] >= bound[near, None])
            at, balls = np.divmod(within, len(self))
            found.append((near[at] + start, balls))
        if len(found) == 1:
            return found[0]
        rows, all_balls = zip(*found, strict=True)
        return np.concatenate(rows), np.concatenate(all_balls)

    def save(self) -> Part:
        """The balls."""
        arrays = {"centers": self.centers, "hashes": self.hashes, "radii": self.radii}
        arrays |= {"wanted": self.wanted, "mean": self.space.mean, "inverse": self.space.inverse}
        return Part(arrays)

    @classmethod
    def load(cls, part: Part) -> Self:
        """The inverse of `save`. Raises `IntegrityError` if its arrays are none that it made, or do
        not fit together."""
        a = part.arrays
        n, d, p = len(a["radii"]), a["centers"].shape[-1], len(a["mean"])
        shapes = {"centers": (n, d), "hashes": (n,), "radii": (n,), "wanted": (n,)}
        shapes |= {"mean": (p,), "inverse": (p,)}
        kinds = dict.fromkeys(shapes, "f8") | {"hashes": "u8", "wanted": a["wanted"].dtype.str[1:]}
        wrong = [
            name
            for name, shape in shapes.items()
            if a[name].shape != shape
            or a[name].dtype.str[1:] != kinds[name]
            or np.isnan(a[name]).any()
        ]
        if wrong or not n or d < p or kinds["wanted"] not in ("i8", "f8"):
            raise IntegrityError(f"the exceptions of the patch do not fit together: {wrong}")
        if not (np.isfinite(a["radii"]) & (a["radii"] >= 0.0)).all():
            raise IntegrityError("a radius of the patch is negative or infinite")
        if not (a["inverse"] >= 0.0).all() or not np.isfinite(a["wanted"]).all():
            raise IntegrityError("a spread of the patch is negative, or an answer infinite")
        return cls(
            Space(a["mean"], a["inverse"]), a["centers"], a["hashes"], a["radii"], a["wanted"]
        )

    def check(self, columns: Columns, classes: int | None) -> None:
        """Refuse what is not for these columns and answers.

        Args:
            classes: how many class codes are known; None of a regressor.

        Raises:
            IntegrityError: it is for others.
        """
        waves = cyclic(np.zeros((1, len(columns.times)), np.int64))
        width = len(columns.numbers) + waves.shape[1]
        if (len(self.space.mean), self.centers.shape[1]) != (len(columns.numbers), width):
            raise IntegrityError("the exceptions of the patch are for other columns")
        if (classes is None) != (self.wanted.dtype.kind == "f"):
            raise IntegrityError("the exceptions of the patch give answers of another kind")
        if classes is not None and not ((self.wanted >= 0) & (self.wanted < classes)).all():
            raise IntegrityError(
                f"an exception of the patch gives the class code {self.wanted.min()} or"
                f" {self.wanted.max()}; there are 0 … {classes - 1}"
            )


def _apart(points: Floats, others: Floats) -> Floats:
    """(n,) distances of points from others, or from one; infinite beyond the largest number."""
    with np.errstate(over="ignore"):
        found: Floats = np.sqrt(((points - others) ** 2).sum(axis=1))
    return found
