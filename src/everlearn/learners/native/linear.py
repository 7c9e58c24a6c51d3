"""Linear models learned by gradient descent, one row after the other."""

from __future__ import annotations

from typing import Any, Literal

from everlearn.base import Floats, InputError, SpecError
from everlearn.learners.native.descent.losses import (
    HINGE,
    HUBER,
    LOGISTIC,
    POISSON,
    QUANTILE,
    SQUARED,
)
from everlearn.learners.native.descent.model import (
    LinearClassifier,
    LinearRegressor,
    choice,
    number,
)
from everlearn.learners.native.descent.optimizers import ADAGRAD, ADAM, FTRL, SGD
from everlearn.learners.native.descent.state import (
    BEND,
    EXPLICIT,
    HORIZON,
    INVARIANT,
    L1,
    L2,
    LOSS,
    OPTIMIZER,
    POWER,
    RATE,
    UPDATE,
)
from everlearn.learners.native.rows import Rows

Optimizer = Literal["sgd", "adagrad", "adam", "ftrl"]

OPTIMIZERS = {"sgd": SGD, "adagrad": ADAGRAD, "adam": ADAM, "ftrl": FTRL}

LOSSES = {"squared": SQUARED, "huber": HUBER, "quantile": QUANTILE, "poisson": POISSON}

RATES = {SGD: 0.3, ADAGRAD: 0.2, ADAM: 0.002, FTRL: 0.2}
"""Learning rates that need no tuning; SGD's falls with the square root of the rows learned."""


def _settings(model: Any, loss: int, bend: float, invariant: bool) -> dict[int, float]:
    """The parameters that all models of this file have, at their places in the head.

    Args:
        model: whose they are.
        loss, bend: see `losses`.
        invariant: whether steps are to be invariant where that is not said.

    Raises:
        SpecError: one of them is wrong, or does not go with another.
    """
    optimizer = choice(model, "optimizer", OPTIMIZERS)
    rate, power = RATES[optimizer], 0.5 if optimizer == SGD else 0.0
    if model.learning_rate is not None:
        rate, power = number(model, "learning_rate", 0.0, 1e6), 0.0
    if model.power is not None:
        power = number(model, "power", 0.0, 1.0, least=True)
    if optimizer == FTRL and power > 0.0:
        raise SpecError(f"power={model.power!r}: the rate of optimizer='ftrl' falls by itself")
    if model.invariant is not None:
        invariant = bool(model.invariant)
    elif optimizer != SGD:
        invariant = False
    if invariant and optimizer != SGD:
        raise SpecError(f"invariant=True goes with optimizer='sgd', not {model.optimizer!r}")
    return {
        LOSS: float(loss),
        BEND: bend,
        UPDATE: float(INVARIANT if invariant else EXPLICIT),
        OPTIMIZER: float(optimizer),
        RATE: rate,
        POWER: power,
        HORIZON: number(model, "horizon", 1.0, 1e15, least=True),
        L1: number(model, "l1", 0.0, 1e6, least=True),
        L2: number(model, "l2", 0.0, 1e6, least=True),
    }


class LogisticRegression(LinearClassifier):
    """Logistic regression: the logarithm of a class's odds is a weighted sum of the columns. Of two
    classes one sum decides; for more there is one each (softmax).

    The defaults need no tuning, whatever the scale of the data, and follow changes however late
    they come. Numbers are standardised by running moments, as they were before each row; missing
    ones count as the mean, with a weight of their own for being missing. Times are the sines and
    cosines of their places in the day, the week and the year. Categories, and columns of a sparse
    matrix, share a table of weights by hash; where a sparse matrix has at most 2**bits columns,
    each has its own. No step goes past the one of Newton's method, so that nothing diverges.

    Args:
        classes: how many there are, or which; None where they are not known beforehand.
        optimizer: "sgd", "adagrad", "adam" or "ftrl" (FTRL-Proximal).
        learning_rate: of the optimizer (FTRL's α), above 0; None for one that needs no tuning: 0.3
            for "sgd", falling with the square root of the rows learned, 0.2 for "adagrad" and
            "ftrl", 0.002 for "adam".
        power: the rate is divided by the number of rows learned to this power, from 0 to 1; None
            for ½ if "sgd" has no `learning_rate`, otherwise 0.
        horizon: rows after which the rate no longer falls, so that changes are still followed.
        l1, l2: strengths of the penalties l1 · |w| and ½ · l2 · w², from 0, on weights of
            standardised columns; not on the intercept. Exact, also for hashed columns in the rows
            in which they do not occur.
        standardize: whether numbers are standardised, and limited to ± `clip`.
        clip: standard deviations, above 0.
        invariant: whether each step is the invariant one (Karampatziakis & Langford 2011), by which
            a row of weight 2 is that row twice where the rate is constant and nothing else moves
            (standardize=False, no penalty); for "sgd" only. None for False: it takes about twice
            the time, and is hardly ever better.
        bits: the table has 2**bits places, from 1 to 30; there is none without categories or
            sparse rows.
        nominal: columns of a matrix that are categories.

    Raises:
        SpecError: a parameter that is out of its bounds, or does not go with the optimizer.

    Example:
        >>> X = np.array([[0.0, 5.0], [1.0, 7.0], [2.0, 6.0], [3.0, 5.0]] * 50)
        >>> y = np.array(["low", "low", "high", "high"] * 50)
        >>> model = LogisticRegression()
        >>> answers = model.score_then_learn(X, y)
        >>> print((answers[100:] == y[100:]).mean(), model.predict([[0.4, 6.0], [2.9, 6.0]]))
        1.0 ['low' 'high']

    Papers:
        Bottou 2010, "Large-scale machine learning with stochastic gradient descent"; for the other
        optimizers, penalties and steps see `descent.optimizers` and `descent.losses`. Weinberger et
        al. 2009, "Feature hashing for large scale multitask learning".
    """

    def __init__(
        self,
        classes: Any = None,
        *,
        optimizer: Optimizer = "sgd",
        learning_rate: float | None = None,
        power: float | None = None,
        horizon: int = 10_000,
        l1: float = 0.0,
        l2: float = 0.0,
        standardize: bool = True,
        clip: float = 10.0,
        invariant: bool | None = None,
        bits: int = 18,
        nominal: tuple[int, ...] = (),
    ) -> None:
        self.classes = classes
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.power = power
        self.horizon = horizon
        self.l1 = l1
        self.l2 = l2
        self.standardize = standardize
        self.clip = clip
        self.invariant = invariant
        self.bits = bits
        self.nominal = nominal

    def _settings(self) -> dict[int, float]:
        return _settings(self, LOGISTIC, 0.0, invariant=False)


class LinearSVM(LinearClassifier):
    """A linear support vector machine: the hinge loss, with scores but no probabilities. For more
    than two classes, each is told from the best of the others.

    Args:
        classes, optimizer, learning_rate, power, horizon, l1, l2, standardize, clip, bits, nominal:
            as for `LogisticRegression`.
        invariant: as there, but None for True where the optimizer is "sgd": it costs nothing.

    Raises:
        SpecError: a parameter that is out of its bounds, or does not go with the optimizer.

    Example:
        >>> X = np.array([[0.0, 5.0], [1.0, 7.0], [2.0, 6.0], [3.0, 5.0]] * 50)
        >>> model = LinearSVM().partial_fit(X, X[:, 0] > 1.5)
        >>> model.predict([[0.4, 6.0], [2.9, 6.0]])
        array([False,  True])

    Papers:
        Shalev-Shwartz et al. 2011, "Pegasos: primal estimated sub-gradient solver for SVM";
        Crammer & Singer 2001, "On the algorithmic implementation of multiclass kernel-based vector
        machines".
    """

    probabilistic = False

    def __init__(
        self,
        classes: Any = None,
        *,
        optimizer: Optimizer = "sgd",
        learning_rate: float | None = None,
        power: float | None = None,
        horizon: int = 10_000,
        l1: float = 0.0,
        l2: float = 0.0,
        standardize: bool = True,
        clip: float = 10.0,
        invariant: bool | None = None,
        bits: int = 18,
        nominal: tuple[int, ...] = (),
    ) -> None:
        self.classes = classes
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.power = power
        self.horizon = horizon
        self.l1 = l1
        self.l2 = l2
        self.standardize = standardize
        self.clip = clip
        self.invariant = invariant
        self.bits = bits
        self.nominal = nominal

    def _settings(self) -> dict[int, float]:
        return _settings(self, HINGE, 0.0, invariant=True)


class LinearRegression(LinearRegressor):
    """A quantity, or for "poisson" its logarithm, is a weighted sum of the columns.

    The defaults need no tuning, whatever the scale of the data and of the target, and follow
    changes however late they come. The target is standardised by running moments; when these move,
    no prediction does. Columns are those of `LogisticRegression`.

    Args:
        loss: "squared" (predicts the mean), "huber" (the mean, of targets with outliers),
            "quantile", or "poisson" (the mean of counts and of other targets from 0).
        delta: for "huber", where the loss becomes linear: standard deviations of the target (with
            standardize=False units of the target), above 0.
        quantile: for "quantile", which one: a number between 0 and 1; 0.5 is the median.
        optimizer, learning_rate, power, horizon, l1, l2, clip, bits, nominal: as for
            `LogisticRegression`; l1 is in units of a standardised target.
        standardize: whether numbers and the target are standardised.
        invariant: as for `LogisticRegression`, but None for True where the optimizer is "sgd".

    Raises:
        SpecError: a parameter that is out of its bounds, or does not go with another.

    Example:
        >>> X = 37.0 * np.arange(2000.0)[:, None] % 100.0
        >>> model = LinearRegression().partial_fit(X, 3.0 * X[:, 0] + 7.0)
        >>> np.round(model.predict([[0.0], [50.0]]))
        array([  7., 157.])

    Papers:
        Widrow & Hoff 1960, "Adaptive switching circuits"; Huber 1964, "Robust estimation of a
        location parameter"; Koenker & Bassett 1978, "Regression quantiles"; McCullagh & Nelder
        1989, "Generalized linear models", chapter 6.
    """

    def __init__(
        self,
        loss: Literal["squared", "huber", "quantile", "poisson"] = "squared",
        *,
        delta: float = 1.0,
        quantile: float = 0.5,
        optimizer: Optimizer = "sgd",
        learning_rate: float | None = None,
        power: float | None = None,
        horizon: int = 10_000,
        l1: float = 0.0,
        l2: float = 0.0,
        standardize: bool = True,
        clip: float = 10.0,
        invariant: bool | None = None,
        bits: int = 18,
        nominal: tuple[int, ...] = (),
    ) -> None:
        self.loss = loss
        self.delta = delta
        self.quantile = quantile
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.power = power
        self.horizon = horizon
        self.l1 = l1
        self.l2 = l2
        self.standardize = standardize
        self.clip = clip
        self.invariant = invariant
        self.bits = bits
        self.nominal = nominal

    def learn_values(self, rows: Rows, y: Floats, weight: Floats, score: int) -> Floats:
        """Learn rows; (score,) what was predicted before each of the first rows.

        Raises:
            InputError: with loss="poisson", a target is below 0.
        """
        if self.loss == "poisson" and len(y) and y.min() < 0.0:
            raise InputError(f"loss='poisson' takes targets from 0, not {y.min()}")
        return super().learn_values(rows, y, weight, score)

    def _takes(self, y: float) -> bool:
        return super()._takes(y) and (y >= 0.0 or self.loss != "poisson")

    def _settings(self) -> dict[int, float]:
        loss = choice(self, "loss", LOSSES)
        bend = number(self, "delta", 0.0, 1e6) if loss == HUBER else 0.0
        if loss == QUANTILE:
            bend = number(self, "quantile", 0.0, 1.0 - 1e-9)
        return _settings(self, loss, bend, invariant=True)
