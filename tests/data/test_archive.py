"""Old rows of the feedback log, in Parquet blobs."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from everlearn.base import ConflictError, InputError, NotFoundError, Schema, StorageError
from everlearn.cli import main
from everlearn.data.compaction import Bounds, compact, drop
from everlearn.data.feedback import Label, LoggedPrediction, PredictionIds, id_text
from everlearn.data.history import append_matured
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import LabelPolicy
from everlearn.data.slices import Consumed, Slice
from everlearn.data.tables import write_table
from everlearn.registry.retention import reachable
from everlearn.storage.blobs import Blobs, FolderBlobs
from everlearn.storage.copy import backup
from everlearn.storage.database import Database
from everlearn.storage.schema import (
    archive_names,
    archives,
    labels,
    models,
    predictions,
    review_items,
)
from everlearn.testing.database import temporary_schema
from everlearn.workspace import open as open_workspace
from tests.data.killed import killer

SCHEMA = Schema(target="y", id="id", weight="w")
DAY = 86_400_000_000
SEGMENT = 7


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return FolderBlobs(tmp_path / "blobs")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def log(
    request: pytest.FixtureRequest, tmp_path: Path, blobs: Blobs, clock: Clock
) -> Iterator[FeedbackLog]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/workspace.db"
        with closing(Database.open(url, clock=clock)) as database:
            yield made_in(database, blobs)
        return
    try:
        with temporary_schema() as url, closing(Database.open(url, clock=clock)) as database:
            yield made_in(database, blobs)
    except StorageError as error:
        pytest.skip(str(error))


def made_in(database: Database, blobs: Blobs) -> FeedbackLog:
    with database.write() as connection:
        made = [
            connection.execute(sa.insert(models).values(name=name, created_at=0))
            for name in ("other", "m")
        ]
    numbers = [one.inserted_primary_key[0] for one in made]  # type: ignore[index]
    other = FeedbackLog(database, numbers[0], blobs)  # whose rows must stay
    ids = predicted(other, 2, "other")
    other.append_labels([Label(1, ids[0])])
    return FeedbackLog(database, numbers[1], blobs)


def predicted(log: FeedbackLog, count: int, name: str | None = None) -> list[str]:
    numbers = PredictionIds(log.database.clock, process=log.model).take(count)
    rows = [
        LoggedPrediction(
            number,
            {"x": float(place), "text": "a\u00fc" * place},
            {"value": place % 2, "probabilities": {"1": 0.1 + place}},
            key=f"key {place % 3}",
            external_id=None if name is None else f"{name}-{place}",
            propensity=0.5 if place % 2 else None,
        )
        for place, number in enumerate(numbers)
    ]
    log.append_predictions(rows)
    return [id_text(row.id) for row in rows]


def filled(log: FeedbackLog, clock: Clock) -> list[str]:
    """Forty predictions of two days, with 44 labels; the ids."""
    ids = predicted(log, 20, "first")
    clock.at += DAY
    said = [Label(place % 2, one, idempotency_key=f"k{place}") for place, one in enumerate(ids)]
    log.append_labels(said)
    log.append_labels([Label(1, ids[4], source="desk", weight=2.0), Label(None, ids[7])])
    clock.at += DAY
    ids += predicted(log, 20, "second")
    log.append_labels([Label(1, one, kind="human", reviewer="bo") for one in ids[20:]])
    log.append_labels([Label(0, ids[3]), Label(0, ids[25], selection=0.25)])
    return ids


def everything(log: FeedbackLog, clock: Clock, blobs: Blobs) -> list[Any]:
    """All that is read of a log, in every way in which it is."""
    source = LogSource(log, SCHEMA, blobs, LabelPolicy("last"))
    whole = source.slice()
    assert whole is not None
    tail = source.slice([Consumed.of(Slice.from_json({**whole.to_json(), "stop": 22}))])
    from everlearn.data.columns import resolve

    columns = resolve(SCHEMA, [source])
    part = source.part(5, 31, columns, blobs)
    known = [
        write_table(LogSource(log, SCHEMA, blobs).as_known(clock.at - back))
        for back in (0, DAY // 2)
    ]
    assert tail is not None
    slices = [one.to_json() for one in (whole, tail, part)]
    return [*slices, known, list(log.read()), list(log.read(3, 30))]


def rows_of(log: FeedbackLog) -> tuple[int, int]:
    """Predictions and labels that are in the tables."""
    with log.database.read() as connection:
        counts = [
            connection.execute(
                sa.select(sa.func.count()).select_from(table).where(table.c.model_id == log.model)
            ).scalar_one()
            for table in (predictions, labels)
        ]
    return counts[0], counts[1]


def test_all_reads_the_same_before_and_after(log: FeedbackLog, clock: Clock, blobs: Blobs) -> None:
    filled(log, clock)
    before = everything(log, clock, blobs)
    bounds = Bounds(clock.at - DAY // 2, upto=30)
    planned = compact(log, blobs, bounds, dry_run=True)
    assert rows_of(log) == (40, 44)
    done = compact(log, blobs, bounds, rows=SEGMENT)
    assert (done.predictions, done.labels) == (planned.predictions, planned.labels) == (20, 22)
    assert rows_of(log) == (20, 22) and done.segments == 7 and done.bytes
    assert everything(log, clock, blobs) == before
    assert everything(FeedbackLog(log.database, log.model, blobs), clock, blobs) == before
    clock.at += DAY
    again = compact(log, blobs, Bounds(clock.at, upto=44), rows=SEGMENT)
    assert rows_of(log) == (0, 1), "the newest label stays, from which positions go on"
    assert (again.predictions, again.labels) == (20, 21)
    clock.at -= DAY
    assert everything(log, clock, blobs) == before
    assert compact(log, blobs, Bounds(clock.at + DAY, upto=44)).segments == 0
    assert log.append_labels([Label("new", id_text(before[4][0].prediction.id))])[0].position == 45


def test_what_was_said_of_archived_rows_is_known_and_late_labels_join_them(
    log: FeedbackLog, clock: Clock, blobs: Blobs
) -> None:
    ids = filled(log, clock)
    compact(log, blobs, Bounds(clock.at - DAY // 2, upto=22), rows=SEGMENT)
    same = [Label(5 % 2, ids[5], idempotency_key="k5"), Label(None, ids[7])]
    assert [(one.state, one.position) for one in log.append_labels(same)] == [
        ("known", 6),
        ("known", 22),
    ]
    with pytest.raises(ConflictError, match="k6"):
        log.append_labels([Label("x", ids[6], idempotency_key="k6")])
    late = [Label(1, ids[0]), Label(0, external_id="first-1", source="late")]
    assert [one.position for one in log.append_labels(late)] == [45, 46]
    rows = list(log.read(44))
    assert [row.prediction.features["x"] for row in rows] == [0.0, 1.0]
    policy = LabelPolicy("last")
    source = LogSource(log, SCHEMA, blobs, policy)
    part = source.slice([Consumed.of(Slice.from_json(spooled(source)))])
    assert part is not None and part.options["corrects"] == 2, "both were learned otherwise before"
    with pytest.raises(ConflictError, match="logged already"):
        log.append_predictions([LoggedPrediction(1, {"x": 1.0}, None, external_id="first-0")])
    with pytest.raises(InputError, match="no prediction"):
        log.append_labels([Label(1, id_text(77))])


def test_labels_that_waited_too_long_are_deleted(
    log: FeedbackLog, clock: Clock, blobs: Blobs
) -> None:
    log.append_labels([Label(1, external_id="never"), Label(1, external_id="young")])
    clock.at += DAY
    log.append_labels([Label(1, external_id="young", source="late")])
    assert drop(log, blobs, clock.at, dry_run=True) == drop(log, blobs, clock.at) == 2
    assert rows_of(log) == (0, 1)
    clock.at += DAY
    assert drop(log, blobs, clock.at) == 0, "numbers go on from the newest"


class Counted(FolderBlobs):
    """Blobs that count how many are read."""

    read = 0

    def get(self, digest: str) -> bytes:
        self.read += 1
        return super().get(digest)


def test_only_files_that_may_have_it_are_opened(
    log: FeedbackLog, clock: Clock, blobs: Blobs, tmp_path: Path
) -> None:
    ids = filled(log, clock)
    compact(log, blobs, Bounds(clock.at - DAY // 2, upto=22), rows=SEGMENT)
    assert len(files(log)) == 7

    def opened(*said: Label) -> tuple[list[str], int]:
        counted = Counted(tmp_path / "blobs")
        anew = FeedbackLog(log.database, log.model, counted)  # as after a restart
        return [one.state for one in anew.append_labels(said)], counted.read

    assert opened(Label("x", ids[30], idempotency_key="new")) == (["logged"], 0)
    assert opened(Label("x", external_id="nobody")) == (["waiting"], 0)
    assert opened(Label(5 % 2, ids[5], idempotency_key="k5")) == (["known"], 3)
    assert opened(Label(0, external_id="first-19", source="late")) == (["logged"], 2)


def test_files_that_were_made_before_names_were_indexed(
    log: FeedbackLog, clock: Clock, blobs: Blobs
) -> None:
    ids = filled(log, clock)
    bounds = Bounds(clock.at - DAY // 2, upto=22)
    compact(log, blobs, bounds, rows=SEGMENT)
    indexed = names(log)
    with log.database.write() as connection:
        connection.execute(sa.delete(archive_names))
        connection.execute(sa.update(archives).values(named=None))
    same = Label(5 % 2, ids[5], idempotency_key="k5")
    assert log.append_labels([same])[0].state == "known", "they are read"
    compact(log, blobs, bounds)
    assert names(log) == indexed and len(indexed) == 40
    assert log.append_labels([same])[0].state == "known"
    drop(log, blobs, clock.at)
    kept = {one.id for one in files(log) if one.blob is not None}
    assert {number for _, number in names(log)} == kept and len(kept) == 1, "one is judged still"
    assert log.append_labels([Label(1, ids[30], idempotency_key="k5")])[0].state == "logged"


def test_a_file_that_is_damaged_can_be_deleted(
    log: FeedbackLog, clock: Clock, blobs: Blobs
) -> None:
    filled(log, clock)
    compact(log, blobs, Bounds(clock.at - DAY // 2, upto=22))
    damaged = next(one.blob for one in files(log) if one.kind == "labels")
    blobs.delete(damaged)
    assert drop(log, blobs, clock.at) == 22
    assert all(one.blob is None for one in files(log) if one.kind == "labels")
    assert (
        log.append_labels([Label(1, external_id="x", idempotency_key="k5")])[0].state == "waiting"
    )


def names(log: FeedbackLog) -> list[Any]:
    with log.database.read() as connection:
        return sorted(map(tuple, connection.execute(sa.select(archive_names))))


def files(log: FeedbackLog) -> list[Any]:
    with log.database.read() as connection:
        return list(connection.execute(sa.select(archives)))


def spooled(source: LogSource) -> dict[str, Any]:
    """A slice of the first 44 labels, as the ledger has it."""
    whole = source.slice()
    assert whole is not None
    return {**whole.to_json(), "stop": 44}


def test_a_late_label_is_archived_after_its_prediction(
    log: FeedbackLog, clock: Clock, blobs: Blobs
) -> None:
    ids = filled(log, clock)
    compact(log, blobs, Bounds(clock.at - DAY // 2, upto=22), rows=SEGMENT)
    log.append_labels([Label(1, ids[0], source="late")])
    clock.at += DAY
    before = everything(log, clock, blobs)
    compact(log, blobs, Bounds(clock.at, upto=45), rows=SEGMENT)
    assert everything(log, clock, blobs) == before
    assert rows_of(log) == (0, 1)


def test_what_waits_is_in_review_or_young_stays(
    log: FeedbackLog, clock: Clock, blobs: Blobs
) -> None:
    ids = predicted(log, 6)
    log.append_labels([Label(1, one) for one in ids[:4]])
    log.append_labels([Label(1, external_id="unknown")])
    with log.database.write() as connection:
        item = {"model_id": log.model, "prediction_id": int(ids[2], 16), "why": "random"}
        item |= {"priority": 1.0, "selection": 1.0, "state": "waiting", "wanted": 1}
        connection.execute(sa.insert(review_items).values(**item, claims={}, created_at=0))
    clock.at += DAY
    predicted(log, 1)
    done = compact(log, blobs, Bounds(clock.at, upto=4))
    assert (done.predictions, done.labels) == (5, 2)
    assert rows_of(log) == (2, 3)
    policy = LabelPolicy(maturity="12h", unlabelled="negative", negative=0)
    assert append_matured(log, policy) == 0, "what is labelled in the archive, or is, is judged"


def test_a_collection_spares_the_archive_and_a_backup_has_it(
    log: FeedbackLog, clock: Clock, blobs: Blobs, tmp_path: Path
) -> None:
    filled(log, clock)
    compact(log, blobs, Bounds(clock.at, upto=30), rows=SEGMENT)
    with log.database.read() as connection:
        files = set(connection.execute(sa.select(archives.c.blob)).scalars())
        assert files <= reachable(connection)
    before = list(log.read())
    backup(log.database, blobs, tmp_path / "copy")
    with closing(Database.open(f"sqlite:///{tmp_path}/copy/workspace.db")) as database:
        copied = FeedbackLog(database, log.model, FolderBlobs(tmp_path / "copy" / "blobs"))
        assert list(copied.read()) == before


def test_dropped_rows_are_refused_not_skipped(log: FeedbackLog, clock: Clock, blobs: Blobs) -> None:
    ids = filled(log, clock)
    compact(log, blobs, Bounds(clock.at - DAY // 2, upto=22), rows=11)
    clock.at += 10 * DAY
    assert drop(log, blobs, clock.at - 11 * DAY, dry_run=True) == 0
    assert drop(log, blobs, clock.at - 5 * DAY, dry_run=True) == 31
    assert len(list(log.read())) == 44
    assert drop(log, blobs, clock.at - 5 * DAY) == 31, "predictions that labels name stay"
    fresh = FeedbackLog(log.database, log.model, blobs)
    with pytest.raises(NotFoundError, match="deleted"):
        list(fresh.read())
    with pytest.raises(NotFoundError, match="deleted"):
        LogSource(fresh, SCHEMA, blobs).as_known(clock.at)
    assert [row.position for row in fresh.read(22)][:2] == [23, 24]
    whole = LogSource(fresh, SCHEMA, blobs).slice(again=True)
    assert whole is not None and (whole.start, whole.stop) == (22, 44)
    with pytest.raises(InputError, match="no prediction"):
        fresh.append_labels([Label(1, ids[15])])
    assert fresh.append_labels([Label(1, ids[0])])[0].position == 45
    assert drop(log, blobs, clock.at) == 0


# --- the command -------------------------------------------------------------------------------

SPEC = """
import everlearn as el

model = el.Model("m", schema=el.Schema(target="y"), learner=el.learners.LogisticRegression())
"""


def make_workspace(folder: Path) -> Path:
    """A workspace with rows of fifty days ago, from which a version was learned."""
    (folder / "m.py").write_text(SPEC)
    past = PredictionIds().take(1)[0] >> 21
    moment = (past + PredictionIds.EPOCH) * 1000 - 50 * DAY
    with open_workspace(folder / "w", clock=lambda: moment) as workspace:
        handle = workspace.model(folder / "m.py")
        ids = predicted(handle.log, 40, "old")
        handle.log.append_labels([Label(place % 2, one) for place, one in enumerate(ids)])
        assert handle.update().version == 1
    return folder / "w"


def read_all(workspace: Path) -> list[Any]:
    with open_workspace(workspace) as opened:
        return list(opened.model("m").log.read())


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = make_workspace(tmp_path)
    before = read_all(workspace)
    with open_workspace(workspace) as opened:
        planned = opened.compact("m", dry_run=True)["m"]
        assert (planned["predictions"], planned["labels"]) == (40, 39)
        assert opened.compact(older_than="60d")["m"]["predictions"] == 0
    words = ["--workspace", str(workspace), "compact", "--older-than", "40d"]
    assert main(words) == 0
    assert "m: 40 predictions and 39 labels archived" in capsys.readouterr().out
    assert read_all(workspace) == before
    with open_workspace(workspace) as opened:
        dropped = opened.compact("m", older_than="40d", drop_older_than="45d")["m"]["dropped"]
    assert dropped == 39, "the newest label stays, and its prediction with it"
    with pytest.raises(NotFoundError):
        read_all(workspace)


WORK = """
from contextlib import closing

import alembic.command, pyarrow.parquet
from everlearn.data.compaction import Bounds, compact, drop
from everlearn.data.log import FeedbackLog
from everlearn.storage.blobs import FolderBlobs
from everlearn.storage.database import Database

def work(folder, model, before, rows):
    blobs = FolderBlobs(folder + "/blobs")
    with closing(Database.open(f"sqlite:///{folder}/workspace.db")) as database:
        log = FeedbackLog(database, model, blobs)
        compact(log, blobs, Bounds(before, upto=44), rows=rows)
        drop(log, blobs, before)
"""


def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, blobs: Blobs, clock: Clock) -> None:
    url = f"sqlite:///{tmp_path}/workspace.db"
    with killer(WORK) as run, closing(Database.open(url, clock=clock)) as database:
        log = made_in(database, blobs)
        filled(log, clock)
        before = everything(log, clock, blobs)
        work = (tmp_path.as_posix(), log.model, clock.at + 1, SEGMENT)
        for crash, count in (
            ("archive.written", 1),
            ("archive.deleted", 1),
            ("archive.deleted", 2),
            ("archive.moved", 3),
        ):
            assert run(crash, count, *work) == -9
            assert everything(log, clock, blobs) == before
        assert run("archive.dropped", 1, *work) == -9
        assert rows_of(log) == (0, 1), "all were moved"
        assert everything(FeedbackLog(database, log.model, blobs), clock, blobs) == before
        assert drop(log, blobs, clock.at + 1) > 40


def test_no_window_closes_unseen_while_rows_are_archived(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        SPEC.replace(
            "learner=",
            'labels=el.LabelPolicy(maturity="10s", negative=0, unlabelled="negative"), learner=',
        )
    )
    clock = Clock()

    def passing() -> int:  # a second, at every look
        clock.at += 1_000_000
        return clock.at

    with open_workspace(tmp_path / "w", clock=passing) as workspace:
        log = workspace.model(tmp_path / "m.py").log
        ids = [one for _ in range(30) for one in predicted(log, 1)]
        workspace.compact("m", older_than="0s")
        clock.at += DAY
        workspace.compact("m", older_than="0s")
        assert log.head() == len(ids)


def test_labels_that_no_version_took_stay(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    with open_workspace(workspace) as opened:
        handle = opened.model("m")
        handle.log.append_labels(
            [
                Label(1, row.prediction and id_text(row.prediction.id), source="s")
                for row in handle.log.read()
            ]
        )
        assert opened.compact("m", older_than="0s")["m"]["labels"] == 40
        assert handle.update().version == 2
        before = opened.accounts.increment(1)
        names = [id_text(next(handle.log.read()).prediction.id), "old-3"]
        told = [opened.accounts.labels(name) for name in names]
        found = opened.compact("m", older_than="0s")["m"]
        assert (found["labels"], found["held"]) == (39, "")
        assert opened.accounts.increment(1) == before
        assert [opened.accounts.labels(name) for name in names] == told
        assert [len(one["labels"]) for one in told] == [2, 2]
