"""Measurements of one bisection: made where they are not known yet, and kept as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from everlearn.base import Json, crash_point
from everlearn.jobs.bisect.measurers import Measurers
from everlearn.jobs.bisect.measuring import Bench
from everlearn.jobs.bisect.records import Bisections, Row


@dataclass(frozen=True, slots=True)
class Probe:
    """How far a bisection is.

    Args:
        phase: "versions", "replay", "groups" or "rows".
        name: what was measured last.
        value: the metric there, if it is one.
        measured: how many measurements are known.
    """

    phase: str
    name: str
    value: float | None
    measured: int


Watch = Callable[[Probe], None]


class Probing:
    """Measures what is not known.

    Args:
        measurers: that do it.
        kept: where it is written down.
        row: of the bisection.
        report: told of every measurement, those that were known included.

    Attributes:
        known: name → what was measured.
        made: names of what was measured by this process.
    """

    def __init__(self, measurers: Measurers, kept: Bisections, row: Row, report: Watch) -> None:
        self._measurers, self._kept, self._number = measurers, kept, row.number
        self._report = report
        self.known: dict[str, Json] = dict(row.probes)

    @property
    def bench(self) -> Bench:
        """What measures in this process."""
        return self._measurers.bench

    @property
    def processes(self) -> int:
        """How many measure at a time."""
        return self._measurers.processes

    def measure(self, phase: str, tasks: Mapping[str, Json]) -> dict[str, Json]:
        """What tasks measure, by the name of what each measures."""
        self.run(phase, [task for name, task in tasks.items() if name not in self.known])
        return {name: self.known[name] for name in tasks}

    def run(self, phase: str, tasks: Sequence[Json]) -> None:
        """Carry out tasks, and keep what they measure."""

        def done(found: dict[str, Json]) -> None:
            self.known = self._kept.measured(self._number, found)
            crash_point("bisect.probe")
            for name, measured in found.items():
                value = measured.get("value")
                self._report(Probe(phase, name, value, len(self.known)))

        self._measurers.run(tasks, done)
