"""The parameters of an estimator by scikit-learn's conventions: asked for, changed, copied."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from functools import cache
from typing import Any, Self

from everlearn.base import SpecError


class Parameters(ABC):
    """What has a constructor that keeps each of its parameters in an attribute of that name."""

    def __new__(cls, *args: Any, **params: Any) -> Self:
        made = super().__new__(cls)
        made._forget()
        return made

    @abstractmethod
    def _forget(self) -> None:
        """Become one that has learned nothing."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Every parameter of the constructor; with `deep`, those of learners among them too."""
        params = {name: getattr(self, name) for name in _parameters(type(self))}
        if deep:
            for name, value in list(params.items()):
                if hasattr(value, "get_params") and not isinstance(value, type):
                    nested = value.get_params(deep=True)
                    params |= {f"{name}__{inner}": item for inner, item in nested.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Change parameters and forget all that was learned."""
        known = _parameters(type(self))
        for name, value in params.items():
            head, _, rest = name.partition("__")
            if head not in known:
                raise SpecError(f"{type(self).__name__} has no parameter {head!r}: {list(known)}")
            if rest:
                getattr(self, head).set_params(**{rest: value})
            else:
                setattr(self, name, value)
        self._forget()
        return self

    def clone(self) -> Self:
        """One with the same parameters that has learned nothing."""
        return type(self)(**_copied(self.get_params(deep=False)))

    def __repr__(self) -> str:
        defaults = _parameters(type(self))
        said = [
            f"{name}={value!r}"
            for name, value in self.get_params(deep=False).items()
            if repr(value) != repr(defaults[name])
        ]
        return f"{type(self).__name__}({', '.join(said)})"


def _copied(params: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.clone() if isinstance(value, Parameters) else value
        for name, value in params.items()
    }


@cache
def _parameters(kind: type) -> dict[str, Any]:
    """The constructor's parameters and their defaults."""
    if kind.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    made = inspect.signature(kind.__init__)  # type: ignore[misc]
    return {item.name: item.default for item in made.parameters.values() if item.name != "self"}
