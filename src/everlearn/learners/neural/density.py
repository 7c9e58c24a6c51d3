"""What rows look like, so that others can be told from them: probabilistic PCA."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from everlearn.base import InputError, Part
from everlearn.learners.neural.tensors import part_of, tensors_of

FLOOR = 1e-3
"""The least variance of a direction, as a share of the mean one: rows seldom are as alike as a
sample of them."""


class Density:
    """A normal distribution with `directions` variances of its own and one for all others.

    Tipping, Bishop, "Probabilistic principal component analysis", JRSS B 61 (1999), section 3.2.
    Two samples are merged by their means and covariances, of which only that is kept.

    Args:
        directions: at most.
    """

    def __init__(self, directions: int) -> None:
        self._most, self.rows = directions, 0.0
        self.mean = self.basis = self.variances = torch.zeros(0)
        self.noise = 0.0

    def add(self, x: Tensor, rows: int) -> None:
        """Learn from a sample, (n, d), of so many rows."""
        x = x.double()
        n, d = x.shape
        mean = x.mean(0)
        pieces = [(x - mean) * math.sqrt(rows / n)]
        whole = self.rows + rows
        if self.rows:
            own = (self.rows * (self.variances - self.noise)).clamp(min=0).sqrt()
            between = math.sqrt(self.rows * rows / whole) * (mean - self.mean)
            pieces += [own[:, None] * self.basis, between[None]]
            mean = (self.rows * self.mean + rows * mean) / whole
        stacked = torch.cat(pieces) / math.sqrt(whole)
        small = stacked.shape[0] <= d  # its products with itself, whichever way is smaller
        values, vectors = torch.linalg.eigh(stacked @ stacked.T if small else stacked.T @ stacked)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        kept = min(self._most, d, int((values > 1e-12 * values[0].clamp(min=1e-300)).sum()))
        top = vectors[:, :kept]
        basis = (stacked.T @ top / values[:kept].sqrt()).T if small else top.T
        everywhere = self.noise * self.rows / whole
        rest = max(0.0, float(values[kept:].sum()))
        noise = everywhere + (rest / (d - kept) if d > kept else 0.0)
        floor = max(FLOOR * (float(values.sum()) + d * everywhere) / d, 1e-12)
        self.noise = max(noise, floor)
        self.variances = (values[:kept] + everywhere).clamp(min=self.noise)
        self.mean, self.basis, self.rows = mean, basis.contiguous(), whole

    def of(self, x: Tensor) -> Tensor:
        """(n,) logarithms of the density at (n, d) rows, but for a constant, in float64."""
        away = x.double() - self.mean
        along = away @ self.basis.T
        rest = (away.square().sum(1) - along.square().sum(1)).clamp(min=0)
        left = len(self.mean) - len(self.variances)
        size = self.variances.log().sum() + left * math.log(self.noise)
        return -0.5 * ((along.square() / self.variances).sum(1) + rest / self.noise + size)

    def save(self) -> Part:
        """Mean, directions and variances."""
        tensors = {"mean": self.mean, "basis": self.basis, "variances": self.variances}
        return part_of(tensors, {"rows": self.rows, "noise": self.noise})

    def load(self, part: Part, device: torch.device) -> None:
        """The inverse of `save`. Raises `InputError` for a part of another kind."""
        if set(part.arrays) != {"mean", "basis", "variances"}:
            raise InputError(f"the state has {sorted(part.arrays)}, which is no density")
        found = {name: tensor.to(device) for name, tensor in tensors_of(part).items()}
        self.mean, self.basis, self.variances = found["mean"], found["basis"], found["variances"]
        self.rows, self.noise = float(part.meta["rows"]), float(part.meta["noise"])
