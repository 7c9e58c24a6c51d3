"""What learns: one protocol (`everlearn.base.Learner`) before scikit-learn's estimators.

Definitions (`Encoder`, `Chain`, `LogisticRegression`, `LinearRegression`) are frozen records that
cost nothing to import; what is learned lives in what `as_learner` makes of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everlearn.learners.adapt import as_learner as as_learner
    from everlearn.learners.adapt import learner_kind as learner_kind
    from everlearn.learners.chain import Chain as Chain
    from everlearn.learners.default import LinearRegression as LinearRegression
    from everlearn.learners.default import LogisticRegression as LogisticRegression
    from everlearn.learners.encoder import Encoder as Encoder
    from everlearn.learners.labels import Labels as Labels

_HOME = {
    "Chain": "chain",
    "Encoder": "encoder",
    "Labels": "labels",
    "LinearRegression": "default",
    "LogisticRegression": "default",
    "as_learner": "adapt",
    "learner_kind": "adapt",
}

__all__ = [
    "Chain",
    "Encoder",
    "Labels",
    "LinearRegression",
    "LogisticRegression",
    "as_learner",
    "learner_kind",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
