"""Spans of OpenTelemetry around the steps of jobs, where a process traces; else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Facts = Callable[..., None]
"""Adds attributes to a span, by their names."""


@contextmanager
def span(name: str, **facts: str | int | None) -> Iterator[Facts]:
    """Time the body as a span of the tracer that the process has set up: by ``--traces``, or by an
    application of one's own. OpenTelemetry is not imported here: who traces has loaded it.

    Args:
        name: of the step, such as "learn".
        facts: attributes, which get the prefix "everlearn."; None is left out.

    Yields:
        What adds attributes that are known later.
    """
    otel: Any = sys.modules.get("opentelemetry.trace")
    if otel is None:
        yield lambda **more: None
        return
    tracer = otel.get_tracer("everlearn")
    with tracer.start_as_current_span(f"everlearn.{name}", attributes=_named(facts)) as made:
        yield lambda **more: made.set_attributes(_named(more))


def _named(facts: dict[str, Any]) -> dict[str, Any]:
    return {f"everlearn.{name}": value for name, value in facts.items() if value is not None}
