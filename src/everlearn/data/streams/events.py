"""Messages of a stream as events: one JSON object each, a prediction or a label."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from everlearn.base import InputError, Json
from everlearn.data.feedback import Label, LoggedPrediction, check, id_number

WHOLE = 2**63
"""Whole numbers are smaller than this, on both sides of 0."""

UNNUMBERED = -1
"""The id of a prediction that came without one, until it gets one."""

NO_OUTPUT = {"value": None, "probabilities": None}
"""Of a prediction that came without: what a model answers before its first version."""

ARMS = ("champion", "candidate", "shadow")
_NAME = 1000  # letters
_SHORT = 200


def read_event(body: bytes, source: str) -> LoggedPrediction | Label:
    """One event.

    Args:
        body: a JSON object in UTF-8. ``{"type": "prediction", "features": {…}}`` with "id" (16
            hexadecimal digits) or "external_id", and perhaps "output", "version", "arm", "key",
            "propensity", "at"; or ``{"type": "label", "value": …}`` with "prediction_id" or
            "external_id", and perhaps "kind", "source", "reviewer", "weight", "selection", "at",
            "idempotency_key". Times are ISO 8601 texts, of UTC unless they say otherwise.
        source: of labels that name none.

    Raises:
        InputError: it is none; says why.

    Example:
        >>> read_event(b'{"type": "label", "external_id": "bill 7", "value": 1}', "bills").value
        1
    """
    try:
        event = json.loads(body.decode(), parse_constant=_no_number)
        json.dumps(event, ensure_ascii=False).encode()  # half of a letter is no text to store
    except (ValueError, RecursionError) as error:
        raise InputError(f"the message is no JSON: {error}") from error
    if not isinstance(event, dict):
        raise InputError("the message is no JSON object")
    kind = event.pop("type", None)
    if kind == "prediction":
        return _prediction(_checked(event, _PREDICTION))
    if kind == "label":
        return _label(_checked(event, _LABEL), source)
    raise InputError(f'"type" is "prediction" or "label", not {_shown(kind)}')


def _prediction(event: dict[str, Any]) -> LoggedPrediction:
    number = event.pop("id", None)
    if number is None and event.get("external_id") is None:
        raise InputError('a prediction needs "id" or "external_id"')
    if "features" not in event:
        raise InputError('a prediction needs "features"')
    output = event.pop("output", NO_OUTPUT)
    return LoggedPrediction(
        UNNUMBERED if number is None else number, event.pop("features"), output, **event
    )


def _label(event: dict[str, Any], source: str) -> Label:
    if "value" not in event:
        raise InputError('a label needs "value"; null takes back what was said before')
    label = Label(
        event.pop("value"),
        event.pop("prediction_id", None),
        **{"source": source, **event},
    )
    check(label)
    return label


# --- fields ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Field:
    """What a field of an event has to be.

    Args:
        form: for people, as in "… is a number from 0".
        holds: whether a value is so; null is as good as no field, except where `null` is true.
        made: what becomes of it.
    """

    form: str
    holds: Callable[[Any], bool]
    made: Callable[[Any], Any] = lambda value: value
    null: bool = False


def _checked(event: Mapping[str, Any], fields: Mapping[str, _Field]) -> dict[str, Any]:
    """The fields of an event that are there.

    Raises:
        InputError: an unknown field, or one of another form.
    """
    found: dict[str, Any] = {}
    for name, value in event.items():
        field = fields.get(name)
        if field is None:
            raise InputError(f"{_shown(name)} is no field of it; it may have {', '.join(fields)}")
        if value is None and not field.null:
            continue
        if not field.holds(value):
            raise InputError(f'"{name}" is {field.form}, not {_shown(value)}')
        found[name] = field.made(value)
    return found


def _is_name(value: object, most: int = _NAME) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= most or "\x00" in value:
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and -WHOLE < value < WHOLE


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _is_row(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_value, value.values()))


def _is_output(value: object) -> bool:
    """A value, or an object as the server answers it."""
    if not isinstance(value, dict):
        return _is_value(value)
    chances = value.get("probabilities")
    return (
        "value" in value
        and value.keys() <= NO_OUTPUT.keys()
        and _is_value(value["value"])
        and (
            chances is None or (isinstance(chances, dict) and all(map(_is_share, chances.values())))
        )
    )


def _output(value: Any) -> Json:
    return NO_OUTPUT | (value if isinstance(value, dict) else {"value": value})


def _is_share(value: object) -> bool:
    return _is_number(value) and 0.0 <= value <= 1.0  # type: ignore[operator]


def _is_chance(value: object) -> bool:
    return _is_number(value) and 0.0 < value <= 1.0  # type: ignore[operator]


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and _micros(value) is not None
    except (ValueError, OverflowError):
        return False


def _micros(text: str) -> int:
    """Microseconds since 1970 UTC."""
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def _is_id(value: object) -> bool:
    try:
        return isinstance(value, str) and id_number(value) >= 0
    except InputError:
        return False


_TEXT = _Field(f"a text of 1 to {_NAME} letters", _is_name)
_SHORT_TEXT = _Field(f"a text of 1 to {_SHORT} letters", lambda value: _is_name(value, _SHORT))
_TIME = _Field("a time in ISO 8601", _is_time, _micros)
_CHANCE = _Field("a number above 0 and at most 1", _is_chance, float)
_KINDS = _Field("a text", lambda value: isinstance(value, str))  # `check` knows them

_PREDICTION = {
    "id": _Field("16 hexadecimal digits", _is_id, id_number),
    "external_id": _TEXT,
    "features": _Field("an object of texts, finite numbers, true, false and null", _is_row),
    "output": _Field('a value, or an object of "value" and "probabilities"', _is_output, _output),
    "version": _Field("a whole number from 0", _is_whole),
    "arm": _Field(f"one of {', '.join(ARMS)}", lambda value: value in ARMS),
    "key": _TEXT,
    "propensity": _CHANCE,
    "at": _TIME,
}
_LABEL = {
    "value": _Field("a text, a finite number, true, false or null", _is_value, null=True),
    "prediction_id": _Field("16 hexadecimal digits", _is_id),
    "external_id": _TEXT,
    "kind": _KINDS,
    "source": _SHORT_TEXT,
    "reviewer": _TEXT,
    "weight": _Field("a number from 0", _is_number, float),
    "selection": _CHANCE,
    "at": _TIME,
    "idempotency_key": _SHORT_TEXT,
}


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _shown(value: Json) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
