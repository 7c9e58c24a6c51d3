"""Which source of labels contradicts the served model surely more often than the others do.

Sources judge different rows: one only frauds, one only what was uncertain. So they are compared
among rows with the same label and about the same confidence of the answer, and the differences are
pooled (the risk difference of Mantel and Haenszel, with Sato's variance). Each contradiction counts
by how sure the answer was, as 1 − p(label) does: where a model only guesses, its answer says little
of who lies, and a source that flips labels shows where it is sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from everlearn.base import Decision, Floats

FEW = 50
"""Labels below which nothing is said of a source."""

CONFIDENCES = (0.6, 0.7, 0.8, 0.9, 0.97)
"""Where the confidence of an answer is cut into levels."""

LEAST = 0.02
"""What a contradiction counts at least."""


@dataclass(frozen=True, slots=True)
class Contradicted:
    """One label beside the answer that it judges.

    Args:
        source: who gave the label.
        label: the class; "" for numbers.
        wrong: whether the answer was another.
        confidence: the answer's probability.
    """

    source: str
    label: str
    wrong: bool
    confidence: float


class Sources:
    """How often each source contradicts, by stratum.

    Args:
        seen: all labels that have an answer.
    """

    def __init__(self, seen: Sequence[Contradicted]) -> None:
        self.names = sorted({one.source for one in seen})
        levels = np.searchsorted(CONFIDENCES, [one.confidence for one in seen], side="right")
        strata: dict[tuple[str, int], int] = {}
        places = [
            strata.setdefault((one.label, level), len(strata))
            for one, level in zip(seen, levels.tolist(), strict=True)
        ]
        rows = {name: place for place, name in enumerate(self.names)}
        self._counts = np.zeros((len(rows), len(strata)))
        self._wrong = np.zeros((len(rows), len(strata)))
        sure = np.zeros(len(strata))
        for one, place in zip(seen, places, strict=True):
            self._counts[rows[one.source], place] += 1.0
            self._wrong[rows[one.source], place] += one.wrong
            sure[place] += one.confidence
        sure /= self._counts.sum(axis=0)
        others = max(len({one.label for one in seen}) - 1, 1)
        # (strata,) confidence, beyond that of any other class
        self._counts_as = np.maximum(sure - (1.0 - sure) / others, LEAST)

    def suspects(self, alpha: float, margin: float) -> dict[str, Decision]:
        """The sources that surely contradict more than the others, the worst first; one that is
        found is no longer among the others.

        Args:
            alpha: chance that any honest source is among them.
            margin: the difference that is allowed.
        """
        found: dict[str, Decision] = {}
        candidates = [row for row in range(len(self.names)) if self._counts[row].sum() >= FEW]
        level = NormalDist().inv_cdf(1.0 - alpha / max(len(candidates), 1))
        left = list(range(len(self.names)))
        while len(left) > 1:
            judged = [(self._compare(row, left, level), row) for row in candidates if row in left]
            (excess, low, n), worst = max(judged, default=((0.0, -1.0, 0), -1), key=_lowest)
            if low <= margin:
                break
            left.remove(worst)
            name = self.names[worst]
            found[name] = Decision(
                "quarantine",
                f"labels of {name!r} contradict the model by {excess:.1%} of rows more often than "
                f"those of others (at least {low:.1%}, {n} labels)",
                {"excess": excess, "at_least": low, "labels": n, "alpha": alpha, "margin": margin},
            )
        return found

    def _compare(self, row: int, left: Sequence[int], level: float) -> tuple[float, float, int]:
        """How much more often a source contradicts than the others: estimate, lower bound, n."""
        others = [place for place in left if place != row]
        n, m = self._counts[row], self._counts[others].sum(axis=0)
        both = (n > 0) & (m > 0)
        if not both.any():
            return 0.0, -1.0, 0
        n, m, sure = n[both], m[both], self._counts_as[both]
        a, b = self._wrong[row][both], self._wrong[others].sum(axis=0)[both]
        weight: Floats = sure * n * m / (n + m)
        excess = float(np.sum(weight * (a / n - b / m)) / weight.sum())
        p_part = sure**2 * (n**2 * b - m**2 * a + n * m * (m - n) / 2) / (n + m) ** 2
        q_part = sure**2 * (a * (m - b) + b * (n - a)) / (2 * (n + m))
        # as if all were alike; never 0, where nobody contradicts
        p = (a + b + 0.5) / (n + m + 1.0)
        alike = np.sum(weight**2 * p * (1.0 - p) * (1.0 / n + 1.0 / m))
        variance = max(excess * p_part.sum() + q_part.sum(), alike) / weight.sum() ** 2
        return excess, excess - level * float(np.sqrt(variance)), int(n.sum())


def _lowest(judged: tuple[tuple[float, float, int], int]) -> float:
    return judged[0][1]
