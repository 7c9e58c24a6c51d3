"""Whether arms get the share of traffic that they should: if not, what they are compared by is not
the same traffic, and no comparison holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class TrafficRatio:
    """A test that may be looked at after every request (Lindon & Malek 2022, "Anytime-valid
    inference for multinomial count data", section 2): the chance that it ever rejects while shares
    are as they should is at most alpha.

    The evidence against a share is how much likelier the counts are under shares drawn from a beta
    distribution around it than under it; evidence of periods with different shares is multiplied.

    Args:
        evidence: logarithm of the product over periods that ended.
        share: of the candidate, in the present period.
        candidate, champion: requests in the present period.
    """

    share: float
    evidence: float = 0.0
    candidate: int = 0
    champion: int = 0

    STRENGTH = 200.0
    """How close to the share the alternatives lie: as after so many requests."""

    def seen(self, candidate: int, champion: int) -> Self:
        """After more requests of each arm."""
        return type(self)(
            self.share, self.evidence, self.candidate + candidate, self.champion + champion
        )

    def with_share(self, share: float) -> Self:
        """A new period, with another share."""
        return type(self)(share, self.log_evidence)

    @property
    def log_evidence(self) -> float:
        """The logarithm of how much likelier the counts are if shares are not as they should."""
        if not 0.0 < self.share < 1.0:
            return self.evidence
        a, b = self.STRENGTH * self.share, self.STRENGTH * (1.0 - self.share)
        here = _log_beta(a + self.candidate, b + self.champion) - _log_beta(a, b)
        here -= self.candidate * math.log(self.share) + self.champion * math.log1p(-self.share)
        return self.evidence + here

    def differs(self, alpha: float) -> bool:
        """Whether shares are not as they should, with a chance of error of alpha over all looks."""
        return self.log_evidence >= -math.log(alpha)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
