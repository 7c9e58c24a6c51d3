"""Learners that need no tuning, and the names by which they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from everlearn.base import Columns
from everlearn.learners.chain import Chain
from everlearn.learners.encoder import Encoder

SCALES = (0.5, 0.3, 1.5)
"""Numbers, times, categories. A class of a category is seen rarely and must learn fast; the place
in the week or year moves slowly and would otherwise learn the last days by heart."""

CLIP = 4.0
"""Standard deviations; together with the step it bounds what one row can do."""


@dataclass(frozen=True, slots=True)
class LogisticRegression:
    """Logistic regression for classes, by stochastic gradient descent over an `Encoder`.

    The defaults were chosen on two streams, one without and one with much drift (flights and
    Elec2), and are the same for every scale of the data: numbers are standardised.

    Args:
        eta0: first step of the gradient descent. It falls with the square root of the rows
            learned, until 100,000.
        alpha: strength of the L2 penalty.
        buckets: of the encoder, for all categories together.
        random_state: seed of the order in which the rows of a chunk are learned; None takes the
            strategy's.
    """

    eta0: float = 0.3
    alpha: float = 1e-6
    buckets: int = 1024
    random_state: int | None = None

    def build(self, columns: Columns) -> Chain:
        """The steps, for these columns."""
        from everlearn.learners.tracking import TrackingSGDClassifier

        return Chain(
            Encoder(buckets=self.buckets, clip=CLIP, scales=SCALES),
            TrackingSGDClassifier(
                loss="log_loss",
                alpha=self.alpha,
                learning_rate="invscaling",
                power_t=0.5,
                eta0=self.eta0,
                random_state=self.random_state,
            ),
        )


@dataclass(frozen=True, slots=True)
class LinearRegression:
    """Linear regression by stochastic gradient descent over an `Encoder`.

    Args:
        eta0: first step of the gradient descent, as a share of the one that would undo a usual
            row's whole error. It falls with the fourth root of the rows learned, until 100,000.
        alpha: strength of the L2 penalty.
        buckets: of the encoder, for all categories together.
        random_state: as for `LogisticRegression`.
    """

    eta0: float = 0.5
    alpha: float = 1e-6
    buckets: int = 1024
    random_state: int | None = None

    def build(self, columns: Columns) -> Chain:
        """The steps, for these columns: a row's expected squared length divides the step."""
        from everlearn.learners.tracking import TrackingSGDRegressor

        blocks = (len(columns.numbers), 3 * len(columns.times), len(columns.categories))
        length = 1.0 + sum(n * scale**2 for n, scale in zip(blocks, SCALES, strict=True))
        return Chain(
            Encoder(buckets=self.buckets, clip=CLIP, scales=SCALES),
            TrackingSGDRegressor(
                alpha=self.alpha,
                learning_rate="invscaling",
                power_t=0.25,
                eta0=self.eta0 / length,
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
