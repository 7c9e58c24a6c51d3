"""The names by which learners are asked for; each needs no tuning."""

from __future__ import annotations

from typing import Any

from everlearn.base import LearnerKind
from everlearn.learners.chain import Chain
from everlearn.learners.encoder import Encoder

NATIVE = {
    "auto": ("Auto", "Auto"),
    "bernoulli_nb": ("BernoulliNB", "BernoulliNB"),
    "forest": ("AdaptiveRandomForestClassifier", "AdaptiveRandomForestRegressor"),
    "gaussian_nb": ("GaussianNB", "GaussianNB"),
    "linear": ("LinearRegression", "LinearRegression"),
    "logistic": ("LogisticRegression", "LogisticRegression"),
    "tree": ("HoeffdingTreeClassifier", "HoeffdingTreeRegressor"),
}
"""Names of native learners: the class for a target of classes, and for one of quantities."""

NAMES = tuple(sorted([*NATIVE, "kmeans", "mlp", "mlp_regressor", "perceptron"]))
"""What may be written instead of a definition."""


def follows_target(name: str) -> bool:
    """Whether a name stands for a classifier or a regressor, whichever the target calls for."""
    return name == "auto" or (name in NATIVE and len(set(NATIVE[name])) == 2)


def named(name: str, kind: LearnerKind = "classifier") -> Any:
    """The definition for one of `NAMES`, for a target of this kind; None for another name."""
    if name in NATIVE:
        from everlearn import learners

        return getattr(learners, NATIVE[name][kind == "regressor"])()
    if name not in NAMES:
        return None
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.linear_model import SGDClassifier
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    estimators = {
        "kmeans": lambda: MiniBatchKMeans(n_init=1),
        "mlp": lambda: MLPClassifier(hidden_layer_sizes=(64,)),
        "mlp_regressor": lambda: MLPRegressor(hidden_layer_sizes=(64,)),
        "perceptron": lambda: SGDClassifier(loss="perceptron", penalty=None),
    }
    return Chain(Encoder(), estimators[name]())
