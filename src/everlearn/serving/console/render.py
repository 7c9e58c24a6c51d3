"""How the console answers: its templates, the headers of all pages, and pages for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from everlearn.base import ConflictError, EverlearnError, InputError, Json, NotFoundError
from everlearn.registry.keys import ApiKey
from everlearn.serving.access import ADMIN, COOKIE, KEY
from everlearn.serving.console import words
from everlearn.serving.limits import Refused

HOME = "/console"
LISTS = {
    "versions": "Versions",
    "jobs": "Jobs",
    "triggers": "Triggers",
    "rollouts": "Rollouts",
    "moves": "Moves",
    "quarantine": "Quarantine",
    "set-aside": "Set aside",
}
"""Lists of a model → their titles."""

SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';"
    " connect-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of all pages: nothing from elsewhere, and no script within a page. Forms say where they
come from (`Origin`), which a browser leaves out where no referrer is sent at all."""

STATUS = ((NotFoundError, 404), (ConflictError, 409), (InputError, 422))
"""What is wrong → status of its page; any other error of everlearn is 503."""

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
    "evidence": words.evidence,
}
_templates.globals |= {"lists": LISTS}


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form; the first of those with one name."""
    text = (await request.body()).decode(errors="replace")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    return {name: value.replace("\0", "") for name, value in reversed(pairs)}


Fields = Annotated[dict[str, str], Depends(_fields)]


def may(key: ApiKey | None) -> dict[str, bool]:
    """What the pages offer to the bearer of a key: "operate" and "review"."""
    roles = ("operate", "review")
    return {role: key is None or key.role in (role, ADMIN) for role in roles}


def author(request: Request) -> str | None:
    """Whose decision it is that a form sends; None where no keys are asked for."""
    key: ApiKey | None = request.scope[KEY]
    return None if key is None else key.note or f"key {key.id}"


def answer(request: Request, template: str, view: Callable[..., Json], *arguments: Any) -> Response:
    """The page of what a view finds; or one that says why it finds nothing."""
    try:
        shown = view(*arguments)
    except EverlearnError as error:
        return failed(error)
    return page(request, template, shown)


def page(request: Request, template: str, shown: Json, status: int = 200) -> Response:
    """A page; of it, only what changes where the script asks for that."""
    fragment = request.headers.get("x-fragment") == "main"
    of = f"/models/{quote(shown['model'], safe='')}" if "model" in shown else ""
    text = _templates.get_template(template).render(
        {"stream": f"{HOME}{of}/events", "may": may(request.scope[KEY])} | shown,
        fragment=fragment,
        signed=COOKIE in request.cookies,
    )
    return HTMLResponse(text, status, headers=SAFE | {"Vary": "X-Fragment, Cookie"})


def said(title: str, text: str, status: int = 200, back: str = HOME) -> Response:
    """A page that says something."""
    shown = {"title": title, "text": text, "back": back, "stream": ""}
    made = _templates.get_template("said.html").render(shown, fragment=False, signed=True)
    return HTMLResponse(made, status, SAFE)


def failed(error: EverlearnError, back: str = HOME) -> Response:
    """A page that says what is wrong."""
    status = status_of(error)
    return said(str(status), str(error), status, back)


def status_of(error: EverlearnError) -> int:
    """The status of a page that says it."""
    return next((code for kind, code in STATUS if isinstance(error, kind)), 503)


def refused(error: Refused) -> Response:
    """The page for who may not see one: where no key was shown, a form for it."""
    headers = {name.replace("_", "-"): value for name, value in error.headers.items()}
    if error.status == 401:
        wrong = "" if "no key" in error.text else "this key is not valid, or was revoked"
        made = sign_in(wrong, 401)
    else:
        made = said(str(error.status), error.text, error.status)
    made.headers.update(headers)
    return made


def sign_in(wrong: str, status: int) -> Response:
    """The form for a key."""
    shown = {"wrong": wrong, "stream": ""}
    text = _templates.get_template("login.html").render(shown, fragment=False, signed=False)
    return HTMLResponse(text, status, SAFE)


def redirect(path: str) -> Response:
    """To the page where one sees what was done."""
    return RedirectResponse(path, 303, SAFE)
