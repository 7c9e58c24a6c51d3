"""Guards for labels that come one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.poisoning import LIAR, slice_of
from everlearn.data.quality import (
    OUT_OF_RANGE,
    OUTLIER,
    OVER_BUDGET,
    TWICE,
    Candidate,
    Guards,
)
from everlearn.data.watch import WINDOW, Watch
from tests.data.test_guards import NOTHING, row


def judged(guards: Guards, rows: list[Candidate]) -> dict[int, str]:
    found = Watch(0).judge(guards, rows, rows[-1].position)
    return {place: reason.split(":")[0] for place, reason in found.items()}


def usual(count: int, first: int = 1, **more: Any) -> list[Candidate]:
    values = np.random.default_rng(first).normal(size=count).tolist()
    return [row(first + place, x=value, n=place, **more) for place, value in enumerate(values)]


def test_each_row_is_judged_by_those_before_it() -> None:
    rows = usual(200)
    rows += [row(201, x=1e6), row(202, x=0.5, hour=24), replace(rows[150], position=203)]
    guards = Guards(ranges={"hour": (0, 23)})
    assert judged(guards, rows) == {201: OUT_OF_RANGE, 202: OUT_OF_RANGE, 203: TWICE}
    assert judged(Guards(**NOTHING), rows) == {}  # type: ignore[arg-type]
    sure = {"value": 0, "probabilities": {"0": 1 - 1e-8, "1": 1e-8}}
    rows = [row(place, 0, sure, x=place) for place in range(1, 201)]
    assert judged(Guards(), [*rows, row(201, 1, sure, x=0.5)]) == {201: OUTLIER}
    errors = np.random.default_rng(1).normal(size=200).tolist()
    numbers = [row(place + 1, e, {"value": 0.0}, x=place) for place, e in enumerate(errors)]
    assert judged(Guards(spread=50.0), [*numbers, row(201, 1e4, {"value": 0.0}, x=1)]) == {
        201: OUTLIER
    }


def test_many_that_are_far_are_news() -> None:
    rows = usual(200) + [row(201 + place, x=1e6 + place) for place in range(300)]
    found = judged(Guards(), rows)
    assert set(found.values()) == {OUT_OF_RANGE} and len(found) <= 5 and max(found) < 230


def test_a_flood_of_one_source_is_cut_to_about_its_share() -> None:
    guards = Guards(**NOTHING, budget=0.5)  # type: ignore[arg-type]
    rows = []
    for place in range(1, 3001):
        source = "bot" if place % 10 else "staff"  # nine of ten
        rows.append(row(place, source=source, x=place))
    found = judged(guards, rows)
    assert set(found.values()) == {OVER_BUDGET}
    kept = Counter(one.source for one in rows if one.position not in found)
    assert kept["staff"] == 300 and 0.4 < kept["bot"] / sum(kept.values()) < 0.6
    none = Guards(**NOTHING, budget={"bot": 0.0})  # type: ignore[arg-type]
    assert len(judged(none, rows)) == 2700


def test_a_liar_is_found_among_the_last_labels() -> None:
    drawn = [one for one, _ in slice_of(np.random.default_rng(0), 500, 0.2)]
    order = np.random.default_rng(1).permutation(len(drawn))[:WINDOW].tolist()
    rows = [replace(drawn[at], position=place) for place, at in enumerate(order, start=1)]
    watch, guards = Watch(0), Guards(duplicates=False, spread=None)
    watch.judge(guards, rows, WINDOW)
    assert set(watch.suspects(guards)) == {LIAR}
    assert not watch.suspects(Guards(noise=False))


@pytest.mark.parametrize("start", [1, 99, 2150, 2400, 4321, 4400])
def test_verdicts_follow_from_the_log_alone(start: int) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for place in range(1, 5001):
        x = float(generator.normal() * (1e7 if generator.random() < 0.004 else 1.0))
        output = {"value": 0, "probabilities": {"0": 1 - 1e-8, "1": 1e-8}}
        value = int(generator.random() < 0.002)
        source = str(generator.choice(["a", "b", "c"], p=[0.8, 0.15, 0.05]))
        again = rows[-30] if place > 60 and generator.random() < 0.01 else None
        made = row(place, value, output, source, x=x, n=place % 977)
        rows.append(made if again is None else replace(again, position=place))
    guards = Guards(budget=0.6)
    whole = Watch(0)
    expected = whole.judge(guards, rows, 5000)
    assert {OUT_OF_RANGE, TWICE, OVER_BUDGET, OUTLIER} <= {
        v.split(":")[0] for v in expected.values()
    }
    begin = Watch.begin(start)
    watch = Watch(begin)
    watch.judge(guards, rows[begin:start], start)
    found: dict[int, str] = {}
    for first in range(start, 5000, 613):
        last = min(5000, first + 613)
        found |= watch.judge(guards, rows[first:last], last)
    assert found == {place: why for place, why in expected.items() if place > start}
    assert dict(watch.suspects(guards)) == dict(whole.suspects(guards))
