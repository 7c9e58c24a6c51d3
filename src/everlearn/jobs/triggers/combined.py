"""Triggers made of triggers. A model's list of triggers is itself an "any of these"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from everlearn.base import Decision, Json, Model, SpecError
from everlearn.jobs.triggers.facts import Facts, Trigger
from everlearn.jobs.triggers.schedule import HOUR


@dataclass(frozen=True, slots=True)
class All:
    """Learn when all of these would.

    What one of them says that happens once (a moment of a schedule, a drift) stays said until the
    others say so too, or until a version is made for another reason. A condition that can end, such
    as `Volume`, has to hold at the end.

    Args:
        triggers: at least one.

    Raises:
        SpecError: none, or something that is no trigger.

    Example:
        >>> from everlearn.jobs.triggers.volume import Volume
        >>> All([Volume(5), Volume(10)]).decide(Facts(now=0, labels=7)).action
        'wait'
    """

    triggers: Sequence[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "triggers", _checked("All", self.triggers))

    def check(self, model: Model) -> None:
        """Refuse parts that cannot be some."""
        _check_parts(self, self.triggers, model)

    @property
    def happens_once(self) -> bool:
        """Whether one of them speaks of events."""
        return any(_happens_once(trigger) for trigger in self.triggers)

    def decide(self, facts: Facts) -> Decision:
        """Learns if each says so, now or since the last version."""
        said = [_latched(trigger, facts.part(str(n))) for n, trigger in enumerate(self.triggers)]
        waits = [one for one in said if one.action != "learn"]
        evidence = {"all": [one.to_json() for one in said]}
        if waits:
            return Decision("wait", "; ".join(one.reason for one in waits), evidence)
        for n in range(len(said)):
            facts.state[str(n)].pop("said", None)
        return Decision("learn", " and ".join(one.reason for one in said), evidence)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Learn when one of these would: for use within `All` and `Cooldown`.

    Args:
        triggers: at least one.

    Raises:
        SpecError: none, or something that is no trigger.
    """

    triggers: Sequence[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "triggers", _checked("AnyOf", self.triggers))

    def check(self, model: Model) -> None:
        """Refuse parts that cannot be some."""
        _check_parts(self, self.triggers, model)

    @property
    def happens_once(self) -> bool:
        """Whether one of them speaks of events."""
        return any(_happens_once(trigger) for trigger in self.triggers)

    def decide(self, facts: Facts) -> Decision:
        """Learns if one says so; all are asked."""
        said = [trigger.decide(facts.part(str(n))) for n, trigger in enumerate(self.triggers)]
        evidence = {"any": [one.to_json() for one in said]}
        learn = [one for one in said if one.action == "learn"]
        reasons = " and ".join(one.reason for one in learn) or "; ".join(one.reason for one in said)
        return Decision("learn" if learn else "wait", reasons, evidence)


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Another trigger, which fires again only after a while.

    What it says within that while that happens once is not lost: it counts at its end, unless a
    version was made meanwhile for another reason.

    Args:
        trigger: the other.
        hours: since it last fired, above 0.

    Raises:
        SpecError: hours not above 0, or no trigger.
    """

    trigger: Any
    hours: float

    def __post_init__(self) -> None:
        _checked("Cooldown", [self.trigger])
        if not self.hours > 0.0:
            raise SpecError(f"Cooldown takes hours above 0, not {self.hours!r}")

    def check(self, model: Model) -> None:
        """Refuse a part that cannot be one."""
        _check_parts(self, [self.trigger], model)

    def decide(self, facts: Facts) -> Decision:
        """Learns if the other says so and the time is over."""
        said = _latched(self.trigger, facts.part("of"))
        if said.action != "learn":
            return said
        over = facts.state.get("fired", -(2**62)) + int(self.hours * HOUR)
        if facts.now < over:
            evidence = said.evidence | {"cooldown_until": over}
            reason = f"{said.reason}; but {self.hours:g} hours have not passed since it last fired"
            return Decision("wait", reason, evidence)
        facts.state["fired"] = facts.now
        facts.state["of"].pop("said", None)
        return said


def _latched(trigger: Trigger, facts: Facts) -> Decision:
    """What a trigger says, or said since the newest version was made and does not say again."""
    state = facts.state
    decision = trigger.decide(facts.part("of"))
    if "said" in state and state["said"]["version"] != facts.version:
        del state["said"]
    before: Json = state.get("said")
    if decision.action == "learn" and _happens_once(trigger):
        state["said"] = {"version": facts.version, "decision": decision.to_json()}
    elif decision.action != "learn" and before is not None and facts.labels:
        return Decision.from_json(before["decision"])
    return decision


def _happens_once(trigger: Trigger) -> bool:
    """Whether a trigger speaks of events, rather than of what is the case as long as it is."""
    return bool(getattr(trigger, "happens_once", True))


def _check_parts(whole: object, parts: Sequence[Any], model: Model) -> None:
    """Raises `SpecError` for a trigger that would do nothing within another one."""
    for part in parts:
        if getattr(part, "alone", False):
            name, of = type(part).__name__, type(whole).__name__
            raise SpecError(f"{name} does nothing within {of}: let it stand in Model(triggers=[…])")
        if hasattr(part, "check"):
            part.check(model)


def _checked(name: str, triggers: Sequence[Any]) -> list[Any]:
    if isinstance(triggers, str) or not isinstance(triggers, Sequence) or not triggers:
        raise SpecError(f"{name} takes a list of triggers, not {triggers!r}")
    for trigger in triggers:
        if not isinstance(trigger, Trigger):
            raise SpecError(f"{name} takes triggers such as Volume(1000), not {trigger!r}")
    return list(triggers)
