"""The registry of a workspace: what was learned, from what, and what is served.

A facade over the functions of this room, each call in a transaction of its own. What has to commit
together with something else calls those functions with its connection instead.
"""

from __future__ import annotations

import os
from pathlib import Path

from everlearn.base import Json, Model, NotFoundError, Part
from everlearn.registry import (
    aliases,
    bundle,
    definitions,
    lineage,
    models,
    retention,
    versions,
)
from everlearn.registry.aliases import CHAMPION, Move
from everlearn.registry.audit import note
from everlearn.registry.definitions import Definition
from everlearn.registry.diff import Diff, diff
from everlearn.registry.lineage import Learned
from everlearn.registry.retention import DAY, Collection, Retention
from everlearn.registry.versions import Version, dropped_message
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore


class Registry:
    """Definitions, versions and aliases of all models of a workspace.

    Args:
        database: the workspace's.
        parts: over the workspace's blobs.
    """

    def __init__(self, database: Database, parts: PartStore) -> None:
        self.database, self.parts = database, parts

    # definitions

    def models(self) -> list[str]:
        """Names of all models, sorted."""
        with self.database.read() as connection:
            return models.names(connection)

    def define(self, model: Model, source: str | None = None) -> Definition:
        """See `definitions.define`; writes nothing if the definition is the latest one already."""
        config = definitions.to_config(model, source)
        digest = definitions.definition_digest(config, source)
        with self.database.read() as connection:
            if model.name in models.names(connection):
                latest = definitions.definition(connection, model.name)
                if latest.digest == digest:
                    return latest
        with self.database.write() as connection:
            return definitions.define(connection, model, source)

    def definition(self, model: str, number: int | None = None) -> Definition:
        """One definition of a model; the latest unless a number is given."""
        with self.database.read() as connection:
            return definitions.definition(connection, model, number)

    # versions

    def version(self, model: str, number: int | str = CHAMPION) -> Version:
        """A version by its number or by an alias.

        Raises:
            NotFoundError: there is no such model, version or alias.
        """
        with self.database.read() as connection:
            if isinstance(number, str):
                found = aliases.current(connection, model, number)
                if found is None:
                    raise NotFoundError(f"model {model!r} has no {number} yet")
                number = found
            return versions.get(connection, model, number)

    def versions(
        self, model: str, limit: int | None = None, before: int = 2**31 - 1
    ) -> list[Version]:
        """Versions of a model, in the order of their numbers. See `versions.list_versions`."""
        with self.database.read() as connection:
            return versions.list_versions(connection, model, limit, before)

    def champion(self, model: str) -> Version | None:
        """The champion, or None if there is none yet."""
        with self.database.read() as connection:
            number = aliases.current(connection, model)
            return None if number is None else versions.get(connection, model, number)

    def state(self, model: str, version: Version) -> dict[str, Part]:
        """The state of a version; its parts are read, and verified, when they are first used.

        Raises:
            NotFoundError: its state was removed; the message says when.
        """
        if version.dropped_at is not None:
            raise NotFoundError(dropped_message(model, version.number, version.dropped_at))
        return self.parts.load(version.manifest)

    def holdouts(self, model: str, version: Version) -> dict[str, Part]:
        """The hold-out rows that a version was made with; as `state`."""
        if version.dropped_at is not None:
            raise NotFoundError(dropped_message(model, version.number, version.dropped_at))
        return self.parts.load(version.holdouts)

    def lineage(self, model: str, number: int) -> list[int]:
        """A version's ancestors and itself, in the order in which they were learned."""
        with self.database.read() as connection:
            return lineage.lineage(connection, model, number)

    def learned(self, model: str, number: int) -> list[Learned]:
        """All increments in a version's lineage."""
        with self.database.read() as connection:
            return lineage.learned(connection, model, number)

    def on_hold(self, model: str) -> list[Learned]:
        """Increments that some version learned but that are not in the champion's lineage."""
        with self.database.read() as connection:
            return lineage.on_hold(connection, model)

    def diff(self, model: str, a: int, b: int, *, churn: Json = None) -> Diff:
        """What differs between two versions."""
        with self.database.read() as connection:
            return diff(connection, model, a, b, churn=churn)

    # aliases

    def promote(
        self, model: str, number: int, *, expected: int | None, reason: str = "promoted by hand"
    ) -> Move:
        """Make a version champion, if the champion is still `expected`. See `aliases.move`; in the
        same transaction it is noted in the audit log."""
        with self.database.write() as connection:
            moved = aliases.move(
                connection, model, CHAMPION, number, expected=expected, reason=reason
            )
            note(connection, "promote", model, _moved(moved))
            return moved

    def rollback(self, model: str, to: int | None = None, *, reason: str | None = None) -> Move:
        """Make an earlier champion champion again. See `aliases.rollback`; in the same transaction
        it is noted in the audit log."""
        with self.database.write() as connection:
            moved = aliases.rollback(connection, model, to, reason=reason)
            note(connection, "rollback", model, _moved(moved))
            return moved

    def history(self, model: str, alias: str | None = None) -> list[Move]:
        """All moves of one alias, or of all aliases, in their order."""
        with self.database.read() as connection:
            return aliases.history(connection, model, alias)

    def served_at(self, model: str, time: int) -> int | None:
        """The version that was champion at a time (microseconds)."""
        with self.database.read() as connection:
            return aliases.at(connection, model, time)

    # retention and exchange

    def retain(self, model: str, policy: Retention, *, dry_run: bool = False) -> list[int]:
        """Drop the state of every version that the policy does not keep."""
        with self.database.write() as connection:
            dropped = retention.retain(connection, model, policy, dry_run=dry_run)
            if dropped and not dry_run:
                note(connection, "drop states", model, {"versions": dropped})
            return dropped

    def drop(self, model: str, number: int) -> None:
        """Drop the state of one version. See `retention.drop`."""
        with self.database.write() as connection:
            retention.drop(connection, model, number)
            note(connection, "drop states", model, {"versions": [number]})

    def collect(
        self, *, grace: float = DAY, dry_run: bool = False, exclusive: bool = False
    ) -> Collection:
        """Remove the blobs that nothing refers to. See `retention.collect`."""
        return retention.collect(
            self.database, self.parts.blobs, grace=grace, dry_run=dry_run, exclusive=exclusive
        )

    def export(self, model: str, number: int, path: str | os.PathLike[str]) -> Path:
        """Write a version to one file. See `bundle.export`."""
        return bundle.export(self.database, self.parts, model, number, path)

    def import_(
        self, path: str | os.PathLike[str], *, name: str | None = None, trust: bool = False
    ) -> tuple[str, int]:
        """Add the version in a file to this workspace. See `bundle.import_`."""
        return bundle.import_(self.database, self.parts, path, name=name, trust=trust)


def _moved(moved: Move) -> Json:
    """A move as the audit log has it."""
    return {"from": moved.version_from, "to": moved.version_to, "reason": moved.reason}
