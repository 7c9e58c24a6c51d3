"""A record for each version has the same figures as the whole matrix R, and merges periods."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import Batch, Json
from everlearn.evaluation.holdouts import HoldOuts, Period
from everlearn.evaluation.period_scores import churn_of, figures, lost, matrix, period_scores
from everlearn.evaluation.transfer import TransferMatrix


def batch(rows: int, seed: int) -> Batch:
    generator = np.random.default_rng(seed)
    return Batch(
        numbers=np.zeros((rows, 1)),
        categories=np.zeros((rows, 0), np.uint64),
        times=np.zeros((rows, 0), np.int64),
        y=np.zeros(rows),
        ids=generator.integers(0, 2**62, rows).astype(np.uint64),
    )


def period(first: int, last: int, rows: int = 10) -> Period:
    return Period.of(first, last, batch(rows, first * 100 + last))


def scored(now: float, before: float | None = None) -> Json:
    found: Json = {"candidate": {"log_loss": now, "accuracy": 1.0 - now}}
    if before is not None:
        found["champion"] = {"log_loss": before, "accuracy": 1.0 - before}
    return found


def lineage_of(r: np.ndarray, untrained: np.ndarray) -> list[Json]:
    """The records of versions with these scores, of periods that are never merged."""
    records: list[Json] = []
    for i in range(len(r)):
        judged = [scored(r[i, j], r[i - 1, j] if i else None) for j in range(i + 1)]
        records.append(
            period_scores(
                [period(j + 1, j + 1) for j in range(i + 1)],
                judged,
                previous=records[-1] if records else None,
                own=i + 1,
                untrained={"log_loss": untrained[i], "accuracy": 1.0 - untrained[i]},
            )
        )
    return records


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**31))
def test_figures_are_those_of_the_whole_matrix(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    r, untrained = generator.random((size, size)), generator.random(size)
    records = lineage_of(r, untrained)
    for metric, scores in (("log_loss", r), ("accuracy", 1.0 - r)):
        whole = TransferMatrix(greater_is_better=metric == "accuracy")
        for i in range(size):
            for j in range(size):
                whole.put(i, j, scores[i, j])
            whole.put_untrained(i, untrained[i] if metric == "log_loss" else 1.0 - untrained[i])
        expected = whole.figures().to_json()
        expected.pop("intransigence")
        found = figures(records[-1], metric)
        assert found.pop("intransigence") is None
        assert found == pytest.approx(expected)
        shown = matrix(records, metric)
        below = np.tril_indices(size)
        assert shown[below] == pytest.approx(scores[below])
        assert np.diagonal(shown, 1) == pytest.approx(np.diagonal(scores, 1))


def test_a_merged_period_has_the_mean_of_its_parts() -> None:
    first = period_scores([period(1, 1, 10)], [scored(0.2)], own=1)
    second = period_scores(
        [period(1, 1, 10), period(2, 2, 30)], [scored(0.3, 0.2), scored(0.1, 0.6)],
        previous=first, own=2,
    )  # fmt: skip
    third = period_scores(
        [period(1, 2, 40), period(3, 3, 5)], [scored(0.4, 0.15), scored(0.2, 0.3)],
        previous=second, own=3,
    )  # fmt: skip
    merged = third["periods"][0]["log_loss"]
    assert merged["after"] == pytest.approx((0.2 * 10 + 0.1 * 30) / 40)
    assert merged["best"] == pytest.approx((0.2 * 10 + 0.1 * 30) / 40)
    assert merged["before"] is None  # the first period had none
    assert merged["now"] == 0.4
    assert lost(third["periods"][0], "log_loss") == pytest.approx(0.4 - 0.125)
    shown = matrix([first, second, third], "log_loss")
    assert shown[1].tolist() == pytest.approx([(0.3 * 10 + 0.1 * 30) / 40, 0.3])


def test_periods_of_refused_candidates_are_not_forgotten() -> None:
    first = period_scores([period(1, 1)], [scored(0.2)], own=1)
    later = period_scores(
        [period(1, 1), period(2, 2), period(3, 3)],
        [scored(0.2, 0.2), scored(0.9, 0.9), scored(0.1, 0.3)],
        previous=first,
        own=3,
    )
    assert [one["learned"] for one in later["periods"]] == [True, False, True]
    assert figures(later, "log_loss")["periods"] == 2
    assert figures(later, "log_loss")["average_score"] == pytest.approx(0.15)
    assert lost(later["periods"][1], "log_loss") is None


def test_what_was_learned_without_a_record_counts_from_now_on() -> None:
    first = period_scores([period(1, 1)], [scored(0.2)], own=1)
    ages = [period(1, 1), period(2, 2), period(3, 3)]
    judged = [scored(0.2, 0.2), scored(0.4, 0.4), scored(0.1, 0.3)]
    later = period_scores(ages, judged, previous=first, own=3, unrecorded=True)
    assert [one["learned"] for one in later["periods"]] == [True, True, True]
    assert lost(later["periods"][1], "log_loss") is None
    judged = [scored(0.2, 0.2), scored(0.5, 0.4), scored(0.1, 0.1)]
    last = period_scores(ages, judged, previous=later)
    assert lost(last["periods"][1], "log_loss") == pytest.approx(0.1)


def test_intransigence_is_against_the_last_full_retraining() -> None:
    records = lineage_of(np.array([[0.3, 0.9], [0.4, 0.2]]), np.array([0.7, 0.7]))
    judged = [scored(0.1, 0.4), scored(0.15, 0.2), scored(0.3, 0.5)]
    ages = [period(1, 1), period(2, 2), period(3, 3)]
    full = period_scores(ages, judged, previous=records[-1], own=3, retrained=True)
    expected = ((0.3 - 0.1) + (0.2 - 0.15) + 0.0) / 3
    assert figures(full, "log_loss")["intransigence"] == pytest.approx(expected)
    judged = [scored(0.2, 0.1), scored(0.2, 0.2), scored(0.3, 0.5)]
    after = period_scores(ages, judged, previous=full)
    assert figures(after, "log_loss")["intransigence"] == pytest.approx(expected)


def test_scores_that_are_not_finite_are_left_out() -> None:
    first = period_scores([period(1, 1)], [{"candidate": {"mse": None, "mae": 2.0}}], own=1)
    assert first["metrics"] == ["mse", "mae"]
    assert figures(first, "mse")["average_score"] is None
    assert figures(first, "mae")["average_score"] == 2.0


def test_periods_of_real_holdouts_are_found_again() -> None:
    """However they are merged: 40 increments in at most 6 periods."""
    holdouts, previous = HoldOuts(periods=6), None
    for number in range(1, 41):
        holdouts.add(batch(20, number))
        holdouts.settle()
        ages = holdouts.periods
        judged = [scored(0.1 * one.first, 0.5) for one in ages]
        record = period_scores(ages, judged, previous=previous, own=holdouts.increments)
        assert all(one["learned"] for one in record["periods"])
        assert [one["new"] for one in record["periods"]][:-1] == [False] * (len(ages) - 1)
        previous = record
    assert len(record["periods"]) == 6
    assert record["periods"][-1]["first"] == 40


def test_churn_is_that_of_all_rows() -> None:
    parts = {
        "recent": {"churn": {"rows": 10, "churn": 0.5, "negative_flip_rate": 0.1,
                             "positive_flip_rate": 0.2, "mean_change": None}},
        "historical": {"churn": {"rows": 30, "churn": 0.1, "negative_flip_rate": 0.0,
                                 "positive_flip_rate": 0.1, "mean_change": None}},
    }  # fmt: skip
    found = churn_of(parts)
    assert found["rows"] == 40
    assert found["churn"] == pytest.approx(0.2)
    assert found["negative_flip_rate"] == pytest.approx(0.025)
    assert found["mean_change"] is None
    assert churn_of({"recent": {"rows": 3}}) is None
