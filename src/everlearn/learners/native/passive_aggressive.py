"""Passive-aggressive learning: no step where a row is answered well enough, otherwise the smallest
one after which it is."""

from __future__ import annotations

from typing import Any, Literal

from everlearn.learners.native.descent.losses import HEAVIEST, HINGE, INSENSITIVE
from everlearn.learners.native.descent.model import (
    LinearClassifier,
    LinearRegressor,
    choice,
    number,
)
from everlearn.learners.native.descent.optimizers import SGD
from everlearn.learners.native.descent.state import (
    BEND,
    INVARIANT,
    LOSS,
    OPTIMIZER,
    RATE,
    SQUARED_SLACK,
    UPDATE,
)

Variant = Literal["PA", "PA-I", "PA-II"]

UPDATES = {"PA": INVARIANT, "PA-I": INVARIANT, "PA-II": SQUARED_SLACK}
"""With ℓ the loss of a row, PA moves the weights by ℓ / Σ x² · x, PA-I by min(C, ℓ / Σ x²) · x,
which is the invariant step of the hinge and of the insensitive loss at the rate C, and PA-II by
ℓ / (Σ x² + 1 / 2C) · x."""


class PassiveAggressiveClassifier(LinearClassifier):
    """Passive-aggressive classification: the smallest step to a margin of 1, or, by C, less.

    For more than two classes, the row's class is told from the best of the others. Columns are
    those of `LogisticRegression`; all of them, and the intercept, count in Σ x².

    Args:
        classes: how many there are, or which; None where they are not known beforehand.
        C: aggressiveness, above 0: how much a step may cost to correct a row. Times the row's
            weight. PA takes none.
        variant: "PA" (corrects every row at once, whatever its noise), "PA-I" (steps of at most C)
            or "PA-II" (steps the shorter, the smaller C).
        standardize: whether numbers are standardised, and limited to ± `clip`.
        clip: standard deviations, above 0.
        bits: the table of hashed columns has 2**bits places, from 1 to 30.
        nominal: columns of a matrix that are categories.

    Raises:
        SpecError: a parameter that is out of its bounds.

    Example:
        >>> X = np.array([[0.0, 5.0], [1.0, 7.0], [2.0, 6.0], [3.0, 5.0]] * 50)
        >>> model = PassiveAggressiveClassifier(C=0.1).partial_fit(X, X[:, 0] > 1.5)
        >>> model.predict([[0.4, 6.0], [2.9, 6.0]])
        array([False,  True])

    Papers:
        Crammer et al. 2006, "Online passive-aggressive algorithms", figure 1 and section 8.
    """

    probabilistic = False

    def __init__(
        self,
        classes: Any = None,
        *,
        C: float = 0.01,
        variant: Variant = "PA-I",
        standardize: bool = True,
        clip: float = 10.0,
        bits: int = 18,
        nominal: tuple[int, ...] = (),
    ) -> None:
        self.classes = classes
        self.C = C
        self.variant = variant
        self.standardize = standardize
        self.clip = clip
        self.bits = bits
        self.nominal = nominal

    def _settings(self) -> dict[int, float]:
        return _settings(self, HINGE, 0.0)


class PassiveAggressiveRegressor(LinearRegressor):
    """Passive-aggressive regression: the smallest step to within ± epsilon of the target, or, by C,
    not as far.

    Args:
        C, variant, clip, bits, nominal: as for `PassiveAggressiveClassifier`.
        epsilon: errors up to this cost nothing: standard deviations of the target (with
            standardize=False units of the target), from 0.
        standardize: whether numbers and the target are standardised.

    Raises:
        SpecError: a parameter that is out of its bounds.

    Example:
        >>> X = 37.0 * np.arange(2000.0)[:, None] % 100.0
        >>> model = PassiveAggressiveRegressor(epsilon=0.01).partial_fit(X, 3.0 * X[:, 0] + 7.0)
        >>> np.abs(model.predict([[0.0], [50.0]]) - [7.0, 157.0]) < 2.0
        array([ True,  True])

    Papers:
        Crammer et al. 2006, "Online passive-aggressive algorithms", section 5.
    """

    def __init__(
        self,
        *,
        C: float = 0.01,
        variant: Variant = "PA-I",
        epsilon: float = 0.1,
        standardize: bool = True,
        clip: float = 10.0,
        bits: int = 18,
        nominal: tuple[int, ...] = (),
    ) -> None:
        self.C = C
        self.variant = variant
        self.epsilon = epsilon
        self.standardize = standardize
        self.clip = clip
        self.bits = bits
        self.nominal = nominal

    def _settings(self) -> dict[int, float]:
        return _settings(self, INSENSITIVE, number(self, "epsilon", 0.0, 1e6, least=True))


def _settings(model: Any, loss: int, bend: float) -> dict[int, float]:
    aggressiveness = number(model, "C", 0.0, 1e6)
    return {
        LOSS: float(loss),
        BEND: bend,
        UPDATE: float(choice(model, "variant", UPDATES)),
        OPTIMIZER: float(SGD),
        RATE: HEAVIEST if model.variant == "PA" else aggressiveness,
    }
