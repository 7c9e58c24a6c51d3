"""How a model learns: what it starts from, what it sees again, and what it holds on to. One memory
or method per file."""

from everlearn.strategies.agem import AGEM
from everlearn.strategies.anchor import Anchor
from everlearn.strategies.balanced import Balanced
from everlearn.strategies.dark_replay import DarkReplay
from everlearn.strategies.decay import Decay
from everlearn.strategies.everything import Everything
from everlearn.strategies.ewc import EWC
from everlearn.strategies.expand import Expand
from everlearn.strategies.freeze import Freeze
from everlearn.strategies.gdumb import GDumb
from everlearn.strategies.lora import LoRA
from everlearn.strategies.lwf import LwF
from everlearn.strategies.mas import MAS
from everlearn.strategies.personal import Personal
from everlearn.strategies.prioritized import Prioritized
from everlearn.strategies.replay import Replay
from everlearn.strategies.reservoir import Reservoir
from everlearn.strategies.si import SI
from everlearn.strategies.strategy import Adaptation, Pretrained, Retention, Strategy
from everlearn.strategies.window import Window

__all__ = [
    "AGEM",
    "EWC",
    "MAS",
    "SI",
    "Adaptation",
    "Anchor",
    "Balanced",
    "DarkReplay",
    "Decay",
    "Everything",
    "Expand",
    "Freeze",
    "GDumb",
    "LoRA",
    "LwF",
    "Personal",
    "Pretrained",
    "Prioritized",
    "Replay",
    "Reservoir",
    "Retention",
    "Strategy",
    "Window",
]
