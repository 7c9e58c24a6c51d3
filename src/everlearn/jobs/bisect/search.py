"""The search over the versions of a lineage, and what is said of what it finds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from everlearn.base import Decision, InputError, Json, NotFoundError, State
from everlearn.data.condition import Condition
from everlearn.evaluation.loss import GREATER_IS_BETTER
from everlearn.jobs.bisect.blame import Blame
from everlearn.jobs.bisect.hints import first_bad, likely
from everlearn.jobs.bisect.measuring import learned_digest, recorded_digest
from everlearn.jobs.bisect.probing import Probing
from everlearn.jobs.refold import refold
from everlearn.registry.versions import Version
from everlearn.storage.parts import Manifest

STEP = 0.25
"""Share of the whole damage that a step has to have, to be told of; a smaller one only counts where
one source or reviewer made it."""

MOST = 0.75
"""Share from which on a step explains the damage; below, a source that made it is looked for in
the increments before."""


class Search:
    """Finds the step among the versions of a lineage, and what in its increment made it.

    Args:
        probing: measures versions, and parts of increments.
        path: the versions, each the parent of the next; the first is good, the last is bad.
        metric: by which they are judged.
    """

    def __init__(self, probing: Probing, path: Sequence[Version], metric: str) -> None:
        self._probing, self._path, self._metric = probing, path, metric
        self._registry = probing.bench.registry
        self._standing = [one for one in path if one.dropped_at is None]
        self._manifests: dict[int, Manifest] = {}
        self._began = time.perf_counter()
        self._notes: list[str] = []
        self._judged = {path[0].number, path[-1].number}
        self._replays = 0.0

    def report(self) -> dict[str, Json]:
        """All that is to be said, but for what was asked."""
        good, bad = self._path[0], self._path[-1]
        ends = [self._task(one) for one in (good, bad)]
        names = [_name(one.number) for one in (good, bad)]
        measured = self._probing.measure("versions", dict(zip(names, ends, strict=True)))
        self._good, self._bad = (measured[name] for name in names)
        told: dict[str, Json] = {
            "greater_is_better": self._metric in GREATER_IS_BETTER,
            "damage": self._bad,
            "likely": None,
            "version": None,
            "parent": None,
            "step": None,
            "increment": [],
            "since": None,
            "blame": None,
            "next": None,
        }
        if not _is_worse(self._bad):
            decision = self._nothing()
        else:
            decision = self._found(told)
        return {
            "decision": decision.to_json(),
            **told,
            "probes": self._probed(told["version"] is not None),
            "passed_over": [one.number for one in self._path if one.dropped_at is not None],
            "steps": self._steps(told["version"]),
            "notes": self._notes,
            "cost": self._cost(told["blame"]),
        }

    # --- versions ---

    def _told(self, version: Version) -> dict[str, Json]:
        """A version as measurements are told of it."""
        manifest = self._manifests.get(version.number)
        return {"number": version.number, "manifest": manifest}

    def _task(self, version: Version) -> dict[str, Json]:
        against = {"number": self._path[0].number}
        return {"do": "version", "version": self._told(version), "against": against}

    def _is_bad(self, version: Version) -> bool:
        name = _name(version.number)
        found = self._probing.measure("versions", {name: self._task(version)})[name]
        self._judged.add(version.number)
        return self._on_bad_side(found)

    def _on_bad_side(self, found: Json) -> bool:
        value, good, bad = (one["value"] for one in (found, self._good, self._bad))
        if value is None or bad is None:
            return value is None
        return not abs(value - good) < abs(value - bad)

    def _nothing(self) -> Decision:
        good, bad, rows = self._good["value"], self._bad["value"], self._probing.bench.judge.rows
        return Decision(
            "nothing",
            f"nothing to find: version {self._path[-1].number} is not worse than version "
            f"{self._path[0].number} beyond chance ({self._metric} {_text(bad)} against "
            f"{_text(good)} on {len(rows):,} rows)",
            {"worse_by": self._bad["worse_by"]},
        )

    def _found(self, told: dict[str, Json]) -> Decision:
        """Find the step, and what in its increment made it."""
        standing = self._standing
        told["likely"] = hint = likely(self._path, self._metric)
        at = first = None
        if hint is not None:  # or the first after it that has a state
            first = next(k for k, one in enumerate(standing) if one.number >= hint["version"])
            at = first if self._is_all(standing[first - 1], standing[first]) else None
        if at is None:
            at = first_bad(len(standing) - 1, lambda place: self._is_bad(standing[place]), first)
        pair = self._within(standing[at - 1], standing[at])
        if pair is None:
            told["version"], told["parent"] = standing[at].number, standing[at - 1].number
            return Decision("not one increment", self._notes[-1])
        parent, child = pair
        told["version"], told["parent"] = child.number, parent.number
        step = self._step(parent, child)
        told["step"] = step
        told["increment"] = self._increment(child)
        if not _is_worse(step):
            return self._gradual(told)
        told["blame"], why = self._blame(parent, child, step)
        return self._decided(told, why)

    def _is_all(self, parent: Version, child: Version) -> bool:
        """Whether a version is on the bad side, and one step from its parent did the whole damage
        or more: also where the parent is on the bad side too, for harm that was undone since."""
        if not self._is_bad(child) or child.parent != parent.number:
            return False
        self._is_bad(parent)
        step = self._step(parent, child)
        return _is_worse(step) and step["share"] is not None and step["share"] >= 1.0

    def _gradual(self, told: dict[str, Json]) -> Decision:
        share = told["step"]["share"]
        return Decision(
            "not one increment",
            f"no single increment did it: the step that was found, from version {told['parent']} "
            f"to {told['version']}, is {_percent(share)}; it came in small steps, as where the "
            "data drift",
            {"share": share},
        )

    def _within(self, low: Version, high: Version) -> tuple[Version, Version] | None:
        """The step between two versions, through those whose states were removed: these are
        folded again, one after the other, until one is bad. None where they cannot be."""
        between = [one for one in self._path if low.number < one.number < high.number]
        if not between:
            return low, high
        bench, parent = self._probing.bench, low
        try:
            state: State = bench.base(self._told(low))
            for version in between:
                plans = bench.recorded(version.number).plans
                if not plans:
                    raise InputError(f"version {version.number} learned nothing: it was patched")
                state = refold(self._registry, bench.model, state, plans).save()
                self._replays += 1.0
                if learned_digest(state) != recorded_digest(version):
                    raise InputError(f"version {version.number} is not reproduced")
                self._manifests[version.number] = self._registry.parts.save(state)
                if self._is_bad(version):
                    return parent, version
                parent = version
        except (InputError, NotFoundError) as error:
            self._notes.append(
                f"the damage came between versions {low.number} and {high.number}: the states of "
                f"those between were removed, and they cannot be folded again ({error})"
            )
            return None
        return parent, high

    def _step(self, parent: Version, child: Version) -> dict[str, Json]:
        bench = self._probing.bench
        mine, theirs = (bench.losses(self._told(one)) for one in (child, parent))
        found = bench.judge.compare(mine, theirs)
        share = None
        if found["worse_by"] is not None and self._bad["worse_by"] is not None:
            share = found["worse_by"]["mean"] / self._bad["worse_by"]["mean"]
        return {**found, "share": share}

    def _increment(self, child: Version) -> list[Json]:
        found = self._registry.version(self._probing.bench.model, child.number).increments
        names = ("source", "start", "stop", "rows", "held_out", "set_aside", "duplicates")
        return [{name: getattr(one, name) for name in names} for one in found]

    # --- within the increment ---

    def _blame(
        self, parent: Version, child: Version, step: Json
    ) -> tuple[dict[str, Json] | None, str]:
        """What in the increment did it; None with the reason where that cannot be told."""
        if step["worse_by"] is None:
            return None, "its answers are no numbers any more"
        damage = float(step["worse_by"]["mean"])
        try:
            ends = self._told(parent), self._told(child)
            found = Blame(self._probing, *ends, damage, strict=_is_small(step)).report()
            self._replays += found["replays"]["in_all"]
            return found, ""
        except (InputError, NotFoundError) as error:
            return None, str(error)

    def _decided(self, told: dict[str, Json], why: str) -> Decision:
        number, blame, share = told["version"], told["blame"], told["step"]["share"]
        begin = f"version {number} made it worse than version {told['parent']} ({_percent(share)})"
        small = _is_small(told["step"])
        if blame is None:
            if small:
                return self._gradual(told)
            begin += "; what of its increment did cannot be told"
            return Decision("found", f"{begin}: {why}", {"share": share})
        if blame["reproduced"] is False:
            self._notes.append(
                "folded again, the increment did not end in the same state: the libraries or the "
                "processor are not those it was learned with"
            )
        found = blame["found"]
        if small and (found is None or found["said"] is None):
            return self._gradual(told)
        if found is None:
            begin += "; no single group of its rows explains it"
            return Decision("found", begin, {"share": share})
        told["next"] = self._next(found)
        rows = f"{found['rows']:,} of the {found['of']:,} rows that it learned"
        reason = f"{begin}, by {rows}: {found['where'] or found['name']}"
        if found["proof"] == "alone":
            self._notes.append(_unstable(told, blame))
        if found["said"] is not None and share is not None and share < MOST:
            told["since"] = self._since(number, found["said"])
            reason += f"; such rows have done harm since version {told['since']}"
        return Decision("found", reason, {"share": share})

    def _since(self, number: int, where: str) -> int:
        """The version from which on rows of a source or a reviewer did harm, folded alone into the
        state before each: by binary search, as one that began to lie goes on with it."""
        path = [one for one in self._path if one.number <= number]

        def harms(place: int) -> bool:
            parent, child = (self._told(path[at]) for at in (place - 1, place))
            if path[place - 1].dropped_at is not None and parent["manifest"] is None:
                return False
            try:
                blame = Blame(self._probing, parent, child, 0.0)
                harmful = blame.is_harmful(Condition.parse(where), f"since {path[place].number}")
                if blame.folded:
                    self._replays += blame.folded / len(blame.rows)
                    self._judged.add(path[place - 1].number)
                return harmful
            except (InputError, NotFoundError):
                return False

        return path[first_bad(len(path) - 1, harms)].number

    def _next(self, found: Json) -> str | None:
        """The command that withdraws what a source or a reviewer said, or the rows."""
        where = found["said"] or found["where"]
        if where is None:
            return None
        quoted = where.replace("\\", "\\\\").replace('"', '\\"')
        quoted = quoted.replace("$", "\\$").replace("`", "\\`")
        return f'everlearn excise {self._probing.bench.model} --where "{quoted}"'

    # --- figures ---

    def _probed(self, sided: bool = True) -> list[Json]:
        """The versions that were judged; on a side where there is a step between two."""
        known = self._probing.known
        made = []
        for version in self._path:
            found = known.get(_name(version.number))
            if found is not None:
                bad = self._on_bad_side(found)
                side = ("bad" if bad else "good") if sided else None
                made.append({"version": version.number, "value": found["value"], "side": side,
                             "worse_by": found["worse_by"]})  # fmt: skip
        return made

    def _steps(self, version: Json) -> list[Json]:
        """Other large steps between neighbours among the versions that were judged."""
        probes, whole = self._probed(), self._bad["worse_by"]
        if version is None or whole is None:
            return []
        made = []
        for one, two in pairwise(probes):
            if one["worse_by"] is None or two["worse_by"] is None:
                continue
            share = (two["worse_by"]["mean"] - one["worse_by"]["mean"]) / whole["mean"]
            if abs(share) >= STEP and not one["version"] < version <= two["version"]:
                made.append({"from": one["version"], "to": two["version"], "share": share})
        return made

    def _cost(self, blame: Json) -> dict[str, Json]:
        """How many versions were judged, and how often an increment was folded again, by its rows:
        until the group was named, until that was confirmed, and in all."""
        first: Json = {} if blame is None else blame["replays"]
        return {
            "evaluations": len(self._judged),
            "ends": 2,
            "replays": self._replays,
            "replays_named": first.get("named"),
            "replays_confirmed": first.get("confirmed"),
            "measurements": len(self._probing.known),
            "seconds": time.perf_counter() - self._began,
        }


def _name(number: int) -> str:
    return f"version {number}"


def _is_worse(found: Json) -> bool:
    """Whether it is worse beyond chance, or answers with no number at all."""
    if found["worse_by"] is None:
        return not found["finite"]
    low = found["worse_by"]["low"]
    return low is not None and low > 0.0


def _is_small(step: Json) -> bool:
    return step["share"] is not None and step["share"] < STEP


def _unstable(told: Json, blame: Json) -> str:
    """Of a group that did all the damage alone, though leaving it out does not undo it."""
    [left] = [one for level in blame["levels"] for one in level["left_out"] if one["stands"]]
    worse = told["step"]["worse_by"]["mean"] - left["undone"]
    return (
        f"these rows alone did the damage, and no others alone did any of it; but folded without "
        f"them the rest ends {worse:+.4f} against version {told['parent']}: this learner is easily "
        "harmed by few rows, so that what an excision makes has to be judged"
    )


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _percent(share: float | None) -> str:
    """A share of the damage at the bad end, of which later versions may have undone a part."""
    if share is None:
        return "all of the damage"
    return f"{share:.0%} of the damage" if share <= 1.0 else "more than the damage that is left"
