"""What differs between two versions of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from everlearn.base import Json
from everlearn.registry import aliases, definitions, lineage, versions
from everlearn.registry.lineage import Learned
from everlearn.registry.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Two versions side by side.

    Args:
        a, b: the versions.
        ancestor: the newest version that both came from, or None.
        learned_a, learned_b: what only that version learned, since the ancestor.
        metrics: "name" or "group.name" → (value of a, value of b, difference or None).
        parts: name of a part of the state → "changed", "added" or "removed" (from a to b).
        definition: names of the parts of the definition that differ.
        moves: moves of the model's aliases between the making of the one and of the other.
        churn: measured by the caller on rows that both predict, or None.
    """

    a: Version
    b: Version
    ancestor: int | None
    learned_a: tuple[Learned, ...]
    learned_b: tuple[Learned, ...]
    metrics: dict[str, tuple[float | None, float | None, float | None]]
    parts: dict[str, str]
    definition: tuple[str, ...]
    moves: tuple[aliases.Move, ...]
    churn: Json = None

    def to_json(self) -> dict[str, Json]:
        """What `everlearn diff --json` prints."""
        return {
            "a": _summary(self.a),
            "b": _summary(self.b),
            "ancestor": self.ancestor,
            "same_state": self.a.state_digest == self.b.state_digest,
            "learned": {
                "a": [_increment(item) for item in self.learned_a],
                "b": [_increment(item) for item in self.learned_b],
            },
            "metrics": {
                name: {"a": a, "b": b, "difference": difference}
                for name, (a, b, difference) in self.metrics.items()
            },
            "parts": self.parts,
            "definition": list(self.definition),
            "history": [move.to_json() for move in self.moves],
            "churn": self.churn,
        }


def diff(connection: sa.Connection, model: str, a: int, b: int, *, churn: Json = None) -> Diff:
    """Compare two versions.

    Args:
        churn: what a predictor of both found (`evaluation.churn`); it is passed on.

    Raises:
        NotFoundError: there is no such model or version.
    """
    one, two = versions.get(connection, model, a), versions.get(connection, model, b)
    ancestor, learned_a, learned_b = lineage.between(connection, model, a, b)
    old = definitions.definition(connection, model, one.definition)
    new = definitions.definition(connection, model, two.definition)
    first, last = sorted((one.created_at, two.created_at))
    moves = [m for m in aliases.history(connection, model) if first <= m.at <= last]
    return Diff(
        a=one,
        b=two,
        ancestor=ancestor,
        learned_a=tuple(learned_a),
        learned_b=tuple(learned_b),
        metrics=_metrics(one.metrics, two.metrics),
        parts=_parts(one.manifest, two.manifest),
        definition=tuple(definitions.changes(old, new)),
        moves=tuple(moves),
        churn=churn,
    )


def changed_settings(before: Json, after: Json) -> list[dict[str, Json]]:
    """What differs between two configs (see `registry.config`), parameter by parameter.

    A part of another class is one difference, whatever its parameters are.

    Returns:
        {"name", "before", "after"} of each; None where there is no such parameter.

    >>> one = {"class": "a:Model", "params": {"learner": {"class": "a:SGD", "params": {"rate": 1}}}}
    >>> two = {"class": "a:Model", "params": {"learner": {"class": "a:SGD", "params": {"rate": 2}}}}
    >>> changed_settings(one, two)
    [{'name': 'learner.rate', 'before': 1, 'after': 2}]
    """
    old, new = dict(_settings(before, "")), dict(_settings(after, ""))
    found: list[dict[str, Json]] = []
    other: list[str] = []  # parts of another class
    for name in [*old, *(name for name in new if name not in old)]:
        a, b = old.get(name), new.get(name)
        if a == b or any(name.startswith(f"{part}.") for part in other):
            continue
        found.append({"name": name, "before": a, "after": b})
        other.append(name)
    return found


def _settings(config: Json, path: str) -> Iterator[tuple[str, Json]]:
    """Every parameter under its path, and the class of every part."""
    tagged = isinstance(config, Mapping)
    if tagged and "class" in config:
        yield path, config["class"].rpartition(":")[2]
        for name, value in config.get("params", {}).items():
            yield from _settings(value, f"{path}.{name}" if path else name)
        return
    items = config.get("tuple", config) if tagged else config
    if isinstance(items, list) and any(isinstance(one, Mapping) for one in items):
        for place, item in enumerate(items):
            yield from _settings(item, f"{path}[{place}]")
    elif items != []:
        yield path, items


def _metrics(a: Json, b: Json) -> dict[str, tuple[float | None, float | None, float | None]]:
    before, after = dict(_numbers(a)), dict(_numbers(b))
    found = {}
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        found[name] = (old, new, None if old is None or new is None else new - old)
    return found


def _numbers(metrics: Json, prefix: str = "") -> Iterator[tuple[str, float | None]]:
    """Every figure in nested metrics, under its path."""
    if not isinstance(metrics, Mapping):
        return
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield prefix + name, value


def _parts(a: Mapping[str, Json], b: Mapping[str, Json]) -> dict[str, str]:
    found = {}
    for name in sorted(a.keys() | b.keys()):
        if name not in a:
            found[name] = "added"
        elif name not in b:
            found[name] = "removed"
        elif a[name]["digest"] != b[name]["digest"]:
            found[name] = "changed"
    return found


def _summary(version: Version) -> Json:
    shown = version.to_json()
    names = ("number", "parent", "definition", "aliases", "state_digest", "created_at")
    return {name: shown[name] for name in names}


def _increment(item: Learned) -> Json:
    number, increment = item
    return {"version": number, **increment.to_json()}
