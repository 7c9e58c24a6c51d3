"""Groups of periods, and the rows of each that nothing learns from, for measuring forgetting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from everlearn.base import Hashes, Ints
from everlearn.compare.timeline import NEVER, Timeline

MAX_GROUPS = 8
PROBES_PER_GROUP = 300
PROBE_SHARE = 0.05
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Groups:
    """At most eight runs of whole periods, each ending where a model may be updated.

    Args:
        bounds: (T + 1,) group g has the events with bounds[g] ≤ time < bounds[g + 1].
    """

    bounds: Ints

    @classmethod
    def of(cls, timeline: Timeline) -> Groups:
        """The groups of a timeline; the first contains the warm-up."""
        ends = timeline.edges_to_learn()
        count = min(MAX_GROUPS, len(ends))
        chosen = ends[np.linspace(0, len(ends) - 1, count).round().astype(np.int64)]
        return cls(np.concatenate([timeline.edges[:1], chosen]))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def ends(self) -> Ints:
        """(T,) the moment at which each group is over."""
        return self.bounds[1:]

    def group_of(self, time: Ints) -> Ints:
        """(n,) groups of moments; −1 or T for a moment before or after all."""
        return (np.searchsorted(self.bounds, time, "right") - 1).astype(np.int64)


def choose_probes(timeline: Timeline, ids: Hashes) -> Ints:
    """Events of every group that nothing will learn from: at most 300, and 5 % of the group.

    Args:
        timeline: of all events.
        ids: (n,) hashes of the row ids, in the order of events; they decide, not chance.

    Returns:
        (m,) events, ascending.
    """
    groups = Groups.of(timeline)
    if len(groups) < 2:
        return np.empty(0, np.int64)
    rank = (ids ^ (ids >> np.uint64(31))) * _MIX
    chosen = []
    for start, stop in zip(groups.bounds[:-1], groups.bounds[1:], strict=True):
        events = np.arange(timeline.before(int(start)), timeline.before(int(stop)))
        events = events[timeline.known[events] != NEVER]
        count = min(PROBES_PER_GROUP, int(len(events) * PROBE_SHARE))
        chosen.append(events[np.argsort(rank[events], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
