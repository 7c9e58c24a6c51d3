"""Triggers that fire once while one version serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from everlearn.base import Decision
from everlearn.jobs.triggers.facts import Facts, Past


def once_per_champion(facts: Facts, look: Callable[[Facts, Past], Decision]) -> Decision:
    """What `look` decides, until it would learn; then that once, when there is something to learn.
    A new champion begins with an empty state.

    A version that serves again, after a rollback, is a new champion: its answers are looked at from
    the first one.

    Args:
        look: at what is new; what it said last, where nothing is.
    """
    if facts.champion is None or facts.past is None:
        return Decision("wait", "insufficient data: no version serves yet")
    state = facts.state
    if state.get("champion") != facts.champion:
        state.clear()
        state["champion"] = facts.champion
    if state.get("fired"):
        return Decision("wait", "it fired for this champion, and waits for the next one")
    found = Decision.from_json(state["found"]) if "found" in state else look(facts, facts.past)
    if found.action != "learn":
        return found
    if not facts.labels:
        state["found"] = found.to_json()
        return replace(found, action="wait", reason=f"{found.reason}; but no label is new")
    state["fired"] = True
    return found
