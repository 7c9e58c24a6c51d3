"""Bisections over HTTP: asked for, carried out beside the server, looked at."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fastapi import FastAPI
from pydantic import Field

from everlearn.base import ConflictError, Json
from everlearn.jobs.bisect.beside import Beside
from everlearn.jobs.bisect.bisector import Bisector, Question
from everlearn.jobs.bisect.records import RUNNING, Bisections, Row
from everlearn.serving.access import needs
from everlearn.serving.bodies import Body, Name, Value
from everlearn.serving.reviewing import Limit, Number

if TYPE_CHECKING:
    from everlearn.serving.models import Models


class BisectBody(Body):
    """Which version made a model worse."""

    good: int = Field(ge=1, lt=2**31)
    """A version that was good."""
    bad: int = Field(ge=1, lt=2**31)
    """A version that came from it, and is bad."""
    metric: Name
    """What got worse."""
    on: list[dict[Name, Value | None]] | None = Field(default=None, min_length=1)
    """Rows to judge on, each with its target: columns and values, best fresh ones. How many:
    `Limits.rows`. Else those that the bad version held out last. A file or a table of the server is
    named on the command line only: a key for the API does not open what the server can read."""


class Bisecting:
    """Carries out bisections, one of a model at a time, each in a process of its own; they end with
    the server, and go on from what was measured when they are asked for again."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._lock = threading.Lock()
        self._running: dict[str, tuple[int, Beside]] = {}

    def start(self) -> None:
        """Nothing is begun before it is asked for."""

    def stop(self) -> None:
        """End those that are running."""
        with self._lock:
            for _, process in self._running.values():
                process.stop()

    def ask(self, model: str, question: Question) -> Row:
        """Have a question answered; what was answered, or is being answered, is not begun again.

        Raises:
            InputError, NotFoundError: it cannot be answered; see `Bisector`.
            ConflictError: another one of the model is running.
        """
        self._models.predictor(model)
        registry = self._models.versions
        with self._lock:
            bisector = Bisector(registry, model, question)
            number, process = self._running.get(model, (None, None))
            if process is not None and process.is_running:
                known = Bisections(registry.database, model).get(number or 0)
                if known.fingerprint == bisector.fingerprint:
                    return known
                raise ConflictError(
                    f"bisection {number} of {model!r} is running; ask when it has ended"
                )
            row = bisector.open()
            if row.state == RUNNING:
                self._running[model] = row.number, Beside(registry, model, question)
            return row

    def told(self, model: str, row: Row) -> dict[str, Json]:
        """A bisection as JSON, and whether this server is at it."""
        number, process = self._running.get(model, (None, None))
        active = number == row.number and process is not None and process.is_running
        return {**row.to_json(), "active": active}


def add_bisections(app: FastAPI, models: Models) -> Bisecting:
    """Add the routes of this file; what carries out what they ask for, to be started and stopped
    with the server."""
    bisecting = Bisecting(models)

    def kept(model: str) -> Bisections:
        models.predictor(model)
        return Bisections(models.versions.database, model)

    @app.post("/v1/models/{model}/bisections", tags=["repair"], status_code=202)
    @needs("operate")
    def bisect(model: str, body: BisectBody) -> Json:
        """Find the version that made a model worse, and what in its increment did. It is carried
        out beside the server; look at it by its number."""
        question = Question(body.good, body.bad, body.metric, body.on)
        return bisecting.told(model, bisecting.ask(model, question))

    @app.get("/v1/models/{model}/bisections", tags=["repair"])
    @needs("operate")
    def list_bisections(model: str, limit: Limit = 20) -> Json:
        """The newest bisections, newest first."""
        rows = kept(model).listed(limit)
        return {"bisections": [bisecting.told(model, row) for row in rows]}

    @app.get("/v1/models/{model}/bisections/{number}", tags=["repair"])
    @needs("operate")
    def show_bisection(model: str, number: Number) -> Json:
        """One bisection: its state, what was measured so far, and its report."""
        return bisecting.told(model, kept(model).get(number))

    return bisecting
