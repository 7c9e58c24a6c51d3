"""When a model learns by itself: one trigger a file, and what they decide by."""

from everlearn.jobs.triggers.combined import All, AnyOf, Cooldown
from everlearn.jobs.triggers.cost import CostAware
from everlearn.jobs.triggers.drift import Drift
from everlearn.jobs.triggers.facts import Answered, Facts, Given, Past, Trigger
from everlearn.jobs.triggers.performance import Performance
from everlearn.jobs.triggers.schedule import Every, Schedule
from everlearn.jobs.triggers.volume import Volume

__all__ = [
    "All",
    "Answered",
    "AnyOf",
    "Cooldown",
    "CostAware",
    "Drift",
    "Every",
    "Facts",
    "Given",
    "Past",
    "Performance",
    "Schedule",
    "Trigger",
    "Volume",
]
