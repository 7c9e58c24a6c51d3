"""Learn when there is much to learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from everlearn.base import Decision, SpecError
from everlearn.jobs.triggers.facts import Facts


@dataclass(frozen=True, slots=True)
class Volume:
    """Learn when so many new labels are there.

    Args:
        n: labels.

    Raises:
        SpecError: fewer than one.
    """

    n: int
    happens_once: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SpecError(f"Volume takes a number of labels from 1, not {self.n!r}")

    def decide(self, facts: Facts) -> Decision:
        """Learns when `n` labels are new."""
        evidence = {"labels": facts.labels, "n": self.n}
        if facts.labels >= self.n:
            return Decision("learn", f"{facts.labels:,} new labels, {self.n:,} asked for", evidence)
        return Decision("wait", f"{facts.labels:,} of {self.n:,} new labels", evidence)
