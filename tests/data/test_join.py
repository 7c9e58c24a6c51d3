"""The feedback log as rows to learn."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from everlearn.base import Decision, Schema, SpecError, StorageError
from everlearn.data.feedback import Label, LoggedPrediction, PredictionIds, id_text, now
from everlearn.data.history import append_matured
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import MATURITY, LabelPolicy
from everlearn.data.quarantine import Quarantine
from everlearn.data.slices import Consumed
from everlearn.data.tables import CORRECTS, REFUSED, MemoryBlobs, write_table
from everlearn.storage.database import Database
from everlearn.storage.schema import labels, models, predictions
from everlearn.testing.database import temporary_schema

SCHEMA = Schema(target="y", id="id", weight="w")
MINUTE = 60_000_000


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeedbackLog]:
    if request.param == "sqlite":
        with closing(Database.open(f"sqlite:///{tmp_path}/workspace.db")) as database:
            yield made_in(database)
        return
    try:
        with temporary_schema() as url, closing(Database.open(url)) as database:
            yield made_in(database)
    except StorageError as error:
        pytest.skip(str(error))


def made_in(database: Database) -> FeedbackLog:
    with database.write() as connection:
        made = connection.execute(sa.insert(models).values(name="m", created_at=0))
    return FeedbackLog(database, made.inserted_primary_key[0])


def predicted(log: FeedbackLog, count: int, **said: Any) -> list[str]:
    rows = [
        LoggedPrediction(number, {"x": float(place)}, {"value": 0}, **said)
        for place, number in enumerate(PredictionIds().take(count))
    ]
    log.append_predictions(rows)
    return [id_text(row.id) for row in rows]


def slices(
    log: FeedbackLog, policy: LabelPolicy, stops: list[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Fold the log cut at these positions: what is known of each prediction in the end, as memory
    would have it, and all rows."""
    blobs, known, rows = MemoryBlobs(), [], []
    state: dict[str, Any] = {}
    for stop in stops:
        log.head = lambda connection=None, stop=stop: stop  # type: ignore[method-assign, misc]
        part = LogSource(log, SCHEMA, blobs, policy).slice(known)
        assert part is not None and part.stop == stop
        known.append(Consumed.of(part))
        for piece in part.options["pieces"]:
            table = pa.ipc.open_file(pa.py_buffer(blobs.get(piece["blob"]))).read_all()
            rows += table.to_pylist()
        mine = rows[part.start : part.stop]
        for row in mine:
            if row[CORRECTS]:
                state.pop(row["id"], None)
        for row in mine:
            if row[REFUSED] is None:
                assert row["id"] not in state
                state[row["id"]] = (row["y"], row["w"])
    return state, rows


@pytest.mark.parametrize("conflict", ["last", "priority", "majority", "agreement"])
def test_any_cut_of_a_log_ends_with_the_same_labels(log: FeedbackLog, conflict: Any) -> None:
    ids = predicted(log, 4)
    values = itertools.cycle([1, 0, 1, None, 0, 1, 1])
    speakers = itertools.cycle(
        [("explicit", "a"), ("human", "b"), ("implicit", "c"), ("system", "d"), ("human", "e")]
    )
    for place in range(40):
        kind, source = next(speakers)
        said = Label(
            next(values),
            ids[place * 7 % 4],
            kind=kind,  # type: ignore[arg-type]
            source=source,
            weight=1.0 + place % 3,
        )
        log.append_labels([said])
    head, policy = log.head(), LabelPolicy(conflict)
    whole, rows = slices(log, policy, [head])
    assert whole and len(rows) == head
    assert slices(log, policy, list(range(1, head + 1)))[0] == whole
    assert slices(log, policy, [3, 10, 17, head])[0] == whole


def test_a_label_that_changes_nothing_is_not_learned_again(log: FeedbackLog) -> None:
    (one,) = predicted(log, 1)
    log.append_labels([Label(1, one, source="a"), Label(1, one, source="b")])
    _, rows = slices(log, LabelPolicy("priority"), [1, 2])
    assert [row[REFUSED] for row in rows] == [None, "it says what was known before"]
    assert not rows[1][CORRECTS]


def test_weights_of_signals_and_chances_reach_the_rows(log: FeedbackLog) -> None:
    (one,) = predicted(log, 1, propensity=0.25)
    log.append_labels([Label("click", one, kind="implicit", weight=2.0)])
    policy = LabelPolicy(signals={"click": (1, 0.5)}, propensity="inverse")
    state, _ = slices(log, policy, [1])
    assert list(state.values()) == [(1, 4.0)]
    with pytest.raises(SpecError, match="weight"):
        LogSource(log, Schema(target="y"), MemoryBlobs(), policy)


def test_only_a_closed_window_gives_negatives(log: FeedbackLog) -> None:
    policy = LabelPolicy(maturity="10m", unlabelled="negative", negative=0)
    ids = predicted(log, 3)
    log.append_labels([Label(1, ids[0]), Label(1, ids[1]), Label(None, ids[1])])
    arrived = now()
    assert append_matured(log, policy, at=arrived + 9 * MINUTE) == 0
    assert append_matured(log, LabelPolicy(maturity="10m"), at=arrived + 11 * MINUTE) == 0
    assert append_matured(log, policy, arrived + 11 * MINUTE, since=arrived + 90 * MINUTE) == 0
    assert append_matured(log, policy, arrived + 11 * MINUTE, since=arrived + MINUTE) == 1
    assert append_matured(log, policy, at=arrived + 11 * MINUTE) == 0
    (given,) = list(log.read(after=3))
    assert (given.kind, given.source, given.value) == ("system", MATURITY, 0)
    assert id_text(given.prediction.id) == ids[2]
    log.append_labels([Label(1, ids[2])])
    state, rows = slices(log, policy, [4, 5])
    assert rows[4][CORRECTS] and state[ids[2]] == (1, 1.0)


def test_a_shadow_and_a_prediction_of_another_model_stay_unlabelled(log: FeedbackLog) -> None:
    predicted(log, 2, arm="shadow")
    policy = LabelPolicy(maturity="1s", unlabelled="negative", negative=0)
    assert append_matured(log, policy, at=now() + MINUTE) == 0


def test_what_was_known_is_the_same_whenever_it_is_asked(log: FeedbackLog) -> None:
    ids = predicted(log, 3)
    log.append_labels([Label(1, ids[0]), Label(0, ids[1])])
    log.append_labels([Label(1, external_id="late")])  # of a prediction that is not there yet
    with log.database.write() as connection:  # all of it came before the moment
        connection.execute(sa.update(labels).values(arrived_at=1000))
        connection.execute(sa.update(predictions).values(arrived_at=1000))
    source = LogSource(log, SCHEMA, MemoryBlobs())
    then = write_table(source.as_known(1000))
    assert source.as_known(1000).column("y").to_pylist() == [1, 0]
    log.append_labels([Label(0, ids[0]), Label(None, ids[1]), Label(1, ids[2])])
    predicted(log, 1, external_id="late")
    assert log.head() == 6
    assert write_table(LogSource(log, SCHEMA, MemoryBlobs()).as_known(1000)) == then
    assert source.as_known(now()).column("y").to_pylist() == [0, 1, 1]


def test_replicas_put_a_source_into_quarantine_at_the_same_time(log: FeedbackLog) -> None:
    quarantine, together = Quarantine(log.database, log.model), threading.Barrier(2)

    def put(name: str) -> None:
        together.wait(10.0)
        quarantine.put(name, Decision("quarantine", "it lies"), 2000, online=True)

    names = [f"source {number}" for number in range(10)]
    with ThreadPoolExecutor(2) as replicas:
        list(replicas.map(put, [name for name in names for _ in range(2)]))
    with log.database.read() as connection:
        assert sorted(one.source for one in quarantine.spans(connection)) == names
    assert quarantine.active() == set(names)


def test_redelivery_in_any_order_changes_nothing(log: FeedbackLog) -> None:
    ids = predicted(log, 30)
    kinds = ("explicit", "human", "implicit")
    said = [
        Label(
            (place + turn) % 2,
            one,
            kind=kind,  # type: ignore[arg-type]
            source=kind,
            at=place,
            idempotency_key=f"{place}/{kind}",
        )
        for place, one in enumerate(ids)
        for turn, kind in enumerate(kinds)
    ]
    policy, random = LabelPolicy("priority"), Random(0)
    first = random.sample(said, len(said))
    log.append_labels(first)
    blobs = MemoryBlobs()
    before = LogSource(log, SCHEMA, blobs, policy).slice()
    for _ in range(10):
        again = random.sample(said, len(said))
        receipts = [log.append_labels(again[place : place + 7]) for place in range(0, 90, 7)]
        assert {one.state for part in receipts for one in part} == {"known"}
    after = LogSource(log, SCHEMA, blobs, policy).slice()
    assert before is not None and after is not None and after.digest == before.digest
    state, _ = slices(log, policy, [90])
    assert state == {one: ((place + 1) % 2, 1.0) for place, one in enumerate(ids)}
