"""Which arm answers for a key: always the same one, while its share only grows."""

from __future__ import annotations

from blake3 import blake3


def digest_of(salt: str, key: str) -> int:
    """63 bits that stand for a key in one rollout, as if drawn by chance.

    Args:
        salt: of the rollout: another one draws anew.
        key: the entity that is asked about.
    """
    return int.from_bytes(blake3(f"{salt}\0{key}".encode()).digest(8), "big") >> 1


def is_candidates(digest: int, share: float) -> bool:
    """Whether the candidate answers for the key of a digest. With a larger share it answers for the
    same keys and for more; nobody who has met it goes back to the champion.

    Args:
        share: of the keys, from 0 to 1.
    """
    return digest < share * 2.0**63
