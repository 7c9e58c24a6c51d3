"""A replay shows a model nothing that was not known, and counts what it costs."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

import everlearn
from everlearn.base import Batch, InputError, Part, Prediction, State
from everlearn.compare.replay import replay
from everlearn.compare.strategies import BUILT_IN, Plan, as_code, as_jobs, built_in, make_plans
from everlearn.compare.timeline import Span
from everlearn.data.order import Shuffle
from everlearn.jobs.learn import Fold
from everlearn.learners import LogisticRegression
from everlearn.strategies.everything import Everything
from everlearn.strategies.reservoir import Reservoir
from everlearn.strategies.strategy import Strategy
from tests.compare.histories import DAY, HOUR, drifting, history

SEEN: list[tuple[str, Batch]] = []


class Spy:
    """A learner that notes everything it is shown, and answers with what it saw last."""

    kind = "classifier"

    def __init__(self) -> None:
        self.last = 0

    def predict(self, batch: Batch) -> Prediction:
        SEEN.append(("predict", batch))
        return Prediction(value=np.full(len(batch), self.last))

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        assert batch.y is not None
        SEEN.append(("learn", batch))
        before = Prediction(value=np.full(score, self.last)) if score else None
        self.last = int(batch.y[-1])
        return before

    def grow(self, classes: int) -> bool:
        return True

    def save(self) -> State:
        return {"spy": Part(meta={"last": self.last})}

    def load(self, state: State) -> None:
        self.last = state["spy"].meta["last"]


def quick() -> SGDClassifier:
    """A learner that follows a new rule within some hundred rows."""
    return SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.3, random_state=0)


OWN = [
    Plan("own-memory", Strategy(memory=Reservoir(100), chunk=50), "period", "new"),
    Plan("own-scratch", Strategy(start="scratch", memory=Everything()), "period", "new"),
    Plan("own-passes", Strategy(passes=2, order=Shuffle(64, 3)), "period", "new"),
    Plan("own-time", Strategy(order="time"), "period", "new"),
]


@pytest.mark.parametrize("plan", [*map(built_in, BUILT_IN), *OWN], ids=lambda plan: plan.name)
def test_nothing_learns_from_a_label_before_it_was_known(plan: Plan) -> None:
    past = history(drifting(1_200))
    SEEN.clear()
    run = replay(past, plan, Spy())
    newest, probed = -1, set(past.batch.ids[past.position[past.probes]].tolist())
    answered: list[int] = []
    for what, batch in SEEN:
        if what == "learn":
            assert batch.time is not None and batch.label_time is not None
            newest = max(newest, int(np.maximum(batch.label_time, batch.time + 1).max()))
            assert not probed & set(batch.ids.tolist())
        else:
            assert batch.y is None and batch.label_time is None
            if set(batch.ids.tolist()) <= probed:
                continue  # a test of forgetting
            assert batch.time is not None
            assert int(batch.time.min()) >= newest
            answered += batch.ids.tolist()
    first = past.timeline.before(past.timeline.start)
    assert answered == past.batch.ids[past.position[first:]].tolist()
    assert len(run.value) == len(past) - first


def test_the_serving_version_answers() -> None:
    """Online, each answer is that of the label that was known last at the tick before."""
    past = history(drifting(1_200), probes=False)
    line = past.timeline
    run = replay(past, built_in("online"), Spy())
    codes = past.codes
    assert codes is not None
    first = line.before(line.start)
    moments = np.concatenate([[line.start], line.ticks()])
    for event in range(first, len(past)):
        at = moments[np.searchsorted(moments, line.time[event], "right") - 1]
        assert run.value[event - first] == codes[line.known_at(int(at)) - 1]


def test_rows_updates_and_waits_are_counted() -> None:
    past = history(drifting(1_200), probes=False)
    line = past.timeline
    edges = line.edges_to_learn()
    known = [line.known_at(int(edge)) for edge in edges]
    runs = {name: replay(past, built_in(name), Spy()) for name in BUILT_IN}
    assert runs["never"].rows_learned == known[0]
    assert runs["never"].update_moments.tolist() == [line.start]
    assert runs["incremental"].rows_learned == known[-1]
    assert runs["batch"].rows_learned == sum(known)
    assert runs["batch"].update_moments.tolist() == edges.tolist()
    width = line.every.length * 4
    windows = [k - line.known_at(int(e) - width) for k, e in zip(known, edges, strict=True)]
    assert runs["window"].rows_learned == sum(windows)
    ticks = line.ticks()
    assert runs["online"].update_moments.tolist() == [line.start, *ticks.tolist()]
    assert runs["online"].rows_learned == line.known_at(int(ticks[-1]))
    assert runs["hybrid"].rows_learned > runs["batch"].rows_learned
    waits = {name: run.wait for name, run in runs.items()}
    assert waits["never"] > waits["batch"] == waits["incremental"] > waits["online"] > 0
    assert waits["online"] < 6 * HOUR < waits["incremental"] < 4 * DAY
    assert runs["never"].labels_used == 0.0
    assert runs["online"].labels_used == pytest.approx(1.0, abs=0.01)


def test_reading_is_charged_by_the_row() -> None:
    past = history(drifting(600))
    dear = replace(past, read_seconds=1.0)
    run = replay(dear, built_in("incremental"), Spy())
    assert run.rows_read <= run.cpu_seconds < run.rows_read + 5.0
    assert run.update_seconds.sum() == pytest.approx(run.cpu_seconds)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_replay_is_deterministic(name: str) -> None:
    past = history(drifting(800))
    first, second = (replay(past, built_in(name), LogisticRegression()) for _ in range(2))
    assert np.array_equal(first.value, second.value)
    assert first.proba is not None and second.proba is not None
    assert np.array_equal(first.proba, second.proba)


def test_after_the_rule_turned_round_updates_pay() -> None:
    past = history(drifting(3_000))
    truth = past.truth()[past.timeline.before(past.timeline.start) :]
    hits = {
        name: float((replay(past, built_in(name), quick()).value == truth).mean())
        for name in ("never", "incremental", "online")
    }
    assert hits["never"] < 0.6 < hits["incremental"] < hits["online"]


def test_forgetting_is_measured_on_rows_that_nothing_learned() -> None:
    run = replay(history(drifting(3_000)), built_in("online"), quick())
    assert run.transfer is not None
    assert run.transfer.shape == (8, 8)
    assert np.isfinite(run.transfer).all()
    assert run.transfer[0, 0] > 0.7 > run.transfer[-1, 0]  # the old rule is forgotten


def test_a_class_that_comes_late_is_answered_by_those_that_grow() -> None:
    data = drifting(1_500)
    y = data["y"].copy()
    y[1_000:] = np.where(data["x"][1_000:, 1] > 0, 2.0, y[1_000:])
    past = history({**data, "y": y})
    run = replay(past, built_in("incremental"), SGDClassifier(loss="log_loss", random_state=0))
    assert run.proba is not None and run.proba.shape[1] == 3
    assert 2 in run.value
    assert run.proba[:100, 2].max() == 0.0
    stuck = replay(past, built_in("incremental"), MLPClassifier((4,), random_state=0))
    assert 2 not in stuck.value


def test_what_a_version_costs_later_is_tested_for_the_oracle() -> None:
    past = history(drifting(1_200))
    run = replay(past, built_in("batch"), LogisticRegression(), oracle=True)
    line = past.timeline
    edges = line.edges_to_learn()
    assert run.serving is not None and run.serving.shape == (len(edges), len(edges))
    truth = past.truth()[line.before(line.start) :]
    wrong = (run.value != truth).astype(float)
    period = line.period_of(np.arange(len(past) - len(truth), len(past))) - line.warmup
    period = np.minimum(period, len(edges) - 1)
    assert np.diagonal(run.serving) == pytest.approx(np.bincount(period, wrong, len(edges)))
    assert (np.tril(run.serving, -1) == 0).all()


def test_a_user_strategy_gets_a_name_of_its_own() -> None:
    plans = make_plans([Strategy(memory=Reservoir(10)), "never"])
    assert plans[0].when == "period" and plans[0].is_job
    assert "reservoir" in plans[0].name
    named = make_plans({"mine": Strategy(), "also": "batch"})
    assert [plan.name for plan in named] == ["mine", "also"]
    assert make_plans("never, batch")[1].name == "batch"


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_jobs_can_do_is_said_in_code(name: str) -> None:
    for every in (Span.parse("7d"), Span.parse("500rows")):
        plan = built_in(name)
        strategy = as_jobs(plan, every)
        assert (strategy is None) == (name in ("online", "hybrid"))
        if strategy is not None:
            names = {name: getattr(everlearn, name) for name in everlearn.__all__}
            assert eval(as_code(strategy), names) == strategy


def test_a_given_state_is_where_a_strategy_starts() -> None:
    past = history(drifting(1_200))
    taught = Fold.new(quick(), past.columns, Strategy(), classes=(0.0, 1.0))
    taught.learn(past.batch.take(slice(0, 300)))
    state = taught.save()
    begun = Plan("given", Strategy(start=state), "once", "new")
    fresh = Plan("fresh", Strategy(start="scratch"), "once", "new")
    assert not np.array_equal(
        replay(past, begun, quick()).value, replay(past, fresh, quick()).value
    )
    other = replace(past, columns=replace(past.columns, numbers=("a", "c")))
    with pytest.raises(InputError, match="other columns"):
        replay(other, begun, quick())


def test_seeds_are_for_the_built_in_strategies() -> None:
    plans = make_plans({"mine": Strategy(seed=5), "batch": "batch"}, seed=7)
    assert [plan.strategy.seed for plan in plans] == [5, 7]
