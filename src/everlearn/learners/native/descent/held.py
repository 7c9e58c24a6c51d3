"""The weights of a linear model held near to where they were: by their Fisher information, or all
alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from everlearn.base import Floats, Hashes, InputError, Ints, Json, Part
from everlearn.learners.native.descent.holding import learn_held
from everlearn.learners.native.descent.weights import memories

Arrays = tuple[Floats, Floats, Hashes, Ints, Ints, Floats]
"""The fields of `Rows`."""


class HeldWeights:
    """Importances and anchors of the weights of one linear model, and what is found for the next.

    After each increment the information F of its rows, the mean over them, joins what is held: with
    decay = 1 the quadratic penalties of all increments are kept as one, with the F-mean of their
    anchors; below 1 importances become decay · F + F of the increment, around the newest weights.

    Args:
        name: of the method, which its states have.
        strength: λ of the penalty ½ λ Σ F (w − anchor)² beside the loss of each row.
        decay: what is left of earlier importances with each increment.
        fisher: whether importances are Fisher information; else all weights matter alike, 1, and
            the anchors are where they were when the last increment was over.
    """

    def __init__(self, name: str, strength: float, *, decay: float = 1.0, fisher: bool) -> None:
        self.name, self.strength = name, strength
        self._decay, self._fisher = decay, fisher
        self._scores = 0
        self._dense: Floats = np.zeros((0, 0))
        self._records: Floats = np.zeros((0, 1))

    def begin(self, model: Any) -> None:
        """Hold nothing of a model that has learned nothing yet, or that begins anew."""
        self._scores, width = model.weights.shape
        self._dense = np.zeros((3 * self._scores + 1, width))
        self._records = np.zeros((len(model.table), 3 * self._scores + 1))

    def learn(
        self, arrays: Arrays, y: Floats, weight: Floats, block: Floats, table: Floats,
        out: Floats,
    ) -> None:  # fmt: skip
        """Learn rows with the penalty; arguments are those of `kernels.learn`."""
        learn_held(
            *arrays, y, weight, block, table, out,
            self._dense, self._records, self.strength, self._fisher,
        )  # fmt: skip

    def grow(self, model: Any) -> None:
        """The model has scores for more classes: those that were there are held as they were. One
        score becomes minus and plus half of it, whose gradients are minus and plus its own."""
        old, k = self._scores, len(model.weights)
        dense, records = self._dense, self._records
        self._scores = k
        self._dense = np.zeros((3 * k + 1, dense.shape[1]))
        self._dense[-1] = dense[-1]
        self._records = np.zeros((len(records), 3 * k + 1))
        self._records[:, -1] = records[:, -1]
        sides = ((-0.5, 0), (0.5, 1)) if old == 1 else ()
        for kind in range(3):
            if sides:
                for half, place in sides:
                    factor = half if kind == 1 else 1.0
                    self._dense[kind * k + place] = factor * dense[kind]
                    self._records[:, kind * k + place] = factor * records[:, kind]
            else:
                self._dense[kind * k : kind * k + old] = dense[kind * old : (kind + 1) * old]
                given = records[:, kind * old : (kind + 1) * old]
                self._records[:, kind * k : kind * k + old] = given

    def settle(self, model: Any) -> None:
        """An increment is over: its information is held on to from here on. No rows, no change.

        Args:
            model: with all penalties applied.
        """
        k, total = self._scores, float(self._dense[-1, 0])
        if not total > 0.0:
            return
        (weights, *_), (hashed, *_) = memories(model)
        ours = self._records.T
        occurred = ours[3 * k]
        for o in range(k):
            self._join(self._dense, o, weights[o], self._dense[2 * k + o] / total)
            each = np.divide(
                ours[2 * k + o], occurred, out=np.zeros(len(occurred)), where=occurred > 0.0
            )
            self._join(ours, o, hashed[o], each)
        self._dense[2 * k :] = 0.0
        self._records[:, 2 * k :] = 0.0

    def take_up(self, model: Any) -> None:
        """The model has learned without it, and is held from here on: to where its weights are by
        an anchor; by what they matter only once an increment has shown that."""
        self.begin(model)
        if not self._fisher and (model.weights.any() or model.table.any()):
            self._dense[-1, 0] = 1.0
            self.settle(model)

    def save(self) -> Part:
        """All of it; of records those that have anything but what all of them have alike."""
        alike = 0 if self._fisher else self._scores
        used = np.flatnonzero(self._records[:, alike:].any(axis=1))
        meta: Json = {"method": self.name, "fisher": self._fisher}
        arrays = {"dense": self._dense.copy(), "places": used, "records": self._records[used]}
        return Part(arrays, meta)

    def load(self, part: Part, model: Any) -> None:
        """Become what `save` saw, for a model of the same form.

        Raises:
            InputError: it is of another model.
        """
        self.begin(model)
        dense, places, records = (part.arrays[name] for name in ("dense", "places", "records"))
        fits = dense.shape == self._dense.shape
        fits = fits and records.shape == (len(places), self._records.shape[1])
        if not fits or (len(places) and not 0 <= places.min() <= places.max() < len(self._records)):
            raise InputError(
                f"what is held has shapes {dense.shape} and {records.shape}, which are not those "
                f"of the model, {self._dense.shape} and {self._records.shape}"
            )
        if part.meta["fisher"] != self._fisher:
            return self.take_up(model)  # what mattered alike says nothing of what matters
        self._dense[:] = dense
        if not self._fisher:  # a score's weights are held alike, wherever they are
            self._records[:, : self._scores] = dense[: self._scores, 0]
        self._records[places] = records
        return None

    def _join(self, held: Floats, o: int, now: Floats, found: Floats) -> None:
        """Take a score's new information into its importances and anchors, which are rows."""
        k = self._scores
        now = now + 0.0  # no −0: a state leaves out what is 0, and goes on from 0
        if not self._fisher:
            held[o], held[k + o] = 1.0, now
            return
        before = self._decay * held[o]
        after = before + found
        if self._decay == 1.0:
            mean = np.divide(before * held[k + o] + found * now, after, where=after > 0.0,
                             out=now.copy())  # fmt: skip
            held[k + o] = mean
        else:
            held[k + o] = now
        held[o] = after
