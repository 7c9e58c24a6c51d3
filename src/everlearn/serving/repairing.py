"""Repairs over HTTP: edits of single answers, and withdrawals of rows that were learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import FastAPI
from pydantic import Field

from everlearn.base import Json
from everlearn.data.selection import Selection
from everlearn.jobs.excise.excising import Excising, withdrawals_of
from everlearn.jobs.patch.patches import Patches, PatchResult
from everlearn.registry.edits import edits_of
from everlearn.registry.models import plain
from everlearn.serving.access import needs
from everlearn.serving.bodies import Body, Name, Number, Value
from everlearn.serving.reviewing import Number as Named

if TYPE_CHECKING:
    from everlearn.serving.models import Models


class EditBody(Body):
    """An answer that is wanted."""

    features: dict[Name, Value | None]
    output: Value
    reason: Name = Field(min_length=1)
    author: Name | None = None
    prediction_id: Name | None = None
    """Of the log, that was wrong."""
    expires_at: Name | None = None
    """ISO text."""


class PatchBody(Body):
    """Answers of the champion that are to be put right."""

    edits: list[EditBody] = Field(min_length=1, max_length=1000)
    way: Literal["auto", "memory", "weights"] = "auto"
    dry_run: bool = False


class ExciseBody(Body):
    """Rows that are to be withdrawn: one of `where`, `rows`, `key` and `induced_by`."""

    where: str | None = Field(default=None, max_length=100_000)
    rows: list[Name] | None = Field(default=None, max_length=1000)
    key: Name | None = None
    induced_by: Number | None = None
    reason: Name = "withdrawn over HTTP"
    author: Name | None = None
    dry_run: bool = False


class Repairs:
    """What repairs do to the models of a server: the same over HTTP and in the console."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def patches(self) -> Patches:
        """Patches by the workspace's registry and rollouts."""
        return Patches(self._models.versions, self._models.rollouts.begin)

    def patch(self, model: str, body: PatchBody, expected: int | None = None) -> PatchResult:
        """Put answers right. Raises what `Patches` does.

        Args:
            expected: the champion that was looked at before.
        """
        predictor = self._models.predictor(model)
        asked = edits_of(edit.model_dump() for edit in body.edits)
        found = self.patches()(model, asked, way=body.way, dry_run=body.dry_run, expected=expected)
        predictor.refresh()
        return found

    def edits(self, model: str) -> list[Json]:
        """All edits of a model."""
        self._models.predictor(model)
        return [plain(one) for one in self.patches().listed(model)]

    def revoke(self, model: str, number: int) -> Json:
        """Take an edit back. Raises what `Patches.revoke` does."""
        predictor = self._models.predictor(model)
        found = self.patches().revoke(model, [number])
        predictor.refresh()
        return found.to_json()

    def excise(self, model: str, body: ExciseBody) -> Json:
        """Withdraw rows, and queue the job that folds without them. Raises what `Excising` does."""
        log = self._models.predictor(model).log
        asked = body.model_dump(include={"where", "rows", "key", "induced_by"})
        excising = Excising(self._models.versions, self._models.queue, model, log)
        return plain(
            excising(
                Selection.of(**asked),
                reason=body.reason,
                author=body.author,
                dry_run=body.dry_run,
            )
        )

    def withdrawals(self, model: str) -> list[Json]:
        """What was withdrawn, oldest first."""
        return withdrawals_of(self._models.versions, self._models.predictor(model).log)


def add_repairs(app: FastAPI, models: Models) -> Repairs:
    """Add the routes of this file."""
    repairs = Repairs(models)

    @app.post("/v1/models/{model}/patches", tags=["repair"])
    @needs("operate")
    def patch(model: str, body: PatchBody) -> Json:
        """Put single answers of the champion right, in seconds, without learning; with `dry_run`
        only say what else would change."""
        return repairs.patch(model, body).to_json()

    @app.get("/v1/models/{model}/edits", tags=["repair"])
    @needs("operate")
    def list_edits(model: str) -> Json:
        """All edits, and what became of each."""
        return {"edits": repairs.edits(model)}

    @app.post("/v1/models/{model}/edits/{number}/revoke", tags=["repair"])
    @needs("operate")
    def revoke_edit(model: str, number: Named) -> Json:
        """Take an edit back; the others are solved again."""
        return repairs.revoke(model, number)

    @app.post("/v1/models/{model}/excisions", tags=["repair"])
    @needs("operate")
    def excise(model: str, body: ExciseBody) -> Json:
        """Withdraw rows, and queue a job that folds without them what the champion learned."""
        return repairs.excise(model, body)

    @app.get("/v1/models/{model}/excisions", tags=["repair"])
    @needs("operate")
    def list_excisions(model: str) -> Json:
        """What was withdrawn, oldest first."""
        return {"excisions": repairs.withdrawals(model)}

    return repairs
