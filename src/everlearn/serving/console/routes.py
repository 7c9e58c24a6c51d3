"""The console's routes: pages for browsers, which change nothing; and a way to show them a key."""

from __future__ import annotations

import re
from importlib import resources
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from everlearn.base import Json, NotFoundError
from everlearn.registry.keys import ApiKey
from everlearn.serving.access import ADMIN, COOKIE, KEY, OPEN, needs, page
from everlearn.serving.console import queries, views, words
from everlearn.serving.console.views import Source
from everlearn.serving.limits import Refused

HOME = "/console"
TITLES = {
    "versions": "Versions",
    "jobs": "Jobs",
    "triggers": "Triggers",
    "rollouts": "Rollouts",
    "moves": "Moves",
}
FILES = {"console.css": "text/css", "console.js": "text/javascript"}
SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';"
    " connect-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Headers of all pages: nothing from elsewhere, and no script within a page."""

Before = Annotated[int, Query(ge=1, le=queries.MOST)]
Number = Annotated[int, Path(ge=1, lt=2**63)]
Listed = Literal["versions", "jobs", "triggers", "rollouts", "moves"]

_templates = Environment(
    loader=PackageLoader("everlearn.serving.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "ago": words.ago,
    "figure": words.figure,
    "moment": words.moment,
    "span": words.span,
}
_templates.globals |= {"lists": TITLES}
_KEY = re.compile(r"[A-Za-z0-9_.-]{8,200}")


def add_console(app: FastAPI, source: Source) -> None:
    """Add the pages to an application that is protected."""
    _add_overview(app, source)
    _add_models(app, source)
    _add_files(app)
    _add_sign_in(app)


def _add_overview(app: FastAPI, source: Source) -> None:
    @app.get(HOME, include_in_schema=False)
    @needs()
    @page(refused)
    def console(request: Request) -> Response:
        """All models that the key is for."""
        key: ApiKey | None = request.scope[KEY]
        only = None if key is None else key.model
        reasons = key is None or key.role in ("operate", ADMIN)
        shown = views.overview(source, only) | {"reasons": reasons}
        return _page(request, "overview.html", shown)


def _add_models(app: FastAPI, source: Source) -> None:
    @app.get(HOME + "/models/{model}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_model(model: str, request: Request) -> Response:
        """One model."""
        return _answer(request, "model.html", views.model, source, model)

    @app.get(HOME + "/models/{model}/versions/{number}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_version(model: str, number: Number, request: Request) -> Response:
        """One version."""
        return _answer(request, "version.html", views.version, source, model, number)

    @app.get(HOME + "/models/{model}/rollouts/{number}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_rollout(model: str, number: Number, request: Request) -> Response:
        """One rollout."""
        return _answer(request, "rollout.html", views.rollout, source, model, number)

    @app.get(HOME + "/models/{model}/{what}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_list(
        model: str, what: Listed, request: Request, before: Before = queries.MOST
    ) -> Response:
        """Versions, jobs, decisions of triggers, rollouts or moves of aliases, newest first."""
        return _answer(request, "list.html", views.listed, source, model, what, before)


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
            return _sign_in("this is no key", 422)
        answer = RedirectResponse(HOME, 303, SAFE)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, key, path=HOME, httponly=True, samesite="strict", secure=secure)
        return answer

    @app.post(HOME + "/logout", include_in_schema=False)
    @needs(OPEN)
    async def console_logout(request: Request) -> Response:
        """Forget the key."""
        _check_origin(request)
        answer = RedirectResponse(HOME, 303, SAFE)
        answer.delete_cookie(COOKIE, path=HOME, httponly=True, samesite="strict")
        return answer


def refused(error: Refused) -> Response:
    """The page for who may not see one: where no key was shown, a form for it."""
    headers = {name.replace("_", "-"): value for name, value in error.headers.items()}
    if error.status == 401:
        wrong = "" if "no key" in error.text else "this key is not valid, or was revoked"
        answer = _sign_in(wrong, 401)
    else:
        answer = _wrong(error.text, error.status)
    answer.headers.update(headers)
    return answer


def _answer(request: Request, name: str, view: Any, *arguments: Any) -> Response:
    try:
        shown = view(*arguments)
    except NotFoundError as error:
        return _wrong(str(error), 404)
    return _page(request, name, shown)


def _page(request: Request, name: str, shown: Json) -> Response:
    """A page; of it, only what changes where the script asks for that."""
    signed = COOKIE in request.cookies
    fragment = request.headers.get("x-fragment") == "main"
    text = _templates.get_template(name).render(shown, fragment=fragment, signed=signed, live=True)
    return HTMLResponse(text, headers=SAFE | {"Vary": "X-Fragment, Cookie"})


def _sign_in(wrong: str, status: int) -> Response:
    text = _templates.get_template("login.html").render(
        wrong=wrong, fragment=False, signed=False, live=False
    )
    return HTMLResponse(text, status, SAFE)


def _wrong(text: str, status: int) -> Response:
    template = _templates.get_template("wrong.html")
    shown = template.render(text=text, status=status, fragment=False, signed=True, live=False)
    return HTMLResponse(shown, status, SAFE)


def _check_origin(request: Request) -> None:
    """No page of another site may sign somebody in or out. Raises `Refused`."""
    origin = request.headers.get("origin")
    if origin is not None and origin.split("://")[-1] != request.headers.get("host"):
        raise Refused(403, "this was sent from a page of another site")
