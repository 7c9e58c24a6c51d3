"""What a definition refers to: classes, functions, and places in a spec file."""

from __future__ import annotations

from collections.abc import Iterator

from everlearn.base import Json, SpecError
from everlearn.registry.config import find
from everlearn.registry.spec import SPEC

UNTRUSTED_ROOTS = ("everlearn", "sklearn")
"""Packages whose classes a definition from elsewhere may name."""


def class_names(config: Json) -> Iterator[str]:
    """All names of classes and functions ("module:name") that a config refers to."""
    if isinstance(config, list):
        for item in config:
            yield from class_names(item)
    elif isinstance(config, dict):
        for tag in ("class", "ref"):
            if isinstance(config.get(tag), str):
                yield config[tag]
        if isinstance(config.get(SPEC), str):
            yield f"{SPEC}:model.{config[SPEC]}"
        for item in config.values():
            yield from class_names(item)


def has_places(config: Json) -> bool:
    """Whether something in it is described only by its place in the spec file."""
    return any(name.startswith(f"{SPEC}:model.") for name in class_names(config))


def needs_source(config: Json) -> bool:
    """Whether a class or function of the spec file is needed to rebuild it."""
    return any(name.startswith(SPEC + ":") for name in class_names(config))


def check_untrusted(config: Json) -> None:
    """Refuse a config from elsewhere that could run code other than everlearn's and sklearn's.

    Raises:
        SpecError: it names a class of another package or of a spec file, or a function.
    """
    for name in class_names(config):
        root = name.partition(":")[0].partition(".")[0]
        if root not in UNTRUSTED_ROOTS:
            raise SpecError(
                f"the definition needs {name!r}, which is no class of everlearn or scikit-learn;"
                " it is only used if you say that you trust where it comes from"
            )
        found = find(name, None)
        if not isinstance(found, type) or found.__module__.partition(".")[0] not in UNTRUSTED_ROOTS:
            raise SpecError(f"the definition names {name!r}, which may not stand in one")
