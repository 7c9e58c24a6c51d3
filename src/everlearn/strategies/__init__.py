"""How a model learns: what it starts from and what it sees again. One memory per file."""

from everlearn.strategies.reservoir import Reservoir
from everlearn.strategies.strategy import Adaptation, Pretrained, Retention, Strategy

__all__ = ["Adaptation", "Pretrained", "Reservoir", "Retention", "Strategy"]
