"""Spans of time as people write them: "7d", "2h", "30min"."""

from __future__ import annotations

import re
from datetime import timedelta

from everlearn.base import SpecError

SECOND = 1_000_000
"""Microseconds in a second."""

UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": SECOND,
    "min": 60 * SECOND,
    "h": 3_600 * SECOND,
    "d": 86_400 * SECOND,
    "w": 7 * 86_400 * SECOND,
}
"""Microseconds in each unit."""

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def microseconds(span: str | timedelta) -> int:
    """The length of a span.

    >>> microseconds("30min") == microseconds("0.5h") == 1_800_000_000
    True

    Args:
        span: a number and one of the units us, ms, s, min, h, d, w; or a timedelta.

    Raises:
        SpecError: it is neither, or not longer than nothing.
    """
    if isinstance(span, timedelta):
        length = span // timedelta(microseconds=1)
    else:
        form = _FORM.fullmatch(span) if isinstance(span, str) else None
        if form is None or form[2] not in UNITS:
            raise SpecError(
                f"a span of time is a number and one of {', '.join(UNITS)} ('7d', '30min'), "
                f"or a timedelta, not {span!r}"
            )
        length = round(float(form[1]) * UNITS[form[2]])
    if length <= 0:
        raise SpecError(f"a span of time is longer than nothing, not {span!r}")
    return length


def written(span: str | timedelta) -> str:
    """The same span as text in its longest whole unit, so that it compares and stores as JSON.

    >>> written(timedelta(hours=48)), written("7d"), written("90s")
    ('2d', '7d', '90s')

    Raises:
        SpecError: as `microseconds`.
    """
    length = microseconds(span)
    for unit in ("d", "h", "min", "s", "ms"):
        if length % UNITS[unit] == 0:
            return f"{length // UNITS[unit]}{unit}"
    return f"{length}us"
