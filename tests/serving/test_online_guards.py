"""Guards while a model learns online: what a job would set aside, the live model sets aside too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import everlearn as el
from everlearn.data.feedback import Label, LoggedPrediction, PredictionIds, id_text
from everlearn.data.quality import OUT_OF_RANGE, QUARANTINED
from everlearn.data.watch import WINDOW
from everlearn.jobs.feed import Feed
from everlearn.registry.versions import Increment
from tests.serving.local import LocalClient as TestClient
from tests.serving.test_online import Loop, until

SOURCES = ["a", "b", "c", "liar"]


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Loop]:
    guards = el.Guards(ranges={"x": (-6, 6)})
    loop = Loop(tmp_path, fields={"guards": guards}, rows=100_000, margin=10.0)
    yield loop
    loop.workspace.close()


def log(it: Loop, rows: int) -> int:
    """Answers and labels of four sources, one of which says the contrary; the last position."""
    x = it.random.normal(size=rows)
    numbers, log = PredictionIds().take(rows), it.handle.log
    log.append_predictions(
        [
            LoggedPrediction(
                number,
                {"x": float(value)},
                {"value": int(value > 0), "probabilities": {"0": 0.1, "1": 0.9}},
                key=str(number),
            )
            for number, value in zip(numbers, x, strict=True)
        ]
    )
    log.append_labels(
        [
            Label(int((value > 0) != (SOURCES[at % 4] == "liar")), id_text(number), source=source)
            for at, (number, value) in enumerate(zip(numbers, x, strict=True))
            for source in [SOURCES[at % 4]]
        ]
    )
    return log.head()


def reasons(it: Loop, number: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in it.workspace.registry.version("m", number).increments:
        for reason, count in one.reasons["set_aside"].items():
            found[reason.split(":")[0]] += count
    return found


def test_a_liar_is_set_aside_from_the_end_of_a_window_on_until_it_is_released(it: Loop) -> None:
    before = it.fresh()
    quarantine = it.workspace.updates.quarantine("m")
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.say(client, it.ask(client, 7.0), 1)
        last = log(it, WINDOW + 399)
        assert until(lambda: it.position(client) == last)
        assert quarantine.active() == {"liar"}
        assert len(it.tails(before, steps=[97, 1000])) == 1
        job = it.workspace.updates.release("m", it.handle.definition, "liar")
        assert isinstance(job, int)
        last = log(it, 40)
        assert until(lambda: it.position(client) == last)
        assert len(it.tails(steps=[501, 5000])) == 1 and quarantine.active() == set()
        result = it.workspace.run(job)
        assert result.decision.action == "catch up" and result.rows >= 90
        assert until(lambda: len(it.workspace.registry.versions("m")) == 3)
    assert reasons(it, 3) == {OUT_OF_RANGE: 1, QUARANTINED: 100}
    learned = [one for number in (2, 3) for one in increments(it, number)]
    assert sum(one.rows + one.held_out for one in learned) == last - 1


def test_a_candidate_sets_nobody_aside_where_the_live_model_has_learned(it: Loop) -> None:
    last, columns = log(it, WINDOW + 40), it.fresh().fold.columns
    registry, database = it.workspace.registry, it.workspace.database
    version, quarantine = registry.version("m", 1), it.workspace.updates.quarantine("m")
    spans = []
    for live in (False, True):
        list(Feed(registry, "m", version, it.handle.log, live=live).read(0, last, columns))
        with database.read() as connection:
            spans.append([(one.after, one.until) for one in quarantine.spans(connection)])
    assert spans[0] == [(last, None)]
    assert sorted(spans[1]) == [(WINDOW, None), (last, None)]


def increments(it: Loop, number: int) -> tuple[Increment, ...]:
    return it.workspace.registry.version("m", number).increments


def test_what_is_set_aside_is_counted_when_a_version_is_cut(it: Loop) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        x = np.array([0.5, 7.0, -0.5, -9.0])
        rows = it.ask(client, *x)
        last = it.say(client, rows, 1, 1, 0, 0)
        assert until(lambda: it.position(client) == last)
        (label,) = it.workspace.accounts.labels(rows[1]["id"])["labels"]
        assert "online" in label["reason"]
        it.workspace.model(it.model.replace(triggers=[el.Online(rows=1)]))
        assert until(lambda: len(it.workspace.registry.versions("m")) == 2)
    assert reasons(it, 2) == {OUT_OF_RANGE: 2}
    (account,) = it.workspace.accounts.increments("m")[-1:]
    shown = it.workspace.accounts.increment(account["id"])
    (label,) = it.workspace.accounts.labels(rows[1]["id"])["labels"]
    assert OUT_OF_RANGE in label["reason"]
    assert shown["exact"] and len(shown["ids"]["set_aside"]) == 2
