"""New tables are made at once, old ones by the migrations: both are the same in the end."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from everlearn.base import StorageError
from everlearn.storage import revisions
from everlearn.storage.database import Database
from everlearn.storage.schema import models
from everlearn.testing.database import temporary_schema


def tables(url: str) -> dict[str, Any]:
    """What the database says of its tables, by name; the order of columns does not count."""
    with closing(Database.open(url, create=False)) as database, database.read() as connection:
        seen = sa.inspect(connection)
        return {
            name: {
                "columns": {
                    column["name"]: (
                        str(column["type"]),
                        column["nullable"],
                        "nextval" if column.get("autoincrement") is True else column["default"],
                    )
                    for column in seen.get_columns(name)
                },
                "keys": seen.get_pk_constraint(name),
                **{
                    what: sorted(
                        json.dumps(one, sort_keys=True, default=str) for one in found(name)
                    )
                    for what, found in {
                        "foreign": seen.get_foreign_keys,
                        "unique": seen.get_unique_constraints,
                        "checks": seen.get_check_constraints,
                        "indexes": seen.get_indexes,
                    }.items()
                },
            }
            for name in seen.get_table_names()
        }


def made_by_migrations(url: str, to: str = revisions.HEAD) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            revisions, "_make", lambda connection: revisions.migrate(connection, None, to)
        )
        Database.open(url).close()


def without(schema: str, tables: dict[str, Any]) -> str:
    return str(tables).replace(schema, "")


def test_head_is_the_newest_migration() -> None:
    folder = Path(revisions.__file__).parent / "migrations" / "versions"
    assert max(path.name[:4] for path in folder.glob("[0-9]*.py")) == revisions.HEAD


def test_at_once_and_by_migrations_on_sqlite(tmp_path: Path) -> None:
    at_once, migrated = (f"sqlite:///{tmp_path}/{name}.db" for name in ("at-once", "migrated"))
    Database.open(at_once).close()
    made_by_migrations(migrated)
    assert tables(at_once) == tables(migrated)
    assert len(tables(at_once)) > 20


def test_at_once_and_by_migrations_on_postgresql(postgres_url: str) -> None:
    Database.open(postgres_url).close()
    with temporary_schema() as migrated:
        made_by_migrations(migrated)
        assert tables(postgres_url) == tables(migrated)


def test_an_older_workspace_keeps_its_rows(database_url: str) -> None:
    made_by_migrations(database_url, to="0001")
    connection = sa.create_engine(database_url)
    with connection.begin() as writing:
        writing.execute(sa.insert(models).values(name="kept", created_at=7))
    connection.dispose()
    with closing(Database.open(database_url)) as database, database.read() as reading:
        assert reading.execute(sa.select(models.c.name, models.c.created_at)).all() == [("kept", 7)]
        assert sa.inspect(reading).has_table("erasures")


def test_a_workspace_of_a_newer_release_is_refused(database_url: str) -> None:
    Database.open(database_url).close()
    connection = sa.create_engine(database_url)
    with connection.begin() as writing:
        writing.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    connection.dispose()
    with pytest.raises(StorageError, match="newer release"):
        Database.open(database_url)
