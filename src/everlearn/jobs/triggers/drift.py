"""Learn when what is asked, answered or said has changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from everlearn.base import Decision, Json, SpecError
from everlearn.evaluation.shifts import Shift, alpha_at, shifts, surely
from everlearn.jobs.triggers.episodes import once_per_champion
from everlearn.jobs.triggers.facts import Answered, Facts, Given, Past

FEWEST = 50
"""Rows in the smallest window."""

SHOWN = 10
"""Shifts in the evidence."""

BLIND = "a change of the rule alone is not seen without labels"


@dataclass(frozen=True, slots=True)
class Drift:
    """Learn when features, outputs or labels are distributed otherwise than at first.

    The first `window` answers of a champion are its reference, and so are its first labels. Each
    further window is a look. Numbers are compared by the two-sample test of Kolmogorov and Smirnov,
    texts and booleans by chi-square (see `evaluation.shifts`). The chance of any false alarm while
    one version serves is at most alpha: it is divided over looks (`alpha_at`) and columns
    (Bonferroni). It fires once for a champion.

    It cannot see a changed rule under unchanged features, outputs and labels (Gama et al. 2014, "A
    survey on concept drift adaptation": "real" against "virtual" drift); `Performance`
    can.

    Args:
        alpha: chance of a false alarm while one version serves.
        window: answers (and labels) in a window, at least 50.
        effect: the smallest difference that matters, however sure it is: of the distribution
            functions of numbers, or total variation of categories; 0 to 1. 0.1 is about what a
            shift of numbers by a quarter of their standard deviation makes.
        columns: features to look at; None for all.

    Raises:
        SpecError: a figure that cannot be.
    """

    alpha: float = 0.05
    window: int = 500
    effect: float = 0.1
    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise SpecError(f"alpha={self.alpha!r}; it is between 0 and 1")
        if self.window < FEWEST:
            raise SpecError(f"window={self.window!r}; it is from {FEWEST}")
        if not 0.0 <= self.effect < 1.0:
            raise SpecError(f"effect={self.effect!r}; it is from 0 to below 1")
        if self.columns is not None:
            if isinstance(self.columns, str) or not self.columns:
                raise SpecError(f"columns={self.columns!r}; it is a list of names, or None")
            object.__setattr__(self, "columns", list(self.columns))

    def decide(self, facts: Facts) -> Decision:
        """Learns if the newest window differs surely and by enough."""
        return once_per_champion(facts, self._look)

    def _look(self, facts: Facts, past: Past) -> Decision:
        state = facts.state
        found = self._features(state, past) + self._labels(state, past)
        if not found:
            if "last" in state:
                return Decision.from_json(state["last"])
            return Decision("wait", f"insufficient data: no second window of {self.window} yet")
        state["look"] = state.get("look", 0) + 1
        decision = self._judged(found, state["look"])
        state["last"] = decision.to_json()
        return decision

    def _features(self, state: dict[str, Json], past: Past) -> list[Shift]:
        """How far features and outputs are from the reference; nothing before a window is full."""
        if "given" not in state:
            first = past.given(0, first=self.window)
            if len(first) < self.window:
                return []
            state["given"] = {"from": first[0].id, "upto": first[-1].id, "after": first[-1].id}
        mine = state["given"]
        recent = past.given(mine["after"], last=self.window)
        if len(recent) < self.window:
            return []
        mine["after"] = recent[-1].id
        reference = past.given(mine["from"] - 1, upto=mine["upto"])
        if not reference:  # it was erased
            del state["given"]
            return []
        return shifts(self._table(reference), self._table(recent))

    def _labels(self, state: dict[str, Json], past: Past) -> list[Shift]:
        """The same of the values of labels."""
        if past.head() < state.get("until", 0):  # a window cannot be full yet
            return []
        if "labels" not in state:
            first = past.answered(0, first=self.window)
            if len(first) < self.window:
                state["until"] = past.head() + self.window - len(first)
                return []
            begin, end = first[0].position, first[-1].position
            state["labels"] = {"from": begin, "upto": end, "after": end}
        mine = state["labels"]
        recent = past.answered(mine["after"], last=self.window)
        if len(recent) < self.window:
            state["until"] = past.head() + self.window - len(recent)
            return []
        mine["after"] = recent[-1].position
        reference = past.answered(mine["from"] - 1, upto=mine["upto"])
        if not reference:  # corrected or taken back, all of them
            del state["labels"]
            return []
        return shifts(_values(reference), _values(recent))

    def _table(self, rows: Sequence[Given]) -> dict[str, list[Json]]:
        """Column → values, of features and outputs."""
        names = dict.fromkeys(name for row in rows for name in row.features)
        if self.columns is not None:
            names = {name: None for name in names if name in self.columns}
        table = {name: [_plain(row.features.get(name)) for row in rows] for name in names}
        table["(output)"] = [_plain(row.output["value"]) for row in rows]
        if any(row.output["probabilities"] for row in rows):
            table["(largest probability)"] = [_largest(row.output) for row in rows]
        return table

    def _judged(self, found: list[Shift], look: int) -> Decision:
        moved = surely(found, alpha_at(self.alpha, look), self.effect)
        largest = sorted(found, key=lambda one: -one.effect)[:SHOWN]
        evidence = {
            "moved": [one.to_json() for one in moved[:SHOWN]],
            "largest": [one.to_json() for one in largest],
            "columns": len(found),
            "look": look,
            "alpha": alpha_at(self.alpha, look),
            "effect": self.effect,
        }
        if not moved:
            return Decision("wait", f"none of {len(found)} columns moved; {BLIND}", evidence)
        named = ", ".join(f"{one.column} by {one.effect:.2f}" for one in moved[:3])
        more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
        return Decision("learn", f"moved: {named}{more}; {BLIND}", evidence)


def _values(answers: Sequence[Answered]) -> dict[str, list[Json]]:
    return {"(label)": [_plain(one.value) for one in answers]}


def _plain(value: Json) -> Json:
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def _largest(output: Json) -> float | None:
    chances = output["probabilities"]
    return max(map(float, chances.values())) if chances else None
