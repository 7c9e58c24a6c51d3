"""Which rows of one increment did the damage: its groups folded alone, and left out.

Its rows are cut into groups, by source or by reviewer first; each group is folded alone into the
parent's state, which costs one replay of the increment for all of them together, and whichever did
most harm is confirmed by folding the increment without it. A group that is found is cut again where
the parent's surprise at its rows (`hints`) says that a part of it may stand for the whole of it. Of
its rows, those that surprised the parent most are folded alone, one by one, and ranked by the
damage each did. The increment as a whole is folded again only where nothing in it explains the
damage, or it was learned with other libraries: does it end in the same state at all?
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from everlearn.base import Floats, InputError, Ints, Json, Part
from everlearn.data.answers import restored
from everlearn.data.condition import Condition
from everlearn.data.predicates import And, Predicate
from everlearn.evaluation.trial import ask
from everlearn.jobs.bisect.cuts import SAID, Cut, Group, Rows, batch_of, merged
from everlearn.jobs.bisect.hints import Surprise
from everlearn.jobs.bisect.measuring import read_again, recorded_digest
from everlearn.jobs.bisect.probing import Probing
from everlearn.jobs.learn import Fold
from everlearn.jobs.load import load_fold
from everlearn.jobs.plan import Plan
from everlearn.registry.environment import environment
from everlearn.registry.versions import Version

EXPLAINS = 0.5
"""Share of the damage that leaving out a source or a reviewer has to undo: they answer for their
rows."""

STANDS_FOR = 0.8
"""The same, of a class, a key, a span of time or of rows, and of whatever stands for a group that
was found already; leaving out the rest of the group may undo at most what is left to 1. Also the
share of the damage that a source or a reviewer has to do alone, and all others at most what is left
to 1, to be found whatever leaving it out undoes: a learner may be harmed by any few rows."""

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

    Attributes:
        folded: rows of the increment that were folded again so far, each time that they were.

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
        self.folded = 0
        self._levels: list[dict[str, Json]] = []
        self._said: str | None = None
        self._proof = "whole"
        self._named: int | None = None
        self._confirmed: int | None = None

    def report(self) -> dict[str, Json]:
        """What did it.

        Returns:
            {"levels": of cuts, "found": the group that explains the damage or None, "reproduced":
            whether the increment as a whole, folded again, ends in the same state (None where it
            was not), "rows": that did most, "replays": how often the increment was folded again, by
            its rows: until the group was "named", "confirmed", and "in_all"}.
        """
        group = self._narrow()
        recorded, reproduced = self._probing.bench.version(self._child), None
        if group is None or group.name == WHOLE or recorded.environment != environment():
            reproduced = self._is_reproduced(recorded)
        suspects = np.arange(len(self.rows)) if group is None else group.members
        return {
            "levels": self._levels,
            "found": None if group is None else self._found(group),
            "reproduced": reproduced,
            "rows": self._ranked(suspects),
            "replays": {
                "named": self._replays(self._named),
                "confirmed": self._replays(self._confirmed),
                "in_all": self._replays(self.folded),
            },
        }

    def _replays(self, folded: int | None) -> float | None:
        return None if folded is None else folded / len(self.rows)

    def _is_reproduced(self, recorded: Version) -> bool:
        """Whether the whole increment, folded again, ends in the same state."""
        name = f"again {recorded.number}"
        task = {"do": "again", "version": self._child, "base": self._parent}
        again = self._probing.measure("replay", {name: task})[name]
        self.folded += len(self.rows)
        return bool(again["digest"] == recorded_digest(recorded))

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

    @cached_property
    def _before(self) -> Fold:
        """The parent, which answers."""
        bench = self._probing.bench
        return load_fold(bench.registry, bench.model, bench.version(self._parent))

    @cached_property
    def _surprise(self) -> Surprise | None:
        return Surprise.of(self._before, self._reader(), self._probing.bench.judge)

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
            if self._proof == "alone":
                break
        several = any(level["by"] in SAID for level in self._levels)
        return found if sure or not several else None

    def _better(self, group: Group, undone: float, sure: bool) -> tuple[Group, float] | None:
        """A part of a group that stands for it, and the damage that leaving it out undoes.

        Args:
            undone: the damage that leaving out the group undoes.
            sure: whether the group was found itself; else it is the whole increment.
        """
        for cut in self._cuts(group, sure):
            if len(cut.groups) < 2:
                continue
            depth = len(self._levels)
            level: dict[str, Json] = {"of": group.name, "by": cut.by, "rows": len(group.members)}
            level |= {"groups": self._alone(cut, depth), "left_out": [], "found": None}
            self._levels.append(level)
            for part in _suspects(cut, level["groups"], undone, sure or self._strict):
                own = cut.by in SAID and not sure and not self._strict
                named = self.folded
                told = self._tried(group, part, undone, f"{depth} {cut.by}", own)
                if own and not told["stands"] and self._did_all(level["groups"], part):
                    told |= {"stands": True, "proof": "alone"}
                level["left_out"].append(told)
                if told["stands"]:
                    level["found"], self._proof = part.name, told["proof"]
                    if self._named is None:
                        self._named, self._confirmed = named, self.folded
                    where = joined(group.where, part.where) if sure else part.where
                    return Group(part.name, part.members, where), told["undone"]
        return None

    def _cuts(self, group: Group, sure: bool) -> list[Cut]:
        """The ways to cut a group, in the order in which they are tried: by who said the rows, of
        the increment in any case; else where the parent's surprise says that it may help. Who was
        found answers for what they said of every class."""
        said, others = self.rows.said(group.members), self.rows.others(group.members)
        if self._said is not None:
            others = [cut for cut in others if cut.by != "class"]
        surprise = self._surprise
        if surprise is None:
            return [*said, *others]
        tried = [] if sure else surprise.ordered(said)
        left = [*surprise.ordered(said), *surprise.ordered(others)][len(tried) :]
        return tried + [
            cut for cut in left if len(cut.groups) > 1 and surprise.stands_out(cut, not sure)
        ]

    def _did_all(self, told: Sequence[Json], part: Group) -> bool:
        """Whether a group, folded alone, did the damage, and no other did any of it."""
        harms = {one["name"]: max(harm(one), 0.0) for one in told}
        mine = harms.pop(part.name)
        rest = sum(harms.values())
        return mine >= STANDS_FOR * self._damage and rest <= (1.0 - STANDS_FOR) * self._damage

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
        proof = "left out" if stands else None
        return {"name": part.name, "rows": len(part.members), **figures, "proof": proof}

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
        self.folded += sum(map(len, groups))
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
        self.folded += len(self.rows) - len(members)
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
        that it is of, if one was found: what they say is believed no more, here or elsewhere.
        "proof" is how: "left out", the damage is gone; "alone", it did all of it and the others
        none; "whole", the increment has no parts."""
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
            "proof": self._proof,
        }

    # --- rows ---

    def _ranked(self, members: Ints) -> list[Json]:
        """The rows that did most damage alone, each learned as a chunk of its own, among those that
        surprised the parent most."""
        if self._surprise is None:
            return []
        surprise: Floats = self._surprise.losses[members]
        first = np.argsort(-surprise, kind="stable")[:CANDIDATES]
        names = [f"row {int(members[at])}" for at in first]
        measured = self._apart("rows", names, [members[at : at + 1] for at in first])
        kept = [
            (name, at)
            for name, at in zip(names, first.tolist(), strict=True)
            if measured[name].get("worse_by") is not None
        ]
        kept.sort(key=lambda one: -measured[one[0]]["worse_by"]["mean"])
        shown = kept[:SHOWN]
        if not shown:
            return []
        parent, places = self._before, members[[at for _, at in shown]]
        answers = ask(parent, batch_of(self._reader(), self.rows, places)).prediction.value
        predicted = restored(parent.decode(answers), parent.columns)
        return [
            {
                **self.rows.told(int(members[at])),
                "predicted": predicted[place],
                "surprise": float(surprise[at]),
                "damage": measured[name]["worse_by"]["mean"],
            }
            for place, (name, at) in enumerate(shown)
        ]


def harm(told: Json) -> float:
    """How much worse a group made the parent; 0 where that is not known."""
    worse = told["alone"].get("worse_by")
    return 0.0 if worse is None else float(worse["mean"])


def _suspects(cut: Cut, told: Sequence[Json], damage: float, sure: bool) -> list[Group]:
    """The groups that may stand for all, the most harmful first; where what is cut was found to be
    guilty itself (`sure`), only one that did nearly all harm, the others next to none of the
    damage."""
    harms = np.array([max(harm(one), 0.0) for one in told])
    if not harms.any():
        return []
    if cut.consecutive:
        return _run(cut.groups, harms)
    order = np.argsort(-harms, kind="stable")
    if cut.by in SAID and not sure:
        return [cut.groups[at] for at in order[:SUSPECTS] if harms[at] > 0]
    worst = int(order[0])
    rest = harms.sum() - harms[worst]
    alone = harms[worst] >= STANDS_FOR * harms.sum() and rest <= (1.0 - STANDS_FOR) * damage
    return [cut.groups[worst]] if alone else []


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
