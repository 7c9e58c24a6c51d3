"""What triggers decide by, and the protocol that they follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, runtime_checkable

from everlearn.base import Decision, Json


@dataclass(frozen=True, slots=True)
class Given:
    """An answer that the champion gave.

    Args:
        id: of the prediction; ordered in time.
        features: what was asked, without the columns that are no features.
        output: the value, and the probability of each class or None.
    """

    id: int
    features: dict[str, Json]
    output: Json


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that the champion gave, with its label.

    Args:
        position: of the label in the log.
        prediction: its id.
        output: as it was answered.
        value: the label.
    """

    position: int
    prediction: int
    output: Json
    value: Json


class Past(Protocol):
    """What was asked, answered and said before. It is read when a trigger asks for it."""

    def given(
        self, after: int, upto: int | None = None, last: int = 0, first: int = 0
    ) -> Sequence[Given]:
        """The champion's answers with after < id ≤ upto, in order; with `last` or `first` only so
        many of the newest or oldest ones."""
        ...

    def head(self) -> int:
        """The position of the last label of the log, whichever version it judges."""
        ...

    def answered(
        self, after: int, upto: int | None = None, last: int = 0, first: int = 0
    ) -> Sequence[Answered]:
        """The champion's labelled answers with after < position ≤ upto, in the order of the
        labels; with `last` or `first` only so many of the newest or oldest ones. Where several
        labels judge one answer, the last one counts."""
        ...

    def waited(self, now: int) -> float:
        """Seconds that the labels which no version was learned from have waited, all together."""
        ...

    def job_seconds(self) -> Sequence[float]:
        """How long the last jobs took that made versions, newest first; at most five."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What triggers decide by.

    Args:
        now: microseconds since 1970 UTC.
        labels: in the feedback log that no version was learned from.
        champion: the version that serves; None before there is one.
        version: the newest version, whether it serves or not; None before there is one.
        made_at: when that was made; None before there is one.
        past: see `Past`; None where nothing was answered.
        state: what this trigger remembers, as JSON. It may be changed in place: what is there after
            `decide` is stored, if the trigger says "learn" in the transaction that queues the job.
    """

    now: int
    labels: int
    champion: int | None = None
    version: int | None = None
    made_at: int | None = None
    past: Past | None = None
    state: dict[str, Json] = field(default_factory=dict)

    def of(self, state: dict[str, Json]) -> Self:
        """The same for a trigger with another state."""
        return replace(self, state=state)

    def part(self, name: str) -> Self:
        """The same for a trigger within another one."""
        return self.of(self.state.setdefault(name, {}))


@runtime_checkable
class Trigger(Protocol):
    """Decides whether to learn now.

    A trigger says "learn" once for one event, and remembers that in its state. One that says what
    is the case as long as it is has `happens_once = False`.
    """

    def decide(self, facts: Facts) -> Decision:
        """ "learn" or "wait", and why. Asked again and again, every half second."""
        ...
