"""From a definition to a learner."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

import numpy as np

from everlearn.base import Array, Columns, Learner, LearnerDefinition, LearnerKind, SpecError
from everlearn.learners.chain import Chain
from everlearn.learners.default import NAMES, follows_target, named
from everlearn.learners.encoder import Encoder
from everlearn.learners.labels import Labels

MANY_CLASSES = 20
"""An integer target with more distinct values than this is a quantity, unless said otherwise."""

NATIVE = "everlearn.learners.native.estimator.Native"
EITHER = "everlearn.learners.native.either.Either"

ADAPTED = {
    "lightgbm": "everlearn.learners.boosting.lightgbm",
    "river": "everlearn.learners.river",
    "xgboost": "everlearn.learners.boosting.xgboost",
}
"""Libraries whose estimators have a definition of their own, which `definition_of` there makes."""

UNSAVABLE = {"Birch": "it grows a tree of objects"}
"""Estimators of scikit-learn that have `partial_fit` but no state of arrays."""


def as_learner(
    definition: Any,
    columns: Columns,
    *,
    classes: int = 0,
    seed: int = 0,
    labels: Labels | None = None,
    frozen: bool = False,
) -> Learner:
    """A new learner that has learned nothing. The definition is copied, never changed.

    Args:
        definition: None for the default learner, `Auto`; a name ("logistic", or
            "package.module.Class"); an estimator with `partial_fit`; a `Chain`; a native learner;
            a `LearnerDefinition` (`TorchLearner`); an estimator of LightGBM, XGBoost or River; or
            an object that is a learner itself.
        columns: what batches will hold.
        classes: how many class codes are known beforehand.
        seed: for generators; takes the place of every `random_state=None`.
        labels: values of the class codes; needed only for an estimator whose parameters speak of
            them (`class_weight={…}`).
        frozen: whether what it has learned will answer for long before it learns on, as the version
            of a job does; some learners (`Experts`) choose by that.

    Raises:
        SpecError: the definition cannot learn in increments, or not from these columns.

    Example:
        >>> as_learner("logistic", Columns(numbers=("x",), target="y", target_kind="boolean")).kind
        'classifier'
    """
    definition = _resolved(definition, columns, classes, frozen)
    if _is_a(definition, NATIVE):
        from everlearn.learners.native.learner import NativeLearner

        return NativeLearner(definition, columns, classes=classes, seed=seed)
    if isinstance(definition, LearnerDefinition):
        return definition.make_learner(columns, classes=classes, seed=seed)
    if isinstance(definition, Learner) and not isinstance(definition, type):
        return copy.deepcopy(definition)
    chain = definition if isinstance(definition, Chain) else Chain(definition)
    return _assembled(chain, columns, classes, seed, labels)


def learner_kind(
    definition: Any, columns: Columns, *, classes: int = 0, y: Array | None = None
) -> LearnerKind:
    """What kind of learner `as_learner` would make.

    Args:
        definition, columns, classes: as for `as_learner`.
        y: some values of the target, by which the default learner tells a number that is a class
            (an integer of few values; 0.0 and 1.0, which data frames make of integers where some
            are missing) from one that is a quantity.

    Raises:
        SpecError: as for `as_learner`.
    """
    if leaves_open(definition) and y is not None and not classes:
        distinct = np.unique(y) if columns.target_kind in ("integer", "number") else y[:0]
        if columns.target_kind == "integer":
            return "regressor" if len(distinct) > MANY_CLASSES else "classifier"
        if np.array_equal(distinct, [0.0, 1.0]):
            return "classifier"
    definition = _resolved(definition, columns, classes)
    if isinstance(definition, LearnerDefinition):
        return definition.kind_for(columns, classes)
    if _is_a(definition, NATIVE) or isinstance(definition, Learner):
        return cast(LearnerKind, definition.kind)
    chain = definition if isinstance(definition, Chain) else Chain(definition)
    return _kind(chain.estimator, columns)


def _assembled(
    chain: Chain, columns: Columns, classes: int, seed: int, labels: Labels | None
) -> Learner:
    """The steps behind the protocol; what they take is asked of them."""
    from everlearn.learners.scikit import SklearnLearner

    steps = [*chain.transformers, chain.estimator]
    makers = [_maker(step, seed, index, labels) for index, step in enumerate(steps)]
    encoder = chain.encoder or Encoder(numbers="as_is", missing="mean")
    return cast(
        Learner,
        SklearnLearner(
            encoder,
            makers,
            columns,
            kind=_kind(chain.estimator, columns),
            classes=classes,
            sparse=_takes_sparse(steps[0]),
            weighs=_takes(chain.estimator, "sample_weight"),
            told=_takes(chain.estimator, "classes"),
        ),
    )


def _resolved(definition: Any, columns: Columns, classes: int, frozen: bool = False) -> Any:
    """A chain, an estimator or a learner, out of whatever may stand in `Model(learner=)`."""
    if definition is None:
        if columns.target_kind == "none":
            raise SpecError("the default learner needs a target; name it in Schema(target=…)")
        definition = "auto"
    if isinstance(definition, str):
        definition = _named(definition, _kind_of_target(columns, classes))
    if _is_a(definition, EITHER):
        kind = definition.kind or _kind_of_target(columns, classes)
        definition = definition.of_kind(kind, frozen)
    if (library := type(definition).__module__.partition(".")[0]) in ADAPTED:
        definition = import_module(ADAPTED[library]).definition_of(definition)
    if isinstance(definition, type):
        raise SpecError(f"the learner is an object, not a class: write {definition.__name__}()")
    own = isinstance(definition, Chain | Learner | LearnerDefinition)
    if not (own or _is_a(definition, NATIVE)):
        _check(definition)
    return definition


def leaves_open(definition: Any) -> bool:
    """Whether it is left to the target what it predicts."""
    if isinstance(definition, str):
        return follows_target(definition)
    return definition is None or (_is_a(definition, EITHER) and definition.kind is None)


def _kind_of_target(columns: Columns, classes: int) -> LearnerKind:
    return "regressor" if columns.target_kind == "number" and not classes else "classifier"


def _is_a(definition: Any, name: str) -> bool:
    """Whether its class is, or inherits from, one of `learners.native`, asked without importing
    what compiles."""
    return name in (f"{kind.__module__}.{kind.__name__}" for kind in type(definition).__mro__)


def _named(name: str, kind: LearnerKind) -> Any:
    found = named(name, kind)
    if found is not None:
        return found
    module, _, attribute = name.replace(":", ".").rpartition(".")
    if not module:
        raise SpecError(
            f"{name!r} is no learner; there are {', '.join(NAMES)}, or an import path such as"
            " sklearn.linear_model.SGDClassifier"
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SpecError(f"the learner {name!r} cannot be imported: {error}") from error
    return _silently(found) if callable(found) else found


def _check(estimator: Any) -> None:
    name = type(estimator).__name__
    if not hasattr(estimator, "partial_fit"):
        hint = "; write everlearn.learners.Chain(step, …) for it" if name == "Pipeline" else ""
        if getattr(estimator, "solver", None) == "lbfgs":
            hint = "; choose solver='adam' or 'sgd'"
        raise SpecError(f"{estimator!r} has no partial_fit, so it cannot learn in chunks{hint}")


def _check_step(step: Any) -> None:
    """Refuse beforehand what would fail at the first chunk or at the first checkpoint."""
    name = type(step).__name__
    if name in UNSAVABLE:
        raise SpecError(f"{name} cannot be saved without pickle: {UNSAVABLE[name]}")
    if getattr(step, "early_stopping", False):
        raise SpecError(f"{name}(early_stopping=True) needs all data at once; leave it out")
    if getattr(step, "class_weight", None) == "balanced":
        raise SpecError(
            f"{name}(class_weight='balanced') needs all data at once; use a Balanced memory"
        )
    if type(step).__module__.startswith("sklearn.") and any(
        attribute.endswith("_") and not attribute.startswith("_") for attribute in vars(step)
    ):
        raise SpecError(
            f"{name} is already fitted, and a definition is made anew; pass sklearn.base.clone(…)"
            " of it"
        )
    if hasattr(step, "_validate_params"):
        try:
            step._validate_params()
        except ValueError as error:
            raise SpecError(f"{name}: {error}") from error


def _maker(step: Any, seed: int, index: int, labels: Labels | None) -> Callable[[], Any]:
    """A function that makes a fresh copy of a step, with a generator of its own."""
    _check_step(step)
    weights = _coded_weights(step, labels)

    def make() -> Any:
        made = _silently(lambda: _copied(step))
        if weights is not None:
            made.set_params(class_weight=weights)
        if hasattr(made, "get_params"):
            unset = [
                name
                for name, value in made.get_params(deep=True).items()
                if value is None and name.rpartition("__")[2] == "random_state"
            ]
            for place, name in enumerate(unset):
                bits = np.random.MT19937(np.random.SeedSequence([seed, index, place]))
                made.set_params(**{name: np.random.RandomState(bits)})
        return made

    return make


def _copied(step: Any) -> Any:
    if not hasattr(step, "get_params"):
        return copy.deepcopy(step)
    from sklearn.base import clone

    return clone(step)


def _coded_weights(step: Any, labels: Labels | None) -> dict[int, float] | None:
    """A `class_weight` by value as one by code."""
    weights = getattr(step, "class_weight", None)
    if not isinstance(weights, dict):
        return None
    if labels is None or not len(labels):
        raise SpecError(
            f"{type(step).__name__}(class_weight={weights!r}) speaks of classes by value; name"
            " them in Schema(classes=…), or give rows a weight"
        )
    keys = list(weights)
    array = np.array(keys, object if labels.is_text else np.float64)
    codes = labels.encode(array)
    if (codes < 0).any():
        raise SpecError(f"class_weight names {keys}; the classes are {list(labels.values)}")
    return {int(code): float(weights[key]) for code, key in zip(codes, keys, strict=True)}


def _kind(estimator: Any, columns: Columns) -> LearnerKind:
    tag = getattr(estimator, "_estimator_type", None)
    if hasattr(estimator, "__sklearn_tags__"):
        from sklearn.utils import get_tags

        tag = get_tags(estimator).estimator_type
    if tag in ("classifier", "regressor", "clusterer"):
        return cast(LearnerKind, tag)
    if hasattr(estimator, "transform") and not hasattr(estimator, "predict"):
        return "transformer"
    if hasattr(estimator, "predict_proba") or columns.target_kind in ("text", "boolean"):
        return "classifier"
    return "regressor"


def _takes_sparse(step: Any) -> bool:
    if type(step).__name__ in ("IncrementalPCA", "GaussianNB"):
        return False
    if not hasattr(step, "__sklearn_tags__"):
        return False
    from sklearn.utils import get_tags

    return bool(get_tags(step).input_tags.sparse)


def _takes(estimator: Any, parameter: str) -> bool:
    """Whether `partial_fit` has a parameter of this name."""
    method = estimator.partial_fit
    try:
        return parameter in _parameters(getattr(method, "__func__", method))
    except (TypeError, ValueError):
        return False


@lru_cache(maxsize=256)
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _silently(make: Callable[[], Any]) -> Any:
    """Constructors of estimators that are to be removed say so; their users know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return make()
