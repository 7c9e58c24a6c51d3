"""From log joint densities to probabilities."""

from __future__ import annotations

import math

from everlearn.base import Floats
from everlearn.learners.native.compile import kernel


@kernel
def normalise(out: Floats, row: int, counts: Floats) -> None:
    """Turn the log joint densities of one row of (m, k) into probabilities that sum to 1; those of
    classes of no count (k,) are not looked at, and become 0."""
    highest = -math.inf
    for c in range(len(counts)):
        if counts[c] > 0.0:
            highest = max(highest, out[row, c])
    total = 0.0
    for c in range(len(counts)):
        out[row, c] = math.exp(out[row, c] - highest) if counts[c] > 0.0 else 0.0
        total += out[row, c]
    for c in range(len(counts)):
        out[row, c] /= total
