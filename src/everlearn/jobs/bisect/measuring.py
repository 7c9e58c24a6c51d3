"""What a bisection measures: versions, and folds of parts of an increment, on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from everlearn.base import (
    Batch,
    EverlearnError,
    Floats,
    InputError,
    Ints,
    Json,
    State,
    canonical_json,
    digest_bytes,
    under,
)
from everlearn.data.ids import SeenIds
from everlearn.data.increment import Reader
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.resettle import withdraw
from everlearn.data.slices import Slice
from everlearn.data.tables import BlobStore, Scratch
from everlearn.evaluation.comparison import compare_losses
from everlearn.evaluation.holdouts import batch_from_part
from everlearn.evaluation.intervals import independent_groups
from everlearn.evaluation.loss import metric_losses
from everlearn.evaluation.trial import ask
from everlearn.jobs.folding import AT_ONCE
from everlearn.jobs.learn import Fold
from everlearn.jobs.load import load_fold
from everlearn.jobs.plan import Plan
from everlearn.jobs.refold import Recorded, changed, recorded, refold
from everlearn.jobs.relive import learn_memory
from everlearn.registry.models import model_id
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.storage.parts import Manifest, PartStore

Codes = Mapping[int, Ints]
"""Ordinal of a slice → (rows,) the group of each source row from the slice's first; −1 for none."""

LEVEL = 0.95
"""Confidence of each bound of the intervals."""


@dataclass(frozen=True, slots=True)
class Judge:
    """What all states are judged by.

    Args:
        metric: one that has a loss per row.
        rows: with y in the target's own values.
    """

    metric: str
    rows: Batch

    def losses(self, fold: Fold) -> Floats:
        """(n,) the loss of each row, lower is better.

        Raises:
            InputError, SpecError: the metric does not suit the learner.
        """
        answers = ask(fold, self.rows)
        if self.metric == "reconstruction_error":
            return answers.prediction.value.astype(np.float64, copy=False)
        if answers.y is None:
            raise InputError(f"{self.metric!r} needs a target, and this learner has none")
        classes = max(answers.classes, len(np.unique(answers.y)))
        return metric_losses(self.metric, answers.y, answers.prediction, classes=classes)

    def compare(self, mine: Floats, theirs: Floats) -> dict[str, Json]:
        """{"value": the metric of `mine`, "before": that of `theirs`, "worse_by": the paired
        interval of how much worse it is}; None where a state answers with no number at all."""
        finite = [bool(np.isfinite(losses).all()) for losses in (mine, theirs)]
        if not all(finite):
            return {"value": None, "before": None, "worse_by": None, "finite": finite[0]}
        groups = independent_groups(len(mine), self.rows.time, self.rows.key)
        found = compare_losses(self.metric, mine, theirs, level=LEVEL, groups=groups)
        worse = found.worse.to_json()
        return {"value": found.candidate, "before": found.champion, "worse_by": worse}


class Bench:
    """Measures, in one process, what it is told in JSON: see `measure`.

    Args:
        registry: of the workspace.
        model: its name.
        metric: by which states are judged.
        rows: manifest of the rows on which they are (a part "rows").
    """

    def __init__(self, registry: Registry, model: str, metric: str, rows: Manifest) -> None:
        self.registry, self.model = registry, model
        self.judge = Judge(metric, batch_from_part(registry.parts.load(rows)["rows"]))
        self._losses: dict[str, Floats] = {}

    def measure(self, task: Json) -> dict[str, Json]:
        """Names of measurements → what was measured.

        Args:
            task: {"do": "version", "version": V, "against": V}: its metric beside another's;
                {"do": "again", "version": V, "base": V}: the digest in which its increment ends;
                {"do": "alone", "version": V, "base": V, "codes": manifest, "groups": {number:
                name}}: each group of its rows folded alone into the base;
                {"do": "without", …, "group": number, "name": name}: the increment without a group.
                Each V is {"number": n}, with a "manifest" where its state is kept elsewhere.
        """
        do: Callable[[Json], dict[str, Json]] = getattr(self, f"_{task['do']}")
        return do(task)

    def version(self, told: Json) -> Version:
        """The version that is meant by a V."""
        found = self.registry.version(self.model, int(told["number"]))
        if told.get("manifest") is None:
            return found
        return replace(found, manifest=told["manifest"], dropped_at=None)

    def losses(self, told: Json) -> Floats:
        """(n,) the losses of a version's answers; computed once."""
        version = self.version(told)
        if version.state_digest not in self._losses:
            fold = load_fold(self.registry, self.model, version)
            self._losses[version.state_digest] = self.judge.losses(fold)
        return self._losses[version.state_digest]

    def recorded(self, number: int) -> Recorded:
        """What a version learned, and how."""
        return recorded(self.registry, self.model, [number])[0]

    def base(self, told: Json) -> State:
        """The state of a version."""
        return self.registry.state(self.model, self.version(told))

    def codes(self, manifest: Manifest) -> Codes:
        """The groups of the rows that were stored."""
        arrays = self.registry.parts.load(manifest)["codes"].arrays
        return {int(name): codes for name, codes in arrays.items()}

    # --- tasks ---

    def _version(self, task: Json) -> dict[str, Json]:
        told = task["version"]
        found = self.judge.compare(self.losses(told), self.losses(task["against"]))
        return {f"version {told['number']}": found}

    def _again(self, task: Json) -> dict[str, Json]:
        number = task["version"]["number"]
        plans = self.recorded(number).plans
        fold = refold(self.registry, self.model, self.base(task["base"]), plans)
        return {f"again {number}": {"digest": learned_digest(fold.save())}}

    def _without(self, task: Json) -> dict[str, Json]:
        plans = self.recorded(task["version"]["number"]).plans
        codes, group = self.codes(task["codes"]), task["group"]
        blobs: Any = Scratch(self.registry.parts.blobs)
        registry = Registry(self.registry.database, PartStore(blobs))

        def change(part: Slice, plan: Plan) -> Slice:
            gone = np.flatnonzero(codes[plan.slices.index(part)] == group) + part.start
            return self._withdrawn(part, plan, gone, blobs)

        left = changed(registry, self.model, plans, change)
        fold = refold(registry, self.model, self.base(task["base"]), left)
        return {
            task["name"]: self.judge.compare(self.judge.losses(fold), self.losses(task["version"]))
        }

    def _withdrawn(self, part: Slice, plan: Plan, gone: Ints, blobs: BlobStore) -> Slice:
        """A slice without rows, as an excision would make it."""
        if part.kind != LogSource.kind:
            return withdraw(part, gone, blobs)
        model = self.registry.definition(self.model, plan.definition).model()
        source = LogSource(self.log, model.schema, blobs, model.labels)
        return withdraw(part, gone + 1, blobs, plan.columns, source)

    @cached_property
    def log(self) -> FeedbackLog:
        """The model's feedback log."""
        with self.registry.database.read() as connection:
            key = model_id(connection, self.model)
        return FeedbackLog(self.registry.database, key, self.registry.parts.blobs)

    def _alone(self, task: Json) -> dict[str, Json]:
        version = self.recorded(task["version"]["number"])
        (plan,) = version.plans
        groups = {int(number): name for number, name in task["groups"].items()}
        before = self.losses(task["base"])
        learner = self.registry.definition(self.model, plan.definition).section("learner")
        apart = Apart(plan, learner, self.base(task["base"]), list(groups))
        apart.learn(self.registry.parts.blobs, self.codes(task["codes"]))
        return {
            groups[number]: self._told(fold, before) for number, fold in apart.folds.items()
        } | {groups[number]: {"error": error} for number, error in apart.failed.items()}

    def _told(self, fold: Fold, before: Floats) -> dict[str, Json]:
        return self.judge.compare(self.judge.losses(fold), before)


def learned_digest(state: State) -> str:
    """The digest of what was learned: of a state without answers that were patched afterwards."""
    return _digest({name: part.digest for name, part in state.items()})


def recorded_digest(version: Version) -> str:
    """The same of a version as it was recorded, whether its state is there or not."""
    return _digest({name: entry["digest"] for name, entry in version.manifest.items()})


def _digest(parts: Mapping[str, str]) -> str:
    learned = {name: digest for name, digest in parts.items() if not name.startswith("patch/")}
    return digest_bytes(canonical_json(learned))


class Apart:
    """Groups of an increment's rows, each folded alone into the base in one reading of them all.

    A group is learned as if the increment had only its rows: in their order, in chunks as long as
    the job's, with what is drawn from the base's memory.

    Args:
        plan: of the increment; it goes on from its base.
        learner: its definition.
        base: the state.
        groups: the numbers of those that are folded.

    Attributes:
        folds: group → its fold.
        failed: group → why it cannot be learned alone.
    """

    def __init__(self, plan: Plan, learner: Any, base: State, groups: Sequence[int]) -> None:
        self._plan, self._base = plan, base
        self.folds = {
            group: Fold.load(base, learner, plan.strategy, frozen=not plan.online)
            for group in groups
        }
        self.failed: dict[int, str] = {}
        self._waiting: dict[int, list[Batch]] = {group: [] for group in groups}
        by_rows = next(iter(self.folds.values())).by_rows
        self._size = (AT_ONCE if by_rows else 1) if plan.online else plan.strategy.chunk

    def learn(self, blobs: Any, codes: Codes) -> None:
        """Read the increment, once for each pass, and fold every row into its group's state."""
        for number in range(1 if self._plan.online else self._plan.strategy.passes):
            with read_again(self._plan, self._base, blobs, chunk=self._size) as reader:
                for chunk in reader:
                    of = groups_of(chunk.origins(), self._plan.slices, codes)
                    for group in np.unique(of[of >= 0]).tolist():
                        if group in self.folds:
                            self._add(group, chunk.batch.take(of == group), number > 0)
            for group in list(self.folds):
                self._step(group, number > 0, self._size, last=True)
        for fold in self.folds.values():
            fold.settle()
            learn_memory(fold, self._plan.strategy, lambda rows: None)

    def _add(self, group: int, rows: Batch, again: bool) -> None:
        self._waiting[group].append(rows)
        if sum(map(len, self._waiting[group])) >= self._size:
            self._step(group, again, self._size)

    def _step(self, group: int, again: bool, size: int, last: bool = False) -> None:
        """Fold whole chunks of what waits; at the end of a pass the rest too."""
        if not self._waiting[group]:
            return
        rows = Batch.concat(self._waiting[group])
        whole = len(rows) if last else len(rows) // size * size
        self._waiting[group] = [rows.take(slice(whole, None))] if whole < len(rows) else []
        try:
            for piece in rows.take(slice(0, whole)).split(size):
                self.folds[group].step(piece, again=again, test=False)
        except EverlearnError as error:
            self.failed[group] = str(error)
            del self.folds[group]


def read_again(plan: Plan, base: State, blobs: Any, *, chunk: int = 65_536) -> Reader:
    """The rows of an increment that its job learned, in that order, one pass.

    Raises:
        ChangedError, InputError: a source is not what was learned, or cannot be read any more.
    """
    return Reader(
        plan.slices,
        plan.columns,
        chunk=chunk,
        order="stream" if plan.online else plan.strategy.order,
        seed=plan.strategy.seed,
        holdout=plan.holdout,
        seen=SeenIds(under("ids", base), again=plan.again),
        blobs=blobs,
    )


def groups_of(origins: tuple[Ints, Ints], slices: Sequence[Slice], codes: Codes) -> Ints:
    """(n,) the group of each row that a chunk came with; −1 for none."""
    parts, rows = origins
    of = np.full(len(rows), -1, np.int64)
    for part in np.unique(parts).tolist():
        mine = parts == part
        of[mine] = codes[part][rows[mine] - slices[part].start]
    return of
