"""How a model learns: what it starts from and what it sees again. One memory per file."""

from everlearn.strategies.balanced import Balanced
from everlearn.strategies.decay import Decay
from everlearn.strategies.everything import Everything
from everlearn.strategies.prioritized import Prioritized
from everlearn.strategies.reservoir import Reservoir
from everlearn.strategies.strategy import Adaptation, Pretrained, Retention, Strategy
from everlearn.strategies.window import Window

__all__ = [
    "Adaptation",
    "Balanced",
    "Decay",
    "Everything",
    "Pretrained",
    "Prioritized",
    "Reservoir",
    "Retention",
    "Strategy",
    "Window",
]
