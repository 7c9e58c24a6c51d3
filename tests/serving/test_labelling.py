"""Labels of several requests in one transaction."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from everlearn.base import ConflictError, InputError, StorageError
from everlearn.data.feedback import Label, LoggedPrediction, id_text
from everlearn.data.log import FeedbackLog
from everlearn.serving.labelling import log_together
from everlearn.storage.database import Database
from everlearn.storage.schema import models


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FeedbackLog]:
    with closing(Database.open(f"sqlite:///{tmp_path}/workspace.db")) as database:
        with database.write() as connection:
            connection.execute(sa.insert(models).values(name="mine", created_at=0))
        found = FeedbackLog(database, 1)
        found.append_predictions([LoggedPrediction(n, {"x": n}, {"value": 1}) for n in range(9)])
        yield found


def label(number: int, value: int = 1, key: str | None = None) -> Label:
    return Label(value, id_text(number), idempotency_key=key)


def test_requests_of_a_turn_are_logged_in_their_order(log: FeedbackLog) -> None:
    found = log_together(log, [[label(0), label(1)], [], [label(0), label(2)]])
    said = [[(one.position, one.state) for one in receipts] for receipts in found]  # type: ignore[union-attr]
    assert said == [[(1, "logged"), (2, "logged")], [], [(1, "known"), (3, "logged")]]


def test_a_request_that_is_refused_leaves_the_others_as_they_are(log: FeedbackLog) -> None:
    asked = [
        [label(0, key="a")],
        [label(1), label(77)],
        [label(2, key="a")],
        [label(3)],
    ]
    first, unknown, conflict, last = log_together(log, asked)
    assert isinstance(unknown, InputError)
    assert isinstance(conflict, ConflictError)
    assert isinstance(first, list)
    assert isinstance(last, list)
    assert [first[0].position, last[0].position] == [1, 2]
    assert [row.prediction.id for row in log.read()] == [0, 3]


def test_what_was_logged_before_the_database_failed_is_acknowledged(
    log: FeedbackLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = log.database.write, [3]  # all together, then the first two by themselves

    def failing() -> object:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError("full")
        return write()

    monkeypatch.setattr(log.database, "write", failing)
    first, wrong, last = log_together(log, [[label(0)], [label(77)], [label(1)]])
    assert isinstance(first, list)
    assert isinstance(wrong, InputError)
    assert isinstance(last, StorageError)
    assert [row.prediction.id for row in log.read()] == [0]
