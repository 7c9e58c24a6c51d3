"""Every native learner goes through the public suite of learners that learn row by row."""

from __future__ import annotations

import ctypes
import importlib
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
from numba.core.registry import CPUDispatcher

from everlearn import learners
from everlearn.learners import as_learner, native
from everlearn.learners.native.parameters import Parameters
from everlearn.testing.per_row import PerRowSuite
from everlearn.testing.threads import runs_beside
from tests.learners.natives import IN_GROUPS, TABLE


class TestNative(PerRowSuite):
    @pytest.fixture(autouse=True, params=IN_GROUPS)
    def _choose(self, request):
        self.entry = TABLE[request.param]
        for name, value in self.entry.suite.items():
            assert hasattr(PerRowSuite, name)
            setattr(self, name, value)

    def learner(self, columns, classes=0, seed=0):
        if self.entry.pairs:
            columns = replace(columns, categories=("colour", "shape"))
        return as_learner(self.entry.make(), columns, classes=classes, seed=seed)

    def rows(self, start, stop, classes=2):
        rows = super().rows(start, stop, classes)
        return paired(rows, rows.ids % np.uint64(13)) if self.entry.pairs else rows

    def endless(self, start, stop):
        rows = super().endless(start, stop)
        return paired(rows, rows.ids) if self.entry.pairs else rows


def paired(rows, shapes):
    """Rows with a second category, of these hashes; 0 is missing."""
    both = np.column_stack([rows.categories, shapes])
    both.flags.writeable = False
    return replace(rows, categories=both)


def test_the_suite_tells_who_keeps_the_lock():
    assert not runs_beside(lambda: ctypes.PyDLL(None).usleep(50_000))
    assert not runs_beside(lambda: sum(i * i for i in range(1_000_000)))
    assert runs_beside(lambda: ctypes.CDLL(None).usleep(50_000))


def test_all_kernels_are_compiled_without_the_lock_and_with_checks_for_nan():
    found = 0
    for module in pkgutil.walk_packages(native.__path__, f"{native.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, CPUDispatcher):
                found += 1
                options = value.targetoptions
                assert options["nogil"], name
                assert not {"nnan", "ninf"} & set(options.get("fastmath") or ()), name
                assert options.get("fastmath") is not True, name
    assert found > 10


def test_all_native_learners_are_in_the_table():
    found = {
        name
        for name in learners.__all__
        if isinstance(kind := getattr(learners, name), type) and issubclass(kind, Parameters)
    }
    assert found == {entry.name for entry in TABLE.values()}
