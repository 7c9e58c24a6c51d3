"""What learns row by row answers each event by all labels that were known by then, and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from everlearn.compare.history import History
from everlearn.compare.interleave import Piece, as_batch, interleaved
from everlearn.compare.replay import replay
from everlearn.compare.strategies import Plan, built_in
from everlearn.jobs.learn import Fold
from everlearn.learners.native.experts import Experts
from everlearn.learners.native.linear import LogisticRegression
from everlearn.strategies.reservoir import Reservoir
from everlearn.strategies.strategy import Strategy
from tests.compare.histories import drifting, history


def one_by_one(past: History, learner: object) -> tuple[list[float], list[np.ndarray]]:
    """Answers, as `replay` gives them, of a model that is handed every event and label alone."""
    line = past.timeline
    first, known = line.before(line.start), line.known_at(line.start)
    assert past.codes is not None
    begun = tuple(past.classes[code] for code in np.unique(past.codes[:known]).tolist())
    fold = Fold.new(learner, past.columns, Strategy(), classes=begun, frozen=False)
    fold.learn(past.batch.take(slice(0, known)))
    values, chances = [], []
    for event in range(first, len(past)):
        now = line.known_at(int(line.time[event]))
        for label in range(known, now):
            fold.learn(past.batch.take(slice(label, label + 1)))
        known = max(known, now)
        row = int(past.position[event])
        answer = fold.predict(past.batch.take(slice(row, row + 1)))
        assert answer.proba is not None
        values.append(float(fold.decode(answer.value)[0]))
        chances.append(answer.proba[0])
    return values, chances


@pytest.mark.parametrize(
    "learner",
    [LogisticRegression(), Experts([LogisticRegression()])],
    ids=["logistic", "experts"],
)
def test_every_event_is_answered_by_all_that_was_known(learner: object) -> None:
    past = history(drifting(900))
    run = replay(past, built_in("online"), learner)
    values, chances = one_by_one(past, learner)
    assert np.array(past.classes)[run.value].tolist() == values
    assert run.proba is not None
    assert (run.proba == np.array(chances)).all()
    assert run.wait == 0.0
    assert run.labels_used == 1.0
    assert len(run.update_seconds) == len(run.update_moments)
    known = past.timeline.known_at(int(past.timeline.time[-1]))
    assert run.rows_learned == run.rows_read == known


def test_a_class_is_unknown_until_its_first_label() -> None:
    data = drifting(900)
    y = data["y"].copy()
    y[600:] = np.where(data["x"][600:, 1] > 0.5, 2.0, y[600:])
    past = history({**data, "y": y})
    learner = Experts([LogisticRegression()])
    run = replay(past, built_in("online"), learner)
    values, chances = one_by_one(past, learner)
    assert np.array(past.classes)[run.value].tolist() == values
    wide = np.array([np.pad(row, (0, 3 - len(row))) for row in chances])
    assert run.proba is not None
    assert (run.proba == wide).all()
    known = past.timeline.available[past.codes == 2][0]
    late = past.timeline.time[past.timeline.before(past.timeline.start) :] >= known
    assert (run.proba[~late, 2] == 0.0).all()
    assert run.proba[late, 2].max() > 0.0


def test_hybrid_is_retrained_at_the_end_of_each_period_and_online_between() -> None:
    past = history(drifting(900))
    line = past.timeline
    learner = LogisticRegression()
    run = replay(past, built_in("hybrid"), learner)
    batch = replay(past, built_in("batch"), learner)
    edges = line.edges_to_learn()
    for edge, following in zip(edges, [*edges[1:], line.time[-1] + 1], strict=True):
        event = line.before(int(edge))
        if event == line.before(int(following)) or line.known_at(int(line.time[event])) > (
            line.known_at(int(edge))
        ):
            continue  # no event, or a label that only `hybrid` has learned
        place = event - line.before(line.start)
        assert run.proba is not None and batch.proba is not None
        assert (run.proba[place] == batch.proba[place]).all()
    assert not np.array_equal(run.proba, batch.proba)
    assert run.wait == 0.0
    learned = [line.known_at(int(edge)) for edge in edges]
    assert run.rows_learned == sum(learned) + line.known_at(int(line.time[-1])) - learned[0]


def test_forgetting_is_tested_at_the_same_moments() -> None:
    past = history(drifting(3_000))
    run = replay(past, built_in("online"), LogisticRegression())
    assert run.transfer is not None
    assert np.isfinite(run.transfer).all()
    assert run.transfer[0, 0] > 0.7 > run.transfer[-1, 0]


def test_chunks_are_for_what_needs_them() -> None:
    learner = LogisticRegression()
    learner_in_use = Fold.new(learner, history(drifting(200)).columns, Strategy()).learner
    assert built_in("online").learns_by_row(learner_in_use)
    assert built_in("hybrid").learns_by_row(learner_in_use)
    assert not built_in("online").learns_by_row(object())
    assert not built_in("incremental").learns_by_row(learner_in_use)
    for strategy in (
        Strategy(memory=Reservoir(100)),
        Strategy(passes=2),
        Strategy(order="time"),
        Strategy(start="scratch"),
    ):
        assert not Plan("own", strategy, "tick", "new").learns_by_row(learner_in_use)


def test_the_order_of_events_and_labels() -> None:
    past = history(drifting(300), probes=False)
    line = past.timeline
    labels = range(20, line.known_at(int(line.time[-1])))
    events = range(50, 300)
    piece = interleaved(line, past.position, events, labels)
    assert piece.rows[~piece.is_event].tolist() == list(labels)
    assert piece.rows[piece.is_event].tolist() == past.position[50:300].tolist()
    known = 20
    moment = 0
    for row, is_event in zip(piece.rows.tolist(), piece.is_event.tolist(), strict=True):
        if is_event:
            moment = int(line.time[line.arrival[row]])
            assert known == max(20, line.known_at(moment))
        else:
            assert row == known
            known += 1
    assert known == labels.stop


def test_an_event_shows_nothing_of_its_label() -> None:
    past = history(drifting(300))
    whole = replace(past.batch, weight=np.linspace(1.0, 2.0, 300))
    piece = Piece(np.array([7, 3, 9]), np.array([True, False, True]))
    batch = as_batch(whole, piece)
    assert whole.y is not None and batch.y is not None and batch.weight is not None
    assert batch.y.tolist() == [whole.y[3]] * 3
    assert batch.weight[0] == batch.weight[2] == 0.0 < batch.weight[1]
    assert batch.label_time is None
    assert (batch.numbers == whole.numbers[[7, 3, 9]]).all()
