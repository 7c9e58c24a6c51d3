"""Which arm answers for a key: always the same one, while its share only grows."""

from __future__ import annotations

from blake3 import blake3


def place_of(salt: str, key: str) -> float:
    """Where a key lies between 0 (included) and 1 (excluded), as if by chance.

    Args:
        salt: of one rollout: another rollout draws anew.
        key: the entity that is asked about.
    """
    return digest_of(salt, key) / 2.0**63


def digest_of(salt: str, key: str) -> int:
    """63 bits that stand for a key in one rollout."""
    return int.from_bytes(blake3(f"{salt}\0{key}".encode()).digest(8), "big") >> 1


def is_candidates(salt: str, key: str, share: float) -> bool:
    """Whether the candidate answers for a key. With a larger share it answers for the same keys
    and for more; nobody who has met it goes back to the champion.

    Args:
        share: of the keys, from 0 to 1.
    """
    return place_of(salt, key) < share
