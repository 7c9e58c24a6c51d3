"""What requests may say."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from everlearn.data.feedback import Label
from everlearn.data.imports import moment

WHOLE = 2**63
"""Whole numbers are smaller than this, on both sides of 0."""

Whole = Annotated[int, Field(gt=-WHOLE, lt=WHOLE)]
Number = Annotated[int, Field(ge=0, lt=2**31)]
Chance = Annotated[float, Field(gt=0.0, le=1.0)]
Name = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]
Value = str | bool | Whole | float


class Body(BaseModel):
    """Unknown fields are refused; so are NaN and infinity, which JSON has not."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,  # they are what OpenAPI says of a field
    )


class PredictBody(Body):
    """Rows to predict for."""

    instances: list[dict[str, Any]]
    """Columns and values; a column that is left out is missing. How many: `Limits.rows`."""
    keys: list[Name | None] | None = None
    """The entity of each row."""
    ids: list[Name | None] | None = None
    """The caller's own id of each row, by which labels may name it."""
    propensities: list[Chance | None] | None = None
    """The chance with which each row was chosen to be acted upon, for models that weigh labels by
    it: `LabelPolicy(propensity="inverse")`."""
    log: bool = True
    """Keep the answers, under ids by which labels may judge them; else they have none."""

    @model_validator(mode="after")
    def _plain(self) -> Self:
        for row in self.instances:
            for name, value in row.items():
                if not _is_plain(value):
                    raise ValueError(
                        f"column {name[:100]!r} holds what is no text and no finite number of"
                        " usual size"
                    )
        return self


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return -WHOLE < value < WHOLE
    return value is None or isinstance(value, str)


class LabelBody(Body):
    """What was right for one prediction."""

    value: Value | None
    """Of the target; null takes back what was said before."""
    prediction_id: Name | None = None
    """As it was answered; or, instead of it,"""
    external_id: Name | None = None
    """the caller's own id of the prediction."""
    kind: Literal["explicit", "implicit", "human", "system"] = "explicit"
    source: Name = Field("feedback", min_length=1, max_length=200)
    """Who says so."""
    reviewer: Name | None = None
    """The person, where a person says so."""
    weight: float = Field(1.0, ge=0.0)
    """Of the row that is learned."""
    selection: Chance | None = None
    """The chance with which a random audit chose the row to be labelled; none, unless said."""
    at: str | None = None
    """When it became known: ISO 8601; now, unless said."""
    idempotency_key: Name | None = Field(None, max_length=200)
    """The same key with the same content is one label, however often it comes."""

    def said(self) -> Label:
        """The label. Raises `InputError`: a time that is none."""
        return Label(
            value=self.value,
            prediction=self.prediction_id,
            external_id=self.external_id,
            kind=self.kind,
            source=self.source,
            reviewer=self.reviewer,
            weight=self.weight,
            selection=self.selection,
            at=None if self.at is None else moment(self.at),
            idempotency_key=self.idempotency_key,
        )


class FeedbackBody(Body):
    """Labels."""

    labels: list[LabelBody]


class PromoteBody(Body):
    """A version to make champion, if `expected` is champion still."""

    version: Number
    expected: Number | None = None


class RefuseBody(Body):
    """A candidate that is to catch up no more: whichever does, unless said."""

    version: Number | None = None
    reason: Name | None = None


class EraseBody(Body):
    """Whose data is to be erased."""

    key: Name = Field(min_length=1)


class RollbackBody(Body):
    """The champion to go back to; the one before, unless said."""

    to: Number | None = None
