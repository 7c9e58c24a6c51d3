"""The console's routes: pages to read, and a way to show them a key."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import parse_qs

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response

from everlearn.registry.keys import ApiKey
from everlearn.serving.access import COOKIE, KEY, OPEN, needs, page
from everlearn.serving.bisecting import Bisecting
from everlearn.serving.console import queries, render, views
from everlearn.serving.console.actions import add_actions
from everlearn.serving.console.bisections import add_bisecting
from everlearn.serving.console.correcting import add_correcting
from everlearn.serving.console.desk import add_desk
from everlearn.serving.console.editing import add_edits
from everlearn.serving.console.excising import add_excising
from everlearn.serving.console.live import add_live
from everlearn.serving.console.predictions import add_predictions
from everlearn.serving.console.render import HOME, SAFE, refused
from everlearn.serving.console.views import Source
from everlearn.serving.limits import Refused
from everlearn.serving.repairing import Repairs

if TYPE_CHECKING:
    from everlearn.serving.models import Models

FILES = {"console.css": "text/css", "console.js": "text/javascript"}

Before = Annotated[int, Query(ge=1, le=queries.MOST)]
Number = Annotated[int, Path(ge=1, lt=2**63)]
Listed = Literal[
    "versions", "jobs", "triggers", "rollouts", "moves", "quarantine", "set-aside"
]  # fmt: skip

_KEY = re.compile(r"[A-Za-z0-9_.-]{8,200}")


def add_console(
    app: FastAPI, source: Source, models: Models, repairs: Repairs, bisecting: Bisecting
) -> None:
    """Add the pages to an application that is protected."""
    _add_overview(app, source)
    _add_files(app)
    _add_sign_in(app)
    add_live(app, source)
    add_desk(app, source, models)
    add_actions(app, source, models)
    add_predictions(app, source)
    add_correcting(app, source, models, repairs)
    add_edits(app, source, repairs)
    add_excising(app, source, repairs)
    add_bisecting(app, source, models, bisecting)
    _add_models(app, source)


def _add_overview(app: FastAPI, source: Source) -> None:
    @app.get(HOME, include_in_schema=False)
    @needs()
    @page(refused)
    def console(request: Request) -> Response:
        """All models that the key is for."""
        key: ApiKey | None = request.scope[KEY]
        only = None if key is None else key.model
        return render.page(request, "overview.html", views.overview(source, only))


def _add_models(app: FastAPI, source: Source) -> None:
    @app.get(HOME + "/models/{model}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_model(model: str, request: Request) -> Response:
        """One model."""
        return render.answer(request, "model.html", views.model, source, model)

    @app.get(HOME + "/models/{model}/versions/{number}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_version(model: str, number: Number, request: Request) -> Response:
        """One version."""
        return render.answer(request, "version.html", views.version, source, model, number)

    @app.get(HOME + "/models/{model}/jobs/{number}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_job(model: str, number: Number, request: Request) -> Response:
        """One job."""
        return render.answer(request, "job.html", views.job, source, model, number)

    @app.get(HOME + "/models/{model}/rollouts/{number}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_rollout(model: str, number: Number, request: Request) -> Response:
        """One rollout."""
        return render.answer(request, "rollout.html", views.rollout, source, model, number)

    @app.get(HOME + "/models/{model}/{what}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_list(
        model: str, what: Listed, request: Request, before: Before = queries.MOST
    ) -> Response:
        """Versions, jobs, decisions of triggers, rollouts, moves of aliases, or what was set
        aside; newest first."""
        return render.answer(request, "list.html", views.listed, source, model, what, before)


def _add_files(app: FastAPI) -> None:
    found = resources.files("everlearn.serving.console") / "static"
    contents = {name: (found / name).read_bytes() for name in FILES}

    @app.get(HOME + "/static/{name}", include_in_schema=False)
    @needs(OPEN)
    async def console_file(name: Literal["console.css", "console.js"]) -> Response:
        """The style sheet and the script; the same for everybody."""
        headers = SAFE | {"Cache-Control": "max-age=60"}
        return Response(contents[name], media_type=FILES[name], headers=headers)


def _add_sign_in(app: FastAPI) -> None:
    @app.post(HOME + "/login", include_in_schema=False)
    @needs(OPEN)
    async def console_login(request: Request) -> Response:
        """Keep a key in a cookie that no script reads; whether it is valid, every page asks."""
        _check_origin(request)
        body = (await request.body())[:2000].decode(errors="replace")
        key = parse_qs(body).get("key", [""])[0].strip()
        if not _KEY.fullmatch(key):
            return render.sign_in("this is no key", 422)
        answer = render.redirect(HOME)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, key, path=HOME, httponly=True, samesite="strict", secure=secure)
        return answer

    @app.post(HOME + "/logout", include_in_schema=False)
    @needs(OPEN)
    async def console_logout(request: Request) -> Response:
        """Forget the key."""
        _check_origin(request)
        answer = render.redirect(HOME)
        answer.delete_cookie(COOKIE, path=HOME, httponly=True, samesite="strict")
        return answer


def _check_origin(request: Request) -> None:
    """No page of another site may sign somebody in or out. Raises `Refused`."""
    origin = request.headers.get("origin")
    if origin is not None and origin.split("://")[-1] != request.headers.get("host"):
        raise Refused(403, "this was sent from a page of another site")
