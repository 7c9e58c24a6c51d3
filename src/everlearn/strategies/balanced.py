"""As many rows of each class, however rare it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from everlearn.base import Array, Batch, Floats, Held, InputError, Ints, Json, State
from everlearn.strategies.block import BLOCK
from everlearn.strategies.held import HeldRows
from everlearn.strategies.strategy import share, whole


@dataclass(frozen=True, slots=True)
class Balanced:
    """A sample of n rows with classes as equal in number as the stream allows, uniform within each.

    Class-balancing reservoir sampling of Chrysakis & Moens, "Online continual learning from
    imbalanced data", ICML 2020, algorithm 1. Once n rows are held, a row of a class that never was
    the largest takes the place of a random row of the largest class; a row of another class takes
    that of a random row of its own, with probability (held of the class) / (offered of the class).

    >>> Balanced(5_000)
    Balanced(n=5000, ratio=1.0)

    Args:
        n: rows to hold.
        ratio: remembered rows drawn for each new one.

    Raises:
        SpecError: n is no whole number of at least 1, or the ratio is negative.
    """

    n: int
    ratio: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("Balanced(n=)", self.n))
        object.__setattr__(self, "ratio", share("Balanced(ratio=)", self.ratio))

    def describe(self) -> str:
        """The memory in words."""
        return f"a sample of {self.n:,} rows with classes balanced"

    def open(self, state: State | None = None) -> Held:
        """An empty memory, or the one that was saved.

        Raises:
            InputError: the state is of another kind of memory.
        """
        return HeldBalanced(self.n, self.ratio, state)


@dataclass(slots=True)
class _Class:
    """One class: rows offered so far, whether it ever was the largest, and its rows (a rank held,
    or rows held + a number aside), in order of arrival when an increment begins."""

    offered: int = 0
    full: bool = False
    members: list[int] = field(default_factory=list)


class HeldBalanced(HeldRows):
    """A `Balanced` in use. Its classes are the values of y, in order of appearance."""

    kind: ClassVar[str] = "balanced"

    def __init__(self, n: int, ratio: float, state: State | None) -> None:
        self._n = n
        self._codes_of: dict[str | float, int] = {}  # value of y → number of its class
        self._kinds: list[_Class] = []
        self._total = 0  # rows that have a place
        self._begun = False  # whether the members are listed
        super().__init__(ratio, state)

    def offer(self, batch: Batch, loss: Floats, generator: np.random.Generator) -> None:
        if not len(batch):
            return
        if batch.y is None:
            raise InputError("Balanced() needs a target: name it with Schema(target=)")
        self._begin()
        codes = self._codes(batch.y.tolist())
        count = self._count(codes)
        uniform = generator.random((len(batch), 2))
        start = len(self._held) + len(self._aside)
        taken: list[int] = []
        for row in self._candidates(codes, count, uniform[:, 0]).tolist():
            kind = self._kinds[codes[row]]
            if self._place(kind, start + len(taken), int(count[row]), uniform[row]):
                taken.append(row)
        self._aside.append(batch.take(np.array(taken, np.int64)))
        if len(self._aside) > 2 * self._n + BLOCK:
            self._drop_replaced()

    def _begin(self) -> None:
        """List the members of each class, at the first offer of an increment."""
        if self._begun:
            return
        for kind in self._kinds:
            kind.members = []
        for rank, value in enumerate(self._held.column("y").tolist()):
            self._kinds[self._codes_of[value]].members.append(rank)
        self._total, self._begun = len(self._held), True

    def _codes(self, values: list[str | float]) -> Ints:
        """(n,) the number of each row's class; new classes get the next ones."""
        for value in dict.fromkeys(values):
            if value not in self._codes_of:
                self._codes_of[value] = len(self._kinds)
                self._kinds.append(_Class())
                if len(self._kinds) > self._n:
                    raise InputError(
                        f"Balanced(n={self._n}) met more classes than the rows that it may hold "
                        f"(the last is {value!r}); use Reservoir for a target that is a quantity"
                    )
        return np.array([self._codes_of[value] for value in values], np.int64)

    def _count(self, codes: Ints) -> Ints:
        """(n,) how many rows of its class were offered up to each row, itself included."""
        offered = np.array([kind.offered for kind in self._kinds])
        order = np.argsort(codes, kind="stable")
        sizes = np.bincount(codes, minlength=len(offered))
        count = np.empty(len(codes), np.int64)
        count[order] = np.arange(1, len(codes) + 1) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        for kind, size in zip(self._kinds, sizes.tolist(), strict=True):
            kind.offered += size
        count += offered[codes]
        return count

    def _candidates(self, codes: Ints, count: Ints, uniform: Floats) -> Ints:
        """The rows that may be taken: the members of a full class never become more, so most of its
        rows can be passed over at once."""
        if self._total < self._n:
            return np.arange(len(codes))
        bound = np.array([len(kind.members) if kind.full else np.inf for kind in self._kinds])
        return np.flatnonzero(uniform * count <= bound[codes])

    def _place(self, kind: _Class, row: int, count: int, uniform: Floats) -> bool:
        """Whether a row gets a place, by algorithm 1."""
        if self._total < self._n:
            kind.members.append(row)
            self._total += 1
            if self._total == self._n:
                self._mark_largest()
            return True
        if kind.full:
            if uniform[0] * count > len(kind.members) or not kind.members:
                return False
            kind.members[int(uniform[1] * len(kind.members))] = row
            return True
        largest = self._mark_largest()
        loser = largest[int(uniform[0] * len(largest))].members
        loser[int(uniform[1] * len(loser))] = loser[-1]
        loser.pop()
        kind.members.append(row)
        self._mark_largest()
        return True

    def _mark_largest(self) -> list[_Class]:
        """The classes with the most members, which are full from now on."""
        most = max(len(kind.members) for kind in self._kinds)
        largest = [kind for kind in self._kinds if len(kind.members) == most]
        for kind in largest:
            kind.full = True
        return largest

    def _settle(self) -> None:
        if not self._begun:
            return
        kept, held = self._placed(), len(self._held)
        self._held.keep(kept[:held])
        self._aside.keep(kept[held:])
        self._aside.compact()
        self._held.extend(self._aside)
        self._begun = False

    def _placed(self) -> Array:
        """(held + aside,) whether a row has a place."""
        kept = np.zeros(len(self._held) + len(self._aside), bool)
        for kind in self._kinds:
            kept[kind.members] = True
        return kept

    def _drop_replaced(self) -> None:
        """Let go of rows aside that others took the place of, in a long increment."""
        kept, held = self._placed()[len(self._held) :], len(self._held)
        number = (np.cumsum(kept) - 1 + held).tolist()
        for kind in self._kinds:
            kind.members = [m if m < held else number[m - held] for m in kind.members]
        self._aside.keep(kept)
        self._aside.compact()

    def _own_state(self) -> tuple[Json, dict[str, Array]]:
        classes = [
            [v, self._kinds[k].offered, self._kinds[k].full] for v, k in self._codes_of.items()
        ]
        if not self._begun:
            return {"classes": classes}, {}
        lengths = [len(kind.members) for kind in self._kinds]
        members = [m for kind in self._kinds for m in kind.members]
        arrays: dict[str, Array] = {"members": np.array(members, np.int64)}
        return {"classes": classes, "lengths": lengths}, arrays

    def _restore_own(self, meta: Json, arrays: Mapping[str, Array]) -> None:
        self._codes_of = {value: code for code, (value, _, _) in enumerate(meta["classes"])}
        self._kinds = [_Class(int(count), bool(full)) for _, count, full in meta["classes"]]
        if "lengths" not in meta:
            return
        members, start = arrays["members"].tolist(), 0
        for kind, length in zip(self._kinds, meta["lengths"], strict=True):
            kind.members = members[start : start + length]
            start += length
        self._total, self._begun = start, True
