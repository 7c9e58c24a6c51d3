"""Labels that are withdrawn: slices of the log are settled as if nobody had said them."""

from collections.abc import Iterator
from contextlib import closing
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everlearn.base import Columns, Decision, InputError, Schema, StorageError
from everlearn.data.compaction import Bounds, compact, drop
from everlearn.data.feedback import Label, LoggedPrediction, id_text
from everlearn.data.increment import Reader
from everlearn.data.join import LogSource, corrected_ids
from everlearn.data.judgement import Unheard
from everlearn.data.log import FeedbackLog
from everlearn.data.pages import Page
from everlearn.data.policy import LabelPolicy
from everlearn.data.quarantine import Quarantine
from everlearn.data.resettle import consecutive, recorded, unlearned, withdraw
from everlearn.data.selection import Selection, find
from everlearn.data.slices import Consumed, Slice
from everlearn.data.tables import MemoryBlobs
from everlearn.data.withdrawals import Withdrawals, WithdrawnRows, store
from everlearn.data.withdrawn import WITHDRAWN, Numbers
from everlearn.jobs.feed import groups
from everlearn.storage.blobs import FolderBlobs
from everlearn.storage.database import Database
from everlearn.storage.schema import labels, models, predictions
from everlearn.testing.database import temporary_schema

SCHEMA = Schema(target="y", id="id", weight="w", key="user", label_time="known")
COLUMNS = Columns(
    numbers=("x",), categories=("word",), target="y", target_kind="integer",
    id="id", weight="w", key="user", label_time="known",
)  # fmt: skip
POLICIES = [
    LabelPolicy(),
    LabelPolicy("priority", priority=("desk", "human", "bot")),
    LabelPolicy("priority", priority=("bot", "desk", "human")),
    LabelPolicy("majority"),
    LabelPolicy("agreement"),
    LabelPolicy("majority", propensity="inverse"),
]
_numbers = count(1)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Database]]:
    folder = tmp_path_factory.mktemp("logs")
    with (
        closing(Database.open(f"sqlite:///{folder}/a.db")) as one,
        closing(Database.open(f"sqlite:///{folder}/b.db")) as two,
    ):
        yield [one, two]


def log_in(database: Database, blobs: Any = None) -> FeedbackLog:
    with database.write() as connection:
        row = {"name": f"m{next(_numbers)}", "created_at": 0}
        made = connection.execute(sa.insert(models).values(row)).inserted_primary_key
    return FeedbackLog(database, made[0], blobs)  # type: ignore[index]


def filled(log: FeedbackLog, said: list[tuple[int, str, Any]]) -> FeedbackLog:
    """A log with six predictions, and labels: (prediction, source, value)."""
    first = log.model << 20
    rows = [
        LoggedPrediction(
            first + place,
            {"x": float(place), "word": "ab"[place % 2]},
            {"value": 0},
            version=1 + place % 3,
            propensity=(None, 0.5, 0.1)[place % 3],
            key=f"user-{place % 4}",
            at=10**15 + place,
        )
        for place in range(6)
    ]
    log.append_predictions(rows)
    for number, (place, source, value) in enumerate(said):
        one = Label(value, id_text(first + place), source=source, at=2 * 10**15 + number)
        log.append_labels([one])
    return log


def copied(log: FeedbackLog, to: FeedbackLog, without: set[int]) -> FeedbackLog:
    """A log in which some labels never were."""
    with log.database.read() as reading:
        asked = reading.execute(sa.select(predictions)).mappings().all()
        said = reading.execute(sa.select(labels).order_by(labels.c.position)).mappings().all()
    asked = [row for row in asked if row["model_id"] == log.model]
    kept = [r for r in said if r["model_id"] == log.model and r["position"] not in without]
    with to.database.write() as writing:
        for row in asked:
            writing.execute(sa.insert(predictions).values({**row, "model_id": to.model}))
        for position, row in enumerate(kept, start=1):
            new = {**row, "model_id": to.model, "position": position}
            writing.execute(sa.insert(labels).values(new))
    return to


def slices(log: FeedbackLog, policy: LabelPolicy, stops: list[int], blobs: Any) -> list[Any]:
    """What jobs would have planned at these positions; None where there was nothing new."""
    found: list[Any] = []
    for stop in stops:
        log.head = lambda connection=None, stop=stop: stop  # type: ignore[method-assign, misc]
        known = [Consumed.of(part) for part in found if part is not None]
        found.append(LogSource(log, SCHEMA, blobs, policy).slice(known, COLUMNS))
    del log.head
    return found


def online(log: FeedbackLog, policy: LabelPolicy, stops: list[int], blobs: Any) -> list[Any]:
    """What a server that learns online would have cut at these positions."""
    found, source = list[Any](), LogSource(log, SCHEMA, MemoryBlobs(), policy)
    for start, stop in pairwise([0, *stops]):
        pages = log.pages(start, stop)
        parts = [
            source.part(begin, end, COLUMNS, blobs, page, Unheard()).with_options(holdout=0.3)
            for begin, end, page in groups(pages, start, stop)
        ]
        found.append(consecutive(parts) if parts else None)
    return found


def learned(parts: list[Any], blobs: Any, **options: Any) -> list[Any]:
    """What a fold gets of slices: corrected ids, then rows in chunks; for each slice."""
    found = []
    for part in parts:
        if part is None:
            continue
        with Reader([part], COLUMNS, blobs=blobs, **options) as reader:
            chunks = [_content(chunk) for chunk in reader if len(chunk) or chunk.held is not None]
            (tally,) = reader.tallies
        if chunks:
            corrected = corrected_ids(part, COLUMNS, blobs).tolist()
            found.append([corrected, chunks, tally.rows, tally.held_out])
    return found


def _content(chunk: Any) -> Any:
    return [
        [batch.ids.tolist(), batch.y.tolist(), batch.weight.tolist(), batch.numbers.tolist(),
         batch.categories.tolist(), batch.label_time.tolist()]
        for batch in (chunk.batch, chunk.held) if batch is not None
    ]  # fmt: skip


SAID = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from(["bot", "desk", "human"]), st.sampled_from([0, 1, None])
    ),
    min_size=1,
    max_size=25,
)


@pytest.mark.parametrize("cut", [slices, online])
@settings(
    max_examples=35, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(said=SAID, data=st.data())
def test_slices_are_those_of_a_log_without_the_labels(
    databases: list[Database], cut: Any, said: list[Any], data: st.DataObject
) -> None:
    policy, blobs = data.draw(st.sampled_from(POLICIES)), MemoryBlobs()
    log = filled(log_in(databases[0]), said)
    head = log.head()
    gone = data.draw(st.sets(st.integers(1, head)))
    stops = sorted({*data.draw(st.sets(st.integers(1, head), max_size=3)), head})
    other = copied(log, log_in(databases[1]), gone)
    fewer = [len([at for at in range(1, stop + 1) if at not in gone]) for stop in stops]
    source = LogSource(log, SCHEMA, blobs, policy)
    mine = [withdraw(part, gone, blobs, COLUMNS, source) for part in cut(log, policy, stops, blobs)]
    theirs = cut(other, policy, fewer, blobs)
    options = {"chunk": data.draw(st.integers(1, 5)), "passes": data.draw(st.integers(1, 2))}
    assert learned(mine, blobs, **options) == learned(theirs, blobs, **options)
    told = {at for part in mine for at, why in recorded(part, blobs).items() if why == WITHDRAWN}
    assert told == gone


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(said=SAID, data=st.data())
def test_a_job_never_learns_what_was_withdrawn_before_it_was_planned(
    databases: list[Database], said: list[Any], data: st.DataObject
) -> None:
    policy, blobs = data.draw(st.sampled_from(POLICIES)), MemoryBlobs()
    log = filled(log_in(databases[0]), said)
    head = log.head()
    stop = data.draw(st.integers(0, head - 1))
    gone = data.draw(st.sets(st.integers(stop + 1, head), min_size=1))
    other = copied(log, log_in(databases[1]), gone)
    (theirs,) = slices(other, policy, [stop], blobs) if stop else [None]
    taken = [theirs] if theirs is not None else []
    withdrawn(log, gone, blobs)
    mine = LogSource(log, SCHEMA, blobs, policy).slice([Consumed.of(p) for p in taken], COLUMNS)
    assert mine is not None
    expected = LogSource(other, SCHEMA, blobs, policy).slice(
        [Consumed.of(part) for part in taken], COLUMNS
    )
    assert learned([mine], blobs) == learned([expected], blobs)
    assert {at for at, why in recorded(mine, blobs).items() if why == WITHDRAWN} == gone


def withdrawn(log: FeedbackLog, gone: Any, blobs: Any) -> int:
    """Withdraw labels, as it is done at the end of all."""
    part = unlearned(log, 0)
    assert part is not None
    place = WithdrawnRows.of(part, gone, blobs)
    with log.database.write() as connection:
        return store(connection, log.model, {}, "poisoned", [place], rows=len(gone))


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeedbackLog]:
    if request.param == "sqlite":
        with closing(Database.open(f"sqlite:///{tmp_path}/workspace.db")) as database:
            yield log_in(database, MemoryBlobs())
        return
    try:
        with temporary_schema() as url, closing(Database.open(url)) as database:
            yield log_in(database, MemoryBlobs())
    except StorageError as error:
        pytest.skip(str(error))


def rows_of(part: Slice | None, blobs: Any) -> list[Any]:
    """(value, whether it was learned before) of the rows that are learned."""
    assert part is not None
    with Reader([part], COLUMNS, blobs=blobs) as reader:
        values = [value for chunk in reader for value in np.asarray(chunk.batch.y).tolist()]
    return [values, len(corrected_ids(part, COLUMNS, blobs))]


def test_withdrawals_add_up_and_are_read_once(log: FeedbackLog) -> None:
    blobs = MemoryBlobs()
    filled(log, [(place, "bot", 1) for place in range(6)])
    known = Withdrawals(log.database, log.model, blobs)
    assert known.positions().values.tolist() == [] and known.all() == []
    first, second = withdrawn(log, [4, 2], blobs), withdrawn(log, [2, 5], blobs)
    other = log_in(log.database)
    filled(other, [(0, "bot", 1)])
    withdrawn(other, [1], blobs)
    assert known.positions().values.tolist() == [2, 4, 5]
    assert known.positions() is known.positions()
    found = known.all()
    assert [one.number for one in found] == [first, second]
    assert [one.reason for one in found] == ["poisoned"] * 2
    assert [one.places[0].rows for one in found] == [2, 2]
    assert known.all(after=first) == found[1:]


def test_a_label_in_place_of_a_withdrawn_one_is_a_correction_of_what_learned_it(
    log: FeedbackLog,
) -> None:
    blobs = MemoryBlobs()
    filled(log, [(0, "bot", 0), (1, "desk", 1)])
    source = LogSource(log, SCHEMA, blobs)
    first = source.slice((), COLUMNS)
    assert rows_of(first, blobs) == [[0, 1], 0]
    withdrawn(log, [1], blobs)
    log.append_labels([Label(1, id_text(log.model << 20), source="desk")])
    second = LogSource(log, SCHEMA, blobs).slice([Consumed.of(first)], COLUMNS)  # type: ignore[arg-type]
    assert rows_of(second, blobs) == [[1], 1]
    again = withdraw(second, [], blobs, COLUMNS, source)  # type: ignore[arg-type]
    assert rows_of(again, blobs) == [[1], 0], "a fold that never had it has nothing to correct"


def test_what_quarantine_and_guards_set_aside_stays_aside(log: FeedbackLog) -> None:
    blobs = MemoryBlobs()
    filled(log, [(0, "bot", 0), (0, "bad", 1), (1, "bot", 1), (1, "desk", 0), (2, "desk", 1)])
    quarantine = Quarantine(log.database, log.model)
    quarantine.put("bad", Decision("wait", "it contradicts"), 0)
    source = LogSource(log, SCHEMA, blobs)
    held = Unheard({"bad"})
    part = source.part(0, 5, COLUMNS, blobs, None, held, {5: "the guard says so"})
    assert rows_of(part, blobs) == [[0, 0], 0]
    quarantine.release("bad")
    new = withdraw(part, [4], blobs, COLUMNS, source)
    assert rows_of(new, blobs) == [[0, 1], 0]
    assert recorded(new, blobs) == {
        2: "its source is in quarantine", 4: "withdrawn", 5: "the guard says so"
    }  # fmt: skip
    both = withdraw(part, [1, 3], blobs, COLUMNS, source)
    assert rows_of(both, blobs) == [[0], 0], "what was quarantined does not count instead"
    assert withdraw(new, [4], blobs, COLUMNS, source) is new
    assert withdraw(part, [], blobs, COLUMNS, source) is part


def test_a_guard_that_set_a_label_aside_does_so_without_the_labels_beside_it(
    log: FeedbackLog,
) -> None:
    blobs = MemoryBlobs()
    filled(log, [(0, "bot", 0), (0, "desk", 1), (1, "desk", 1)])
    source = LogSource(log, SCHEMA, blobs)
    part = source.part(0, 3, COLUMNS, blobs, None, Unheard(), {2: "the guard says so"})
    new = withdraw(part, [1], blobs, COLUMNS, source)
    assert recorded(new, blobs) == {1: "withdrawn", 2: "the guard says so"}
    assert rows_of(new, blobs) == [[1], 0]


def test_a_label_of_an_earlier_slice_may_count_once_more(log: FeedbackLog) -> None:
    blobs, policy = MemoryBlobs(), LabelPolicy("priority", priority=("bot", "desk", "human"))
    filled(log, [(0, "human", 1), (0, "desk", 0), (0, "bot", 0), (0, "desk", None)])
    first, second = slices(log, policy, [3, 4], blobs)
    source = LogSource(log, SCHEMA, blobs, policy)
    assert rows_of(second, blobs) == [[], 0], "the bot's word stands"
    assert rows_of(withdraw(first, [3], blobs, COLUMNS, source), blobs) == [[0], 0]
    assert rows_of(withdraw(second, [3], blobs, COLUMNS, source), blobs) == [[1], 1]


def test_archived_labels_are_withdrawn_too_and_deleted_ones_cannot_be(
    log: FeedbackLog, tmp_path: Path
) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    log = FeedbackLog(log.database, log.model, blobs)
    filled(log, [(place % 6, ("bot", "desk")[place % 2], place // 6) for place in range(12)])
    source = LogSource(log, SCHEMA, blobs)
    part = source.slice((), COLUMNS)
    assert part is not None
    before = withdraw(part, [7, 9], blobs, COLUMNS, source)
    asked = find(part, COLUMNS, SCHEMA, Selection.where("source = 'bot'"), blobs, log)
    later = log.database.clock() + 10**9
    compact(log, blobs, Bounds(later, upto=12), rows=4)
    assert withdraw(part, [7, 9], blobs, COLUMNS, source) == before
    again = find(part, COLUMNS, SCHEMA, Selection.where("source = 'bot'"), blobs, log)
    assert again.tolist() == asked.tolist() == [1, 3, 5, 7, 9, 11]
    drop(log, blobs, later)
    with pytest.raises(InputError, match="positions 1 to 12 of 'feedback' cannot be read"):
        find(part, COLUMNS, SCHEMA, Selection.where("source = 'bot'"), blobs, log)
    with pytest.raises(InputError, match="positions 1 to 12 of 'feedback' cannot be read"):
        withdraw(part, [7], blobs, COLUMNS, source)


CONDITIONS = {
    "source = 'bot'": [1, 3],
    "source like 'd%' and version = 2": [2, 4],
    "key = 'user-0'": [1, 4],
    "user in ('user-1')": [2],
    "x >= 2 or word = 'b'": [2, 3, 4],
    "y = 1 and w = 1": [2, 4],
    "position > 3 or reviewer is not null": [4],
    "known < '2033-05-18T03:33:20.000002' and kind = 'explicit'": [1, 2],
    "time = '2001-09-09T01:46:40.000001Z'": [2],
    "label_time is null or missing = 5": [],
}


def test_labels_are_found_by_conditions(log: FeedbackLog) -> None:
    filled(log, [(0, "bot", 0), (1, "desk", 1), (2, "bot", 0), (4, "desk", 1)])
    whole, tail, blobs = unlearned(log, 0), unlearned(log, 1), MemoryBlobs()
    assert whole is not None and tail is not None and unlearned(log, 4) is None
    for text, positions in CONDITIONS.items():
        found = find(whole, COLUMNS, SCHEMA, Selection.where(text), blobs, log)
        assert found.dtype == np.int64 and found.tolist() == positions, text
        later = find(tail, COLUMNS, SCHEMA, Selection.where(text), blobs, log)
        assert later.tolist() == [at for at in positions if at > 1], text


def test_labels_are_found_by_id_key_version_and_position(log: FeedbackLog) -> None:
    filled(log, [(0, "bot", 0), (1, "desk", 1), (2, "bot", 0), (4, "desk", 1)])
    blobs = MemoryBlobs()
    part = unlearned(log, 0)
    assert part is not None

    def asked(selection: Selection) -> list[int]:
        assert Selection.from_json(selection.to_json()) == selection
        found: list[int] = find(part, COLUMNS, SCHEMA, selection, blobs, log).tolist()
        return found

    number = id_text((log.model << 20) + 1)
    assert asked(Selection.where(f"id = '{number}' and prediction = '{number}'")) == [2]
    assert asked(Selection.of_key("user-0")) == [1, 4]
    assert asked(Selection.induced_by(2)) == [2, 4]
    assert asked(Selection.of_rows(["feedback:2-3", "feedback:9", "other:1"])) == [2, 3]
    withdrawn(log, [4], blobs)
    mine = LogSource(log, SCHEMA, blobs).slice((), COLUMNS)
    assert mine is not None
    found = find(mine, COLUMNS, SCHEMA, Selection.induced_by(2), blobs, log)
    assert found.tolist() == [2], "what a slice is without already is not found again"


def test_pages_of_withdrawn_labels_alone_are_settled(log: FeedbackLog) -> None:
    blobs = MemoryBlobs()
    filled(log, [(0, "bot", 0), (1, "bot", 1)])
    page = Page.concat(list(log.pages(0, 2)))
    gone = Unheard(withdrawn=Numbers.of([[1, 2]]))
    part = LogSource(log, SCHEMA, blobs).part(0, 2, COLUMNS, blobs, page, gone)
    assert recorded(part, blobs) == {1: WITHDRAWN, 2: WITHDRAWN}
    assert LogSource(log, SCHEMA, blobs).candidates(0, 2, page, gone) == []
