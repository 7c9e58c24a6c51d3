"""The review queue at which people work: one prediction at a time, by keyboard or by forms.

A page shows what is there; only its forms take an item, answer it, skip it or give it back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response

from everlearn.base import ConflictError, EverlearnError, InputError, Json
from everlearn.data.answers import class_name, restored
from everlearn.data.review import margin
from everlearn.data.reviewers import Item
from everlearn.jobs.learn import Fold
from everlearn.serving import operating
from everlearn.serving.access import KEY, needs, page
from everlearn.serving.console import render
from everlearn.serving.console.render import HOME, Fields, refused
from everlearn.serving.console.views import Source
from everlearn.serving.reviewing import named

if TYPE_CHECKING:
    from everlearn.serving.models import Models

WAITING = 10
"""Items that the page of the queue lists."""

BEHIND = 30
"""Items that one may go back to."""

MOST = 12
"""Classes that have a button each."""

Number = Annotated[int, Path(ge=1, lt=2**63)]
Seen = Annotated[str, Query(max_length=1000, pattern=r"^[0-9.]*$")]
Verb = Literal["answer", "skip", "release"]


def add_desk(app: FastAPI, source: Source, models: Models) -> None:
    """Add the routes."""

    @app.get(HOME + "/models/{model}/review", include_in_schema=False)
    @needs("review")
    @page(refused)
    def console_review(model: str, request: Request) -> Response:
        """How many wait, and a button that takes the next."""
        return render.answer(request, "queue.html", _queue, models, model, named(request, None))

    @app.get(HOME + "/models/{model}/review/{number}", include_in_schema=False)
    @needs("review")
    @page(refused)
    def console_review_item(
        model: str, number: Number, request: Request, seen: Seen = ""
    ) -> Response:
        """One item."""
        who = named(request, None)
        return render.answer(request, "review.html", _item, models, model, who, number, seen)

    @app.post(HOME + "/models/{model}/review", include_in_schema=False)
    @needs("review")
    @page(refused)
    def console_take(model: str, request: Request, fields: Fields) -> Response:
        """Take an item: the one that is named, or the next after another."""
        who, seen = named(request, None), fields.get("seen", "")
        try:
            wanted, after = fields.get("item"), fields.get("after")
            if wanted is not None:
                models.reviewers(model).claim(who, _whole(wanted))
                return render.redirect(_place(model, _whole(wanted), seen))
            return _next(models, model, who, seen, None if after is None else _whole(after))
        except EverlearnError as error:
            return render.failed(error, _desk(model))

    @app.post(HOME + "/models/{model}/review/{number}/{verb}", include_in_schema=False)
    @needs("review")
    @page(refused)
    def console_review_do(
        model: str, number: Number, verb: Verb, request: Request, fields: Fields
    ) -> Response:
        """Answer an item, skip it or give it back; then the next."""
        who, seen = named(request, None), fields.get("seen", "")
        people = models.reviewers(model)
        try:
            if verb == "release":
                people.release(who, number)
                return render.redirect(_desk(model))
            if verb == "skip":
                people.skip(who, number)
            else:
                value = target_value(models, model, fields.get("choice"), fields.get("value", ""))
                operating.answer_review(models, model, who, number, value, request.scope[KEY])
            return _next(models, model, who, _with(seen, number), None)
        except EverlearnError as error:
            return render.failed(error, _place(model, number, seen))


def _queue(models: Models, model: str, who: str) -> Json:
    people = models.reviewers(model)
    return {
        "model": model,
        "who": who,
        "counts": people.counts(),
        "items": people.next(who, WAITING),
        "on": models.predictor(model).queue.review is not None,
    }


def _item(models: Models, model: str, who: str, number: int, seen: str) -> Json:
    people = models.reviewers(model)
    item = people.show(number)
    mine = item.claims.get(who, {})
    behind = _behind(seen)
    kind, classes = _classes(models, model, item)
    now = models.versions.database.clock()
    return {
        "model": model,
        "who": who,
        "item": item,
        "until": mine["until"] if mine.get("until", 0) > now else None,
        "now": now,
        "answered": mine.get("answered"),
        "skipped": mine.get("skipped"),
        "kind": kind,
        "choices": [class_name(value) for value in classes][:MOST],
        "margin": margin(item.output),
        "chances": _chances(item.output),
        "counts": people.counts(),
        "seen": ".".join(map(str, behind)),
        "before": _place(model, behind[-1], ".".join(map(str, behind[:-1]))) if behind else "",
    }


def _next(models: Models, model: str, who: str, seen: str, after: int | None) -> Response:
    """Take the next item that this reviewer may take: the first, or the first after another."""
    people = models.reviewers(model)
    found = people.next(who, 200 if after is not None else 1)
    numbers = [item.id for item in found]
    if after in numbers:
        numbers = numbers[numbers.index(after) + 1 :] + numbers[: numbers.index(after)]
    for number in numbers:
        try:
            people.claim(who, number)
        except ConflictError:  # another took it in between
            continue
        return render.redirect(_place(model, number, seen if after is None else _with(seen, after)))
    return render.redirect(_desk(model))


def _classes(models: Models, model: str, item: Item) -> tuple[str, list[Any]]:
    """How the target is written, and its classes, as far as they are known, in their order: a key
    is for the same class in all versions."""
    fold = models.predictor(model).served.fold
    if fold is not None:
        return fold.columns.target_kind, known_classes(fold)
    return "", sorted((item.output or {}).get("probabilities") or {})


def known_classes(fold: Fold) -> list[Any]:
    """The classes of the target, in an order that is the same in all versions."""
    found = restored(fold.classes, fold.columns)
    return sorted(found, key=lambda one: (isinstance(one, str), one))


def target_value(models: Models, model: str, choice: str | None, text: str) -> Json:
    """The value of the target that a form says.

    Args:
        choice: the name of a class, where one was chosen.
        text: what was written otherwise.

    Raises:
        InputError: it is none.
    """
    fold = models.predictor(model).served.fold
    kind = "" if fold is None else fold.columns.target_kind
    if choice is not None and fold is not None:
        known = {class_name(value): value for value in restored(fold.classes, fold.columns)}
        if choice in known:
            return known[choice]
    text = (text if choice is None else choice).strip()
    if not text:
        raise InputError("an answer is a value of the target; skip what cannot be answered")
    return _typed(text, kind)


def _typed(text: str, kind: str) -> Json:
    """A text as a value of the target.

    >>> _typed("3", "integer"), _typed("3", "text"), _typed("yes", ""), _typed("2.5", "")
    (3, '3', 'yes', 2.5)
    """
    if kind == "text":
        return text
    if kind == "boolean":
        if text.lower() not in ("true", "false"):
            raise InputError(f"the target is true or false, not {text[:50]!r}")
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number) and abs(number) < 2.0**53:
        return int(number) if number.is_integer() and kind != "number" else number
    if kind:
        raise InputError(f"the target is a number, not {text[:50]!r}")
    return text


def _chances(output: Json) -> list[tuple[str, float]]:
    """What the model said, the likeliest first."""
    found = (output or {}).get("probabilities") or {}
    return sorted(found.items(), key=lambda pair: -pair[1])[:MOST]


def _behind(seen: str) -> list[int]:
    parts = (part for part in seen.split(".") if part.isascii() and part.isdigit())
    return [int(part) for part in parts if len(part) < 19][-BEHIND:]


def _with(seen: str, number: int) -> str:
    return ".".join(map(str, [*(n for n in _behind(seen) if n != number), number][-BEHIND:]))


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InputError(f"{text[:50]!r} is no number of an item")
    return int(text)


def _desk(model: str) -> str:
    return f"{HOME}/models/{quote(model, safe='')}/review"


def _place(model: str, number: int, seen: str) -> str:
    behind = ".".join(map(str, _behind(seen)))
    return f"{_desk(model)}/{number}" + (f"?seen={behind}" if behind else "")
