"""How well: metrics over a stream, transfer, churn, intervals, hold-outs and gates."""

from everlearn.evaluation.gates import NonInferior, try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.metrics import Metrics
from everlearn.evaluation.slices import Slice
from everlearn.evaluation.transfer import TransferMatrix
from everlearn.evaluation.trial import Gate, Scorer, Trial, evaluate

__all__ = [
    "Gate",
    "HoldOuts",
    "Metrics",
    "NonInferior",
    "Scorer",
    "Slice",
    "TransferMatrix",
    "Trial",
    "evaluate",
    "try_candidate",
]
