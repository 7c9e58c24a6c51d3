"""The two kinds of event in the feedback log: predictions, and labels that judge them."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from secrets import randbits
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic_core import PydanticSerializationError, from_json, to_json

from everlearn.base import InputError, Json, canonical_json, digest_bytes

Kind = Literal["explicit", "implicit", "human", "system"]
KINDS: tuple[Kind, ...] = ("explicit", "implicit", "human", "system")

ERASED = "erased"
"""Arm of a prediction whose data was erased: it is a tombstone, without features and answer."""

ERASED_DATA = "its data was erased"
"""Why the labels of such a prediction are not learned."""


class LoggedPrediction(NamedTuple):
    """One answer that was given.

    Args:
        id: from `PredictionIds`.
        features: what was asked, as JSON.
        output: what was answered, as JSON.
        version: number of the version that answered; 0 before there was one.
        arm: "champion", "candidate" or "shadow"; `ERASED` for what is left of an erased one.
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


class Label(NamedTuple):
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


class Receipt(NamedTuple):
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


class Judged(NamedTuple):
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

    Args:
        clock: microseconds since 1970 UTC.
        process: its 9 bits; chance chooses unless given. Given, with a clock of one's own, the ids
            of a simulation are the same each time, and all that depends on their hashes.
    """

    EPOCH = 1_577_836_800_000
    """Milliseconds, 2020-01-01."""

    def __init__(self, clock: Callable[[], int] | None = None, process: int | None = None) -> None:
        self._lock, self._clock = threading.Lock(), clock or now
        self._process = randbits(9) if process is None else process % 512
        self._last = 0

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
            first = max((self._clock() // 1000 - self.EPOCH) << 12, self._last + 1)
            self._last = first + count - 1
            places = range(first, first + count)
            return [(n >> 12) << 21 | self._process << 12 | n & 0xFFF for n in places]


def id_text(number: int) -> str:
    """An id as it is given out: 16 hexadecimal digits, ordered as the numbers are."""
    return f"{number:016x}"


def id_number(text: str) -> int:
    """The inverse of `id_text`. Raises `InputError` if it is none."""
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if not 0 <= number < 2**63 or f"{number:016x}" != text:  # in this spelling only
        raise InputError(f"{text!r} is no id of a prediction")
    return number


def id_numbers(texts: Sequence[str]) -> list[int]:
    """The same for many. Raises `InputError` if one of them is none."""
    joined = "".join(texts)
    if _IDS.fullmatch(joined) and set(map(len, texts)) == {16}:
        numbers: list[int] = np.frombuffer(bytes.fromhex(joined), ">i8").tolist()
        if min(numbers) >= 0:
            return numbers
    return [id_number(text) for text in texts]


_IDS = re.compile("[0-9a-f]+")


def text_of(value: Json) -> str | None:
    """A value as it is kept: JSON text; None for None.

    Raises:
        ValueError, TypeError: it is no JSON.
    """
    kind = type(value)
    if value is None or kind is int:
        return None if value is None else str(value)
    if kind is not dict and kind is not list:
        return _encode(value)
    try:
        text = to_json(value).decode()
    except PydanticSerializationError:
        return _encode(value)
    return _encode(value) if "NaN" in text or "Infinity" in text else text


def values_of(texts: Sequence[str | None]) -> list[Any]:
    """The inverse of `text_of`, of many texts at once."""
    joined = f"[{','.join(['null' if text is None else text for text in texts])}]"
    try:
        found: list[Any] = from_json(joined)
    except ValueError:  # half a character, which only a lenient parser takes
        found = json.loads(joined)
    return found


_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def check_all(said: Iterable[Label]) -> None:
    """Raises `InputError` if one of the labels cannot be logged; those alike are looked at once."""
    unlike = {}
    for label in said:
        _, prediction, name, kind, _, _, weight, selection, _, _ = label
        unlike[prediction is None, name is None, kind, weight, selection] = label
    for label in unlike.values():
        check(label)


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
