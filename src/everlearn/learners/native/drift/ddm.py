"""The drift detection method.

Gama, Medas, Castillo & Rodrigues 2004, "Learning with drift detection", §2.
"""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Array, Floats, Ints
from everlearn.learners.native.compile import exact_kernel
from everlearn.learners.native.drift.detector import WarningDetector, above

(SEEN, MEAN, LEAST_MEAN, LEAST_DEVIATION, DRIFT, WARNING) = range(6)


class DDM(WarningDetector):
    """The drift detection method: an error rate that rises well above its least so far.

    It takes errors: 1 for a wrong prediction, 0 for a right one; what is beyond 0 … 1 is taken as
    the nearer of them. It warns, and raises an alarm, when the error rate and its standard
    deviation together exceed their least sum by some of those deviations.

    Args:
        warm_start: nothing is said before more values than this.
        warning_threshold, drift_threshold: how many standard deviations.

    Raises:
        SpecError: a parameter out of its range.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> detector = DDM()
        >>> detector.update(np.append(random.random(1000) < 0.2, random.random(1000) < 0.5))
        array([1067])
        >>> detector.warnings[-3:]
        array([1997, 1998, 1999])
    """

    def __init__(
        self,
        warm_start: int = 30,
        *,
        warning_threshold: float = 2.0,
        drift_threshold: float = 3.0,
    ) -> None:
        self.warm_start = warm_start
        self.warning_threshold = warning_threshold
        self.drift_threshold = drift_threshold
        super().__init__()

    @property
    def drift_detected(self) -> bool:
        """Whether the last number raised an alarm."""
        return bool(self._arrays["state"][DRIFT])

    @property
    def warning_detected(self) -> bool:
        """Whether the last number raised a warning, and no alarm."""
        return bool(self._arrays["state"][WARNING])

    def _begin(self) -> dict[str, Array]:
        above(-1, warm_start=self.warm_start)
        above(0, warning_threshold=self.warning_threshold, drift_threshold=self.drift_threshold)
        state = np.zeros(6)
        _forget(state)
        return {"state": state}

    def _run_both(self, values: Floats, alarms: Ints, warnings: Ints) -> tuple[int, int]:
        return _run(
            self._arrays["state"],
            values,
            alarms,
            warnings,
            float(self.warm_start),
            float(self.warning_threshold),
            float(self.drift_threshold),
        )


@exact_kernel
def _forget(state: Floats) -> None:
    state[:] = 0.0
    state[LEAST_MEAN] = np.inf


@exact_kernel
def _run(
    state: Floats,
    values: Floats,
    alarms: Ints,
    warnings: Ints,
    warm_start: float,
    to_warn: float,
    to_alarm: float,
) -> tuple[int, int]:
    count = warned = index = 0
    while index < len(values):
        if math.isnan(values[index]):
            index += 1
            continue
        if state[DRIFT] != 0.0:
            _forget(state)
        seen, mean, drift, warning = state[SEEN], state[MEAN], False, state[WARNING] != 0.0
        least_mean, least_deviation = state[LEAST_MEAN], state[LEAST_DEVIATION]
        while index < len(values) and not drift:
            value = min(max(values[index], 0.0), 1.0)
            index += 1
            if math.isnan(values[index - 1]):
                continue
            seen += 1.0
            mean += (1.0 / seen) * (value - mean)
            if seen <= warm_start:
                continue
            deviation = math.sqrt(max(0.0, mean * (1.0 - mean)) / seen)
            level = mean + deviation
            if level <= least_mean + least_deviation:
                least_mean, least_deviation = mean, deviation
            drift = level > least_mean + to_alarm * least_deviation
            warning = not drift and level > least_mean + to_warn * least_deviation
            if warning:
                warnings[warned] = index - 1
                warned += 1
        state[SEEN], state[MEAN], state[DRIFT], state[WARNING] = seen, mean, drift, warning
        state[LEAST_MEAN], state[LEAST_DEVIATION] = least_mean, least_deviation
        if drift:
            alarms[count] = index - 1
            count += 1
    return count, warned
