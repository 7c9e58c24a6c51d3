"""The two kinds of event in the feedback log: predictions, and labels that judge them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from secrets import randbits
from typing import Literal

from everlearn.base import InputError, Json, canonical_json, digest_bytes

Kind = Literal["explicit", "implicit", "human", "system"]
KINDS: tuple[Kind, ...] = ("explicit", "implicit", "human", "system")


@dataclass(frozen=True, slots=True)
class LoggedPrediction:
    """One answer that was given.

    Args:
        id: from `PredictionIds`.
        features: what was asked, as JSON.
        output: what was answered, as JSON.
        version: number of the version that answered; 0 before there was one.
        arm: "champion", "candidate" or "shadow".
        key: the entity that it is about, by which traffic is assigned and data erased.
        external_id: the caller's own id, unique within the model.
        propensity: the chance with which this output was chosen, where chance chose.
        at: microseconds since 1970 UTC, of the event; None is now.
    """

    id: int
    features: Json
    output: Json
    version: int = 0
    arm: str = "champion"
    key: str | None = None
    external_id: str | None = None
    propensity: float | None = None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody says of a prediction. A later one of the same source takes its place.

    Args:
        value: the target, as JSON; None takes back what was said.
        prediction: its id as it was answered (text); or, instead of it,
        external_id: the caller's own id of the prediction.
        kind: "explicit" (somebody said so), "implicit" (somebody did something), "human" (from
            review), "system" (a rule, such as the end of a maturity window).
        source: who says so; one string for the whole system where nothing is said.
        reviewer: the person, where a person says so.
        weight: from 0.
        selection: the chance with which the row was chosen to be labelled, where chance chose.
        at: microseconds since 1970 UTC, at which it became known; None is now.
        idempotency_key: the same key with the same content is one label, however often it comes.
    """

    value: Json
    prediction: str | None = None
    external_id: str | None = None
    kind: Kind = "explicit"
    source: str = "feedback"
    reviewer: str | None = None
    weight: float = 1.0
    selection: float | None = None
    at: int | None = None
    idempotency_key: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of what is said, which the same idempotency key must say again."""
        named = [self.prediction, self.external_id, self.value, self.kind, self.source]
        return digest_bytes(canonical_json([*named, self.reviewer, self.weight, self.selection]))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a label.

    Args:
        label: its number.
        state: "logged" (it has a position), "waiting" (its prediction is not known yet) or
            "known" (the same was said before; nothing was added).
        position: in the log of the model.
    """

    label: int
    state: Literal["logged", "waiting", "known"]
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A label in the log, beside its prediction: what one row to learn is made from."""

    position: int
    label: int
    prediction: LoggedPrediction
    kind: Kind
    value: Json
    source: str
    reviewer: str | None
    weight: float
    selection: float | None
    at: int
    arrived_at: int


class PredictionIds:
    """Makes ids that are ordered in time: 42 bits of milliseconds since 2020, 9 bits of this
    process, 12 bits that count. Safe for threads. Two processes may by chance share their 9 bits;
    the table then refuses the second of two equal ids, and `renew` chooses others.
    """

    EPOCH = 1_577_836_800_000
    """Milliseconds, 2020-01-01."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process, self._last = randbits(9), 0

    @classmethod
    def first(cls, moment: int) -> int:
        """The lowest id that is made at a moment, in microseconds since 1970 UTC."""
        return max(moment // 1000 - cls.EPOCH, 0) << 21

    def renew(self) -> None:
        """Be another process."""
        with self._lock:
            self._process = (self._process + 1 + randbits(8)) % 512

    def take(self, count: int) -> list[int]:
        """The next ids, ascending."""
        with self._lock:
            first = max((time.time_ns() // 1_000_000 - self.EPOCH) << 12, self._last + 1)
            self._last = first + count - 1
            places = range(first, first + count)
            return [(n >> 12) << 21 | self._process << 12 | n & 0xFFF for n in places]


def id_text(number: int) -> str:
    """An id as it is given out: 16 hexadecimal digits, ordered as the numbers are."""
    return f"{number:016x}"


def id_number(text: str) -> int:
    """The inverse of `id_text`. Raises `InputError` if it is none."""
    if len(text) != 16 or not all(letter in "0123456789abcdef" for letter in text):
        raise InputError(f"{text!r} is no id of a prediction")
    number = int(text, 16)
    if number >= 2**63:
        raise InputError(f"{text!r} is no id of a prediction")
    return number


def check(label: Label) -> None:
    """Raises `InputError` for a label that cannot be logged."""
    if (label.prediction is None) == (label.external_id is None):
        raise InputError("a label names its prediction by one id: prediction or external_id")
    if label.kind not in KINDS:
        raise InputError(f"the kind of a label is one of {', '.join(KINDS)}, not {label.kind!r}")
    if not 0.0 <= label.weight < float("inf"):
        raise InputError(f"the weight of a label is a finite number from 0, not {label.weight!r}")
    if label.selection is not None and not 0.0 < label.selection <= 1.0:
        raise InputError(f"a selection chance is above 0 and at most 1, not {label.selection!r}")


def now() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000
