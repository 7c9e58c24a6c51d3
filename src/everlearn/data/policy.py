"""What counts of what was said: conflicts of labels, implicit signals, inverse propensities."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from everlearn.base import Json, SpecError, canonical_json
from everlearn.data.feedback import Kind
from everlearn.data.hashing import mix

REPLACED = "a later label took its place"
TAKEN_BACK = "the label was taken back"
OUTRANKED = "another label counts"
UNDECIDED = "too few agree on a label"
CONFIRMED = "it says what was known before"

MATURITY = "maturity"
"""Source of the labels that a closed maturity window gives."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AUDIT = np.uint64(0x9E3779B97F4A7C15)


class Said(NamedTuple):
    """One label of a prediction, without the prediction."""

    position: int
    kind: Kind
    source: str
    reviewer: str | None
    value: Json
    weight: float = 1.0
    selection: float | None = None

    @property
    def speaker(self) -> tuple[str, str, str | None]:
        return self.kind, self.source, self.reviewer


class Verdict(NamedTuple):
    """The label that counts for a prediction, or why there is none.

    Args:
        winner: whose value and weight it is; None where nothing counts.
        value: of the target, after signals were mapped.
        weight: of the label, before inverse propensities.
        reason: why there is none; "" where there is one.
    """

    winner: Said | None
    value: Json = None
    weight: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """How labels become what is learned.

    Which of several labels of one prediction counts is decided over all that the log has of it up
    to the end of a slice, so that one slice and many end with the same label for every prediction.
    Learned in many slices, a label that counted for a while was learned then: its copies in memory
    and hold-outs are taken out, but what the learner made of it stays.

    Args:
        conflict: "last" (the last label), "priority" (by `priority`; of equals the last),
            "majority" (of those who said something, each counts once with the last that he said;
            of equals the value that was said last) or "agreement" (as "majority", but nothing
            counts before `agreement` of them say the same and no other value has as many).
        priority: sources and kinds, the best first; what is not named comes last.
        agreement: how many must agree.
        maturity: time after a prediction in which its label may be expected ("36h", "7d"); None is
            for ever. Not labelled yet is never a negative before.
        unlabelled: after that time, "drop" or "negative": a label `negative` of the kind "system"
            is logged. Anything that is said by others counts instead of it.
        negative: the value of the target that it gives.
        signals: label that names a signal → value of the target and weight
            ({"click": (1, 1.0), "hide": (0, 0.5)}). Weights need `Schema(weight=)`.
        propensity: "inverse" divides weights by the logged chance of the output, times the chance
            with which the row was chosen to be labelled. It needs `Schema(weight=)`.
        clip: the largest factor that this may give.
        audit: share of predictions, by a hash of their id (see `audited`), that are answered and
            labelled by chance whatever the model says. The chance of a row is then
            audit + (1 - audit) × the logged one, and no factor is above 1 / audit.

    Raises:
        SpecError: a parameter that cannot be.
    """

    conflict: Literal["last", "priority", "majority", "agreement"] = "last"
    priority: tuple[str, ...] = ("human", "explicit", "system", "implicit")
    agreement: int = 2
    maturity: str | None = None
    unlabelled: Literal["drop", "negative"] = "drop"
    negative: Json = None
    signals: Mapping[str, tuple[Any, float]] = field(default_factory=dict)
    propensity: Literal["ignore", "inverse"] = "ignore"
    clip: float = 20.0
    audit: float = 0.0

    def __post_init__(self) -> None:
        choices = {
            "conflict": ("last", "priority", "majority", "agreement"),
            "unlabelled": ("drop", "negative"),
            "propensity": ("ignore", "inverse"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise SpecError(f"LabelPolicy({name}=) is one of {', '.join(allowed)}")
        given: Any = self.priority
        if isinstance(given, str):
            raise SpecError("LabelPolicy(priority=) takes a list of sources and kinds")
        object.__setattr__(self, "priority", tuple(self.priority))
        if self.agreement < 1:
            raise SpecError(f"LabelPolicy(agreement=) is at least 1, not {self.agreement!r}")
        if self.maturity is not None:
            microseconds(self.maturity)
        if self.unlabelled == "negative" and (self.maturity is None or self.negative is None):
            raise SpecError("LabelPolicy(unlabelled='negative') needs maturity= and negative=")
        for name, meaning in self.signals.items():
            if len(meaning) != 2 or meaning[0] is None or not 0.0 <= meaning[1] < float("inf"):
                raise SpecError(f"the signal {name!r} means (value of the target, weight from 0)")
        if not 1.0 <= self.clip < float("inf"):
            raise SpecError(f"LabelPolicy(clip=) is a finite number from 1, not {self.clip!r}")
        if not 0.0 <= self.audit <= 1.0:
            raise SpecError(f"LabelPolicy(audit=) is a share, not {self.audit!r}")

    @property
    def weighs(self) -> bool:
        """Whether it gives rows weights of its own."""
        return self.propensity == "inverse" or any(w != 1.0 for _, w in self.signals.values())

    @property
    def plain(self) -> bool:
        """Whether the only label of a prediction counts just as it is."""
        agreed = self.conflict != "agreement" or self.agreement == 1
        return agreed and not self.signals and self.propensity == "ignore"

    @property
    def window(self) -> int | None:
        """The maturity window in microseconds."""
        return None if self.maturity is None else microseconds(self.maturity)

    def settle(self, said: Sequence[Said]) -> Verdict:
        """What counts of all labels of one prediction, given in the log's order."""
        heard = [one for one in said if not _matured(one)] or list(said)
        if self.conflict == "last":
            return self._given(heard[-1]) if heard else Verdict(None, reason=TAKEN_BACK)
        standing = [one for one in _last_words(heard) if one.value is not None]
        if not standing:
            return Verdict(None, reason=TAKEN_BACK)
        if self.conflict == "priority":
            return self._given(max(standing, key=lambda one: (-self._rank(one), one.position)))
        return self._vote(standing)

    def factor(self, propensity: float | None, selection: float | None) -> float:
        """By how much the weight of a row is multiplied, given the logged chances."""
        if self.propensity == "ignore" or (propensity is None and selection is None):
            return 1.0
        chance = (1.0 if propensity is None else propensity) * (
            1.0 if selection is None else selection
        )
        chance = self.audit + (1.0 - self.audit) * chance
        return min(1.0 / chance, self.clip) if chance > 0.0 else self.clip

    def weight(self, verdict: Verdict, propensity: float | None) -> float:
        """The weight of a row, given what counts for it and the chance of its output."""
        assert verdict.winner is not None
        return verdict.weight * self.factor(propensity, verdict.winner.selection)

    def audited(self, prediction: int) -> bool:
        """Whether a prediction falls into the random audit share; the same in every process."""
        if self.audit in (0.0, 1.0):
            return self.audit == 1.0
        scrambled = mix(np.array([prediction], np.uint64) ^ _AUDIT)[0]
        return int(scrambled) < int(self.audit * 2**64)

    def _given(self, one: Said) -> Verdict:
        if one.value is None:
            return Verdict(None, reason=TAKEN_BACK)
        value, weight = self._meaning(one)
        return Verdict(one, value, one.weight * weight)

    def _meaning(self, one: Said) -> tuple[Json, float]:
        if isinstance(one.value, str) and one.value in self.signals:
            value, weight = self.signals[one.value]
            return value, float(weight)
        return one.value, 1.0

    def _rank(self, one: Said) -> int:
        places = [
            self.priority.index(name) for name in (one.source, one.kind) if name in self.priority
        ]
        return min(places, default=len(self.priority))

    def _vote(self, standing: Sequence[Said]) -> Verdict:
        votes: dict[bytes, list[Said]] = {}
        for one in standing:
            votes.setdefault(canonical_json(self._meaning(one)[0]), []).append(one)
        ranked = sorted(votes.values(), key=lambda voters: (len(voters), voters[-1].position))
        most = ranked[-1]
        if self.conflict == "agreement":
            tied = len(ranked) > 1 and len(ranked[-2]) == len(most)
            if len(most) < self.agreement or tied:
                return Verdict(None, reason=UNDECIDED)
        return self._given(most[-1])


def microseconds(text: str) -> int:
    """A span of time such as "90s", "36h" or "7d".

    Raises:
        SpecError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text) if isinstance(text, str) else None
    if found is None:
        raise SpecError(f"a span of time is a number with s, m, h, d or w ('7d'), not {text!r}")
    return round(float(found[1]) * _UNITS[found[2]] * 1_000_000)


def _matured(one: Said) -> bool:
    return one.kind == "system" and one.source == MATURITY


def _last_words(said: Sequence[Said]) -> list[Said]:
    """What each speaker said last, in the log's order."""
    last = {one.speaker: one for one in said}
    return sorted(last.values(), key=lambda one: one.position)
