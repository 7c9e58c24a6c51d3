"""Training: what is new in data is learned, after what was left unfinished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everlearn.base import ConflictError
from everlearn.jobs.plan import Request
from everlearn.jobs.queue import OPEN
from everlearn.jobs.result import JobResult, Report

if TYPE_CHECKING:
    from everlearn.workspace.workspace import Workspace


def train(
    workspace: Workspace, name: str, definition: int, request: Request, progress: Report
) -> JobResult:
    """Plan a job for what is new, and carry it out; see `ModelHandle.train`.

    Args:
        name: of the model.
        definition: number of the one to learn by.
        request: for which data.
        progress: called after every chunk.
    """
    planner, planned = workspace.planner, None
    results = _finish(workspace, name, progress)
    sources = planner.open(request)
    while planned is None:
        try:
            planned = planner.plan(name, definition, request, sources)
        except ConflictError:  # another process queued a job, or moved the champion, meanwhile
            results += _finish(workspace, name, progress)
    if isinstance(planned, int):
        return workspace.run(planned, progress)
    return results[-1] if results else JobResult(None, None, planned)


def _finish(workspace: Workspace, name: str, progress: Report) -> list[JobResult]:
    """Carry out the jobs that have not ended; wait for those that others carry out."""
    unfinished = workspace.queue.jobs(name, OPEN)
    return [workspace.run(job.id, progress) for job in unfinished]
