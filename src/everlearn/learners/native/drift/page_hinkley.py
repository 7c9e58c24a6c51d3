"""The Page–Hinkley test.

Page 1954, "Continuous inspection schemes"; with a fading sum as in Sebastião & Fernandes 2017,
"Supporting the Page-Hinkley test with empirical mode decomposition for change detection".
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from everlearn.base import Array, Floats, Ints, SpecError
from everlearn.learners.native.compile import exact_kernel
from everlearn.learners.native.drift.detector import LIMIT, Detector, above

(SEEN, MEAN, RISE, FALL, LEAST_RISE, MOST_FALL, DRIFT) = range(7)

_SIDES = ("both", "up", "down")


class PageHinkley(Detector):
    """The Page–Hinkley test: adds up how far values lie from their mean so far, beyond a tolerance;
    a sum that has come far from its least (or greatest) value is an alarm.

    Args:
        min_instances: no alarm before so many values.
        delta: the tolerance, in units of the values.
        threshold: how far the sum must have come, in units of the values.
        alpha: what the sum is multiplied by at each value, so that it fades; 0 to 1.
        mode: "up" for rises of the mean, "down" for falls, or "both".

    Raises:
        SpecError: a parameter out of its range.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> detector = PageHinkley()
        >>> detector.update(np.append(random.normal(0, 1, 1000), random.normal(2, 1, 1000)))
        array([1024, 1922])
    """

    def __init__(
        self,
        min_instances: int = 30,
        *,
        delta: float = 0.005,
        threshold: float = 50.0,
        alpha: float = 1 - 0.0001,
        mode: Literal["both", "up", "down"] = "both",
    ) -> None:
        self.min_instances = min_instances
        self.delta = delta
        self.threshold = threshold
        self.alpha = alpha
        self.mode = mode
        super().__init__()

    @property
    def drift_detected(self) -> bool:
        """Whether the last number raised an alarm."""
        return bool(self._arrays["state"][DRIFT])

    def _begin(self) -> dict[str, Array]:
        above(0, threshold=self.threshold)
        above(-1, min_instances=self.min_instances)
        if not 0 < self.alpha <= 1 or self.mode not in _SIDES:
            raise SpecError(
                f"alpha is {self.alpha!r}, above 0 and up to 1; mode is {self.mode!r}, of {_SIDES}"
            )
        state = np.zeros(7)
        _forget(state)
        return {"state": state}

    def _run(self, values: Floats, alarms: Ints) -> int:
        return _run(
            self._arrays["state"],
            values,
            alarms,
            float(self.min_instances),
            float(self.delta),
            math.inf if self.mode == "down" else float(self.threshold),
            math.inf if self.mode == "up" else float(self.threshold),
            float(self.alpha),
        )


@exact_kernel
def _forget(state: Floats) -> None:
    state[:] = 0.0
    state[LEAST_RISE] = np.inf
    state[MOST_FALL] = -1.0


@exact_kernel
def _run(
    state: Floats,
    values: Floats,
    alarms: Ints,
    least: float,
    delta: float,
    too_high: float,
    too_low: float,
    alpha: float,
) -> int:
    count = index = 0
    while index < len(values):
        if math.isnan(values[index]):
            index += 1
            continue
        if state[DRIFT] != 0.0:
            _forget(state)
        seen, mean, drift = state[SEEN], state[MEAN], False
        rise, least_rise = state[RISE], state[LEAST_RISE]
        fall, most_fall = state[FALL], state[MOST_FALL]
        while index < len(values) and not drift:
            value = min(max(values[index], -LIMIT), LIMIT)
            index += 1
            if math.isnan(values[index - 1]):
                continue
            seen += 1.0
            mean += (1.0 / seen) * (value - mean)
            apart = value - mean
            rise = alpha * rise + apart - delta
            fall = alpha * fall + apart + delta
            least_rise = min(least_rise, rise)
            most_fall = max(most_fall, fall)
            drift = seen >= least and (rise - least_rise > too_high or most_fall - fall > too_low)
        state[SEEN], state[MEAN], state[DRIFT] = seen, mean, drift
        state[RISE], state[LEAST_RISE] = rise, least_rise
        state[FALL], state[MOST_FALL] = fall, most_fall
        if drift:
            alarms[count] = index - 1
            count += 1
    return count
