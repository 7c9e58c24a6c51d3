"""Many rows at once, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from everlearn.base import StorageError
from everlearn.storage.bulk import _among, insert_many, rows_among, take_numbers
from everlearn.storage.database import Database
from everlearn.storage.schema import labels, models, predictions
from everlearn.testing.database import temporary_schema

COLUMNS = ["id", "model_id", "external_id", "version", "arm", "features", "output"]
COLUMNS += ["at", "arrived_at"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        with closing(Database.open(f"sqlite:///{tmp_path}/workspace.db")) as opened:
            yield opened
        return
    try:
        with temporary_schema() as url, closing(Database.open(url)) as opened:
            yield opened
    except StorageError as error:
        pytest.skip(str(error))


def test_rows_are_inserted_and_found_among_values_of_one_model(database: Database) -> None:
    with database.write() as connection:
        for name in ("other", "mine"):
            connection.execute(sa.insert(models).values(name=name, created_at=0))
        rows = [
            (number, 1 + number % 2, f"name {number}", 1, "champion", "{}", "{}", 0, 0)
            for number in range(1000)
        ]
        insert_many(connection, predictions, COLUMNS, rows)
        insert_many(connection, predictions, COLUMNS, [])
        with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
            insert_many(connection, predictions, COLUMNS, [rows[7]])
        names = ("id", "external_id")
        found = rows_among(connection, predictions, names, "id", {3, 4, 2**40}, None)
        assert sorted(map(tuple, found)) == [(3, "name 3"), (4, "name 4")]
        asked = {f"name {number}" for number in range(100)} | {'"', "'; --"}
        found = rows_among(connection, predictions, names, "external_id", asked, 2)
        assert sorted(row.id for row in found) == list(range(1, 100, 2))
        assert rows_among(connection, predictions, names, "id", [], None) == []


def test_numbers_are_given_once(database: Database) -> None:
    columns = ("id", "model_id", "kind", "value", "weight", "source", "at", "arrived_at", "digest")
    taken: list[int] = []
    for count in (3, 1, 5):
        with database.write() as connection:
            if not taken:
                connection.execute(sa.insert(models).values(name="mine", created_at=0))
            numbers = take_numbers(connection, labels, count)
            rows = [(number, 1, "explicit", "1", 1.0, "x", 0, 0, "") for number in numbers]
            insert_many(connection, labels, columns, rows)
            taken += numbers
    assert taken == sorted(set(taken))
    assert len(taken) == 9


@pytest.mark.parametrize(
    ("table", "column", "of_model", "where", "index"),
    [
        ("predictions", "id", False, "", "(id=?)"),
        ("predictions", "external_id", True, "", "(model_id=? AND external_id=?)"),
        ("labels", "prediction_id", False, "", "(prediction_id=?)"),
        ("labels", "idempotency_key", True, "", "(model_id=? AND idempotency_key=?)"),
        (
            "labels",
            "external_id",
            True,
            "t.position IS NULL",
            "ix_labels_waiting (model_id=? AND external_id=?",
        ),
    ],
)
def test_each_value_is_looked_up_in_its_index(
    tmp_path: Path, table: str, column: str, of_model: bool, where: str, index: str
) -> None:
    text = _among(True, table, ("t.id",), column, of_model) + (where and f" AND {where}")
    with (
        closing(Database.open(f"sqlite:///{tmp_path}/workspace.db")) as database,
        database.read() as connection,
    ):
        given = ("[1]", 1) if of_model else ("[1]",)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)
        assert index in " ".join(row[3] for row in plan)
