"""Bisection: which version of a lineage made a model worse, and which rows of its increment.

Binary search over the versions between one that was good and one that is bad, each judged on the
same rows; then within the increment (`blame`). A probe counts as bad where its metric is nearer to
the bad end's than to the good end's, so that the answer is a real step, from a version on the good
side to its child on the bad side, however the metric went between. One step is the answer from
either side: that which the records say to look at first (`hints`), where it did the whole damage.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from everlearn.base import (
    Batch,
    Columns,
    EverlearnError,
    InputError,
    Json,
    canonical_json,
    digest_bytes,
)
from everlearn.data.increment import Reader
from everlearn.data.source import open_sources
from everlearn.data.tables import MemoryBlobs
from everlearn.evaluation.gates import METRICS
from everlearn.evaluation.holdouts import ROWS, HoldOuts, batch_to_part, sample
from everlearn.jobs.bisect.measurers import Measurers
from everlearn.jobs.bisect.probing import Probing, Watch
from everlearn.jobs.bisect.records import DONE, FAILED, Bisections, Row
from everlearn.jobs.bisect.search import Search
from everlearn.learners.adapt import learner_kind
from everlearn.registry import lineage, versions
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.storage.parts import Manifest

PROCESSES = 4
"""Most processes, unless said otherwise."""

METHOD = 3
"""Number of the way in which a bisection answers: what was measured by another one is not used."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Args:
        good, bad: numbers of versions; the bad one came from the good one.
        metric: by which they are judged, lower or higher is better as it is.
        on: rows to judge on, anything that `open_sources` takes (20,000 of them at most). Unless
            given, the recent hold-out rows of the bad version, those of its newest increments that
            together have 1,000: no version of its lineage learned them, so that both ends can be
            judged on them. A source that lies is among them as it is among the labels; fresh rows
            of one's own are better.
    """

    good: int
    bad: int
    metric: str
    on: Any = None


class Bisector:
    """Answers one question, from what was measured for it before.

    Args:
        registry: of the workspace.
        model: its name.
        question: what is asked.
        processes: that measure at a time; as many as there are processors, at most 4, unless given.
        report: told of every measurement.

    Raises:
        InputError: the versions are not in one lineage, their states were removed, there are no
            rows to judge them on, or the metric does not suit the learner; the message says what
            to do.
        NotFoundError: there is no such model or version.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        question: Question,
        *,
        processes: int | None = None,
        report: Watch = lambda probe: None,
    ) -> None:
        if processes is not None and processes < 1:
            raise InputError(f"at least 1 process measures, not {processes}")
        self._registry, self.model, self.question = registry, model, question
        self._processes = processes or min(os.cpu_count() or 1, PROCESSES)
        self._report = report
        self._path = self._versions()
        self._check_metric()
        self._rows = self._judged_on()
        self._manifest: Manifest = registry.parts.save({"rows": batch_to_part(self._rows)})
        self._kept = Bisections(registry.database, model)

    # --- what is asked ---

    def _versions(self) -> list[Version]:
        """The versions from the good one to the bad one."""
        good, bad = self.question.good, self.question.bad
        with self._registry.database.read() as connection:
            path = lineage.lineage(connection, self.model, bad)
            if good not in path or good == bad:
                raise InputError(_unreachable(connection, self.model, good, bad))
            between = path[path.index(good) :]
            found = [versions.get(connection, self.model, n, increments=False) for n in between]
        standing = [one.number for one in found if one.dropped_at is None]
        for number in (good, bad):
            if number not in standing:
                others = f"those with a state between are {standing}" if standing else "nor any"
                raise InputError(
                    f"the state of version {number} of {self.model!r} was removed by the retention"
                    f" policy, so that it cannot be judged; {others}"
                )
        ends = [found[0].manifest["columns"], found[-1].manifest["columns"]]
        if ends[0]["digest"] != ends[1]["digest"]:
            raise InputError(
                f"versions {good} and {bad} of {self.model!r} have different columns: there are no"
                " rows on which both can be judged; ask within versions of one schema"
            )
        return found

    def _check_metric(self) -> None:
        bad = self._path[-1]
        model = self._registry.definition(self.model, bad.definition).model()
        kind = learner_kind(model.learner, self._columns(), classes=len(model.schema.classes))
        allowed = METRICS.get(kind, ())
        if self.question.metric not in allowed:
            hint = f"use one of {', '.join(allowed)}" if allowed else "there is none"
            raise InputError(f"{self.question.metric!r} cannot judge a {kind}: {hint}")

    def _columns(self) -> Columns:
        return Columns.from_json(self._registry.parts.load(self._path[-1].manifest)["columns"].meta)

    def _judged_on(self) -> Batch:
        bad = self._path[-1]
        if self.question.on is not None:
            rows = _compiled(self.question.on, self._columns())
        else:
            found = HoldOuts.load(self._registry.holdouts(self.model, bad)).recent
            if found is None:
                raise InputError(
                    f"version {bad.number} of {self.model!r} has no rows held out to judge on: "
                    "give some with --on DATA"
                )
            rows = found
        return rows if len(rows) <= ROWS else sample(rows, ROWS)

    @cached_property
    def asked(self) -> dict[str, Json]:
        """The question as it is kept."""
        return {
            "good": self.question.good,
            "bad": self.question.bad,
            "metric": self.question.metric,
            "on": "hold-outs" if self.question.on is None else "data",
            "rows": len(self._rows),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that the answer depends on."""
        path = [[v.number, v.state_digest, v.dropped_at is None] for v in self._path]
        same = [METHOD, self.model, self.question.metric, path]
        return digest_bytes(canonical_json([*same, self._manifest["rows"]["digest"]]))

    def open(self) -> Row:
        """The bisection as it is kept; begun if it was not."""
        return self._kept.open(self.asked, self.fingerprint, self._manifest["rows"]["blob"])

    # --- the answer ---

    def __call__(self) -> Row:
        """Answer, going on from what was measured before; the answer itself if it is known.

        Raises:
            EverlearnError: it cannot be answered; that is kept too.
        """
        row = self.open()
        if row.state == DONE:
            return row
        metric = self.question.metric
        try:
            with Measurers(
                self._registry, self.model, metric, self._manifest, self._processes
            ) as measurers:
                probing = Probing(measurers, self._kept, row, self._report)
                report = Search(probing, self._path, metric).report()
        except EverlearnError as error:
            self._kept.end(row.number, FAILED, {"error": str(error)})
            raise
        return self._kept.end(row.number, DONE, {**self.asked, "model": self.model, **report})


def _compiled(data: Any, columns: Columns) -> Batch:
    """The rows of data, as they would be learned. Raises `InputError`."""
    blobs = MemoryBlobs()
    found = [source.slice() for source in open_sources(data, blobs=blobs)]
    slices = [part for part in found if part is not None]
    with Reader(slices, columns, chunk=65_536, blobs=blobs) as reader:
        batches = [chunk.batch for chunk in reader]
    if not batches or not sum(map(len, batches)):
        raise InputError("there are no rows to judge on: none of those given has a usable target")
    return Batch.concat(batches)


def _unreachable(connection: sa.Connection, model: str, good: int, bad: int) -> str:
    if good == bad:
        return f"version {good} cannot be both good and bad; name two versions"
    shared = lineage.common_ancestor(connection, model, good, bad)
    if shared == bad:
        return (
            f"version {good} of {model!r} came from version {bad}, not the other way round: the "
            "good one is to be the earlier of the two (swap them, if it became better)"
        )
    if shared is None:
        return (
            f"versions {good} and {bad} of {model!r} have no common ancestor: one of them was "
            "retrained from scratch; choose a good version from `everlearn versions` that the bad "
            "one came from"
        )
    return (
        f"version {bad} of {model!r} did not come from version {good}, so that no path of "
        f"increments leads from one to the other; both came from version {shared}: take that as "
        "the good one, if it was good"
    )
