"""Whether classes come one after the other, and what cannot help against that.

In class-incremental learning old classes are missing where new ones are learned, and all have to
be told apart afterwards. A penalty on weights, or distillation, holds on to what old rows were
answered with; it never sees an old row beside a new one, so that nothing teaches it to tell them
apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from everlearn.base import Array, Ints
from everlearn.strategies.strategy import Strategy

ALONE = ("EWC", "SI", "MAS", "LwF", "Anchor")
"""Retentions that see no old rows."""

ABSENT, SURPRISING, CHANCE = 0.5, 0.3, 1e-6
"""Share of the known classes that new periods lack, from which on classes come one after the other;
by how much it exceeds what chance would leave out, which is much where periods are small; and how
likely, at most, chance makes classes and periods hang together as they do."""


@dataclass(frozen=True, slots=True)
class ClassOrder:
    """How the classes of a history come.

    Args:
        classes: how many there are.
        late: how many of them come first after the first period.
        absent: mean share, over the later periods, of the classes known before that they lack.
        expected: the same if each period's rows were drawn from all alike.
        chance: the p-value of classes and periods hanging together (Pearson's χ²).
    """

    classes: int
    late: int
    absent: float
    expected: float
    chance: float

    @property
    def incremental(self) -> bool:
        """Whether classes come one after the other."""
        surprising = self.absent - self.expected >= SURPRISING and self.chance <= CHANCE
        return self.late > 0 and self.absent >= ABSENT and surprising

    @property
    def why(self) -> str:
        """Why a penalty or distillation alone cannot help, and what to use instead."""
        return (
            f"{self.late} of {self.classes} classes come first after the first period, and later "
            f"periods lack {self.absent:.0%} of the classes that came before, so that no old row "
            "is ever learned beside a new one, and nothing teaches to tell old classes from new "
            "ones (class-incremental Split-MNIST, Hsu et al. 2018, table 2: EWC 19.8, SI 19.7, MAS "
            "19.5, LwF 24.2 % against 19.7 % without any and 95.6 % with 4,400 remembered rows); "
            "give it a memory, as in Strategy(memory=Reservoir(5_000), …)"
        )


def class_order(counts: Ints) -> ClassOrder:
    """How classes come.

    Args:
        counts: (p, k) rows of each class in each period, in their order.

    Example:
        >>> class_order(np.array([[90, 90, 0, 0], [0, 0, 90, 90]])).incremental
        True
        >>> class_order(np.array([[9, 9, 9, 9], [9, 9, 9, 9]])).incremental
        False
    """
    counts = np.asarray(counts)[np.asarray(counts).sum(axis=1) > 0]
    counts = counts[:, counts.sum(axis=0) > 0]
    if not counts.size:
        return ClassOrder(0, 0, 0.0, 0.0, 1.0)
    known = np.cumsum(counts, axis=0)[:-1] > 0
    present = counts[1:] > 0
    absent = _share(~present, known)
    frequency = counts.sum(axis=0) / counts.sum()
    chance = (1.0 - frequency)[None, :] ** counts[1:].sum(axis=1)[:, None]
    late = int(np.count_nonzero(counts[0] == 0))
    return ClassOrder(counts.shape[1], late, absent, _share(chance, known), _p_value(counts))


def count_classes(periods: Sequence[Array]) -> Ints:
    """(p, k) rows of each class in each period; a period is its rows' classes, as values."""
    if not periods:
        return np.zeros((0, 0), np.int64)
    names, codes = np.unique(np.concatenate(periods), return_inverse=True)
    ends = np.cumsum([len(one) for one in periods])[:-1]
    pieces = np.split(codes, ends)
    return np.array([np.bincount(one, minlength=len(names)) for one in pieces], np.int64)


def cannot_help(strategy: Strategy, order: ClassOrder) -> str:
    """Why a strategy cannot solve what classes that come one after the other ask for, and what to
    use instead; empty where it may.

    >>> from everlearn.strategies import EWC
    >>> order = ClassOrder(classes=10, late=8, absent=1.0, expected=0.0, chance=0.0)
    >>> cannot_help(Strategy(retention=EWC(100.0)), order)[:40]
    'EWC alone cannot help here: 8 of 10 clas'
    """
    name = type(strategy.retention).__name__
    if not order.incremental or name not in ALONE or strategy.start == "scratch":
        return ""
    if strategy.memory is not None and strategy.memory.ratio > 0:
        return ""
    return f"{name} alone cannot help here: {order.why}"


def _p_value(counts: Ints) -> float:
    """Of Pearson's test that classes and periods are independent."""
    from scipy.special import chdtrc

    alike = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    return float(chdtrc(freedom, ((counts - alike) ** 2 / alike).sum())) if freedom else 1.0


def _share(of: Array, where: Array) -> float:
    """The mean over rows of the mean of `of` where `where` is true."""
    total = where.sum(axis=1)
    rows = total > 0
    if not rows.any():
        return 0.0
    return float(((of * where).sum(axis=1)[rows] / total[rows]).mean())
