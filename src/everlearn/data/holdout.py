"""Which rows are kept out of learning: a share of them, by a hash of the row's id.

The same id falls on the same side in every job and on every machine, so that no row that is judged
by was ever learned, and rows that come twice come twice to the same side.
"""

from __future__ import annotations

import numpy as np

from everlearn.base import Hashes
from everlearn.data.convert import Mask
from everlearn.data.hashing import mix

_SALT = np.uint64(0x5DEECE66D1CE4E5B)


def in_holdout(ids: Hashes, share: float) -> Mask:
    """(n,) whether a row is kept out.

    Args:
        ids: (n,) hashes of the row ids.
        share: of all rows, from 0 (none) to below 1.
    """
    if share <= 0.0:
        return np.zeros(len(ids), bool)
    return mix(ids ^ _SALT) < np.uint64(min(int(share * 2**64), 2**64 - 1))
