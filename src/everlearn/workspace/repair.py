"""Repairing a model: what puts right what it answers, and what it has learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from everlearn.base import ConflictError, InputError, Json
from everlearn.data.selection import Selection
from everlearn.jobs.bisect.bisector import Bisector, Question
from everlearn.jobs.bisect.probing import Watch
from everlearn.jobs.excise.excising import Excising, withdrawals_of
from everlearn.jobs.learn import Fold
from everlearn.jobs.patch.patches import Patches, PatchResult
from everlearn.jobs.result import JobResult, Report
from everlearn.registry.edits import edits_of
from everlearn.strategies.patch import WAYS, Way

if TYPE_CHECKING:
    from everlearn.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Excision:
    """What an excision did.

    Args:
        report: which rows it withdrew, what had learned them, and what is folded again; see
            `everlearn.jobs.excise.excising.Excising`.
        result: of the job; None where there was nothing to fold, or that is left to a worker.
        diff: what the version that was made differs in from the champion before.
    """

    report: Json
    result: JobResult | None = None
    diff: Json = None

    def to_json(self) -> Json:
        result = None if self.result is None else self.result.to_json()
        return self.report | {"result": result, "diff": self.diff}


class Repair:
    """Repairs of one model; made by `ModelHandle.repair`.

    Args:
        workspace: where the model is.
        name: of the model.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace, self._name = workspace, name
        self._patches = Patches(workspace.registry, workspace.rollouts.begin)

    def patch(
        self, edits: Iterable[Mapping[str, Any]], *, dry_run: bool = False, way: Way = "auto"
    ) -> PatchResult:
        """Put single answers of the champion right, in seconds, without learning.

        A patched version is made, judged by the model's gate and by how many answers for rows held
        out would turn from right to wrong, and becomes champion, or goes on trial, as what a job
        makes does. Edits of the champion stay, and are solved again together with the new ones.

        Args:
            edits: ``{"features": {…}, "output": …, "reason": "…", "author"?, "prediction_id"?,
                "expires_at"?}`` of each.
            dry_run: only say what it would do.
            way: how answers are changed: by exceptions within a radius ("memory"), by the least
                change of the last layer's weights or of leaves ("weights"), or by whichever each
                edit needs ("auto"). Edits that stand keep theirs.

        Raises:
            InputError: no edit, edits that contradict each other, an input outside of the schema,
                an answer that the model cannot give, or all are answered as wanted already.
            NotFoundError: there is no champion.
            ConflictError: the champion was moved meanwhile.
            UnsolvableError: way="weights", and no change of weights does it.
        """
        if way not in WAYS:
            raise InputError(f"way={way!r}; it is one of {', '.join(map(repr, WAYS))}")
        return self._patches(self._name, edits_of(edits), way=way, dry_run=dry_run)

    def excise(
        self,
        *,
        where: str | None = None,
        rows: Sequence[str] | None = None,
        key: str | None = None,
        induced_by: int | None = None,
        reason: str = "withdrawn by hand",
        author: str | None = None,
        dry_run: bool = False,
        queue: bool = False,
        progress: Report = lambda progress: None,
    ) -> Excision:
        """Withdraw rows, and fold again without them what the champion learned.

        The last version that never had the rows is the base: the increments that were learned from
        there on are learned again as their jobs did, and only what comes of the last is judged. If
        it is refused, the champion stays, marked. Versions that learned the rows cannot become
        champion again. Nothing is deleted: see `Workspace.erase` for that.

        Args:
            where: a condition on rows, as "source = 'bot-7' and time >= '2024-03-01'"; see
                `everlearn.data.condition`.
            rows: or rows by their numbers, as "a.csv:10-20".
            key: or those of one user, machine, ….
            induced_by: or labels of predictions that this version answered.
            reason, author: kept with the withdrawal.
            dry_run: only say what would be done.
            queue: leave the job to a worker.
            progress: called after every chunk.

        Raises:
            InputError: no such row, or what learned them cannot be folded again, with the reason.
            ConflictError: a job or a rollout has not ended; nothing was withdrawn.
        """
        log = self._workspace.updates.log(self._name)
        excising = Excising(self._workspace.registry, self._workspace.queue, self._name, log)
        before = self._workspace.registry.champion(self._name)
        selection = Selection.of(where=where, rows=rows, key=key, induced_by=induced_by)
        report = excising(selection, reason=reason, author=author, dry_run=dry_run)
        if report["job"] is None or queue:
            return Excision(report)
        result = self._workspace.run(report["job"], progress)
        if before is None or result.version is None:
            return Excision(report, result)
        handle = self._workspace.model(self._name)
        return Excision(report, result, handle.diff(before.number, result.version))

    def withdrawals(self) -> list[Json]:
        """What was withdrawn, oldest first, as JSON."""
        return withdrawals_of(self._workspace.registry, self._workspace.updates.log(self._name))

    def bisect(
        self,
        *,
        good: int,
        bad: int,
        metric: str,
        on: Any = None,
        processes: int | None = None,
        progress: Watch = lambda probe: None,
    ) -> Json:
        """Find the version that made the model worse, and which rows of its increment did.

        Asked again after a kill, it goes on from what was measured; asked again after that, it
        reads the answer.

        Args:
            good, bad: numbers of versions; the bad one came from the good one.
            metric: what got worse.
            on: rows to judge on, anything that `open_sources` takes; what the bad version held out
                last, unless given.
            processes: that measure at a time.
            progress: told of every measurement.

        Returns:
            The report: "decision", "version", "parent", "step", "probes", "increment", "blame"
            (what the groups of its rows did, and the rows), "next", "notes", "cost".

        Raises:
            InputError: the versions are not in one lineage, or cannot be judged.
            NotFoundError: there is no such version.
        """
        question = Question(good, bad, metric, on)
        registry = self._workspace.registry
        ask = Bisector(registry, self._name, question, processes=processes, report=progress)
        return ask().report

    def edits(self) -> list[Json]:
        """All edits as JSON, with their "state": "standing", why they ended, or "waiting" (of a
        candidate, or of a version that was rolled back)."""
        return self._patches.listed(self._name)

    def revoke_edit(self, number: int) -> PatchResult:
        """Take an edit back: the others are solved again, and what comes of that is champion.

        Raises:
            InputError: there is no such edit.
            ConflictError: the champion was moved meanwhile.
        """
        return self._patches.revoke(self._name, [number])

    def expire_edits(self) -> PatchResult | None:
        """End the edits of the champion whose time has come; None if there are none. `predict` does
        so before it answers, and a server twice a second."""
        return self._patches.expire(self._name)

    def end_edits_of(self, champion: Fold) -> bool:
        """Have another champion take the place of one of which an edit has come to its end;
        whether there was such an edit. While a job or another process changes the model, what
        stands goes on answering: the edit ends with a later look."""
        clock = self._workspace.database.clock
        ends = None if champion.patch is None else champion.patch.ends
        if ends is None or ends > clock():
            return False
        with suppress(ConflictError):
            self._patches.expire(self._name)
        return True
