"""A version as a fold that answers."""

from __future__ import annotations

from dataclasses import replace

from everlearn.jobs.learn import Fold
from everlearn.registry.config import from_config
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.strategies.strategy import Strategy


def load_fold(registry: Registry, name: str, version: Version) -> Fold:
    """The fold of a version, every digest verified; its memory is left where it is.

    Raises:
        IntegrityError: a blob is damaged.
        NotFoundError: its state was removed.
    """
    made = registry.definition(name, version.definition)
    state = registry.state(name, version)
    for part_name, part in state.items():
        _ = part.arrays  # reads and verifies
        if part_name.startswith(("memory/", "ids/")):
            part.release()
    strategy: Strategy = from_config(version.strategy, made.source)
    return Fold.load(state, made.section("learner"), replace(strategy, memory=None))
