"""Whether two samples come from one distribution, column by column, at every look.

A test that is asked twenty times of twenty columns finds something in any data. So the chance of a
false alarm is spent: each look has its part of alpha, and each column its part of that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from everlearn.base import Floats, InputError, Json

EXPECTED = 10.0
"""Categories expected less often than this in a sample are taken together."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far two samples of one column are apart.

    Args:
        column: its name.
        test: "ks" (numbers) or "chi2" (categories).
        effect: largest difference of the distribution functions, or total variation, 0 to 1.
        p: chance of so much or more, if both come from one distribution (an upper bound for "ks").
    """

    column: str
    test: str
    effect: float
    p: float

    def to_json(self) -> dict[str, Json]:
        return {name: getattr(self, name) for name in self.__slots__}


def alpha_at(alpha: float, look: int) -> float:
    """The part of alpha for the look of this number (1 is the first): 6 alpha / (π look)², whose
    sum over all looks is alpha.

    >>> round(sum(alpha_at(0.05, look) for look in range(1, 100_000)), 4)
    0.05
    """
    return alpha * 6.0 / (math.pi * look) ** 2


def ks_shift(column: str, reference: Floats, recent: Floats) -> Shift:
    """The two-sample test of Kolmogorov and Smirnov, for numbers.

    The bound of p is that of Wei & Dudley 2012, "Two-sample Dvoretzky–Kiefer–Wolfowitz
    inequalities", theorem 1: it holds for samples of any equal size from 4, and for values that
    repeat (which make the difference smaller only).

    Args:
        reference, recent: (n,) and (m,) values. NaN, for missing ones, are taken as one value below
            all others, so that more or fewer of them are a shift as well.

    Raises:
        InputError: a sample is empty.
    """
    if len(reference) == 0 or len(recent) == 0:
        raise InputError(f"{column}: a sample to compare is empty")
    a, b = (np.sort(np.where(np.isnan(x), -np.inf, x)) for x in (reference, recent))
    every = np.concatenate([a, b])
    above = np.searchsorted(a, every, side="right") / len(a)
    apart = above - np.searchsorted(b, every, side="right") / len(b)
    effect = float(np.abs(apart).max())
    size = len(a) * len(b) / (len(a) + len(b))
    return Shift(column, "ks", effect, min(1.0, 2.16863 * math.exp(-2.0 * size * effect**2)))


def category_shift(column: str, reference: Sequence[str], recent: Sequence[str]) -> Shift:
    """The chi-square test of homogeneity (Pearson 1911), for categories; rare ones are one.

    Args:
        reference, recent: the category of each row.

    Raises:
        InputError: a sample is empty.
    """
    if not reference or not recent:
        raise InputError(f"{column}: a sample to compare is empty")
    a, b = Counter(reference), Counter(recent)
    smaller = min(len(reference), len(recent)) / (len(reference) + len(recent))
    counts: list[tuple[int, int]] = []
    rest = [0, 0]
    for name in sorted(a.keys() | b.keys()):
        if (a[name] + b[name]) * smaller < EXPECTED:
            rest = [rest[0] + a[name], rest[1] + b[name]]
        else:
            counts.append((a[name], b[name]))
    if sum(rest) * smaller >= EXPECTED or not counts:
        counts.append((rest[0], rest[1]))
    table = np.array(counts, np.float64)
    table = table[table.sum(axis=1) > 0.0]
    if len(table) < 2:
        return Shift(column, "chi2", 0.0, 1.0)
    shares = table / table.sum(axis=0)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    from scipy.special import chdtrc

    effect = float(0.5 * np.abs(shares[:, 0] - shares[:, 1]).sum())
    return Shift(column, "chi2", effect, float(chdtrc(len(table) - 1, statistic)))


def shifts(
    reference: Mapping[str, Sequence[Json]], recent: Mapping[str, Sequence[Json]]
) -> list[Shift]:
    """How far each column of the reference is from the recent one, by the test that suits it.

    Args:
        reference, recent: column → its values, None where they are missing; numbers, texts,
            booleans. A column of which the recent rows have nothing has only missing ones.
    """
    found: list[Shift] = []
    rows = max((len(values) for values in recent.values()), default=1)
    for column in sorted(reference):
        old = reference[column]
        new = recent.get(column, [None] * rows)
        if any(_is_number(v) for v in old) and all(v is None or _is_number(v) for v in old):
            found.append(ks_shift(column, _numbers(old), _numbers(new)))
        elif any(v is not None for v in old):
            found.append(category_shift(column, _names(old), _names(new)))
    return found


def surely(found: Sequence[Shift], alpha: float, effect: float) -> list[Shift]:
    """The shifts that are significant though so many were looked at (Bonferroni), and large; the
    largest first.

    Args:
        alpha: chance that any is found where there is none.
        effect: a smaller one does not matter, however sure it is.
    """
    sure = [one for one in found if one.p <= alpha / len(found) and one.effect >= effect]
    return sorted(sure, key=lambda one: -one.effect)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values: Sequence[Json]) -> Floats:
    return np.array([float(v) if _is_number(v) else np.nan for v in values], np.float64)


def _names(values: Sequence[Json]) -> list[str]:
    return [f"{type(v).__name__} {v}" for v in values]
