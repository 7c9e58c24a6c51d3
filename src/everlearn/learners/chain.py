"""Several incremental steps, one after the other."""

from __future__ import annotations

from typing import Any

from everlearn.base import SpecError
from everlearn.learners.encoder import Encoder


class Chain:
    """An encoder, transformers and an estimator that learn together: what a pipeline is to `fit`.

    A chunk goes through the steps in order; each transformer learns it (`partial_fit`) and hands
    on what it makes of it (`transform`). Immutable; equal to a chain of equal steps.

    Args:
        steps: an `Encoder` first (one that takes numbers as they are is implied where there is
            none), then estimators with `partial_fit` and `transform`, last what predicts.

    Raises:
        SpecError: no step after the encoder, an encoder elsewhere than first, a step without
            `partial_fit`, or a step before the last without `transform`.

    Example:
        >>> from sklearn.decomposition import IncrementalPCA
        >>> from sklearn.linear_model import SGDClassifier
        >>> Chain(Encoder(categories="drop"), IncrementalPCA(3), SGDClassifier()).estimator
        SGDClassifier()
    """

    __slots__ = ("steps",)

    steps: tuple[Any, ...]

    def __init__(self, *steps: Any) -> None:
        if len(steps) == 1 and isinstance(steps[0], list | tuple):
            steps = tuple(steps[0])
        object.__setattr__(self, "steps", tuple(steps))
        rest = (*self.transformers, self.estimator)
        for step in rest:
            if isinstance(step, Encoder | Chain):
                raise SpecError(f"{step!r} cannot be a later step of a Chain; an Encoder is first")
            if isinstance(step, type):
                raise SpecError(f"a step of a Chain is an object, not the class {step.__name__}()")
            if not hasattr(step, "partial_fit"):
                raise SpecError(f"{step!r} has no partial_fit, so it cannot learn in chunks")
        for step in rest[:-1]:
            if not hasattr(step, "transform"):
                raise SpecError(f"{step!r} has no transform, so it can only be a Chain's last step")

    @property
    def encoder(self) -> Encoder | None:
        """The first step, if it is an encoder."""
        return self.steps[0] if self.steps and isinstance(self.steps[0], Encoder) else None

    @property
    def transformers(self) -> tuple[Any, ...]:
        """The steps between the encoder and the estimator."""
        return self.steps[0 if self.encoder is None else 1 : -1]

    @property
    def estimator(self) -> Any:
        """The last step."""
        if not self.steps or self.steps[-1] is self.encoder:
            raise SpecError("a Chain ends in an estimator with partial_fit; there is none")
        return self.steps[-1]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Chain cannot be changed; make a new one ({name}={value!r})")

    def __repr__(self) -> str:
        return f"Chain({', '.join(repr(step) for step in self.steps)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Chain) or len(self.steps) != len(other.steps):
            return False
        return all(_same(a, b) for a, b in zip(self.steps, other.steps, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(type(step).__qualname__ for step in self.steps))


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if not hasattr(a, "get_params"):
        return bool(a == b)
    return repr(sorted(a.get_params().items())) == repr(sorted(b.get_params().items()))
