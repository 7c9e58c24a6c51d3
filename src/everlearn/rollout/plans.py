"""How a candidate is tried on traffic: mirrored, in growing steps, or with fixed shares."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from everlearn.base import SpecError
from everlearn.evaluation.outcomes import METRICS


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a rollout.

    Args:
        share: of the keys for which the candidate answers, 0 to 1.
        mirrored: whether it also answers all other requests, unseen by those who ask.
    """

    share: float
    mirrored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a candidate must keep to.

    Args:
        metric: one of `METRICS`; None for log loss where there are probabilities, accuracy where
            there are none, squared error of quantities.
        margin: how much worse the candidate's mean may be, in the unit of the metric.
        labels: of the candidate's answers that must be there before a stage can pass.
        level: confidence of all bounds of all stages together, at every look.
        errors: how much larger the share of requests may be that the candidate fails to answer.
        slower: how many times as long as the champion it may take on average.
        churn: share of the answers that may differ from the champion's, where both are known (in a
            shadow); None for any.

    Raises:
        SpecError: a figure that cannot be.
    """

    metric: str | None = None
    margin: float = 0.01
    labels: int = 200
    level: float = 0.95
    errors: float = 0.01
    slower: float = 2.0
    churn: float | None = None

    def __post_init__(self) -> None:
        if self.metric is not None and self.metric not in METRICS:
            raise SpecError(f"metric={self.metric!r}; a rollout takes one of {', '.join(METRICS)}")
        for name, low, high in (
            ("margin", 0.0, float("inf")),
            ("labels", 1, float("inf")),
            ("errors", 0.0, 1.0),
            ("slower", 1.0, float("inf")),
        ):
            if not low <= getattr(self, name) <= high:
                raise SpecError(f"{name}={getattr(self, name)!r}; it is from {low} to {high}")
        if not 0.5 <= self.level < 1.0:
            raise SpecError(f"level={self.level!r}; it is from 0.5 to below 1")
        if self.churn is not None and not 0.0 <= self.churn <= 1.0:
            raise SpecError(f"churn={self.churn!r}; it is from 0 to 1, or None")


@runtime_checkable
class Plan(Protocol):
    """A rollout as a model's definition names it."""

    must_be_better: ClassVar[bool]
    """Whether a stage passes only a candidate that is surely better, rather than surely not worse
    by more than the margin."""

    @property
    def bounds(self) -> Bounds:
        """What the candidate must keep to."""
        ...

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One after the other; the candidate that passes the last one becomes champion."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow(Bounds):
    """The candidate answers all requests beside the champion, and nobody sees it: both are compared
    on the same rows.

    Example:
        >>> Shadow(labels=1000).stages
        (Stage(share=0.0, mirrored=True),)
    """

    must_be_better: ClassVar[bool] = False

    @property
    def bounds(self) -> Bounds:
        """What the candidate must keep to."""
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One, without a share."""
        return (Stage(0.0, mirrored=True),)


@dataclass(frozen=True, slots=True)
class Canary(Bounds):
    """The candidate answers for a few keys, then for more.

    Args:
        steps: percent of the keys, growing, above 0 and at most 100.

    Example:
        >>> [stage.share for stage in Canary([1, 5, 25, 50]).stages]
        [0.01, 0.05, 0.25, 0.5]

    Raises:
        SpecError: steps that do not grow, or are no percentages.
    """

    must_be_better: ClassVar[bool] = False
    steps: Sequence[float] = (1, 5, 25, 50)

    def __post_init__(self) -> None:
        Bounds.__post_init__(self)
        steps = tuple(self.steps)
        grow = all(one < other for one, other in itertools.pairwise(steps))
        if not steps or not grow or not 0.0 < steps[0] <= steps[-1] <= 100.0:
            raise SpecError(f"steps={list(steps)}; they are percentages that grow, such as [1, 10]")
        object.__setattr__(self, "steps", steps)

    @property
    def bounds(self) -> Bounds:
        """What the candidate must keep to."""
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One for each step."""
        return tuple(Stage(step / 100.0) for step in self.steps)


@dataclass(frozen=True, slots=True)
class ABTest(Bounds):
    """Both answer for fixed shares of the keys until one is surely better.

    Args:
        shares: percent of the keys, "champion" and "candidate"; they sum to 100.

    Example:
        >>> ABTest({"champion": 80, "candidate": 20}).stages
        (Stage(share=0.2, mirrored=False),)

    Raises:
        SpecError: other arms, or shares that are no percentages.
    """

    must_be_better: ClassVar[bool] = True
    shares: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        Bounds.__post_init__(self)
        shares = dict(self.shares or {"champion": 50, "candidate": 50})
        right = set(shares) == {"champion", "candidate"} and abs(sum(shares.values()) - 100) < 1e-9
        if not right or not 0.0 < shares["candidate"] < 100.0:
            raise SpecError(
                f"shares={shares}; they are percentages of 'champion' and 'candidate' that sum to"
                " 100"
            )
        object.__setattr__(self, "shares", shares)

    @property
    def bounds(self) -> Bounds:
        """What the candidate must keep to."""
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One, for as long as it takes."""
        assert self.shares is not None
        return (Stage(self.shares["candidate"] / 100.0),)
