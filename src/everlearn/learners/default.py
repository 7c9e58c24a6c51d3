"""Learners that need no tuning, and the names by which they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from everlearn.base import Columns
from everlearn.learners.chain import Chain
from everlearn.learners.encoder import Encoder


@dataclass(frozen=True, slots=True)
class LogisticRegression:
    """Logistic regression for classes, by stochastic gradient descent over an `Encoder`.

    Args:
        eta0: step of the gradient descent, constant so that the model follows drift.
        alpha: strength of the L2 penalty.
        buckets: of the encoder, for all categories together.
        random_state: seed of the order in which the rows of a chunk are learned; None takes the
            strategy's.
    """

    eta0: float = 0.01
    alpha: float = 1e-5
    buckets: int = 1024
    random_state: int | None = None

    def build(self, columns: Columns) -> Chain:
        """The steps, for these columns."""
        from sklearn.linear_model import SGDClassifier

        return Chain(
            Encoder(buckets=self.buckets, clip=4.0),
            SGDClassifier(
                loss="log_loss",
                alpha=self.alpha,
                learning_rate="constant",
                eta0=self.eta0,
                random_state=self.random_state,
            ),
        )


@dataclass(frozen=True, slots=True)
class LinearRegression:
    """Linear regression by stochastic gradient descent over an `Encoder`.

    Args:
        eta0: step of the gradient descent, as a share of the largest that is stable.
        alpha: strength of the L2 penalty.
        buckets: of the encoder, for all categories together.
        random_state: as for `LogisticRegression`.
    """

    eta0: float = 0.1
    alpha: float = 1e-5
    buckets: int = 1024
    random_state: int | None = None

    def build(self, columns: Columns) -> Chain:
        """The steps, for these columns: a row's expected squared length bounds the step."""
        from sklearn.linear_model import SGDRegressor

        slots = len(columns.numbers) + len(columns.categories) + 3 * len(columns.times) + 1
        return Chain(
            Encoder(buckets=self.buckets, clip=4.0),
            SGDRegressor(
                alpha=self.alpha,
                learning_rate="constant",
                eta0=self.eta0 / slots,
                random_state=self.random_state,
            ),
        )


NAMES = (
    "bernoulli_nb",
    "gaussian_nb",
    "kmeans",
    "linear",
    "logistic",
    "mlp",
    "mlp_regressor",
    "perceptron",
)
"""What may be written instead of a definition."""


def named(name: str) -> Any:
    """The definition for one of `NAMES`; None for another name."""
    if name == "logistic":
        return LogisticRegression()
    if name == "linear":
        return LinearRegression()
    if name not in NAMES:
        return None
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.linear_model import SGDClassifier
    from sklearn.naive_bayes import BernoulliNB, GaussianNB
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    estimators = {
        "bernoulli_nb": lambda: BernoulliNB(),
        "gaussian_nb": lambda: GaussianNB(),
        "kmeans": lambda: MiniBatchKMeans(n_init=1),
        "mlp": lambda: MLPClassifier(hidden_layer_sizes=(64,)),
        "mlp_regressor": lambda: MLPRegressor(hidden_layer_sizes=(64,)),
        "perceptron": lambda: SGDClassifier(loss="perceptron", penalty=None),
    }
    return Chain(Encoder(), estimators[name]())
