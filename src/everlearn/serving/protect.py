"""Puts an application behind keys and limits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from everlearn.base import Json
from everlearn.registry.audit import Audit
from everlearn.registry.keys import Keys
from everlearn.serving.access import ADMIN, Access, needs
from everlearn.serving.limits import Limits, StrictRoute, TooMuch
from everlearn.serving.trail import Trail
from everlearn.storage.database import Database

BATCHES = (("PredictBody", "instances"), ("FeedbackBody", "labels"))
"""Bodies and their lists that are bounded by `Limits.rows`."""

SHOWN = 20
"""Of all that is wrong with a body, this much is said."""


def protect(
    app: FastAPI, database: Database, models: Collection[str], limits: Limits | None = None
) -> None:
    """Put an application behind keys and limits, before its routes are added: each of them says by
    `needs` who may call it, or nobody may. Routers that are included say nothing.

    Args:
        database: of the workspace, with its keys and its audit log.
        models: their names.
    """
    audit = Audit(database)
    app.state.limits = limits = limits or Limits()
    app.router.route_class = StrictRoute
    for route in app.routes:  # the documentation
        needs()(route.endpoint)  # type: ignore[attr-defined]
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(TooMuch, _too_much)
    app.add_middleware(
        Access,
        routes=app.router.routes,
        keys=Keys(database),
        trail=Trail(audit),
        models=models,
        limits=limits,
    )
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]

    @app.get("/v1/audit", tags=["access"])
    @needs(ADMIN)
    def list_audit(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    ) -> Json:
        """Who changed what serves, and who was refused; newest first."""
        return {"audit": audit.listed(limit, before)}


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, which says that keys are sent as bearer tokens."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemes = made.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["key"] = {"type": "http", "scheme": "bearer"}
        made["security"] = [{"key": []}]
        for body, name in BATCHES:
            listed = made["components"]["schemas"][body]["properties"][name]
            listed["maxItems"] = app.state.limits.rows
        app.openapi_schema = made
    return app.openapi_schema


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """What is wrong, without what was sent: that may be large, or no JSON."""
    found: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError) else []
    wrong = [
        {"at": _text(".".join(map(str, item["loc"]))), "error": _text(item["msg"])}
        for item in found[:SHOWN]
    ]
    text = "; ".join(f"{item['at']}: {item['error']}" for item in wrong)
    return JSONResponse({"error": text, "wrong": wrong}, 422)


async def _too_much(request: Request, error: Exception) -> JSONResponse:
    text = error.detail if isinstance(error, TooMuch) else str(error)
    return JSONResponse({"error": _text(text)}, 413)


def _text(text: str) -> str:
    return text[:200].encode(errors="replace").decode()
