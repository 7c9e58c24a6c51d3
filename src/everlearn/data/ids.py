"""Which row ids a lineage has seen: sorted runs of hashes, merged like the digits of a counter."""

from __future__ import annotations

import numpy as np

from everlearn.base import Hashes, Part, State, under
from everlearn.data.convert import Mask

_RUN = 1 << 16
_LEVELS = 4  # runs of up to 2**16 * 2**4 ids: about a million


class IdSet:
    """A set of 64-bit hashes, 8 bytes each.

    The first 65,536 hashes that arrive are sorted into a run, and so on; two runs of one length
    become one of twice that length, up to a million hashes. What the runs are depends only on the
    order of arrival, so that equal histories have equal parts, and full runs never change again.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[int, Part]] = []  # (level, sorted hashes), in order of arrival
        self._fresh: list[Hashes] = []  # not yet a run; fewer than _RUN in all
        self._count = 0

    def __len__(self) -> int:
        return sum(len(part.arrays["ids"]) for _, part in self._runs) + self._count

    def contains(self, ids: Hashes) -> Mask:
        """(n,) which of the hashes are in the set."""
        found = np.zeros(len(ids), bool)
        runs = [part.arrays["ids"] for _, part in self._runs]
        if self._fresh:
            fresh = np.sort(np.concatenate(self._fresh))
            runs.append(fresh)
        if not runs:
            return found
        order = np.argsort(ids)
        sought = ids[order]
        hits = np.zeros(len(ids), bool)
        for run in runs:
            at = np.searchsorted(run, sought)
            at[at == len(run)] = 0
            hits |= run[at] == sought
        found[order] = hits
        return found

    def add(self, ids: Hashes) -> None:
        """Add hashes that are not in the set yet."""
        while len(ids):
            room = _RUN - self._count
            part, ids = ids[:room], ids[room:]
            self._fresh.append(part)
            self._count += len(part)
            if self._count == _RUN:
                self._seal()

    def _seal(self) -> None:
        run = np.sort(np.concatenate(self._fresh))
        self._fresh, self._count = [], 0
        level = 0
        while self._runs and self._runs[-1][0] == level and level < _LEVELS:
            _, other = self._runs.pop()
            run = np.sort(np.concatenate([other.arrays["ids"], run]), kind="stable")
            level += 1
        self._runs.append((level, Part({"ids": run}, {"level": level})))

    def copy(self) -> IdSet:
        """A set with the same members; the runs are shared."""
        other = IdSet()
        other._runs, other._fresh, other._count = list(self._runs), list(self._fresh), self._count
        return other

    def all(self) -> Hashes:
        """All members, sorted."""
        runs = [part.arrays["ids"] for _, part in self._runs] + self._fresh
        return np.sort(np.concatenate(runs)) if runs else np.zeros(0, np.uint64)

    def save(self) -> dict[str, Part]:
        """Parts "0", "1", … for the runs and "fresh" for the rest; none for an empty set."""
        parts = {str(k): part for k, (_, part) in enumerate(self._runs)}
        if self._fresh:
            parts["fresh"] = Part({"ids": np.sort(np.concatenate(self._fresh))})
        return parts

    @classmethod
    def load(cls, state: State) -> IdSet:
        """The set that was saved."""
        found = cls()
        for name in sorted((name for name in state if name != "fresh"), key=int):
            found._runs.append((state[name].meta["level"], state[name]))
        if "fresh" in state:
            found._fresh = [state["fresh"].arrays["ids"]]
            found._count = len(found._fresh[0])
        return found


class SeenIds:
    """The ids of all rows that a lineage has learned or holds out.

    Ids of the increment that is being read are kept apart until `settle`, because a second pass
    meets them again. State: parts "0", "1", …, "fresh" and, within an increment, "now/…".

    Args:
        state: what `save` returned.
        again: rows whose ids were seen in earlier increments are no duplicates: they are learned
            once more, because that was asked for.
    """

    def __init__(self, state: State | None = None, *, again: bool = False) -> None:
        self.again, state = again, state or {}
        self.before = IdSet.load({k: v for k, v in state.items() if not k.startswith("now/")})
        self.now = IdSet.load(under("now", state))

    def __len__(self) -> int:
        return len(self.before) + len(self.now)

    def copy(self) -> SeenIds:
        """The same ids; what is added to one is not added to the other."""
        other = SeenIds(again=self.again)
        other.before, other.now = self.before.copy(), self.now.copy()
        return other

    def duplicates(self, ids: Hashes) -> Mask:
        """(n,) which ids were seen before, or stand earlier among these."""
        order = np.argsort(ids, kind="stable")
        twice = np.zeros(len(ids), bool)
        twice[order[1:]] = ids[order[1:]] == ids[order[:-1]]
        twice |= self.now.contains(ids)
        return twice if self.again else twice | self.before.contains(ids)

    def add(self, ids: Hashes) -> None:
        """Add the ids of rows of this increment that are no duplicates."""
        self.now.add(ids)

    def restart(self) -> None:
        """Forget the ids of this increment: another pass over it begins."""
        self.now = IdSet()

    def settle(self) -> None:
        """The increment is over: its ids were seen from now on."""
        ids = self.now.all()
        self.before.add(ids[~self.before.contains(ids)] if self.again else ids)
        self.now = IdSet()

    def save(self) -> dict[str, Part]:
        """All ids; runs that did not change are the same parts."""
        return self.before.save() | {f"now/{name}": part for name, part in self.now.save().items()}
