"""Brings a database's tables to the revision that this release knows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import NotFoundError, StorageError
from everlearn.storage.schema import metadata

if TYPE_CHECKING:
    from everlearn.storage.database import Database

HEAD = "0014"
"""The newest revision in `migrations/versions`, so that Alembic is loaded only when needed."""

_revisions = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""As Alembic makes it."""

_alembic_is_global = threading.Lock()


def upgrade(database: Database, create: bool) -> None:
    """Make the tables, or bring them up to date, unless they are. One process does, others wait.

    Raises:
        NotFoundError: there are no tables, and `create` is false.
        StorageError: a newer release made them.
    """
    with database.read() as connection:
        if _revision(connection) == HEAD:
            return
    with database.write() as connection:
        database.in_commit_order(connection, "migrations")
        revision = _revision(connection)
        if revision == HEAD:
            return
        if revision is None and not create:
            raise NotFoundError("the database has no workspace; create one by opening it to write")
        if revision is None:
            _make(connection)
        else:
            migrate(connection, revision)


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table(_revisions.name):
        return None
    revision = connection.execute(sa.select(_revisions)).scalar()
    return None if revision is None else str(revision)


def _make(connection: Connection) -> None:
    """The newest tables at once: the same as all migrations make, in a tenth of their time."""
    metadata.create_all(connection)
    _revisions.create(connection)
    connection.execute(sa.insert(_revisions).values(version_num=HEAD))


def migrate(connection: Connection, revision: str | None, to: str = HEAD) -> None:
    """Bring the tables from one revision, None where there are none, to another by the migrations.

    Raises:
        StorageError: a newer release made them.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StorageError(
            f"the workspace was made by a newer release of everlearn (its tables are at revision "
            f"{revision}, this release knows up to {HEAD}); upgrade everlearn to open it"
        )
    with _alembic_is_global:
        command.upgrade(config, to)
