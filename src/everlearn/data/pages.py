"""Labels of the log beside what was asked, many at a time, column by column: a row of objects for
each would cost more than all that is done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy.engine import Connection

from everlearn.base import Json
from everlearn.data.feedback import values_of
from everlearn.data.policy import Said
from everlearn.storage.bulk import fetch

Column = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Labels in the order of the log, and of each the prediction that it judges: (n,) columns.

    Args:
        position, kind, value, source, reviewer, weight, selection, at: of the label; see `Label`.
        prediction, arm, key, external_id, propensity, asked_at: of the prediction; see
            `LoggedPrediction`.
        features: JSON texts of what was asked.
        again: whether the prediction may have labels before this one.
    """

    position: Column
    prediction: Column
    features: Column
    arm: Column
    key: Column
    external_id: Column
    propensity: Column
    asked_at: Column
    kind: Column
    value: Column
    source: Column
    reviewer: Column
    weight: Column
    selection: Column
    at: Column
    again: Column

    def __len__(self) -> int:
        return len(self.position)

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]]) -> Page:
        """Rows whose values stand in the order of the columns; the label's value as JSON text."""
        found = cls(*(list(zip(*rows, strict=True)) or [()] * len(fields(cls))))
        return replace(found, value=values_of(found.value))

    @classmethod
    def concat(cls, pages: Sequence[Page]) -> Page:
        """Several pages as one."""
        if len(pages) == 1:
            return pages[0]
        columns = zip(*(page.columns for page in pages), strict=True)
        made = ([value for part in parts for value in part] for parts in columns)
        return cls(*made) if pages else cls(*([()] * len(fields(cls))))

    @property
    def columns(self) -> tuple[Column, ...]:
        """All of them, in order."""
        return tuple(getattr(self, name) for name in _NAMES)

    def part(self, start: int, stop: int) -> Page:
        """The rows from `start` to `stop` - 1."""
        if start == 0 and stop >= len(self):
            return self
        return Page(*(column[start:stop] for column in self.columns))

    def take(self, places: Sequence[int]) -> Page:
        """The rows at these places."""
        return Page(*([column[at] for at in places] for column in self.columns))

    def said(self, at: int) -> Said:
        """The label of one row."""
        return Said(
            self.position[at],
            self.kind[at],
            self.source[at],
            self.reviewer[at],
            self.value[at],
            self.weight[at],
            self.selection[at],
        )


_NAMES = tuple(field.name for field in fields(Page))

_AGAIN = (
    "EXISTS (SELECT 1 FROM labels AS b"
    " WHERE b.prediction_id = l.prediction_id AND b.position < l.position)"
)
_COLUMNS = (
    "l.position, l.prediction_id, p.features, p.arm, p.key, p.external_id, p.propensity, p.at,"
    " l.kind, l.value, l.source, l.reviewer, l.weight, l.selection, l.at"
)
_ROWS = (
    f"SELECT {_COLUMNS}, {_AGAIN} FROM labels AS l CROSS JOIN predictions AS p"
    " WHERE p.id = l.prediction_id AND l.model_id = ? AND l.position > ? AND l.position <= ?"
)


def read_page(
    connection: Connection, model: int, after: int, upto: int, known: int | None = None
) -> list[tuple[Any, ...]]:
    """The rows of a page, of labels and predictions that are in their tables; see `Page.of`.

    Args:
        model: row id of the model.
        after, upto: positions: after < position ≤ upto.
        known: only what had arrived by this moment, label and prediction.
    """
    text, arrived = _ROWS, () if known is None else (known, known)
    if known is not None:
        text += " AND l.arrived_at <= ? AND p.arrived_at <= ?"
    return fetch(connection, f"{text} ORDER BY l.position", (model, after, upto, *arrived))


def archived_row(label: Mapping[str, Json], asked: Mapping[str, Json]) -> tuple[Any, ...]:
    """The row of a page of a label whose prediction is archived."""
    what = ("features", "arm", "key", "external_id", "propensity", "at")
    said = ("kind", "value", "source", "reviewer", "weight", "selection", "at")
    first = (label["position"], asked["id"])
    return (*first, *(asked[name] for name in what), *(label[name] for name in said), True)
