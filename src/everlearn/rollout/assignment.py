"""Which arm answers for a key: always the same one, while its share only grows."""

from __future__ import annotations

from blake3 import blake3


def place_of(salt: str, key: str) -> float:
    """Where a key lies between 0 (included) and 1 (excluded), as if by chance.

    Args:
        salt: of one rollout: another rollout draws anew.
        key: the entity that is asked about.
    """
    text = f"{salt}\0{key}".encode()
    return int.from_bytes(blake3(text).digest(8), "big") / 2.0**64


def is_candidates(salt: str, key: str, share: float) -> bool:
    """Whether the candidate answers for a key. With a larger share it answers for the same keys
    and for more; nobody who has met it goes back to the champion.

    Args:
        share: of the keys, from 0 to 1.
    """
    return place_of(salt, key) < share
