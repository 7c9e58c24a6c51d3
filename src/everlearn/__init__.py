"""Models that keep learning: chunk by chunk, exactly once, with versions you can roll back.

Every public name is loaded when it is first used, so that ``import everlearn`` costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ABTest": "rollout.plans",
    "All": "jobs.triggers",
    "AnyOf": "jobs.triggers",
    "Balanced": "strategies.balanced",
    "Batch": "base",
    "Canary": "rollout.plans",
    "Chain": "learners.chain",
    "ChangedError": "base",
    "Client": "serving.client",
    "ConflictError": "base",
    "Cooldown": "jobs.triggers",
    "CostAware": "jobs.triggers",
    "Decay": "strategies.decay",
    "Decision": "base",
    "Drift": "jobs.triggers",
    "Encoder": "learners.encoder",
    "EverlearnError": "base",
    "Every": "jobs.triggers",
    "Everything": "strategies.everything",
    "Guards": "data.quality",
    "InputError": "base",
    "IntegrityError": "base",
    "LabelPolicy": "data.policy",
    "LeaseLostError": "base",
    "MissingDependencyError": "base",
    "Model": "base",
    "NonInferior": "evaluation.gates",
    "NotFoundError": "base",
    "Online": "jobs.online",
    "Performance": "jobs.triggers",
    "Pretrained": "strategies.strategy",
    "Prioritized": "strategies.prioritized",
    "Reservoir": "strategies.reservoir",
    "Review": "data.review",
    "Schedule": "jobs.triggers",
    "Schema": "base",
    "Shadow": "rollout.plans",
    "Shuffle": "data.order",
    "Slice": "evaluation.slices",
    "SpecError": "base",
    "StorageError": "base",
    "Strategy": "strategies.strategy",
    "Volume": "jobs.triggers",
    "Window": "strategies.window",
    "Workspace": "workspace",
    "learn": "jobs.direct",
    "open": "workspace",
}
"""Public name → the module, under ``everlearn``, that defines it."""

_ROOMS = ("compare", "data", "evaluation", "learners", "registry", "storage", "strategies")
"""Packages that can be reached as attributes of ``everlearn`` with no import of their own."""

__all__ = [
    "ABTest",
    "All",
    "AnyOf",
    "Balanced",
    "Batch",
    "Canary",
    "Chain",
    "ChangedError",
    "Client",
    "ConflictError",
    "Cooldown",
    "CostAware",
    "Decay",
    "Decision",
    "Drift",
    "Encoder",
    "EverlearnError",
    "Every",
    "Everything",
    "Guards",
    "InputError",
    "IntegrityError",
    "LabelPolicy",
    "LeaseLostError",
    "MissingDependencyError",
    "Model",
    "NonInferior",
    "NotFoundError",
    "Online",
    "Performance",
    "Pretrained",
    "Prioritized",
    "Reservoir",
    "Review",
    "Schedule",
    "Schema",
    "Shadow",
    "Shuffle",
    "Slice",
    "SpecError",
    "StorageError",
    "Strategy",
    "Volume",
    "Window",
    "Workspace",
    "__version__",
    "compare",
    "data",
    "evaluation",
    "learn",
    "learners",
    "open",
    "registry",
    "storage",
    "strategies",
]

if TYPE_CHECKING:
    from everlearn import compare, data, evaluation, learners, registry, storage, strategies
    from everlearn.base import (
        Batch,
        ChangedError,
        ConflictError,
        Decision,
        EverlearnError,
        InputError,
        IntegrityError,
        LeaseLostError,
        MissingDependencyError,
        Model,
        NotFoundError,
        Schema,
        SpecError,
        StorageError,
    )
    from everlearn.data.order import Shuffle
    from everlearn.data.policy import LabelPolicy
    from everlearn.data.quality import Guards
    from everlearn.data.review import Review
    from everlearn.evaluation.gates import NonInferior
    from everlearn.evaluation.slices import Slice
    from everlearn.jobs.direct import learn
    from everlearn.jobs.online import Online
    from everlearn.jobs.triggers import (
        All,
        AnyOf,
        Cooldown,
        CostAware,
        Drift,
        Every,
        Performance,
        Schedule,
        Volume,
    )
    from everlearn.learners.chain import Chain
    from everlearn.learners.encoder import Encoder
    from everlearn.rollout.plans import ABTest, Canary, Shadow
    from everlearn.serving.client import Client
    from everlearn.strategies.balanced import Balanced
    from everlearn.strategies.decay import Decay
    from everlearn.strategies.everything import Everything
    from everlearn.strategies.prioritized import Prioritized
    from everlearn.strategies.reservoir import Reservoir
    from everlearn.strategies.strategy import Pretrained, Strategy
    from everlearn.strategies.window import Window
    from everlearn.workspace import Workspace, open


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"everlearn.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return import_module(f"everlearn.{name}")
    raise AttributeError(f"module 'everlearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
