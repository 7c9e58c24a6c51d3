"""Routes for people: the review queue, decisions of triggers, quarantine, a stream of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from everlearn.base import Json
from everlearn.data.reviewers import Reviewers
from everlearn.data.streams.aside import listed
from everlearn.registry.keys import ApiKey
from everlearn.serving import operating
from everlearn.serving.access import ADMIN, KEY, needs
from everlearn.serving.bodies import Body, Name, Value
from everlearn.serving.events import Events
from everlearn.serving.limits import Refused

if TYPE_CHECKING:
    from everlearn.serving.models import Models

Number = Annotated[int, Path(ge=1, lt=2**63)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Reviewer = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


class ReviewerBody(Body):
    """Who works; a key of the role review stands for one, and needs to say nothing."""

    reviewer: Reviewer | None = None


class AnswerBody(ReviewerBody):
    """What is right for a prediction."""

    value: Value


class ReleaseBody(Body):
    """The source to believe again."""

    source: Name


def add_review(app: FastAPI, models: Models) -> None:
    """Add the routes of this file."""
    _add_queue(app, models)
    _add_operations(app, models)
    _add_stream(app, models)


def _add_queue(app: FastAPI, models: Models) -> None:
    def people(model: str) -> Reviewers:
        return models.reviewers(model)

    def claimed(
        model: str, body: ReviewerBody | None, request: Request, number: int | None
    ) -> Json:
        found = people(model).claim(_reviewer(request, body), number)
        return {"item": None if found is None else found.to_json()}

    @app.get("/v1/models/{model}/review", tags=["review"])
    @needs("review")
    def list_review(
        model: str,
        request: Request,
        limit: Limit = 20,
        reviewer: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    ) -> Json:
        """What a reviewer may take, the first first, and how many there are in each state."""
        name = named(request, reviewer)
        queue = people(model)
        items = [item.to_json() for item in queue.next(name, limit)]
        return {"reviewer": name, "counts": queue.counts(), "items": items}

    @app.post("/v1/models/{model}/review/claim", tags=["review"])
    @needs("review")
    def claim_next(model: str, request: Request, body: ReviewerBody | None = None) -> Json:
        """Take the next prediction, for some minutes; null where there is none."""
        return claimed(model, body, request, None)

    @app.post("/v1/models/{model}/review/{number}/claim", tags=["review"])
    @needs("review")
    def claim(
        model: str, number: Number, request: Request, body: ReviewerBody | None = None
    ) -> Json:
        """Take one prediction, for some minutes."""
        return claimed(model, body, request, number)

    @app.post("/v1/models/{model}/review/{number}/answer", tags=["review"])
    @needs("review")
    def answer(model: str, number: Number, request: Request, body: AnswerBody) -> Json:
        """Say what is right. It is a label of the kind "human", durable once acknowledged."""
        receipt = operating.answer_review(
            models, model, _reviewer(request, body), number, body.value, request.scope[KEY]
        )
        return {"label": receipt.label, "state": receipt.state, "position": receipt.position}

    @app.post("/v1/models/{model}/review/{number}/skip", tags=["review"])
    @needs("review")
    def skip(
        model: str, number: Number, request: Request, body: ReviewerBody | None = None
    ) -> Json:
        """Leave a prediction to others."""
        return {"item": people(model).skip(_reviewer(request, body), number).to_json()}

    @app.post("/v1/models/{model}/review/{number}/release", tags=["review"])
    @needs("review")
    def release_claim(
        model: str, number: Number, request: Request, body: ReviewerBody | None = None
    ) -> Json:
        """Give back a prediction that was taken, before the claim expires."""
        return {"item": people(model).release(_reviewer(request, body), number).to_json()}


def _add_operations(app: FastAPI, models: Models) -> None:
    @app.get("/v1/models/{model}/triggers", tags=["jobs"])
    @needs("operate")
    def list_triggers(model: str, limit: Limit = 100) -> Json:
        """What the triggers decided, newest first, with their evidence."""
        models.predictor(model)
        return {"triggers": models.updates.decisions(model, limit)}

    @app.get("/v1/models/{model}/quarantine", tags=["quarantine"])
    @needs("operate")
    def list_quarantine(model: str) -> Json:
        """The sources of labels that are or were set aside, and why."""
        models.predictor(model)
        found = models.updates.quarantine(model).sources()
        return {"quarantine": [{n: getattr(one, n) for n in one.__slots__} for one in found]}

    @app.post("/v1/models/{model}/quarantine/release", tags=["quarantine"])
    @needs("operate")
    def release(model: str, body: ReleaseBody) -> Json:
        """Believe a source again; a job learns what of it was set aside and waits to be learned."""
        return operating.release_source(models, model, body.source)

    @app.get("/v1/models/{model}/set-aside", tags=["quarantine"])
    @needs("operate")
    def list_set_aside(
        model: str,
        limit: Limit = 100,
        before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    ) -> Json:
        """Messages of streams that could not be logged, with their reasons; newest first."""
        return {"set_aside": listed(models.predictor(model).log, limit, before)}

    @app.post("/v1/models/{model}/set-aside/{number}/release", tags=["quarantine"])
    @needs("operate")
    def release_message(model: str, number: Number) -> Json:
        """Try to log a message again; it stays, with the reason, if that is not possible."""
        return operating.release_message(models, model, number)


def _add_stream(app: FastAPI, models: Models) -> None:
    events = Events(models.versions.database)

    @app.get("/v1/models/{model}/events", tags=["events"])
    @needs()
    async def stream(
        model: str,
        request: Request,
        since: Annotated[str | None, Query(max_length=100)] = None,
        seconds: Annotated[float, Query(ge=0.0, le=3600.0)] = 3600.0,
    ) -> StreamingResponse:
        """Server-sent events: `alias`, `trigger` and `rollout` once for each, `job` with its state
        whenever that changes. Each has an id; with it as `since`, or as the header `Last-Event-ID`,
        the stream goes on behind it (a `job` may come again). Without, it begins now; `since=0` is
        from the first. It ends after some seconds; connect again.
        """
        key = models.predictor(model).log.model
        after = since or request.headers.get("last-event-id")
        cursor = await run_in_threadpool(events.begin, key, after)
        return StreamingResponse(
            events.follow(key, cursor, request, seconds),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


def _reviewer(request: Request, body: ReviewerBody | None) -> str:
    return named(request, None if body is None else body.reviewer)


def named(request: Request, said: str | None) -> str:
    """Who works: the one that the key stands for; without keys, and for admins, who is named.

    Raises:
        Refused: a key speaks for another than its own.
    """
    key: ApiKey | None = request.scope[KEY]
    if key is None:
        return said or "reviewer"
    own = key.note or f"key {key.id}"
    if said is None or said == own or key.role == ADMIN:
        return said or own
    raise Refused(403, f"this key stands for the reviewer {own!r} only", key=key.id)
