"""How unusual each row is, by how many rows of the last window fell into the same half-spaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from everlearn.base import Array, Floats, Hashes, InputError, Part, SpecError, State
from everlearn.learners.native.compile import kernel
from everlearn.learners.native.half_space_forest import Forest, build, new_forest, score
from everlearn.learners.native.regressor import Regressor
from everlearn.learners.native.row_window import (
    LARGEST,
    Window,
    empty_window,
    fill,
    is_full,
    joined,
    loaded,
    move,
    saved,
    widths,
)
from everlearn.learners.native.rows import Rows, Shape


class HalfSpaceTrees(Regressor):
    """Half-space trees, for anomalies in a stream without a target.

    Each tree halves the space again and again, in the middle of the range of a column drawn at
    random, wherever there are many rows of the last complete window. A row is scored by the parts
    it falls into: from 0 (where many rows are close together) to 1 (where there was none). When
    the latest window is full it takes over, and the trees are those of its rows. Before the first
    is full all scores are 0.

    The range of a column is where the middle 90 % of the window's values are, and half as much
    again on either side, so that none need be known, single huge values do no harm, and ranges
    follow a drift; every tree widens and shifts it at random. Categories are placed by a hash that
    each tree draws anew, so that rare ones and new ones come into parts with few rows. What is
    missing goes with the heavier half.

    The paper adds up masses over the trees; here their logarithms are, which finds more anomalies
    and gives scores that can be compared. It also counts rows node by node as they come; here they
    are counted when the window is full, which gives the same masses, and only where they matter.
    A row of weight 2 is that row twice.

    Args:
        n_trees: number of trees.
        depth: how often each tree halves the space at most.
        window: rows of a window: it is full when its rows weigh this much, or are this many.
        limits: (low, high) of all numbers, or a pair for each; None to take them from the window.
        nominal: columns of X that are categories.
        seed: of the trees.

    Raises:
        SpecError: a parameter that cannot be.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(1000, 3))
        >>> model = HalfSpaceTrees(seed=1).fit(X)
        >>> model.score_samples([[0, 0, 0], [2, 2, 2], [9, 9, -9]]).round(2)
        array([0.36, 0.68, 0.92])

    Tan, Ting & Liu 2011, "Fast anomaly detection for streaming data", sections 3 and 4.
    """

    kind = "transformer"  # type: ignore[assignment]
    targeted = False
    times = "phases"

    def __init__(
        self,
        *,
        n_trees: int = 25,
        depth: int = 15,
        window: int = 250,
        limits: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
        nominal: tuple[int, ...] = (),
        seed: int | None = None,
    ) -> None:
        self.n_trees = n_trees
        self.depth = depth
        self.window = window
        self.limits = limits
        self.nominal = nominal
        self.seed = seed

    def score_samples(self, X: Any) -> Floats:
        """(n_samples,) how unusual each row is, from 0 to 1; the same as `predict`."""
        return self.predict(X)

    def merge(self, others: Sequence[Self]) -> Self:
        """One whose reference is the rows of all references together, and whose latest window is
        that of all latest ones. It goes on with this one's seed.

        Raises:
            InputError: their other parameters differ, or the columns of the rows that they learned.
        """
        made = self.clone().load(self.save())
        begun = [one for one in (self, *others) if one._shape is not None]
        if not begun:
            return made
        plans = {repr(one.get_params() | {"seed": None}) for one in (self, *begun)}
        if len(plans) > 1:
            raise InputError(f"what is merged has other parameters: {sorted(plans)}")
        names = {tuple(one._feature_names or ()) for one in begun} - {()}
        if any(one._shape != begun[0]._shape for one in begun) or len(names) > 1:
            raise InputError("learners of rows with different columns cannot be merged")
        if made._shape is None:
            made.load(begun[0].save())
        made._learned = sum(one._learned for one in begun)
        made._feature_names = [*names.pop()] if names else None
        made._reference = joined([one._reference for one in begun], self.window)
        made._latest = joined([one._latest for one in begun], self.window)
        if is_full(made._latest, float(self.window)):
            made._reference = made._latest
            made._latest = empty_window(self.window, *widths(made._latest))
        made._rebuild()
        return made

    # --- inside --------------------------------------------------------------------------------

    def _begin(self, shape: Shape, seed: int) -> None:
        for option, most in (("n_trees", 2**16), ("depth", 60), ("window", 2**24)):
            value = getattr(self, option)
            if not isinstance(value, int) or not 1 <= value <= most:
                raise SpecError(
                    f"HalfSpaceTrees({option}=) is a whole number from 1 to {most}, not {value!r}"
                )
        dense = shape.numbers + shape.times
        if dense + shape.categories == 0:
            raise SpecError("HalfSpaceTrees has no columns to learn from; check the Schema")
        self._ranges = np.tile([0.0, 1.0], (dense, 1))
        if self.limits is not None:
            self._ranges[: shape.numbers] = _limits(self.limits, shape.numbers)
        self._found = 0 if self.limits is not None else shape.numbers  # columns of unknown range
        self._forest = new_forest(self.n_trees, self.depth, dense, seed)
        self._latest = empty_window(self.window, dense, shape.categories)
        self._reference = empty_window(self.window, dense, shape.categories)

    def _learn(self, rows: Rows, y: Array, weight: Floats, out: Floats) -> None:
        # as a plain tuple, which is handed over faster
        state = (*self._latest, *self._reference, *self._forest, self._ranges)
        settings = self._found, self.depth, float(self.window)
        _learn(rows.dense(), rows.categories, weight, state, settings, out)

    def _predict(self, rows: Rows, out: Floats) -> None:
        _predict(rows.dense(), rows.categories, (*self._reference, *self._forest), out)

    def _save(self) -> dict[str, Part]:
        return {"reference": saved(self._reference), "latest": saved(self._latest)}

    def _load(self, state: State) -> None:
        self._reference, self._latest = (
            joined([loaded(state[name], empty)], self.window)
            for name, empty in (("reference", self._reference), ("latest", self._latest))
        )
        if is_full(self._latest, float(self.window)):
            raise InputError(f"the latest window is full, which window={self.window} cannot be")
        self._rebuild()

    def _rebuild(self) -> None:
        build(self._reference, self._forest, self._ranges, self._found, self.depth)


def _limits(limits: Any, numbers: int) -> Floats:
    """(p, 2) lowest and highest value of each number."""
    pairs = np.array(limits, np.float64)
    if pairs.shape == (2,):
        pairs = np.tile(pairs, (numbers, 1))
    if pairs.shape != (numbers, 2) or not (pairs[:, 0] < pairs[:, 1]).all():
        raise SpecError(
            f"HalfSpaceTrees(limits=) is (low, high), or such a pair for each of the {numbers}"
            f" numbers, not {limits!r}"
        )
    return np.clip(pairs, -LARGEST, LARGEST)


@kernel
def _learn(
    X: Floats,
    categories: Hashes,
    weight: Floats,
    state: Any,
    settings: tuple[int, int, float],
    out: Floats,
) -> None:
    """Score rows until the latest window is full, then let it take over, and so on."""
    latest, reference, forest = Window(*state[:4]), Window(*state[4:8]), Forest(*state[8:14])
    found, depth, size = settings
    row, left, scored = 0, 0.0, 0
    while row < len(X):
        row, left = fill(latest, X, categories, weight, row, left, size)
        stop = min(row + 1 if left > 0.0 else row, len(out))
        score(X, categories, scored, stop, reference, forest, out)
        scored = max(scored, stop)
        if is_full(latest, size):
            move(latest, reference)
            build(reference, forest, state[14], found, depth)


@kernel
def _predict(X: Floats, categories: Hashes, state: Any, out: Floats) -> None:
    score(X, categories, 0, len(X), Window(*state[:4]), Forest(*state[4:10]), out)
