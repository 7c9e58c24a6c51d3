"""The feedback log, on SQLite and on PostgreSQL."""

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from everlearn.base import ConflictError, InputError, StorageError
from everlearn.data.feedback import (
    Label,
    LoggedPrediction,
    PredictionIds,
    id_number,
    id_numbers,
    id_text,
    text_of,
    values_of,
)
from everlearn.data.log import FeedbackLog
from everlearn.data.pages import Page
from everlearn.storage.database import Database
from everlearn.storage.schema import labels, models, predictions
from everlearn.testing.database import temporary_schema


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


@pytest.fixture
def log(database: Database) -> FeedbackLog:
    with database.write() as connection:
        for name in ("other", "mine"):
            connection.execute(sa.insert(models).values(name=name, created_at=0))
        found = connection.execute(sa.select(models.c.id).where(models.c.name == "mine"))
        return FeedbackLog(database, found.scalar_one())


ids = PredictionIds()


def predicted(log: FeedbackLog, count: int = 1, **said: object) -> list[str]:
    rows = [
        LoggedPrediction(number, {"x": float(index)}, {"value": index % 2}, **said)  # type: ignore[arg-type]
        for index, number in enumerate(ids.take(count))
    ]
    log.append_predictions(rows)
    return [id_text(row.id) for row in rows]


def state_of(database: Database) -> list[tuple[object, ...]]:
    table = labels.c
    query = sa.select(table.position, table.prediction_id, table.value, table.source)
    with database.read() as connection:
        return [tuple(row) for row in connection.execute(query.order_by(table.id))]


def test_ids_are_ordered_in_time_and_unique() -> None:
    many = PredictionIds()
    taken = many.take(10_000) + many.take(1) + many.take(5)
    assert taken == sorted(set(taken))
    texts = [id_text(number) for number in taken]
    assert texts == sorted(texts)
    assert [id_number(text) for text in texts] == taken
    for wrong in ("", "xyz", "0" * 15, "f" * 16, "G" + "0" * 15):
        with pytest.raises(InputError):
            id_number(wrong)
        with pytest.raises(InputError):
            id_numbers([texts[0], wrong])
    assert id_numbers(texts) == taken and id_numbers([]) == []


def test_labels_are_read_beside_their_predictions_in_the_order_of_positions(
    log: FeedbackLog,
) -> None:
    first, second, third = predicted(log, 3, version=4, key="ann", propensity=0.25, at=77)
    log.append_labels([Label(1, second, at=90), Label("late", first, source="desk", weight=2.0)])
    log.append_labels([Label(None, second, kind="human", reviewer="bo", selection=0.5)])
    rows = list(log.read())
    assert [row.position for row in rows] == [1, 2, 3] == list(range(1, log.head() + 1))
    assert [id_text(row.prediction.id) for row in rows] == [second, first, second]
    assert [row.value for row in rows] == [1, "late", None]
    assert rows[0].at == 90 and rows[0].arrived_at > 90
    asked = rows[1].prediction
    assert (asked.version, asked.key, asked.propensity, asked.at) == (4, "ann", 0.25, 77)
    assert asked.features == {"x": 0.0} and asked.output == {"value": 0}
    assert (rows[1].source, rows[1].weight) == ("desk", 2.0)
    assert (rows[2].kind, rows[2].reviewer, rows[2].selection) == ("human", "bo", 0.5)
    assert [row.position for row in log.read(after=1, upto=2)] == [2]
    assert [row.position for row in log.read(page=1)] == [1, 2, 3]
    assert third not in {id_text(row.prediction.id) for row in rows}
    for size in (1, 2, 5000):
        page = Page.concat(list(log.pages(size=size)))
        assert [page.said(at) for at in range(3)] == [
            (row.position, row.kind, row.source, row.reviewer, row.value, row.weight, row.selection)
            for row in rows
        ]
        assert [id_text(number) for number in page.prediction] == [second, first, second]
        assert list(page.features) == ['{"x":1.0}', '{"x":0.0}', '{"x":1.0}']
        assert list(map(bool, page.again)) == [False, False, True]
    assert [len(page) for page in log.pages(size=2)] == [2, 1]
    assert len(Page.concat(list(log.pages(known=1)))) == 0


def test_models_have_logs_of_their_own(database: Database, log: FeedbackLog) -> None:
    with database.read() as connection:
        other = connection.execute(sa.select(models.c.id).where(models.c.name == "other"))
        theirs = FeedbackLog(database, other.scalar_one())
    (mine,) = predicted(log)
    (their,) = predicted(theirs)
    with pytest.raises(InputError, match="no prediction"):
        log.append_labels([Label(1, their)])
    assert log.append_labels([Label(1, mine)])[0].position == 1
    assert theirs.append_labels([Label(1, their)])[0].position == 1


def test_redelivery_changes_nothing(database: Database, log: FeedbackLog) -> None:
    names = predicted(log, 30)
    said = [Label(index % 3, name, idempotency_key=f"k{index}") for index, name in enumerate(names)]
    first = log.append_labels(said)
    before = state_of(database)
    order = random.Random(3)
    for _ in range(10):
        again = list(enumerate(said))
        order.shuffle(again)
        for place, receipt in zip(
            [place for place, _ in again],
            log.append_labels([label for _, label in again]),
            strict=True,
        ):
            assert receipt.state == "known"
            assert (receipt.label, receipt.position) == (first[place].label, first[place].position)
    assert state_of(database) == before


def test_the_same_key_with_other_content_is_a_conflict_and_nothing_is_logged(
    database: Database, log: FeedbackLog
) -> None:
    one, two = predicted(log, 2)
    log.append_labels([Label(1, one, idempotency_key="k")])
    before = state_of(database)
    with pytest.raises(ConflictError, match="'k'"):
        log.append_labels([Label(5, two), Label(0, one, idempotency_key="k")])
    assert state_of(database) == before


def test_without_a_key_what_a_source_repeats_is_known_and_what_it_corrects_is_not(
    log: FeedbackLog,
) -> None:
    (name,) = predicted(log)
    states = [log.append_labels([Label(value, name)])[0].state for value in (1, 1, 0, 1, 1)]
    assert states == ["logged", "known", "logged", "logged", "known"]
    together = log.append_labels([Label(1, name), Label(0, name), Label(0, name)])
    assert [receipt.state for receipt in together] == ["known", "logged", "known"]
    assert together[1].label == together[2].label
    other = log.append_labels([Label(0, name, source="second"), Label(0, name, reviewer="bo")])
    assert [receipt.state for receipt in other] == ["logged", "logged"]


def test_a_label_waits_for_a_prediction_that_its_own_id_names(
    database: Database, log: FeedbackLog
) -> None:
    assert log.append_labels([Label(1, external_id="order-7")])[0].state == "waiting"
    assert log.append_labels([Label(0, external_id="order-8")])[0].position is None
    assert log.head() == 0 and list(log.read()) == []
    predicted(log, external_id="order-8")
    predicted(log, external_id="order-7")
    assert [(row.position, row.prediction.external_id) for row in log.read()] == [
        (1, "order-8"),
        (2, "order-7"),
    ]
    assert log.append_labels([Label(3, external_id="order-7")])[0].position == 3


def test_an_id_is_logged_once(database: Database, log: FeedbackLog) -> None:
    (number,) = ids.take(1)
    row = LoggedPrediction(number, {}, {}, external_id="a")
    log.append_predictions([row])
    with pytest.raises(ConflictError):
        log.append_predictions([LoggedPrediction(ids.take(1)[0], {}, {}), row])
    with pytest.raises(ConflictError):
        log.append_predictions([LoggedPrediction(ids.take(1)[0], {}, {}, external_id="a")])
    with database.read() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(predictions)).scalar()
    assert count == 1


@pytest.mark.parametrize(
    "label",
    [
        Label(1),
        Label(1, "0" * 16, external_id="both"),
        Label(1, "nonsense"),
        Label(1, "0" * 16),
        Label(1, external_id="a", kind="guess"),  # type: ignore[arg-type]
        Label(1, external_id="a", weight=-1.0),
        Label(1, external_id="a", weight=float("nan")),
        Label(1, external_id="a", weight=float("inf")),
        Label(1, external_id="a", selection=0.0),
        Label(1, external_id="a", selection=1.5),
    ],
)
def test_what_cannot_be_logged_is_refused_whole(log: FeedbackLog, label: Label) -> None:
    (name,) = predicted(log)
    with pytest.raises(InputError):
        log.append_labels([Label(1, name), label])
    assert log.head() == 0


def test_positions_have_no_gaps_and_follow_commits_under_concurrency(
    database: Database, log: FeedbackLog
) -> None:
    """Who follows positions while eight threads write misses none."""
    names = predicted(log, 160)
    stop, seen = threading.Event(), []

    def follow() -> None:
        at = 0
        while not stop.is_set() or at < log.head():
            for row in log.read(after=at):
                assert row.position == at + 1
                seen.append(row.position)
                at = row.position

    def write(part: list[str]) -> None:
        for name in part:
            log.append_labels([Label(1, name), Label(2, name, source="b")])

    follower = threading.Thread(target=follow)
    follower.start()
    writers = [threading.Thread(target=write, args=(names[i::8],)) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    stop.set()
    follower.join(60)
    assert seen == list(range(1, 321)) and log.head() == 320


@pytest.mark.parametrize(
    "value",
    [
        *(None, 1, -(2**62), True, False, 0.1, 1e300, 5e-324, -0.0, 2**70),
        *("é\u2028\x7f", "NaN", [1, None], {"1": 1e16}),
        {"a": {"b": [0.1, "Infinity"]}, "half": "\ud83d"},
    ],
)
def test_what_is_kept_as_text_is_read_as_it_was(value: object) -> None:
    (found,) = values_of([text_of(value)])
    assert repr(found) == repr(value)


def test_what_is_no_json_is_not_kept() -> None:
    for wrong in (float("nan"), {"a": float("inf")}, [float("nan")], object(), {"a": object()}):
        with pytest.raises((ValueError, TypeError)):
            text_of(wrong)


@pytest.mark.parametrize("first", ["prediction", "label"])
def test_a_label_and_its_named_prediction_in_two_transactions_find_each_other(
    database: Database, log: FeedbackLog, first: str
) -> None:
    label = Label(1, external_id="mine")
    row = LoggedPrediction(ids.take(1)[0], {"x": 1.0}, {"value": 1}, external_id="mine")

    def say(connection: sa.Connection | None = None) -> None:
        log.append_labels([label], connection)

    def ask(connection: sa.Connection | None = None) -> None:
        log.append_predictions([row], connection)

    one, other = (ask, say) if first == "prediction" else (say, ask)
    thread = threading.Thread(target=other)
    with database.write() as connection:
        one(connection)
        thread.start()
        thread.join(0.3)  # it waits for the end of this transaction
    thread.join()
    assert [row[:2] for row in state_of(database)] == [(1, row.id)]
