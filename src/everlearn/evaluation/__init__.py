"""How well: metrics over a stream, drift, transfer, churn, intervals, hold-outs and gates."""

from typing import TYPE_CHECKING, Any

from everlearn.evaluation import drift
from everlearn.evaluation.gates import NonInferior, try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.metrics import Metrics
from everlearn.evaluation.slices import Slice
from everlearn.evaluation.transfer import TransferMatrix
from everlearn.evaluation.trial import Gate, Scorer, Trial, evaluate

if TYPE_CHECKING:
    from everlearn.evaluation.drift import ADWIN as ADWIN
    from everlearn.evaluation.drift import DDM as DDM
    from everlearn.evaluation.drift import HDDM_A as HDDM_A
    from everlearn.evaluation.drift import HDDM_W as HDDM_W
    from everlearn.evaluation.drift import KSWIN as KSWIN
    from everlearn.evaluation.drift import DriftDetector as DriftDetector
    from everlearn.evaluation.drift import PageHinkley as PageHinkley

__all__ = [
    "ADWIN",
    "DDM",
    "HDDM_A",
    "HDDM_W",
    "KSWIN",
    "DriftDetector",
    "Gate",
    "HoldOuts",
    "Metrics",
    "NonInferior",
    "PageHinkley",
    "Scorer",
    "Slice",
    "TransferMatrix",
    "Trial",
    "evaluate",
    "try_candidate",
]


def __getattr__(name: str) -> Any:
    if name not in drift.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(drift, name)
