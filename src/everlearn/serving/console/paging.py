"""Lists of which a page shows some rows, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from everlearn.base import Json
from everlearn.serving.console import queries

Before = Annotated[int, Query(ge=1, le=queries.MOST)]
"""A number above those of the rows that are wanted."""

Made = Annotated[int | None, Query(ge=1, lt=2**31)]
"""The number of what was made just now."""


def page_of(rows: Sequence[Json], key: str, *, first: bool) -> dict[str, Json]:
    """The "rows" of a page, what is in the last one's key for the "next" page (None without one),
    and whether it is the "first".

    Args:
        rows: those from the page's beginning on, one more than it shows if there are so many.
    """
    shown = list(rows[: queries.PAGE])
    more = len(rows) > queries.PAGE
    return {"rows": shown, "next": shown[-1][key] if more else None, "first": first}
