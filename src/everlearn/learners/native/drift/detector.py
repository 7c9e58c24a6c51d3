"""What all drift detectors have in common: one method, one property."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np

from everlearn.base import Array, Floats, InputError, Ints, Part, SpecError
from everlearn.learners.native.rows import usable

LIMIT = 1e100
"""Numbers beyond ± this are taken as ± this."""


class DriftDetector(Protocol):
    """What watches a stream of numbers for a change, one number after the other.

    After an alarm it begins anew with the next number.
    """

    @property
    def drift_detected(self) -> bool:
        """Whether the last number raised an alarm."""

    def update(self, values: Any) -> Ints:
        """Take in a number, or (n,) numbers in their order.

        NaN is no number and is passed over; what is beyond ±1e100 is taken as ±1e100.

        Returns:
            The places in `values`, ascending, of all numbers that raised an alarm. Numbers given
            one at a time or in any portions raise the same alarms.
        """


class Detector(ABC):
    """A detector over a kernel. Its state is named arrays, and does not grow."""

    def __init__(self) -> None:
        self._arrays = self._begin()

    @property
    @abstractmethod
    def drift_detected(self) -> bool:
        """Whether the last number raised an alarm."""

    @abstractmethod
    def _begin(self) -> dict[str, Array]:
        """The arrays of having seen nothing. Raises `SpecError` for wrong parameters."""

    @abstractmethod
    def _run(self, values: Floats, alarms: Ints) -> int:
        """Take in (n,) values; write the places of alarms into (n,), and return their number."""

    def update(self, values: Any) -> Ints:
        """Take in a number, or (n,) numbers in their order; the places of all alarms.

        Raises:
            InputError: what is given has more than one dimension, or is not of numbers.
        """
        numbers = _numbers(values)
        alarms = np.empty(len(numbers), np.int64)
        count = self._run(numbers, alarms)
        return alarms[:count].copy()

    def save(self) -> Part:
        """All that it has seen."""
        arrays = {name: array.copy() for name, array in self._arrays.items()}
        return Part(arrays, meta={"detector": type(self).__name__})

    def load(self, part: Part) -> None:
        """Become what `save` saw; the parameters stay those of this one.

        Raises:
            InputError: the part is of another detector, or of one of another size.
        """
        meta = part.meta if isinstance(part.meta, dict) else {}
        if meta.get("detector") != type(self).__name__:
            raise InputError(f"the state is of {meta.get('detector')}, not {type(self).__name__}")
        for name, array in self._arrays.items():
            found = part.arrays.get(name)
            if found is None or found.shape != array.shape or found.dtype != array.dtype:
                raise InputError(f"the state of {type(self).__name__} is broken: array {name!r}")
        self._arrays = {name: np.array(part.arrays[name]) for name in self._arrays}


class WarningDetector(Detector):
    """A detector that also warns, before it is sure."""

    def __init__(self) -> None:
        super().__init__()
        self._warned = np.empty(0, np.int64)

    @property
    @abstractmethod
    def warning_detected(self) -> bool:
        """Whether the last number raised a warning (and mostly no alarm)."""

    @property
    def warnings(self) -> Ints:
        """The places of all warnings in what was last given to `update`."""
        return self._warned

    @abstractmethod
    def _run_both(self, values: Floats, alarms: Ints, warnings: Ints) -> tuple[int, int]:
        """As `_run`, with the places and the number of warnings as well."""

    def _run(self, values: Floats, alarms: Ints) -> int:
        warnings = np.empty(len(values), np.int64)
        count, warned = self._run_both(values, alarms, warnings)
        self._warned = warnings[:warned].copy()
        return count


def _numbers(values: Any) -> Floats:
    try:
        numbers = np.atleast_1d(np.asarray(values, np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"values are not numbers: {error}") from error
    if numbers.ndim != 1:
        raise InputError(f"values have shape {numbers.shape}; a detector takes (n,) numbers")
    return usable(numbers, np.float64)


def above(least: float, **parameters: float) -> None:
    """Raises `SpecError` if one of these is not above `least`."""
    for name, value in parameters.items():
        if not value > least:
            raise SpecError(f"{name} is {value!r}; it must be above {least}")


def share(**parameters: float) -> None:
    """Raises `SpecError` if one of these is not between 0 and 1."""
    for name, value in parameters.items():
        if not 0 < value < 1:
            raise SpecError(f"{name} is {value!r}; it must be between 0 and 1")
