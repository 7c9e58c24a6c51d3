"""Room for classes that appear only later, in estimators whose classes are learned one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model._stochastic_gradient import BaseSGDClassifier
from sklearn.naive_bayes import (
    BernoulliNB,
    CategoricalNB,
    ComplementNB,
    GaussianNB,
    MultinomialNB,
)

from everlearn.base import Array

COUNTING = (BernoulliNB, ComplementNB, MultinomialNB)


def can_grow(estimator: Any) -> bool:
    """Whether classes can be added after the first rows were learned."""
    fixed_prior = getattr(estimator, "class_prior", None) is not None
    if fixed_prior or getattr(estimator, "priors", None) is not None:
        return False
    kinds = (BaseSGDClassifier, GaussianNB, CategoricalNB, *COUNTING)
    return isinstance(estimator, kinds)


def grow_estimator(estimator: Any, classes: int) -> None:
    """Add classes to a fitted estimator for which `can_grow` is true, up to `classes` in all.

    Naive Bayes gets classes that it has counted nothing of. A linear model gets rows of its
    one-against-all coefficients that say no to every row as firmly as its loss asks for; out of
    two classes, the one score for code 1 becomes one for each.
    """
    extra = classes - len(estimator.classes_)
    if extra <= 0:
        return
    if isinstance(estimator, BaseSGDClassifier):
        _grow_linear(estimator, extra)
    elif isinstance(estimator, GaussianNB):
        _grow_gaussian(estimator, extra)
    else:
        _grow_counts(estimator, extra)
    estimator.classes_ = np.arange(classes)


def _grow_linear(estimator: Any, extra: int) -> None:
    refusal = -np.log(max(estimator.t_, 2.0)) if estimator.loss == "log_loss" else -1.0
    averaged = estimator.average > 0
    pairs = {"coef_": "intercept_"}
    if averaged:
        pairs = {"_standard_coef": "_standard_intercept", "_average_coef": "_average_intercept"}
    for coef_name, intercept_name in pairs.items():
        coef = np.atleast_2d(getattr(estimator, coef_name))
        intercept = np.atleast_1d(getattr(estimator, intercept_name))
        if len(coef) == 1:
            coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
        coef = np.vstack([coef, np.zeros((extra, coef.shape[1]))])
        setattr(estimator, coef_name, np.ascontiguousarray(coef))
        setattr(estimator, intercept_name, np.concatenate([intercept, np.full(extra, refusal)]))
    if averaged:
        which = "average" if estimator.average <= estimator.t_ - 1 else "standard"
        estimator.coef_ = getattr(estimator, f"_{which}_coef")
        estimator.intercept_ = getattr(estimator, f"_{which}_intercept")


def _grow_gaussian(estimator: Any, extra: int) -> None:
    estimator.theta_ = _more_rows(estimator.theta_, extra)
    estimator.var_ = _more_rows(estimator.var_, extra)
    # partial_fit takes epsilon_ off every variance before it goes on
    estimator.var_[-extra:] += estimator.epsilon_
    estimator.class_count_ = _more_rows(estimator.class_count_, extra)
    estimator.class_prior_ = _more_rows(estimator.class_prior_, extra)


def _grow_counts(estimator: Any, extra: int) -> None:
    estimator.class_count_ = _more_rows(estimator.class_count_, extra)
    if isinstance(estimator, CategoricalNB):
        estimator.category_count_ = [_more_rows(c, extra) for c in estimator.category_count_]
    else:
        estimator.feature_count_ = _more_rows(estimator.feature_count_, extra)
    estimator.classes_ = np.arange(len(estimator.class_count_))
    alpha = estimator._check_alpha()
    estimator._update_feature_log_prob(alpha)
    estimator._update_class_log_prior(class_prior=None)


def _more_rows(array: Array, extra: int) -> Array:
    return np.concatenate([array, np.zeros((extra, *array.shape[1:]))])
