"""What the first champion would have answered: what the model were worth had it never learned
again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa
from pydantic_core import from_json

from everlearn.base import Json, NotFoundError
from everlearn.jobs.learn import Fold
from everlearn.jobs.load import load_fold
from everlearn.jobs.online import online_of
from everlearn.registry.aliases import CHAMPION
from everlearn.registry.models import model_id
from everlearn.registry.registry import Registry
from everlearn.serving.predictor import outputs_of
from everlearn.storage import schema

_log = logging.getLogger("everlearn")

LARGEST = 64 << 20
"""Bytes of the state of a version that is kept in memory for a chart."""

ASKED = 1000
"""Of the rows that are read at once, so many are asked about, evenly spread."""

ANSWERED = ("erased",)
"""Arms whose rows are not asked about: what they were is not known any more."""


class Frozen:
    """The first champion of a model, beside the one that serves.

    Args:
        registry: of the workspace.
        name: of the model.
    """

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry, self._name = registry, name
        self.number: int | None = None
        self._grows = False
        self._fold: Fold | None = None
        self._tried = False

    def gave(self, version: int) -> bool:
        """Whether an answer of a version was its own. One that learns online changes between two
        versions."""
        return version == self.number and not self._grows

    def outputs(self, rows: Sequence[tuple[int, int]]) -> dict[int, Json]:
        """Its outputs by prediction, for some of these.

        Args:
            rows: id of the prediction, version that answered it.
        """
        if self.number is None:
            self._find()
        asked = [row for row, version in rows if version and not self.gave(version)]
        if not asked or self.number is None:
            return {}
        fold = self._load()
        if fold is None:
            return {}
        chosen = asked[:: max(1, -(-len(asked) // ASKED))]
        table = schema.predictions.c
        query = sa.select(table.id, table.features).where(table.arm.not_in(ANSWERED))
        with self._registry.database.read() as connection:
            found = connection.execute(query.where(table.id.in_(chosen))).all()
        try:
            given = outputs_of(fold, [from_json(row.features) for row in found], Counter())
        except Exception as error:  # of columns that came later, or of a learner of somebody else
            self._give_up(error)
            return {}
        return dict(zip([row.id for row in found], given, strict=True))

    def _find(self) -> None:
        """Which version it is."""
        table = schema.alias_history.c
        with self._registry.database.read() as connection:
            query = sa.select(table.version_to).where(
                table.model_id == model_id(connection, self._name),
                table.name == CHAMPION,
                table.version_to.is_not(None),
            )
            self.number = connection.execute(query.order_by(table.id).limit(1)).scalar()
        if self.number is not None:
            made = self._registry.definition(self._name)
            self._grows = online_of(made.model()) is not None

    def _load(self) -> Fold | None:
        """Its state; None where that was dropped, or is too large to be kept for a chart."""
        if not self._tried:
            self._tried = True
            try:
                version = self._registry.version(self._name, self.number or 0)
                size = sum(int(part["size"]) for part in version.manifest.values())
                if size > LARGEST:
                    raise NotFoundError(f"its state has {size:,} bytes, {LARGEST:,} at most")
                self._fold = load_fold(self._registry, self._name, version)
            except Exception as error:
                self._give_up(error)
        return self._fold

    def _give_up(self, error: Exception) -> None:
        self._fold = None
        said = "%s: version %s is not drawn: %s"
        _log.info(said, self._name, self.number, error)
