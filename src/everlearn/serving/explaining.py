"""Routes that explain versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, Path

from everlearn.base import Json
from everlearn.serving.access import needs

if TYPE_CHECKING:
    from everlearn.serving.models import Models

Number = Annotated[int, Path(ge=1, lt=2**31)]


def add_explanations(app: FastAPI, models: Models) -> None:
    """Add the routes of this file."""

    @app.get("/v1/models/{model}/versions/{number}/explanation", tags=["models"])
    @needs("operate")
    def explain_version(model: str, number: Number) -> Json:
        """What a version learned and from whom, what it answers otherwise than the version before,
        and why it was let through."""
        log = models.predictor(model).log
        return models.explanations.explain(model, number, log)
