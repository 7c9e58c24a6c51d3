"""What was learned of the log part by part, as one increment of a version."""

from __future__ import annotations

from collections.abc import Sequence

from everlearn.base import Json
from everlearn.data.join import LOG
from everlearn.data.resettle import consecutive
from everlearn.data.slices import Slice
from everlearn.data.tally import Tally
from everlearn.registry.versions import Increment


def increment(parts: Sequence[Slice], tallies: Sequence[Tally]) -> Increment:
    """The increment of consecutive parts of the log, for all of which one definition held.

    Args:
        parts: spooled, at least one.
        tallies: what became of their rows.
    """
    part, counted = consecutive(parts), ("rows", "held_out", "set_aside", "duplicates")
    counts = {name: sum(getattr(tally, name) for tally in tallies) for name in counted}
    return Increment(
        source=LOG,
        start=part.start,
        stop=part.stop,
        digest=part.digest,
        slice=part.to_json(),
        reasons=_reasons(tallies),
        **counts,
    )


def _reasons(tallies: Sequence[Tally]) -> Json:
    """The reasons of several accounts as one."""
    counts: dict[str, int] = {}
    examples: list[Json] = []
    for tally in tallies:
        for reason, count in tally.reasons.get("set_aside", {}).items():
            counts[reason] = counts.get(reason, 0) + count
        examples += tally.reasons.get("examples", [])
    return {"set_aside": counts, "examples": examples[:10]}
