"""Learn at set times."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from everlearn.base import Decision, SpecError
from everlearn.jobs.triggers.facts import Facts

HOUR = 3_600_000_000
"""Microseconds."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learn at the moments of a cron expression, each of them once.

    Moments that passed while nothing ran are made up for by one, not by one each. A moment at which
    nothing is new passes. The first moment is the next one after the trigger is first asked. A
    moment that the clock shows twice, as summer time ends, counts once; one that it leaves out
    counts as the next minute that it shows.

    Args:
        cron: minute, hour, day of month, month, day of week: "0 3 * * *" is three every night.
        tz: name of the time zone of the expression, such as "Europe/Berlin".

    Raises:
        SpecError: no cron expression, one that never comes, or no time zone.

    Example:
        >>> Schedule("0 3 * * *", tz="Europe/Berlin").decide(Facts(now=0, labels=5)).action
        'wait'
    """

    cron: str
    tz: str = "UTC"

    def __post_init__(self) -> None:
        try:
            zone = ZoneInfo(self.tz)
        except Exception as error:
            raise SpecError(
                f"tz={self.tz!r} is no time zone; give a name such as 'UTC' or 'Europe/Berlin'"
            ) from error
        try:
            _before(self.cron, dt.datetime(2024, 6, 1, tzinfo=zone))
        except Exception as error:
            raise SpecError(
                f"{self.cron!r} is no cron expression ({error}); '0 3 * * *' is three every night"
            ) from error

    def decide(self, facts: Facts) -> Decision:
        """Learns if a moment has come since the last one."""
        now = _at(facts.now).astimezone(ZoneInfo(self.tz))
        came = _before(self.cron, now)
        wall = came.replace(tzinfo=None).isoformat()
        moment = int(came.timestamp()) * 1_000_000
        if "moment" not in facts.state:
            facts.state.update(moment=moment, wall=wall)
        if moment <= facts.state["moment"] or wall == facts.state["wall"]:
            return Decision("wait", f"the next moment of {self.cron!r} has not come")
        facts.state.update(moment=moment, wall=wall)
        evidence = {"moment": came.isoformat(), "labels": facts.labels}
        if not facts.labels:
            return Decision("wait", f"nothing was new at {came.isoformat()}", evidence)
        return Decision("learn", f"it is due since {came.isoformat()}", evidence)


@dataclass(frozen=True, slots=True)
class Every:
    """Learn when so long has passed since the newest version was made, and there are new labels.

    Args:
        hours: above 0.

    Raises:
        SpecError: not above 0.
    """

    hours: float

    def __post_init__(self) -> None:
        if not self.hours > 0.0:
            raise SpecError(f"Every takes hours above 0, not {self.hours!r}")

    def decide(self, facts: Facts) -> Decision:
        """Learns if the time is over."""
        since = max(facts.made_at or 0, facts.state.get("fired", 0))
        passed = (facts.now - since) / HOUR
        if not facts.labels:
            return Decision("wait", "no label is new")
        if since and passed < self.hours:
            return Decision("wait", f"{self.hours:g} hours have not passed since the last version")
        facts.state["fired"] = facts.now
        said = f"{passed:,.1f} hours since the last version" if since else "there is no version yet"
        return Decision("learn", said, {"hours": self.hours, "labels": facts.labels})


def _at(micros: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(micros // 1_000_000, dt.UTC)


def _before(cron: str, moment: dt.datetime) -> dt.datetime:
    """The last moment of a cron expression that is not after this one."""
    from croniter import croniter  # type: ignore[import-untyped]

    later = (moment.astimezone(dt.UTC) + dt.timedelta(seconds=1)).astimezone(moment.tzinfo)
    found: dt.datetime = croniter(cron, later).get_prev(dt.datetime)
    return found
