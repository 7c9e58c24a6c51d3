"""What forests of classes and of quantities have in common: members, draws, drift, threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from everlearn.base import Array, Floats, Hashes, Part, SpecError, State
from everlearn.learners.native.compile import inlined
from everlearn.learners.native.drift.adwin import PARAMETERS, adwin_begin, adwin_size
from everlearn.learners.native.estimator import Native
from everlearn.learners.native.loading import like
from everlearn.learners.native.random import generator, uniform

DRIFT_ROW, WARNING_ROW = 0, 1
"""Rows of a member's detectors."""

LEVELS = 20
"""Of the detectors: their windows hold up to 5 · 2**20 errors."""

SPARE, DRIFTS, WARNINGS, OWN = range(4)
"""Places in a member's tallies: whether its spare tree learns, how many drifts and warnings there
were, and two from `OWN` on for what a forest counts of a tree, all 0 when that begins."""

ROWS_DONE, MORE_ROOM, MORE_SPARE_ROOM, REPLACED = range(4)
"""Why a kernel returns: the last of them, because the spare tree is now the tree."""

PLACES = 256
"""Parts of the interval from 0 to 1, for each of which a table of Poisson numbers says where to
begin to look."""

FEW_ROWS = 64
"""So few rows are not worth a thread."""

STATE = ("detectors", "tallies", "draws")
"""State of a member beside its trees."""


@dataclass(slots=True)
class Member:
    """One tree of a forest, and what decides about it.

    Args:
        tree: what answers and learns.
        spare: what learns beside it after a warning, to replace it after a drift.
        detectors: (2, …) ADWINs of its errors.
        tallies: (5,) see `SPARE` … `OWN`.
        draws: (4,) generator of the weights of rows.
        arrays, spare_arrays: both trees as kernels take them.
    """

    tree: Any
    spare: Any
    detectors: Floats
    tallies: Floats
    draws: Hashes
    arrays: tuple[Array, ...] = ()
    spare_arrays: tuple[Array, ...] = ()


class Forest(Native):
    """Trees that differ, as each learns a row with a random weight and each leaf looks at random
    columns only, and that are replaced when they no longer fit."""

    trees: ClassVar[Any]
    """The module of its trees, with `begin_tree`, `larger_tree`, `packed` and so on."""

    n_models: int
    lambda_value: float
    drift_delta: float
    warning_delta: float
    n_jobs: int

    @property
    def n_drifts_(self) -> int:
        """How many trees were replaced so far."""
        return int(sum(member.tallies[DRIFTS] for member in self._members))

    @property
    def n_warnings_(self) -> int:
        """How many spare trees have begun so far."""
        return int(sum(member.tallies[WARNINGS] for member in self._members))

    def _forget(self) -> None:
        super()._forget()
        self._members: list[Member] = []

    def _begin_members(self, rule: Any, begin: Callable[..., Any], seed: int) -> None:
        """Make all trees anew, each by `begin(*seed)`."""
        self._rule, self._most_nodes = rule, rule.max_nodes
        self._table = poisson_table(float(self.lambda_value))
        self._members = [
            self._packed(
                Member(
                    begin(seed, number, 0),
                    begin(seed, number, 1),
                    begin_detectors(self.drift_delta, self.warning_delta),
                    np.zeros(OWN + 2),
                    generator(seed, number, 2),
                )
            )
            for number in range(self.n_models)
        ]

    def _packed(self, member: Member) -> Member:
        member.arrays = self.trees.packed(member.tree, self._rule)
        member.spare_arrays = self.trees.packed(member.spare, self._rule)
        return member

    def _votes(
        self,
        rows: int,
        shape: tuple[int, int],
        learn: Callable[[Member, Floats, int], tuple[int, int]],
    ) -> Iterator[Floats]:
        """What each member votes on the first rows, in the order of members.

        Args:
            rows: how many there are.
            shape: of a member's votes.
            learn: one member votes on and learns rows after the first that are done; returns how
                many are, and why no more.
        """

        def vote(member: Member) -> Floats:
            votes, done, why = np.empty(shape), 0, -1
            while why != ROWS_DONE:
                done, why = learn(member, votes, done)
                if why == MORE_ROOM:
                    member.tree = self.trees.larger_tree(member.tree, self._rule)
                elif why == MORE_SPARE_ROOM:
                    member.spare = self.trees.larger_tree(member.spare, self._rule)
                elif why == REPLACED:
                    member.tree, member.spare = member.spare, member.tree
                if why != ROWS_DONE:
                    self._packed(member)
            return votes

        return for_each(self.n_jobs, rows, vote, self._members)

    def _save(self) -> dict[str, Part]:
        limits = {"max_nodes": self._rule.max_nodes, "max_blocks": self._rule.max_blocks}
        parts = {"forest": Part(meta=limits)}
        for number, member in enumerate(self._members):
            arrays = {name: getattr(member, name).copy() for name in STATE}
            parts[f"member {number}"] = Part(arrays)
            parts[f"tree {number}"] = Part(self.trees.saved_tree(member.tree))
            parts[f"spare {number}"] = Part(self.trees.saved_tree(member.spare))
        return parts

    def _load(self, state: State) -> None:
        limits = dict(state["forest"].meta)  # of nodes there may be more than with all classes
        self._rule = self._rule._replace(
            max_nodes=min(int(limits["max_nodes"]), self._most_nodes),
            max_blocks=min(int(limits["max_blocks"]), self._rule.max_blocks),
        )
        load = self.trees.loaded_tree
        for number, member in enumerate(self._members):
            member.tree = load(member.tree, state[f"tree {number}"].arrays, self._rule)
            member.spare = load(member.spare, state[f"spare {number}"].arrays, self._rule)
            parameters, arrays = member.detectors[:, PARAMETERS], state[f"member {number}"].arrays
            for name in STATE:
                setattr(member, name, like(getattr(member, name), arrays[name], name))
            member.detectors[:, PARAMETERS] = parameters
            self._packed(member)


def for_each(
    n_jobs: int, rows: int, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """What a function returns for each tree of a forest, in their order; in so many threads (−1 is
    one for each processor) where there are enough rows."""
    threads = os.cpu_count() or 1 if n_jobs == -1 else n_jobs
    if threads == 1 or rows < FEW_ROWS:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(function, items)


def check_forest(forest: Forest) -> None:
    """Raises `SpecError` for a parameter that is out of its range."""
    for name, lowest in (("n_models", 1), ("n_jobs", -1)):
        value = getattr(forest, name)
        if not isinstance(value, int | np.integer) or not lowest <= value <= 10_000:
            raise SpecError(f"{name}={value!r}; it is a whole number from {lowest}")
    if forest.n_jobs == 0:
        raise SpecError("n_jobs=0; it is a whole number from 1, or -1 for all processors")
    for name, most in (("lambda_value", 100.0), ("drift_delta", 1.0), ("warning_delta", 1.0)):
        value = getattr(forest, name)
        if not isinstance(value, int | float | np.number) or not 0.0 < value <= most:
            raise SpecError(f"{name}={value!r}; it is a number above 0 and up to {most:g}")


def chosen_features(max_features: Any, columns: int) -> int:
    """How many of so many columns a leaf looks at: 0 for all of them.

    Raises:
        SpecError: it is none of the choices.
    """
    number: float
    if max_features is None:
        number = columns
    elif max_features == "sqrt":
        number = math.sqrt(columns)
    elif max_features == "log2":
        number = math.log2(max(columns, 1))
    elif isinstance(max_features, float | np.floating) and 0.0 < max_features <= 1.0:
        number = float(max_features) * columns
    elif isinstance(max_features, int | np.integer) and max_features >= 1:
        number = int(max_features)
    else:
        raise SpecError(
            f"max_features={max_features!r}; it is 'sqrt', 'log2', a share above 0.0 and up to 1.0,"
            " a whole number from 1, or None for all"
        )
    rounded = max(1, math.floor(number + 0.5))
    return 0 if rounded >= columns else rounded


def poisson_table(mean: float) -> Floats:
    """What `draw` looks up: where to begin for each of `PLACES` parts of the interval from 0 to 1,
    then the chance of 0, of up to 1, of up to 2, …"""
    below: list[float] = []
    chance, total = math.exp(-mean), 0.0
    while total + chance > total or len(below) < mean:
        total += chance
        below.append(total)
        chance *= mean / len(below)
    below[-1] = math.inf
    begins = np.searchsorted(below, np.arange(PLACES) / PLACES, side="right")
    return np.append(begins.astype(np.float64), below)


@inlined
def draw(table: Floats, draws: Hashes) -> int:
    """A Poisson number of the table's mean (by inversion)."""
    at = uniform(draws)
    number = int(table[int(at * PLACES)])
    while at >= table[PLACES + number]:
        number += 1
    return number


def begin_detectors(drift_delta: float, warning_delta: float) -> Floats:
    """(2, …) the detectors of one tree."""
    detectors = np.zeros((2, adwin_size(levels=LEVELS)))
    adwin_begin(detectors, DRIFT_ROW, float(drift_delta), 32, 5, 5, 10)
    adwin_begin(detectors, WARNING_ROW, float(warning_delta), 32, 5, 5, 10)
    return detectors
