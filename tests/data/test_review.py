"""The review queue: what comes into it, and who works it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import everlearn as el
from everlearn.base import ConflictError, InputError, NotFoundError, SpecError, StorageError
from everlearn.data.feedback import LoggedPrediction, id_number, id_text
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import LabelPolicy, Said
from everlearn.data.review import DISAGREEMENT, DROPPED, RANDOM, UNCERTAIN, ReviewQueue, draws
from everlearn.data.reviewers import Item, Reviewers
from everlearn.registry.config import from_config, to_config
from everlearn.storage.database import Database
from everlearn.storage.schema import models, review_items
from everlearn.testing.database import temporary_schema

MINUTE = 60_000_000
START = 10**15
ALL = el.Review(budget=None, share=1.0, random=1.0)


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
        connection.execute(sa.insert(models).values(name="m", created_at=0))
        return FeedbackLog(database, connection.execute(sa.select(models.c.id)).scalar_one())


def answered(number: int, chance: float) -> LoggedPrediction:
    """A prediction of two classes."""
    output = {"value": int(chance > 0.5), "probabilities": {"0": 1 - chance, "1": chance}}
    return LoggedPrediction(number, {"x": number}, output, version=1)


def logged(log: FeedbackLog, count: int, chance: float | None = None) -> list[LoggedPrediction]:
    """Predictions of chances that grow evenly, or of one."""
    steps = np.linspace(0.0, 1.0, count).tolist() if chance is None else [chance] * count
    rows = [answered(START + place, step) for place, step in enumerate(steps)]
    log.append_predictions(rows)
    return rows


def rows_of(log: FeedbackLog) -> dict[int, Any]:
    with log.database.read() as connection:
        found = connection.execute(sa.select(review_items)).all()
    return {row.prediction_id: row for row in found}


def test_what_is_in_depends_on_the_id_and_the_margin_alone(log: FeedbackLog) -> None:
    rows = logged(log, 1000)
    review = el.Review(share=0.2, uncertain=1.0, random=0.1)
    for part in (rows[500:], rows[:500]):  # two replicas
        ReviewQueue(log, review).offer(part)
    found = rows_of(log)
    for row, draw in zip(rows, draws([row.id for row in rows]).tolist(), strict=True):
        chance = max(0.1, 1.0 - abs(2 * row.output["probabilities"]["1"] - 1.0))
        assert (row.id in found) == (draw < 0.2 * chance)
        if row.id in found:
            assert found[row.id].selection == pytest.approx(0.2 * chance)
            assert found[row.id].why == (RANDOM if draw < 0.02 else UNCERTAIN)
    assert 80 < len(found) < 150


def test_the_numbers_are_uniform() -> None:
    numbers = draws(range(START, START + 20_000))
    assert abs(numbers.mean() - 0.5) < 0.01 and 0.0 < numbers.min() < numbers.max() < 1.0
    assert np.histogram(numbers, 10, (0, 1))[0].min() > 1800


@pytest.mark.parametrize("size", [50, 3000])
def test_the_budget_of_a_day_holds_and_the_chances_are_what_they_say(
    log: FeedbackLog, size: int
) -> None:
    rows = logged(log, 3000)
    queues = [ReviewQueue(log, el.Review(budget=100, random=0.1)) for _ in range(2)]
    for turn, start in enumerate(range(0, 3000, size)):
        queues[turn % 2].offer(rows[start : start + size])
    kept = {key: row for key, row in rows_of(log).items() if row.state != DROPPED}
    assert len(kept) == 100
    assert rows_of(log).keys() > kept.keys()
    wanted = {
        row.id: max(0.1, 1.0 - abs(2 * row.output["probabilities"]["1"] - 1.0)) for row in rows
    }
    numbers = dict(zip(wanted, draws(list(wanted)).tolist(), strict=True))
    best = sorted(wanted, key=lambda key: numbers[key] / wanted[key])
    assert set(kept) == set(best[:100])
    cut = numbers[best[100]] / wanted[best[100]]
    for key, row in kept.items():
        assert row.selection == pytest.approx(cut * wanted[key])
    weights = [1.0 / row.selection for row in kept.values()]
    assert 2200 < sum(weights) < 3900  # Horvitz and Thompson: of 3000


def test_what_somebody_took_is_not_dropped(log: FeedbackLog) -> None:
    rows = logged(log, 200, chance=0.5)
    queue, people = ReviewQueue(log, el.Review(budget=3)), Reviewers(log, el.Review(budget=3))
    queue.offer(rows[:3])
    taken = people.claim("bo")
    assert taken is not None
    queue.offer(rows[3:])
    kept = {key: row for key, row in rows_of(log).items() if row.state != DROPPED}
    assert len(kept) == 3
    mine = kept[id_number(taken.prediction)]
    assert mine.state == "claimed" and mine.selection == taken.selection == 1.0
    assert all(row.selection < 0.2 for row in kept.values() if row.id != mine.id)


def test_where_a_candidate_says_something_else(log: FeedbackLog) -> None:
    rows = logged(log, 400, chance=0.9)
    review = el.Review(share=0.5, uncertain=0.5, disagreement=1.0, random=0.0)
    queue = ReviewQueue(log, review)
    queue.offer(rows)
    first = rows_of(log)
    assert {row.why for row in first.values()} == {UNCERTAIN}
    said: dict[int, Any] = {row.id: {"value": 0} for row in rows[:200]}
    said |= {row.id: row.output for row in rows[200:300]} | {row.id: None for row in rows[300:]}
    queue.offer_compared(said)
    found = rows_of(log)
    numbers = dict(zip(said, draws(list(said)).tolist(), strict=True))
    differ = {row.id for row in rows[:200] if numbers[row.id] < 0.5}
    assert set(found) == set(first) | differ and len(differ) > 60
    for key, row in found.items():
        assert row.why == (DISAGREEMENT if key in differ else UNCERTAIN)
        assert row.selection == pytest.approx(0.5 if key in differ else 0.5 * 0.5 * 0.2)
    assert queue.offer_compared(said) == 0


def test_the_random_audit_share_of_the_policy(log: FeedbackLog) -> None:
    rows, policy = logged(log, 500, chance=0.99), LabelPolicy(audit=0.1)
    review = el.Review(budget=2, random=1.0)
    ReviewQueue(log, review, policy).offer(rows)
    found = {key: row for key, row in rows_of(log).items() if row.state != DROPPED}
    audited = {row.id for row in rows if policy.audited(row.id)}
    assert audited and audited <= set(found) and len(found) == len(audited) + 2
    assert all(found[key].why == RANDOM and found[key].selection < 0.0201 for key in audited)
    people = Reviewers(log, review)
    assert {id_number(item.prediction) for item in people.next("bo", len(audited))} == audited


def test_answers_without_classes_are_chosen_by_chance_alone(log: FeedbackLog) -> None:
    rows = [
        LoggedPrediction(START + place, {}, output)
        for place, output in enumerate([{"value": 1.5}, {"value": None, "probabilities": None}])
    ]
    log.append_predictions(rows)
    assert ReviewQueue(log, el.Review(random=0.0)).offer(rows) == 0
    assert ReviewQueue(log, el.Review(random=1.0)).offer(rows) == 2
    assert ReviewQueue(log, None).offer(rows) == 0


def filled(log: FeedbackLog, count: int, review: el.Review = ALL) -> Reviewers:
    ReviewQueue(log, review).offer(logged(log, count))
    return Reviewers(log, review)


def taken(item: Item | None) -> int:
    assert item is not None
    return item.id


def test_an_answer_becomes_a_label_with_its_chance(log: FeedbackLog) -> None:
    people = filled(log, 3, el.Review(share=0.999, random=1.0))
    (item,) = people.next("bo")
    assert item.features == {"x": id_number(item.prediction)} and item.version == 1
    assert json.loads(json.dumps(item.to_json()))["output"] == item.output
    assert people.answer("bo", item.id, 1, at=5).state == "logged"
    (row,) = log.read()
    assert (row.kind, row.source, row.reviewer, row.value) == ("human", "review", "bo", 1)
    assert row.selection == pytest.approx(0.999) and row.at == 5
    assert id_text(row.prediction.id) == item.prediction
    assert people.counts() == {"waiting": 2, "claimed": 0, "done": 1, "skipped": 0}
    assert people.answer("bo", item.id, 1).state == "known"
    assert people.answer("bo", item.id, 0).state == "logged"  # he thought again
    with pytest.raises(ConflictError, match="done"):
        people.answer("al", item.id, 0)
    with pytest.raises(InputError):
        people.answer("bo", item.id, None)
    with pytest.raises(NotFoundError):
        people.answer("bo", 999, 1)


def test_two_reviewers_never_have_the_same_until_a_claim_expires(log: FeedbackLog) -> None:
    people = filled(log, 2)
    first = taken(people.claim("bo", at=0))
    second = taken(people.claim("al", at=0))
    assert first != second
    assert people.claim("cy", at=0) is None and people.next("cy", 9, at=0) == []
    assert taken(people.claim("bo", at=0)) == first  # he goes on with what he has
    for verb in (people.claim, people.skip):
        with pytest.raises(ConflictError, match="another reviewer"):
            verb("al", first, at=14 * MINUTE)
    with pytest.raises(ConflictError, match="another reviewer"):
        people.answer("al", first, 1, at=14 * MINUTE)
    taken(people.claim("bo", first, at=10 * MINUTE))  # longer
    assert [item.id for item in people.next("cy", 9, at=16 * MINUTE)] == [second]
    assert taken(people.claim("cy", second, at=16 * MINUTE)) == second
    with pytest.raises(ConflictError, match="another reviewer"):
        people.answer("al", second, 1, at=17 * MINUTE)
    people.answer("bo", first, 1, at=60 * MINUTE)  # late, and nobody had taken it
    assert log.head() == 1


def test_several_reviewers_are_wanted(log: FeedbackLog) -> None:
    people = filled(log, 1, el.Review(budget=None, share=1.0, random=1.0, reviewers=2))
    number = taken(people.claim("bo"))
    assert taken(people.claim("al")) == number
    assert people.claim("cy") is None
    people.answer("bo", number, 1)
    assert people.claim("bo") is None and people.claim("cy") is None
    people.answer("al", number, 0)
    assert people.counts()["done"] == 1
    policy = LabelPolicy("agreement", agreement=2)
    said = [Said(row.position, row.kind, row.source, row.reviewer, row.value) for row in log.read()]
    assert policy.settle(said).winner is None
    agreed = [said[0], said[1]._replace(value=1)]
    assert policy.settle(agreed).value == 1


def test_what_is_skipped_is_given_to_others_as_long_as_enough_are_wanted(log: FeedbackLog) -> None:
    people = filled(log, 1, el.Review(budget=None, share=1.0, random=1.0, reviewers=2))
    number = taken(people.claim("bo"))
    assert people.skip("bo", number).state == "claimed"
    assert people.next("bo") == [] and people.next("al") != []
    with pytest.raises(ConflictError, match="skipped"):
        people.claim("bo", number)
    assert people.skip("al", number).state == "skipped"
    assert people.next("cy") == [] and people.counts()["skipped"] == 1


def test_many_who_claim_at_once_get_different_items(log: FeedbackLog) -> None:
    people = filled(log, 8)
    given: list[int] = []

    def work(name: str) -> None:
        given.append(taken(people.claim(name)))

    threads = [threading.Thread(target=work, args=(f"r{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 8 and people.claim("late") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": 0},
        {"share": 0.0},
        {"share": 1.1},
        {"uncertain": 2.0},
        {"random": -0.1},
        {"reviewers": 0},
        {"claim_minutes": 0.0},
    ],
)
def test_parameters_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        el.Review(**wrong)


def test_it_is_part_of_a_definition() -> None:
    model = el.Model("m", review=el.Review(budget=5, reviewers=2))
    assert from_config(to_config(model)) == model
    assert el.Review().budget == 50 and el.Review(share=0.1).budget is None
