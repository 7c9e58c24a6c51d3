"""Drift detection by Hoeffding's and McDiarmid's bounds.

Frías-Blanco, del Campo-Ávila, Ramos-Jiménez, Morales-Bueno, Ortiz-Díaz & Caballero-Mota 2015,
"Online and non-parametric drift detection methods based on Hoeffding's bounds", A-test (§3.1) and
W-test (§3.2).
"""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Array, Floats, Ints
from everlearn.learners.native.compile import exact_kernel
from everlearn.learners.native.drift.detector import WarningDetector, share

(DRIFT, WARNING) = range(2)

# HDDM_A: values so far, and of those up to the cut after which the mean may have risen, or fallen.
(A_SEEN, A_MEAN, LOW_SEEN, LOW_MEAN, HIGH_SEEN, HIGH_MEAN) = range(2, 8)
A_SIZE = 8

# HDDM_W: a sample is (weighted mean, bound, whether it has a value): of all values, and of those
# before and after the cut after which the mean may have risen, or fallen.
ALL, LOW, LOW_AFTER, HIGH, HIGH_AFTER = 2, 5, 8, 11, 14
(LOWEST, HIGHEST) = range(17, 19)
W_SIZE = 19


class _HDDM(WarningDetector):
    """What both have in common."""

    def __init__(
        self, drift_confidence: float, warning_confidence: float, two_sided_test: bool
    ) -> None:
        self.drift_confidence = drift_confidence
        self.warning_confidence = warning_confidence
        self.two_sided_test = two_sided_test
        super().__init__()

    @property
    def drift_detected(self) -> bool:
        """Whether the last number raised an alarm."""
        return bool(self._arrays["state"][DRIFT])

    @property
    def warning_detected(self) -> bool:
        """Whether the last number raised a warning."""
        return bool(self._arrays["state"][WARNING])


class HDDM_A(_HDDM):
    """Hoeffding's bound on moving averages: the mean of the values after some cut lies above that
    of those before it by more than chance allows. For abrupt changes.

    It takes errors, or any values from 0 to 1; what is beyond is taken as the nearer of them.

    Args:
        drift_confidence, warning_confidence: the chance of an alarm, and of a warning, where
            nothing changes; 0 to 1.
        two_sided_test: whether a falling mean is a change as well.

    Raises:
        SpecError: a parameter out of its range.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> detector = HDDM_A()
        >>> detector.update(np.append(random.random(1000) < 0.2, random.random(1000) < 0.5))
        array([1014])
    """

    def __init__(
        self,
        drift_confidence: float = 0.001,
        *,
        warning_confidence: float = 0.005,
        two_sided_test: bool = False,
    ) -> None:
        super().__init__(drift_confidence, warning_confidence, two_sided_test)

    def _begin(self) -> dict[str, Array]:
        share(drift_confidence=self.drift_confidence, warning_confidence=self.warning_confidence)
        return {"state": np.zeros(A_SIZE)}

    def _run_both(self, values: Floats, alarms: Ints, warnings: Ints) -> tuple[int, int]:
        return _run_a(
            self._arrays["state"],
            values,
            alarms,
            warnings,
            math.log(1.0 / self.drift_confidence),
            math.log(2.0 / self.drift_confidence),
            math.log(2.0 / self.warning_confidence),
            bool(self.two_sided_test),
        )


class HDDM_W(_HDDM):
    """McDiarmid's bound on exponentially weighted means: the mean of the values after some cut
    lies above that of those before it by more than chance allows. For gradual changes.

    It takes errors, or any values from 0 to 1; what is beyond is taken as the nearer of them.

    Args:
        drift_confidence, warning_confidence: the chance of an alarm, and of a warning, where
            nothing changes; 0 to 1.
        lambda_value: the weight of the latest value in the mean; 0 to 1.
        two_sided_test: whether a falling mean is a change as well.

    Raises:
        SpecError: a parameter out of its range.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> detector = HDDM_W()
        >>> detector.update(np.append(random.random(1000) < 0.2, random.random(1000) < 0.5))
        array([1014, 1834])
    """

    def __init__(
        self,
        drift_confidence: float = 0.001,
        *,
        warning_confidence: float = 0.005,
        lambda_value: float = 0.05,
        two_sided_test: bool = False,
    ) -> None:
        self.lambda_value = lambda_value
        super().__init__(drift_confidence, warning_confidence, two_sided_test)

    def _begin(self) -> dict[str, Array]:
        share(drift_confidence=self.drift_confidence, warning_confidence=self.warning_confidence)
        share(lambda_value=self.lambda_value)
        state = np.zeros(W_SIZE)
        _forget_w(state)
        return {"state": state}

    def _run_both(self, values: Floats, alarms: Ints, warnings: Ints) -> tuple[int, int]:
        return _run_w(
            self._arrays["state"],
            values,
            alarms,
            warnings,
            math.log(1.0 / self.drift_confidence),
            math.log(1.0 / self.warning_confidence),
            float(self.lambda_value),
            bool(self.two_sided_test),
        )


@exact_kernel
def _run_a(
    state: Floats,
    values: Floats,
    alarms: Ints,
    warnings: Ints,
    log_cut: float,
    log_drift: float,
    log_warning: float,
    two_sided: bool,
) -> tuple[int, int]:
    count = warned = 0
    for index in range(len(values)):
        value = min(max(values[index], 0.0), 1.0)
        if math.isnan(values[index]):
            continue
        if state[DRIFT] != 0.0:
            state[:] = 0.0
        state[A_SEEN] += 1.0
        state[A_MEAN] += (1.0 / state[A_SEEN]) * (value - state[A_MEAN])
        _move_cuts(state, log_cut)
        rise = state[A_MEAN] - state[LOW_MEAN]
        drift = _differs(rise, state[LOW_SEEN], state[A_SEEN], log_drift)
        warning = not drift and _differs(rise, state[LOW_SEEN], state[A_SEEN], log_warning)
        if two_sided:
            fall = state[HIGH_MEAN] - state[A_MEAN]
            if _differs(fall, state[HIGH_SEEN], state[A_SEEN], log_drift):
                drift = True
            elif _differs(fall, state[HIGH_SEEN], state[A_SEEN], log_warning):
                warning = True
        state[DRIFT], state[WARNING] = drift, warning
        if drift:
            alarms[count] = index
            count += 1
        if warning:
            warnings[warned] = index
            warned += 1
    return count, warned


@exact_kernel
def _move_cuts(state: Floats, log_cut: float) -> None:
    """The cuts are where the mean plus its bound was least, and the mean less it greatest."""
    seen, mean = state[A_SEEN], state[A_MEAN]
    bound = math.sqrt(1.0 / (2.0 * seen) * log_cut)
    if (
        state[LOW_SEEN] == 0.0
        or state[LOW_MEAN] + math.sqrt(1.0 / (2.0 * state[LOW_SEEN]) * log_cut) >= mean + bound
    ):
        state[LOW_SEEN], state[LOW_MEAN] = seen, mean
    if (
        state[HIGH_SEEN] == 0.0
        or state[HIGH_MEAN] - math.sqrt(1.0 / (2.0 * state[HIGH_SEEN]) * log_cut) <= mean - bound
    ):
        state[HIGH_SEEN], state[HIGH_MEAN] = seen, mean


@exact_kernel
def _differs(apart: float, before: float, seen: float, log_two: float) -> bool:
    """Whether the means of all, and of those before a cut, are further apart than chance allows."""
    if before == seen:
        return False
    m = (seen - before) / before * (1.0 / seen)
    return apart >= math.sqrt(m / 2.0 * log_two)


@exact_kernel
def _forget_w(state: Floats) -> None:
    state[:] = 0.0
    for sample in (ALL, LOW, LOW_AFTER, HIGH, HIGH_AFTER):
        state[sample + 1] = 1.0
    state[LOWEST] = np.inf
    state[HIGHEST] = -np.inf


@exact_kernel
def _run_w(
    state: Floats,
    values: Floats,
    alarms: Ints,
    warnings: Ints,
    log_drift: float,
    log_warning: float,
    rate: float,
    two_sided: bool,
) -> tuple[int, int]:
    count = warned = 0
    for index in range(len(values)):
        value = min(max(values[index], 0.0), 1.0)
        if math.isnan(values[index]):
            continue
        if state[DRIFT] != 0.0:
            _forget_w(state)
        _add(state, ALL, value, rate)
        bound = math.sqrt(state[ALL + 1] * log_drift / 2.0)
        if state[ALL] + bound < state[LOWEST]:
            state[LOWEST] = state[ALL] + bound
            _cut_here(state, LOW, LOW_AFTER)
        else:
            _add(state, LOW_AFTER, value, rate)
        drift = _rises(state, LOW, LOW_AFTER, log_drift)
        warning = not drift and _rises(state, LOW, LOW_AFTER, log_warning)
        if two_sided:
            if state[ALL] - bound > state[HIGHEST]:
                state[HIGHEST] = state[ALL] - bound
                _cut_here(state, HIGH, HIGH_AFTER)
            else:
                _add(state, HIGH_AFTER, value, rate)
            if _rises(state, HIGH_AFTER, HIGH, log_drift):
                drift = True
            elif _rises(state, HIGH_AFTER, HIGH, log_warning):
                warning = True
        state[DRIFT], state[WARNING] = drift, warning
        if drift:
            alarms[count] = index
            count += 1
        if warning:
            warnings[warned] = index
            warned += 1
    return count, warned


@exact_kernel
def _add(state: Floats, sample: int, value: float, rate: float) -> None:
    if state[sample + 2] == 0.0:
        state[sample] = value
    else:
        state[sample] = rate * value + (1.0 - rate) * state[sample]
    state[sample + 1] = rate * rate + (1.0 - rate) * (1.0 - rate) * state[sample + 1]
    state[sample + 2] = 1.0


@exact_kernel
def _cut_here(state: Floats, before: int, after: int) -> None:
    for place in range(3):
        state[before + place] = state[ALL + place]
    state[after], state[after + 1], state[after + 2] = 0.0, 1.0, 0.0


@exact_kernel
def _rises(state: Floats, before: int, after: int, log_one: float) -> bool:
    if state[before + 2] == 0.0 or state[after + 2] == 0.0:
        return False
    bound = math.sqrt((state[before + 1] + state[after + 1]) * log_one / 2.0)
    return state[after] - state[before] > bound  # type: ignore[no-any-return]
