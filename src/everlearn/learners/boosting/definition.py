"""What a model of boosted trees is made from, whichever library grows them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from everlearn.base import Columns, LearnerKind, SpecError

if TYPE_CHECKING:
    from everlearn.learners.boosting.forest import Libraries
    from everlearn.learners.boosting.learner import BoostedTrees

DECAY = 0.9
"""What old leaves are multiplied by where nothing is said."""

Link = Literal["identity", "exponential"]


@dataclass(frozen=True)
class Boosted(ABC):
    """The fields that `LightGBM` and `XGBoost` share; they are documented there."""

    params: Mapping[str, Any] = field(default_factory=dict)
    trees: int = 5
    at_most: int = 100
    full: Literal["drop", "refit"] = "drop"
    keep: float = 0.9
    decay: float | None = None
    classes: int | Sequence[Any] | None = None
    categories: int = 1000
    threads: int = 1

    library: ClassVar[str]

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "params", dict(self.params))
        for field_name, least in (("trees", 1), ("at_most", 1), ("categories", 0), ("threads", 1)):
            given = getattr(self, field_name)
            if not isinstance(given, int) or isinstance(given, bool) or given < least:
                raise SpecError(f"{name}({field_name}=) is a whole number from {least}: {given!r}")
        if self.trees > self.at_most:
            raise SpecError(f"{name}(trees={self.trees}) is more than at_most={self.at_most}")
        if self.full not in ("drop", "refit"):
            raise SpecError(f"{name}(full=) is 'drop' or 'refit', not {self.full!r}")
        if not 0.0 <= self.keep < 1.0:
            raise SpecError(f"{name}(keep=) is a share from 0 to below 1, not {self.keep!r}")
        if self.decay is not None and not 0.0 < self.decay <= 1.0:
            raise SpecError(f"{name}(decay=) is a factor above 0, at most 1: {self.decay!r}")
        if self.full == "refit" and self.shrinks < 1.0:
            raise SpecError(f"{name}: leaves that are refitted do not decay; choose one of the two")
        self.settings("regressor" if self.regresses() else "classifier", 1, 0)

    @property
    def shrinks(self) -> float:
        """What the leaves of all trees are multiplied by before each chunk."""
        if self.decay is None:
            return 1.0 if self.full == "refit" else DECAY
        return self.decay

    @property
    def room(self) -> int:
        """How many classes are said; 0 if none are."""
        if self.classes is None:
            return 0
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    def kind_for(self, columns: Columns, classes: int = 0) -> LearnerKind:
        """What it predicts: as the objective says; where none is named, as the target is."""
        told = self.regresses()
        if told is not None:
            return "regressor" if told else "classifier"
        number = columns.target_kind == "number" and not classes and not self.room
        return "regressor" if number else "classifier"

    def make_learner(self, columns: Columns, *, classes: int = 0, seed: int = 0) -> BoostedTrees:
        """A learner that has learned nothing.

        Raises:
            SpecError: a parameter that the library refuses, or no column to learn from.
        """
        from everlearn.learners.boosting.learner import BoostedTrees

        return BoostedTrees(self, columns, classes=classes, seed=seed)

    # --- what a library answers ---

    @abstractmethod
    def regresses(self) -> bool | None:
        """Whether the objective is one of numbers; None where none is named.

        Raises:
            SpecError: it is none that can be continued.
        """

    @abstractmethod
    def link(self) -> Link:
        """How scores become numbers."""

    @abstractmethod
    def settings(self, kind: LearnerKind, outputs: int, rows: int) -> dict[str, Any]:
        """The library's parameters for a chunk of so many rows.

        Raises:
            SpecError: a parameter that does not go with trees that are continued.
        """

    @abstractmethod
    def library_for(self, kind: LearnerKind, width: int, categorical: range) -> Libraries:
        """The library, by number of outputs."""


def objective_of(definition: Boosted, aliases: Sequence[str]) -> str | None:
    """The objective that the parameters name, if any; a function is refused."""
    named = [definition.params[name] for name in aliases if name in definition.params]
    if named and not isinstance(named[0], str):
        raise SpecError(
            f"{type(definition).__name__}: the objective is a name, not {named[0]!r}; a function"
            " has no place in a saved state"
        )
    return named[0] if named else None


def refuse(definition: Boosted, names: Mapping[str, str]) -> None:
    """Refuse parameters, each with what to do instead."""
    for name, instead in names.items():
        if name in definition.params:
            raise SpecError(f"{type(definition).__name__}: {name!r} among params: {instead}")
