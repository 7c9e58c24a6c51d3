"""Definitions of models: numbered, kept with their history, and changed only where that is safe.

A trigger, gate, rollout or strategy may change at any time. A learner or schema may only change
where the strategy starts elsewhere than at the champion ("scratch", a pretrained state): the
parameters of another learner are no start.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa

from everlearn.base import (
    Json,
    Model,
    NotFoundError,
    SpecError,
    canonical_json,
    digest_bytes,
)
from everlearn.registry.config import equal_when_rebuilt, from_config, to_config
from everlearn.registry.models import ensure_model, model_id, now
from everlearn.registry.references import check_untrusted, has_places, needs_source
from everlearn.registry.spec import load_spec
from everlearn.storage import schema
from everlearn.storage.positions import locked_head

__all__ = [
    "Definition",
    "changes",
    "check_change",
    "check_untrusted",
    "define",
    "definition",
    "definitions",
    "from_config",
    "insert",
    "load_spec",
    "to_config",
]

CHAMPION = "champion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a model was said to be, at some time.

    Args:
        number: 1, 2, … per model.
        digest: SHA-256 of the config, and of the spec file where its classes are used.
        config: what `to_config` made of the `Model`.
        source: text of the spec file, or None.
        created_at: microseconds.
        position: of the last label of the log before it: it holds for the labels after that one,
            where they are learned online.
    """

    number: int
    digest: str
    config: Json
    source: str | None
    created_at: int
    position: int = 0

    def model(self) -> Model:
        """The model, rebuilt. Raises `SpecError` where that is not possible in this process."""
        return cast(Model, from_config(self.config, self.source))

    def section(self, name: str) -> Any:
        """One part of the model ("learner", "strategy", "gate", …), rebuilt."""
        return from_config(self.config["params"][name], self.source)


def define(connection: sa.Connection, model: Model, source: str | None = None) -> Definition:
    """Store a model's definition if it differs from its latest one; returns the one that holds.

    Args:
        connection: a writing transaction.
        model: what `load_spec` returned, or a model made in Python.
        source: text of the spec file.

    Raises:
        SpecError: the model cannot be rebuilt from what would be stored, one of its triggers does
            not go with the rest of it, or its learner or schema differs from the champion's and
            its strategy starts from the champion.
    """
    for trigger in model.triggers:
        if hasattr(trigger, "check"):
            trigger.check(model)
    config = equal_when_rebuilt(model, source)
    digest = definition_digest(config, source)
    key = ensure_model(connection, model.name)
    latest = _latest(connection, key)
    if latest is not None and latest.digest == digest:
        return latest
    champion = _of_champion(connection, key)
    if champion is not None:
        check_change(
            champion,
            Definition(number=0, digest=digest, config=config, source=source, created_at=0),
        )
    return insert(connection, model.name, config, source)


def insert(connection: sa.Connection, model: str, config: Json, source: str | None) -> Definition:
    """Append a definition without checking it against others."""
    key = ensure_model(connection, model)
    latest = _latest(connection, key)
    made = Definition(
        number=1 if latest is None else latest.number + 1,
        digest=definition_digest(config, source),
        config=config,
        source=source,
        created_at=now(),
        position=locked_head(connection, key),
    )
    row = {name: getattr(made, name) for name in made.__slots__}
    connection.execute(schema.definitions.insert().values(model_id=key, **row))
    return made


def definition(connection: sa.Connection, model: str, number: int | None = None) -> Definition:
    """One definition of a model; the latest unless a number is given.

    Raises:
        NotFoundError: there is no such model, or no definition with that number.
    """
    key = model_id(connection, model)
    if number is None:
        found = _latest(connection, key)
    else:
        query = _select(key).where(schema.definitions.c.number == number)
        found = _made(connection.execute(query).first())
    if found is None:
        raise NotFoundError(f"model {model!r} has no definition {number if number else ''}".strip())
    return found


def newest(connection: sa.Connection, model: str) -> int:
    """The number of a model's latest definition; 0 without any."""
    table = schema.definitions.c
    query = sa.select(sa.func.max(table.number)).where(
        table.model_id == model_id(connection, model)
    )
    return int(connection.execute(query).scalar() or 0)


def definitions(connection: sa.Connection, model: str) -> list[Definition]:
    """All definitions of a model, in the order of their numbers."""
    query = _select(model_id(connection, model)).order_by(schema.definitions.c.number)
    return [Definition(**row._mapping) for row in connection.execute(query)]


def definition_digest(config: Json, source: str | None) -> str:
    """SHA-256 of the canonical config; with the code of the spec file, if its classes are used."""
    code = _code(source) if source is not None and needs_source(config) else None
    return digest_bytes(canonical_json([config, code]))


def changes(old: Definition, new: Definition) -> list[str]:
    """Names of the parts that differ: "learner", "schema", "strategy", "gate", ….

    A parameter that a newer release of a library added, and that is at its default, is no change.
    """
    before, after = old.config["params"], new.config["params"]
    names = [name for name in after if not _same(before.get(name), after[name])]
    if "learner" not in names and needs_source(after["learner"]):
        placed = has_places(after["learner"])
        codes = [_code_of_learner(source or "", placed) for source in (old.source, new.source)]
        names += [] if codes[0] == codes[1] else ["learner"]
    return sorted(names)


def check_change(old: Definition, new: Definition) -> None:
    """Refuse a changed learner or schema, where the new strategy would start from the old state.

    Call it before a job is planned too: after a rollback, the champion may be of an older learner
    than the definition that holds.

    Raises:
        SpecError: with what changed, and what to do.
    """
    kept = [name for name in changes(old, new) if name in ("learner", "schema")]
    strategy = new.config["params"]["strategy"] or {"params": {}}
    if not kept or strategy["params"].get("start", "champion") != "champion":
        return
    what = " and ".join(f"the {name} ({_difference(old, new, name)})" for name in kept)
    raise SpecError(
        f"{what} of model {new.config['params']['name']!r} changed since its champion was"
        ' learned; say strategy=everlearn.Strategy(start="scratch", …) to begin anew with what is'
        " remembered, undo the change, or give the model another name"
    )


# --- inside ------------------------------------------------------------------------------------


def _select(key: int) -> sa.Select[Any]:
    table = schema.definitions
    columns = [table.c[name] for name in Definition.__slots__]
    return sa.select(*columns).where(table.c.model_id == key)


def _made(row: sa.Row[Any] | None) -> Definition | None:
    return None if row is None else Definition(**row._mapping)


def _latest(connection: sa.Connection, key: int) -> Definition | None:
    query = _select(key).order_by(schema.definitions.c.number.desc()).limit(1)
    return _made(connection.execute(query).first())


def _of_champion(connection: sa.Connection, key: int) -> Definition | None:
    """The definition that the champion was learned with, if there is a champion."""
    aliases, versions, table = schema.aliases.c, schema.versions.c, schema.definitions.c
    query = (
        _select(key)
        .join(schema.versions, versions.definition_id == table.id)
        .join(
            schema.aliases,
            sa.and_(
                aliases.model_id == versions.model_id,
                aliases.version == versions.number,
                aliases.name == CHAMPION,
            ),
        )
    )
    return _made(connection.execute(query).first())


def _same(old: Json, new: Json) -> bool:
    """Equal, but for parameters that only one release of a class has and that are at default."""
    if isinstance(old, dict) and isinstance(new, dict):
        if "class" in new and old.get("class") == new["class"]:
            before, after = old["params"], new["params"]
            added = {key: value for key, value in after.items() if key not in before}
            return (
                all(_same(before[key], value) for key, value in after.items() if key in before)
                and _same(old.get("args"), new.get("args"))
                and (not added or _are_defaults(new["class"], added))
            )
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in new)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return type(old) is type(new) and bool(old == new)


def _are_defaults(name: str, params: Mapping[str, Json]) -> bool:
    kind = from_config({"ref": name}) if not name.startswith("spec:") else None
    if kind is None:
        return False
    known = inspect.signature(kind).parameters
    return all(key in known and to_config(known[key].default) == v for key, v in params.items())


def _difference(old: Definition, new: Definition, name: str) -> str:
    """The first parameter that differs, for people: "alpha: 0.1 → 0.2"."""
    before, after = old.config["params"][name], new.config["params"][name]
    if isinstance(before, dict) and isinstance(after, dict):
        if before.get("class") != after.get("class"):
            return f"{before.get('class')} → {after.get('class')}"
        for key, value in after.get("params", {}).items():
            former = before.get("params", {}).get(key)
            if not _same(former, value):
                return f"{key}: {_shown(former)} → {_shown(value)}"
        return "the code of its class"
    return f"{_shown(before)} → {_shown(after)}"


def _shown(config: Json) -> str:
    try:
        text = repr(from_config(config))
    except SpecError:
        text = str(config)
    return text if len(text) <= 60 else text[:57] + "…"


def _code(source: str) -> str:
    """What the text does, without comments and layout."""
    return ast.dump(ast.parse(source))


def _code_of_learner(source: str, placed: bool) -> str:
    """The same without what makes the model, whose parts are compared by themselves; but with what
    is given as its learner, where something in that is only known by its place."""
    tree = ast.parse(source)
    models = [node for node in tree.body if _assigns(node, "model")]
    tree.body = [node for node in tree.body if node not in models]
    if not placed:
        return ast.dump(tree)
    calls = [node for model in models for node in ast.walk(model) if isinstance(node, ast.Call)]
    given = [key.value for call in calls for key in call.keywords if key.arg == "learner"]
    return ast.dump(tree) + "".join(map(ast.dump, given or models))


def _assigns(node: ast.stmt, name: str) -> bool:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
