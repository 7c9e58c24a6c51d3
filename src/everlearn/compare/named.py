"""Strategies written as text: "EWC(100)", "LwF+Reservoir(2000, ratio=0.5)"."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

from everlearn import strategies
from everlearn.base import InputError
from everlearn.strategies.strategy import Strategy

NOT_PARTS = ("Adaptation", "Pretrained", "Retention", "Strategy")

ADAPTATIONS = ("Expand", "Freeze", "LoRA", "Personal")
"""Parts that say what may move; other parts with a `wrap` say what is held on to."""


def part_names() -> dict[str, str]:
    """Name of a part in lower case → its name: memories, retentions and adaptations."""
    return {name.lower(): name for name in strategies.__all__ if name not in NOT_PARTS}


def is_parts(text: str) -> bool:
    """Whether a text names parts of a strategy, and not a whole one.

    >>> is_parts("ewc(10) + Reservoir"), is_parts("batch")
    (True, False)
    """
    first = text.partition("+")[0].partition("(")[0].strip().lower()
    return "(" in text or "+" in text or first in part_names()


def parse(text: str, given: Strategy | None = None) -> Strategy:
    """The strategy that a text names: parts joined by "+", each with its arguments, if any.

    Args:
        text: names as in `everlearn.strategies`, in any case; arguments are numbers, texts and
            other literals.
        given: what it has for the rest (chunk, passes, order, seed); the default strategy else. It
            begins from the champion, but from scratch with a memory that alone is learned (GDumb).

    Raises:
        InputError: a part that there is not, arguments that are no literals, two parts of a kind.
        SpecError: an argument that a part refuses.

    >>> parse("EWC(100) + reservoir(2000)").retention
    EWC(strength=100.0, decay=1.0, rows=1024)
    """
    found: dict[str, Any] = {"memory": None, "retention": None, "adaptation": None}
    for piece in _pieces(text):
        part = _part(piece, text)
        kind = _kind(part)
        if found[kind] is not None:
            raise InputError(f"{text!r} names two parts of one kind, as {kind}: leave one out")
        found[kind] = part
    if getattr(found["memory"], "alone", False):  # it is learned from scratch, as it demands
        found["start"] = "scratch"
    return replace(given or Strategy(), **found)


def split(text: str) -> list[str]:
    """Names between commas that are not within parentheses.

    >>> split("never, Reservoir(20, ratio=2), ewc")
    ['never', 'Reservoir(20, ratio=2)', 'ewc']
    """
    found, depth, word = [], 0, ""
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth <= 0:
            found.append(word)
            word = ""
        else:
            word += letter
    return [word.strip() for word in [*found, word] if word.strip()]


def _pieces(text: str) -> list[ast.expr]:
    """The parts between the pluses."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise InputError(
            f"{text!r} is no strategy: write parts with a plus between, as EWC(100)+Reservoir(2000)"
        ) from None
    pieces: list[ast.expr] = []
    while isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        pieces.insert(0, tree.right)
        tree = tree.left
    return [tree, *pieces]


def _part(piece: ast.expr, text: str) -> Any:
    called = piece.func if isinstance(piece, ast.Call) else piece
    known = part_names()
    if not isinstance(called, ast.Name) or called.id.lower() not in known:
        raise InputError(
            f"{ast.unparse(called)!r} in {text!r} is no part of a strategy; there are "
            f"{', '.join(known.values())}"
        )
    name = known[called.id.lower()]
    args, named = [], {}
    if isinstance(piece, ast.Call):
        try:
            args = [ast.literal_eval(one) for one in piece.args]
            named = {str(one.arg): ast.literal_eval(one.value) for one in piece.keywords}
        except ValueError:
            raise InputError(
                f"{ast.unparse(piece)!r}: its arguments are numbers, texts and the like; for others"
                " write the strategy in a file, and say --spec FILE"
            ) from None
    try:
        return getattr(strategies, name)(*args, **named)
    except TypeError as error:
        raise InputError(f"{ast.unparse(piece)!r}: {error}") from None


def _kind(part: Any) -> str:
    if hasattr(part, "open"):
        return "memory"
    return "adaptation" if type(part).__name__ in ADAPTATIONS else "retention"
