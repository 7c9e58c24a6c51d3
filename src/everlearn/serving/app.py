"""The HTTP API (`/v1`), described by OpenAPI at `/docs`."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from everlearn.base import ConflictError, EverlearnError, InputError, Json, NotFoundError
from everlearn.registry.keys import ApiKey
from everlearn.serving import operating
from everlearn.serving.access import ADMIN, KEY, OPEN, needs
from everlearn.serving.bisecting import add_bisections
from everlearn.serving.bodies import (
    EraseBody,
    FeedbackBody,
    PredictBody,
    PromoteBody,
    RefuseBody,
    RollbackBody,
)
from everlearn.serving.console.routes import add_console
from everlearn.serving.events import Events
from everlearn.serving.explaining import add_explanations
from everlearn.serving.following import Following
from everlearn.serving.journal import Journal
from everlearn.serving.learning import Learning
from everlearn.serving.limits import Limits, Refused
from everlearn.serving.models import Models
from everlearn.serving.online import OnlineLearning
from everlearn.serving.protect import protect
from everlearn.serving.repairing import add_repairs
from everlearn.serving.reviewing import add_review
from everlearn.serving.turns import Turns

STATUS: dict[type[Exception], int] = {
    NotFoundError: 404,
    ConflictError: 409,
    InputError: 422,
    OverflowError: 429,
}
"""Error → HTTP status; any other error of everlearn is 503."""

Limit = Annotated[int | None, Query(ge=1, le=10_000)]
Before = Annotated[int, Query(ge=1, lt=2**31)]


def make_app(
    models: Models,
    learning: Learning | None = None,
    online: OnlineLearning | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """The application over some models.

    Args:
        learning: what learns beside it, started and stopped with it; None leaves that to workers.
        online: the same, of models that learn every label as it arrives.
        limits: of size and rate.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        keys = {name: predictor.log.model for name, predictor in models.predictors.items()}
        journal = Journal(Events(models.versions.database), keys)
        threads = (journal, Following(models.refresh), learning, online, bisecting)
        beside = [one for one in threads if one is not None]
        for one in beside:
            one.start()
        yield
        for one in beside:
            await run_in_threadpool(one.stop)
        turns: list[Turns[Any, Any]] = [*models.predicting.values(), *models.labelling.values()]
        for taken in turns:
            await taken.close()

    app = FastAPI(title="everlearn", version="1", lifespan=lifespan)
    app.state.models = models
    protect(app, models.versions.database, models.predictors, limits)
    if online is not None:
        models.after_labels = online.wake
    app.add_exception_handler(EverlearnError, _failed)
    app.add_exception_handler(OverflowError, _failed)
    _add_events(app, models)
    _add_models(app, models)
    add_explanations(app, models)
    _add_rollouts(app, models)
    add_review(app, models)
    bisecting = add_bisections(app, models)
    repairs = add_repairs(app, models)
    _add_health(app, models)
    add_console(app, models.console(), models, repairs, bisecting)
    return app


def _add_events(app: FastAPI, models: Models) -> None:
    @app.post("/v1/models/{model}/predict", tags=["events"])
    @needs("predict")
    async def predict(model: str, body: PredictBody) -> Response:
        """Predict, and log what was answered."""
        return answer(await models.predict(model, body))

    @app.post("/v1/models/{model}/feedback", tags=["events"])
    @needs("feedback")
    async def feedback(model: str, body: FeedbackBody, request: Request) -> Response:
        """Say what was right. Acknowledged once it is durable; said twice, it counts once."""
        _attribute(body, request.scope[KEY])
        return answer(await models.label(model, body))


def _add_models(app: FastAPI, models: Models) -> None:
    @app.get("/v1/models", tags=["models"])
    @needs()
    def list_models(request: Request) -> Json:
        """All models that the key is for."""
        key: ApiKey | None = request.scope[KEY]
        only = None if key is None else key.model
        return {
            "models": [models.about(name) for name in models.predictors if only in (None, name)]
        }

    @app.get("/v1/models/{model}", tags=["models"])
    @needs()
    def show_model(model: str) -> Json:
        """What serves now."""
        return models.about(model)

    @app.get("/v1/models/{model}/versions", tags=["models"])
    @needs("operate")
    def list_versions(model: str, limit: Limit = None, before: Before = 2**31 - 1) -> Json:
        """All versions; with a limit, the newest ones before one."""
        models.predictor(model)
        found = models.versions.versions(model, limit, before)
        return {"versions": [item.to_json() for item in found]}

    @app.get("/v1/models/{model}/history", tags=["models"])
    @needs("operate")
    def list_history(model: str) -> Json:
        """All moves of the aliases."""
        models.predictor(model)
        return {"history": [item.to_json() for item in models.versions.history(model)]}

    @app.get("/v1/models/{model}/jobs", tags=["jobs"])
    @needs("operate")
    def list_jobs(model: str, limit: Limit = None, before: Before = 2**31 - 1) -> Json:
        """All jobs; with a limit, the newest ones before one."""
        models.predictor(model)
        found = models.queue.jobs(model, limit=limit, before=before)
        return {"jobs": [job.to_json() for job in found]}

    @app.post("/v1/models/{model}/jobs", tags=["jobs"], status_code=202)
    @needs("operate")
    def add_job(model: str) -> Json:
        """Queue a job for the labels that are new."""
        return operating.run_job(models, model)

    @app.post("/v1/models/{model}/promote", tags=["models"])
    @needs("operate")
    def promote(model: str, body: PromoteBody) -> Json:
        """Make a version champion."""
        return operating.promote(models, model, body)

    @app.post("/v1/models/{model}/rollback", tags=["models"])
    @needs("operate")
    def rollback(model: str, body: RollbackBody | None = None) -> Json:
        """Go back to an earlier champion."""
        return operating.roll_back(models, model, body)

    @app.post("/v1/models/{model}/refuse", tags=["models"])
    @needs("operate")
    def refuse(model: str, body: RefuseBody | None = None) -> Json:
        """Have a retrained candidate catch up no more with what is learned online."""
        return operating.refuse(models, model, body)

    @app.post("/v1/models/{model}/erase", tags=["models"])
    @needs(ADMIN)
    def erase(model: str, body: EraseBody) -> Json:
        """Erase the data of one key, and list the versions that learned from it."""
        return operating.erase(models, model, body)


def _add_rollouts(app: FastAPI, models: Models) -> None:
    @app.get("/v1/models/{model}/rollouts", tags=["rollouts"])
    @needs("operate")
    def list_rollouts(model: str) -> Json:
        """All rollouts."""
        models.predictor(model)
        return {"rollouts": [item.to_json() for item in models.rollouts.listed(model)]}

    @app.get("/v1/models/{model}/rollouts/{number}", tags=["rollouts"])
    @needs("operate")
    def show_rollout(model: str, number: Annotated[int, Path(ge=1, lt=2**63)]) -> Json:
        """One rollout, with what was seen and decided."""
        models.predictor(model)
        return models.rollouts.show(model, number)

    @app.post("/v1/models/{model}/rollouts/stop", tags=["rollouts"])
    @needs("operate")
    def stop_rollout(model: str) -> Json:
        """End the rollout that is running; the champion stays."""
        return operating.stop_rollout(models, model)


def _add_health(app: FastAPI, models: Models) -> None:
    @app.get("/healthz", tags=["health"])
    @needs(OPEN)
    async def healthz() -> Json:
        """Whether the process answers at all."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    @needs()
    def readyz() -> Json:
        """Whether the database answers, and which versions serve."""
        return {name: models.about(name)["serving"] for name in models.predictors}

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    @needs()
    def metrics() -> Response:
        """For Prometheus."""
        found = generate_latest(models.observed.registry)
        return Response(found, media_type=CONTENT_TYPE_LATEST)


def answer(said: Json) -> Response:
    """An answer that may be long, written out faster than `JSONResponse` does."""
    return Response(to_json(said), media_type="application/json")


async def _failed(request: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 503)
    return JSONResponse({"error": str(error)}, status)


def _attribute(body: FeedbackBody, key: ApiKey | None) -> None:
    """Labels under a key that speaks for one source come from that. Raises `Refused`."""
    if key is None or key.source is None:
        return
    for label in body.labels:
        if "source" not in label.model_fields_set:
            label.source = key.source
        elif label.source != key.source:
            text = f"this key speaks for the source {key.source!r} only, not {label.source!r}"
            raise Refused(403, text, key=key.id)


def serve(app: Any, host: str, port: int, limits: Limits | None = None) -> None:
    """Answer until interrupted."""
    import uvicorn

    from everlearn.serving.heads import within

    heads = within(limits or Limits())
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, http=heads
    )
    server = uvicorn.Server(config)
    app.state.ending = lambda: server.should_exit  # streams end then: nobody waits for them
    gc.collect()
    gc.freeze()  # what was loaded stays; collections, of requests' own, do not go over it
    gc.set_threshold(10_000, 20, 20)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(3)
