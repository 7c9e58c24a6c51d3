"""What is set aside before learning, and sources in quarantine."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from benchmarks.poisoning import LIAR, MODELS, SOURCES, run, slice_of
from everlearn.base import ConflictError, Decision, NotFoundError, Schema, SpecError
from everlearn.data.feedback import Label, LoggedPrediction, PredictionIds, id_text
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import LabelPolicy
from everlearn.data.quality import (
    OUT_OF_RANGE,
    OUTLIER,
    OVER_BUDGET,
    QUARANTINED,
    TWICE,
    Candidate,
    Guards,
    allowances,
)
from everlearn.data.quarantine import Quarantine
from everlearn.data.slices import Consumed, Slice
from everlearn.data.tables import REFUSED, MemoryBlobs
from everlearn.registry.config import from_config, to_config
from everlearn.storage.database import Database
from everlearn.storage.schema import models

NOTHING = {"spread": None, "duplicates": False, "noise": False, "outliers": False}


def row(
    place: int, value: Any = 0, output: Any = None, source: str = "a", weight: float = 1.0, **x: Any
) -> Candidate:
    return Candidate(place, LoggedPrediction(place, x, output, at=5), source, value, weight)


def aside(guards: Guards, rows: list[Candidate]) -> dict[int, str]:
    return {place: reason.split(":")[0] for place, reason in guards.inspect(rows).aside.items()}


def test_ranges_that_are_said() -> None:
    guards = Guards(**NOTHING, ranges={"hour": (0, 23), "fare": (0, None)})  # type: ignore[arg-type]
    rows = [
        row(1, hour=0, fare=1e9),
        row(2, hour=24),
        row(3, hour=None),
        row(4, fare=-1.0),
        row(5, hour="late"),
        row(6, hour=float("nan")),
    ]
    assert aside(guards, rows) == dict.fromkeys((2, 4, 5), OUT_OF_RANGE)
    assert "'hour' is 24" in guards.inspect(rows).aside[2]


def test_a_number_far_from_all_others_unless_there_are_many() -> None:
    values = np.random.default_rng(0).normal(size=200).tolist()
    guards = Guards(spread=100.0)
    few = [row(place, x=value, value=place) for place, value in enumerate([*values, 1e6])]
    assert aside(guards, few) == {200: OUT_OF_RANGE}
    many = [row(place, x=value, value=place) for place, value in enumerate([*values, *[1e6] * 9])]
    assert aside(guards, many) == {}
    assert aside(guards, few[-50:]) == {}  # too few to tell


def test_an_event_that_came_twice() -> None:
    rows = [row(1, 1, x=1), row(2, 1, x=1), row(3, 0, x=1), row(4, 1, x=1, source="b")]
    assert aside(Guards(), rows) == {2: TWICE}
    undated = [replace(one, dated=False) for one in rows]
    assert aside(Guards(), undated) == {}


def test_outliers_of_the_loss() -> None:
    sure = {"value": 0, "probabilities": {"0": 1 - 1e-8, "1": 1e-8}}
    rows = [row(place, 0, sure, x=place) for place in range(200)]
    assert aside(Guards(), [*rows, row(200, 1, sure, x=0.5)]) == {200: OUTLIER}
    news = [row(200 + place, 1, sure, x=place / 7) for place in range(20)]
    assert aside(Guards(noise=False), rows + news) == {}  # the world has changed
    errors = np.random.default_rng(1).normal(size=200).tolist()
    numbers = [row(place, error, {"value": 0.0}, x=place) for place, error in enumerate(errors)]
    assert aside(Guards(spread=50.0), [*numbers, row(200, 1e4, {"value": 0.0}, x=1)]) == {
        200: OUTLIER
    }


@pytest.mark.parametrize(
    ("budget", "have", "allowed"),
    [
        (0.5, {"a": 8.0, "b": 1.0, "c": 1.0}, {"a": 2.0, "b": 1.0, "c": 1.0}),
        (0.2, {"a": 8.0}, {"a": 8.0}),
        (0.2, {"a": 8.0, "b": 2.0}, {"a": 2.0, "b": 2.0}),
        ({"crowd": 0.1}, {"crowd": 50.0, "staff": 90.0}, {"crowd": 10.0, "staff": 90.0}),
        ({"crowd": 0.1}, {"crowd": 50.0}, {"crowd": 0.0}),
        ({"a": 0.25, "b": 0.25}, {"a": 9.0, "b": 9.0, "c": 4.0}, {"a": 2.0, "b": 2.0, "c": 4.0}),
    ],
)
def test_what_sources_may_have(budget: Any, have: Any, allowed: Any) -> None:
    assert allowances(have, budget) == pytest.approx(allowed)


def test_a_flood_of_one_source_is_cut_to_its_share_by_a_stable_hash() -> None:
    guards = Guards(**NOTHING, budget={"bot": 0.2})  # type: ignore[arg-type]
    staff = [row(place, source="staff") for place in range(80)]
    bot = [row(place, source="bot") for place in range(80, 1080)]
    left_out = aside(guards, staff + bot)
    assert Counter(left_out.values()) == {OVER_BUDGET: 980} and min(left_out) >= 80
    assert aside(guards, staff + bot) == left_out
    heavy = [row(place, source="bot", weight=5.0) for place in range(80, 100)]
    assert len(aside(guards, staff + heavy)) == 16


def test_one_liar_of_five_is_found_and_honest_sources_are_not() -> None:
    guards = Guards(duplicates=False, spread=None)
    for share in (0.05, 0.2):
        seen = [run(seed, 500, share, guards) for seed in range(20)]
        assert sum(one.found for one in seen) >= 19
        assert sum(one.wrongly for one in seen) <= 4  # of 80
    clean = [run(seed, 500, 0.0, guards) for seed in range(40)]
    assert sum(one.wrongly + one.found for one in clean) <= 10  # of 200


def test_what_contradicts_a_sure_answer_counts_most() -> None:
    guards = Guards(duplicates=False, spread=None)
    seen = [run(seed, 500, 0.07, guards, MODELS["weak"]) for seed in range(20)]
    assert sum(one.found for one in seen) >= 12, "6, where every contradiction counts the same"
    assert sum(one.wrongly for one in seen) <= 4


def test_a_source_that_is_alone_or_small_is_not_judged() -> None:
    rows = [one for one, _ in slice_of(np.random.default_rng(0), 300, 0.2)]
    guards = Guards(duplicates=False, spread=None)
    assert set(guards.inspect(rows).suspects) == {LIAR}
    assert not guards.inspect([one for one in rows if one.source == LIAR]).suspects
    small = [one for one in rows if one.source != LIAR]
    small += [one for one in rows if one.source == LIAR][:40]
    assert not guards.inspect(small).suspects


@pytest.mark.parametrize(
    "said",
    [{"ranges": {"x": (2, 1)}}, {"spread": 0.5}, {"budget": 1.5}, {"alpha": 0.0}, {"margin": 1.0}],
)
def test_what_cannot_be_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        Guards(**said)


def test_guards_are_kept_with_their_model() -> None:
    guards = Guards(ranges={"x": (0, None)}, budget={"crowd": 0.1})
    assert from_config(to_config(guards)) == guards


# --- in the log ---


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FeedbackLog]:
    with closing(Database.open(f"sqlite:///{tmp_path}/workspace.db")) as database:
        with database.write() as connection:
            made = connection.execute(sa.insert(models).values(name="m", created_at=0))
        yield FeedbackLog(database, made.inserted_primary_key[0])


def fill(log: FeedbackLog, rows: int, share: float, seed: int = 0) -> list[str]:
    """Labels of five sources, one of which lies; each prediction is labelled by one of them."""
    drawn = [one for one, _ in slice_of(np.random.default_rng(seed), rows, share)]
    numbers = PredictionIds().take(len(drawn))
    log.append_predictions(
        [
            LoggedPrediction(number, {"x": float(place)}, one.prediction.output)
            for place, (number, one) in enumerate(zip(numbers, drawn, strict=True))
        ]
    )
    said = zip(drawn, numbers, strict=True)
    log.append_labels([Label(one.value, id_text(to), source=one.source) for one, to in said])
    return [id_text(number) for number in numbers]


def source_of(log: FeedbackLog, blobs: MemoryBlobs) -> LogSource:
    return LogSource(log, Schema(target="y", id="id"), blobs, LabelPolicy(), Guards())


def reasons(part: Slice | None, blobs: MemoryBlobs) -> Counter[str]:
    assert part is not None
    rows: list[dict[str, Any]] = []
    for piece in part.options["pieces"]:
        rows += pa.ipc.open_file(pa.py_buffer(blobs.get(piece["blob"]))).read_all().to_pylist()
    return Counter(row[REFUSED] or "learned" for row in rows)


def test_a_liar_goes_into_quarantine_until_it_is_released(log: FeedbackLog) -> None:
    blobs, quarantine = MemoryBlobs(), Quarantine(log.database, log.model)
    fill(log, 300, 0.2)
    first = source_of(log, blobs).slice()
    assert reasons(first, blobs) == {"learned": 4 * 300, QUARANTINED: 300}
    (held,) = quarantine.sources()
    assert (held.source, held.released_at, held.evidence["after"]) == (LIAR, None, 0)
    assert "contradict" in held.reason
    again = source_of(log, blobs).slice()
    assert again is not None and first is not None and again.digest == first.digest
    ids = fill(log, 20, 0.2, seed=1)  # too few to judge it anew
    known = [Consumed.of(first)]
    second = source_of(log, blobs).slice(known)
    assert reasons(second, blobs) == {"learned": 4 * 20, QUARANTINED: 20}
    liar = 20 * SOURCES.index(LIAR)
    log.append_labels([Label(1, ids[liar], source="expert")])  # another speaks for it
    released = source_of(log, blobs).released(LIAR, 0, log.head())
    assert released is not None and released.num_rows == 300 + 19
    quarantine.release(LIAR)
    assert quarantine.active() == set()
    third = source_of(log, blobs).slice(known)
    assert reasons(third, blobs)["learned"] == 100


def test_a_quarantined_source_has_no_say_against_others(log: FeedbackLog) -> None:
    blobs, quarantine = MemoryBlobs(), Quarantine(log.database, log.model)
    (number,) = PredictionIds().take(1)
    log.append_predictions([LoggedPrediction(number, {"x": 1.0}, {"value": 1})])
    quarantine.put("liar", Decision("quarantine", "it lies"), 0)
    log.append_labels([Label(1, id_text(number)), Label(0, id_text(number), source="liar")])
    part = source_of(log, blobs).slice()
    assert reasons(part, blobs) == {"learned": 1, QUARANTINED: 1}


def test_release_is_once_and_of_what_is_held(log: FeedbackLog) -> None:
    quarantine = Quarantine(log.database, log.model)
    with pytest.raises(NotFoundError, match="no source"):
        quarantine.release("liar")
    quarantine.put("liar", Decision("quarantine", "it lies", {"labels": 90}), 7)
    quarantine.put("liar", Decision("quarantine", "again"), 9)
    assert quarantine.release("liar").evidence == {"labels": 90, "after": 7}
    with pytest.raises(ConflictError, match="released"):
        quarantine.release("liar")
    quarantine.put("liar", Decision("quarantine", "again"), 9)
    assert [one.evidence["after"] for one in quarantine.sources()] == [9]
    assert quarantine.active() == {"liar"}


@pytest.mark.parametrize("said", [0, 1])
def test_what_a_quarantined_source_taught_is_corrected_by_others(
    log: FeedbackLog, said: int
) -> None:
    blobs, quarantine = MemoryBlobs(), Quarantine(log.database, log.model)
    (number,) = PredictionIds().take(1)
    log.append_predictions([LoggedPrediction(number, {"x": 1.0}, {"value": 1})])
    log.append_labels([Label(0, id_text(number), source="liar")])
    first = source_of(log, blobs).slice()
    assert first is not None and reasons(first, blobs) == {"learned": 1}
    quarantine.put("liar", Decision("quarantine", "it lies"), 1)
    log.append_labels([Label(said, id_text(number))])
    second = source_of(log, blobs).slice([Consumed.of(first)])
    assert second is not None and reasons(second, blobs) == {"learned": 1}
    assert second.options["corrects"] == 1
