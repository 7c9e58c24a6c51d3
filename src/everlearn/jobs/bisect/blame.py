"""Which rows of one increment did the damage: its groups folded alone, and left out.

The increment is folded again into its parent's state. Then its rows are cut into groups, by source
first; each group is folded alone into the parent, which costs one replay of the increment for all
of them together, and whichever did most harm is confirmed by folding the increment without it. The
group that is found is cut again, until no part of it stands for the whole of it. Of its rows, those
that surprised the parent most are folded alone, one by one, and ranked by the damage each did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from everlearn.base import EverlearnError, Floats, InputError, Ints, Json, Part
from everlearn.data.answers import restored
from everlearn.data.condition import Condition
from everlearn.data.predicates import And, Predicate
from everlearn.evaluation.loss import losses
from everlearn.evaluation.trial import ask
from everlearn.jobs.bisect.cuts import SAID, Cut, Group, Rows, batch_of, merged
from everlearn.jobs.bisect.measuring import read_again, recorded_digest
from everlearn.jobs.bisect.probing import Probing
from everlearn.jobs.load import load_fold
from everlearn.jobs.plan import Plan

EXPLAINS = 0.5
"""Share of the damage that leaving out a source or a reviewer has to undo: they answer for their
rows."""

STANDS_FOR = 0.8
"""The same, of a class, a key, a span of time or of rows, and of whatever stands for a group that
was found already; leaving out the rest of the group may undo at most what is left to 1."""

SUSPECTS = 3
"""Sources or reviewers that are left out before none of them is found to explain the damage."""

FEW = 50
"""Rows that are not cut any further."""

WHOLE = "the whole increment"

CANDIDATES, AT_ONCE, SHOWN = 200, 25, 20
"""Rows that are folded one by one, as many of them in one reading; and that are told."""


class Blame:
    """The rows that made a version worse than its parent.

    Args:
        probing: measures, and keeps what was measured.
        parent, child: the versions, as measurements are told of them.
        damage: how much worse the child is, in the metric's unit.
        strict: of a small step: a source, too, has to stand for all of it.

    Raises:
        InputError: the increment cannot be folded again, or its parts cannot be; it says why.
    """

    def __init__(
        self, probing: Probing, parent: Json, child: Json, damage: float, *, strict: bool = False
    ) -> None:
        self._probing, self._damage, self._strict = probing, damage, strict
        self._parent, self._child = parent, child
        self._plan = self._only_plan()
        self._state = probing.bench.base(parent)
        self._blobs = probing.bench.registry.parts.blobs
        self.rows = Rows(self._reader(), probing.bench.log, self._blobs)
        if not len(self.rows):
            raise InputError(f"version {child['number']} learned no rows of its own")
        self._levels: list[dict[str, Json]] = []
        self._said: str | None = None

    def report(self) -> dict[str, Json]:
        """{"reproduced": whether the increment, folded again, ends in the same state, "levels": of
        cuts, "found": the group that explains the damage or None, "rows": that did most}."""
        name = f"again {self._child['number']}"
        task = {"do": "again", "version": self._child, "base": self._parent}
        again = self._probing.measure("replay", {name: task})[name]
        group = self._narrow()
        suspects = np.arange(len(self.rows)) if group is None else group.members
        ended = recorded_digest(self._probing.bench.version(self._child))
        return {
            "reproduced": again["digest"] == ended,
            "levels": self._levels,
            "found": None if group is None else self._found(group),
            "rows": self._ranked(suspects),
        }

    def is_harmful(self, where: Condition, name: str) -> bool:
        """Whether rows of some sources or reviewers, folded alone, make the parent worse beyond
        chance.

        Args:
            where: which rows.
            name: of the measurement.
        """
        members = self.rows.among(where)
        if not len(members):
            return False
        worse = self._apart("groups", [name], [members])[name].get("worse_by")
        return worse is not None and worse["low"] is not None and worse["low"] > 0.0

    def _only_plan(self) -> Plan:
        """The plan of the increment. Raises `InputError` where there is no single one."""
        number = self._child["number"]
        plans = self._probing.bench.recorded(number).plans
        if not plans:
            raise InputError(
                f"version {number} learned nothing: answers of its parent were patched, or data"
                " was erased from it"
            )
        if len(plans) > 1:
            raise InputError(
                f"version {number} folded {len(plans)} increments again, after an excision; look "
                "for the damage among the versions that learned them first"
            )
        if plans[0].strategy.start != "champion":
            raise InputError(
                f"version {number} was retrained from scratch, so that its rows cannot be folded "
                "alone into its parent; compare it with earlier ones by `everlearn show`"
            )
        return plans[0]

    def _reader(self) -> Any:
        return read_again(self._plan, self._state, self._blobs)

    # --- groups ---

    def _narrow(self) -> Group | None:
        """The smallest group that explains the damage; None if no single one does."""
        found = Group(WHOLE, np.arange(len(self.rows)), None)
        undone, sure = self._damage, False
        while len(found.members) > FEW or not sure:
            better = self._better(found, undone, sure)
            if better is None:
                break
            (found, undone), sure = better, True
            if found.where is not None and {*found.where.columns()} <= {*SAID}:
                self._said = str(found.where)
        several = any(level["by"] in SAID for level in self._levels)
        return found if sure or not several else None

    def _better(self, group: Group, undone: float, sure: bool) -> tuple[Group, float] | None:
        """A part of a group that stands for it, and the damage that leaving it out undoes.

        Args:
            undone: the damage that leaving out the group undoes.
            sure: whether the group was found itself; else it is the whole increment.
        """
        for cut in self.rows.cuts(group.members):
            if len(cut.groups) < 2:
                continue
            depth = len(self._levels)
            level: dict[str, Json] = {"of": group.name, "by": cut.by, "rows": len(group.members)}
            level |= {"groups": self._alone(cut, depth), "left_out": [], "found": None}
            self._levels.append(level)
            for part in _suspects(cut, level["groups"], sure or self._strict):
                own = cut.by in SAID and not sure and not self._strict
                told = self._tried(group, part, undone, f"{depth} {cut.by}", own)
                level["left_out"].append(told)
                if told["stands"]:
                    level["found"] = part.name
                    where = joined(group.where, part.where) if sure else part.where
                    return Group(part.name, part.members, where), told["undone"]
        return None

    def _tried(
        self, group: Group, part: Group, undone: float, at: str, own: bool
    ) -> dict[str, Json]:
        """Whether a part stands for its group: without it the damage is gone, and without the rest
        it is there. Of a source or a reviewer (`own`) it is enough that much of it is gone."""
        gone = self._left_out(f"without {at} {part.name}", part.members)
        share, rest = gone / undone, None
        stands = share >= (EXPLAINS if own else STANDS_FOR)
        if stands and not own:
            others = np.setdiff1d(group.members, part.members)
            rest = self._left_out(f"without {at} all but {part.name}", others) / undone
            stands = rest <= 1.0 - STANDS_FOR
        figures = {"undone": gone, "share": share, "rest": rest, "stands": stands}
        return {"name": part.name, "rows": len(part.members), **figures}

    def _alone(self, cut: Cut, depth: int) -> list[Json]:
        """Each group of a cut, folded alone: what it did to the parent."""
        names = [f"alone {depth} {cut.by} {place}" for place in range(len(cut.groups))]
        measured = self._apart("groups", names, [group.members for group in cut.groups])
        return [
            {"name": group.name, "rows": len(group.members), "alone": measured[name]}
            for name, group in zip(names, cut.groups, strict=True)
        ]

    def _apart(self, phase: str, names: Sequence[str], groups: Sequence[Ints]) -> dict[str, Json]:
        """Measure groups alone, as many in one reading as makes work for all processes."""
        unknown = [place for place, name in enumerate(names) if name not in self._probing.known]
        if unknown:
            codes = self._stored([groups[place] for place in unknown])
            step = min(AT_ONCE, -(-len(unknown) // self._probing.processes))
            tasks = {}
            for start in range(0, len(unknown), step):
                mine = range(start, min(start + step, len(unknown)))
                of = {str(number): names[unknown[number]] for number in mine}
                task = {"do": "alone", "version": self._child, "base": self._parent}
                tasks["+".join(of.values())] = {**task, "codes": codes, "groups": of}
            self._probing.run(phase, list(tasks.values()))
        return {name: self._probing.known[name] for name in names}

    def _left_out(self, name: str, members: Ints) -> float:
        """How much of the damage is undone by leaving rows out."""
        if name not in self._probing.known:
            task = {"do": "without", "version": self._child, "base": self._parent, "name": name}
            codes = self._stored([members])
            self._probing.run("groups", [{**task, "codes": codes, "group": 0}])
        worse = self._probing.known[name]["worse_by"]
        return 0.0 if worse is None else -float(worse["mean"])

    def _stored(self, groups: Sequence[Ints]) -> Json:
        return self._probing.bench.registry.parts.save({"codes": Part(self.rows.codes(groups))})

    def _found(self, group: Group) -> dict[str, Json]:
        """The group: "where" tells its rows from all others. "said" is the source or the reviewer
        that it is of, if one was found: what they say is believed no more, here or elsewhere."""
        where, base = group.where, self.rows.base(group.members)
        if group.name == WHOLE:
            where = base
        elif self._said is None and where is not None and "position" not in where.columns():
            where = joined(base, where)
        return {
            "name": group.name,
            "rows": len(group.members),
            "of": len(self.rows),
            "where": None if where is None else str(where),
            "said": self._said,
        }

    # --- rows ---

    def _ranked(self, members: Ints) -> list[Json]:
        """The rows that did most damage alone, each learned as a chunk of its own, among those that
        surprised the parent most."""
        bench = self._probing.bench
        parent = load_fold(bench.registry, bench.model, bench.version(self._parent))
        try:
            answers = ask(parent, batch_of(self._reader(), self.rows, members))
        except EverlearnError:
            return []
        if answers.y is None:
            return []
        surprise: Floats = losses(parent.kind, answers.y, answers.prediction)
        first = np.argsort(-surprise, kind="stable")[:CANDIDATES]
        names = [f"row {int(members[at])}" for at in first]
        measured = self._apart("rows", names, [members[at : at + 1] for at in first])
        kept = [
            (name, at)
            for name, at in zip(names, first.tolist(), strict=True)
            if measured[name].get("worse_by") is not None
        ]
        kept.sort(key=lambda one: -measured[one[0]]["worse_by"]["mean"])
        return [
            {
                **self.rows.told(int(members[at])),
                "predicted": restored(
                    parent.decode(answers.prediction.value[at : at + 1]), parent.columns
                )[0],
                "surprise": float(surprise[at]),
                "damage": measured[name]["worse_by"]["mean"],
            }
            for name, at in kept[:SHOWN]
        ]


def harm(told: Json) -> float:
    """How much worse a group made the parent; 0 where that is not known."""
    worse = told["alone"].get("worse_by")
    return 0.0 if worse is None else float(worse["mean"])


def _suspects(cut: Cut, told: Sequence[Json], sure: bool) -> list[Group]:
    """The groups that may stand for all, the most harmful first; where what is cut was found to be
    guilty itself (`sure`), only one that did nearly all harm."""
    harms = np.array([max(harm(one), 0.0) for one in told])
    if not harms.any():
        return []
    if cut.consecutive:
        return _run(cut.groups, harms)
    order = np.argsort(-harms, kind="stable")
    if cut.by in SAID and not sure:
        return [cut.groups[at] for at in order[:SUSPECTS] if harms[at] > 0]
    worst = int(order[0])
    return [cut.groups[worst]] if harms[worst] >= STANDS_FOR * harms.sum() else []


def _run(groups: Sequence[Group], harms: Floats) -> list[Group]:
    """The shortest run of groups that did nearly all harm, if it is at most half of them."""
    enough, n = STANDS_FOR * harms.sum(), len(groups)
    for length in range(1, n // 2 + 1):
        sums = np.convolve(harms, np.ones(length), "valid")
        start = int(sums.argmax())
        if sums[start] >= enough:
            return [merged(groups[start : start + length])]
    return []


def joined(outer: Predicate | None, inner: Predicate | None) -> Predicate | None:
    """What tells a part from all other rows: its own condition within that of the whole, of which
    it replaces what that says of the same columns."""
    if outer is None or inner is None:
        return None
    parts, named = _parts(inner), {*inner.columns()}
    both = [part for part in _parts(outer) if named.isdisjoint(part.columns())] + parts
    return And(tuple(both)) if len(both) > 1 else both[0]


def _parts(where: Predicate) -> list[Predicate]:
    return [*where.parts] if isinstance(where, And) else [where]
