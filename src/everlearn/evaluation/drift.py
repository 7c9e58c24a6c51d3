"""Drift detectors, for triggers. They are kernels, and are imported when one is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everlearn.learners.native.drift.adwin import ADWIN as ADWIN
    from everlearn.learners.native.drift.ddm import DDM as DDM
    from everlearn.learners.native.drift.detector import DriftDetector as DriftDetector
    from everlearn.learners.native.drift.hddm import HDDM_A as HDDM_A
    from everlearn.learners.native.drift.hddm import HDDM_W as HDDM_W
    from everlearn.learners.native.drift.kswin import KSWIN as KSWIN
    from everlearn.learners.native.drift.page_hinkley import PageHinkley as PageHinkley

_HOME = {
    "ADWIN": "adwin",
    "DDM": "ddm",
    "DriftDetector": "detector",
    "HDDM_A": "hddm",
    "HDDM_W": "hddm",
    "KSWIN": "kswin",
    "PageHinkley": "page_hinkley",
}

__all__ = ["ADWIN", "DDM", "HDDM_A", "HDDM_W", "KSWIN", "DriftDetector", "PageHinkley"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"everlearn.learners.native.drift.{_HOME[name]}"), name)
