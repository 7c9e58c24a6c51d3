"""The advice says what the figures say, and no more."""

from dataclasses import replace

import numpy as np
import pytest

from everlearn.compare.advice import advise, choose
from everlearn.compare.results import Hindsight, Results
from everlearn.compare.scores import Score, wait_in_words
from everlearn.evaluation.intervals import Interval


def score(
    name: str,
    loss: float,
    cpu: float,
    behind: tuple[float, float] | None = None,
    *,
    is_job: bool = True,
    auc: float = 0.7,
) -> Score:
    """A score that is `behind` (mean, reach of the interval) the best."""
    made = Score(name, f"words of {name}", is_job, 1_000, {"log_loss": loss, "roc_auc": auc}, {})
    made.cpu_seconds = cpu
    if behind is not None:
        mean, reach = behind
        made.behind = Interval(mean, mean - reach, mean + reach, 1_000, 50, reach / 2)
    return made


def results(*scores: Score, floor: float = 0.6) -> Results:
    best = min(scores, key=lambda item: item.metrics["log_loss"] or 0.0).name
    made = Results(
        scores=list(scores),
        best=best,
        choice=best,
        advice=[],
        metric="log_loss",
        kind="classifier",
        unit="time",
        starts=np.array([0]),
        rows_in_period=np.array([1_000]),
        baselines={"majority": {"log_loss": floor, "accuracy": 0.7}, "no_change": {}},
        settings={},
    )
    made.choice = choose(made)
    return made


def test_the_best_is_chosen_where_nothing_cheaper_comes_near() -> None:
    found = results(score("online", 0.5, 5.0), score("batch", 0.55, 1.0, (0.05, 0.02)))
    assert found.choice == "online"
    assert "no cheaper strategy comes near it" in advise(found)[0]


def test_the_cheapest_of_those_that_are_as_good_is_chosen() -> None:
    found = results(
        score("hybrid", 0.5, 20.0),
        score("replay", 0.501, 1.0, (0.001, 0.0005)),
        score("incremental", 0.505, 0.5, (0.005, 0.01)),
    )
    assert found.choice == "incremental"
    assert "within chance" in advise(found)[0] and "40.0 times less" in advise(found)[0]


def test_a_wide_interval_is_no_reason_to_choose_what_is_worse() -> None:
    found = results(score("incremental", 0.5, 5.0), score("never", 0.58, 0.1, (0.08, 0.2)))
    assert found.choice == "incremental"
    assert any("too short to be sure" in sentence for sentence in advise(found))


def test_that_retraining_is_not_needed_is_said() -> None:
    found = results(score("batch", 0.5, 5.0), score("never", 0.5001, 0.1, (0.0001, 0.001)))
    assert found.choice == "never"
    assert any("never retrained is next to as good" in sentence for sentence in advise(found))
    alone = results(score("never", 0.5, 0.1), score("batch", 0.51, 5.0, (0.01, 0.001)))
    assert any("nothing in this history" in sentence for sentence in advise(alone))


def test_a_service_is_not_for_everybody() -> None:
    found = results(
        score("online", 0.5, 5.0, is_job=False),
        replace(score("replay", 0.55, 1.0, (0.05, 0.01)), code="Strategy(memory=…)"),
        score("batch", 0.56, 9.0, (0.06, 0.01)),
    )
    said = advise(found)
    assert any("With jobs on a schedule, choose replay" in sentence for sentence in said)
    assert said[-1].endswith("strategy=Strategy(memory=…).")
    assert found.best_job == "replay"


def test_what_is_no_better_than_no_model_is_said() -> None:
    batch = score("batch", 0.61, 1.0, auc=0.51)
    found = results(batch, score("window", 0.62, 0.1, (0.01, 0.02)))
    assert found.choice == "batch"
    assert advise(found)[0].startswith("No strategy is worth its cost")
    assert advise(found)[0].endswith("Look for better columns, more rows or another learner first.")
    batch.metrics["roc_auc"] = 0.6
    assert "It does rank (ROC AUC 0.6000)" in advise(found)[0]


def test_that_the_last_label_is_a_better_answer_is_said() -> None:
    found = results(score("batch", 0.5, 1.0))
    found.scores[0].metrics["accuracy"] = 0.8
    assert not any("became known last" in sentence for sentence in advise(found))
    found.baselines["no_change"]["accuracy"] = 0.85
    assert any("became known last" in sentence for sentence in advise(found))


def test_what_is_too_good_is_doubted() -> None:
    found = results(score("batch", 0.01, 1.0, auc=0.999), score("never", 0.3, 1.0, (0.29, 0.01)))
    assert any("suspiciously good" in sentence for sentence in advise(found))


def test_a_learner_that_diverged_is_named_and_not_chosen() -> None:
    broken = replace(score("online", 0.2, 0.1), finite=False)
    found = results(broken, score("batch", 0.5, 1.0, (0.3, 0.1)))
    assert found.choice == "batch"
    assert any(sentence.startswith("online answered") for sentence in advise(found))


def test_with_prices_the_cheapest_in_all_is_chosen() -> None:
    dear, cheap = score("online", 0.5, 9.0), score("never", 0.55, 0.1, (0.05, 0.01))
    dear.cost = {"cpu": 30.0, "errors": 70.0, "total": 100.0}
    cheap.cost = {"cpu": 0.1, "errors": 99.6, "total": 99.7}
    found = results(dear, cheap)
    assert found.choice == "never"
    assert "online costs next to the same (100.00)" in advise(found)[0]
    found.hindsight = Hindsight(80.0, (0, 5), 95.0, 99.7)
    assert any("2 of them and costs 80.00" in sentence for sentence in advise(found))


@pytest.mark.parametrize(
    ("wait", "unit", "words"),
    [
        (None, "time", "–"),
        (1_800_000_000, "time", "30 min"),
        (3_600_000_000 * 5.25, "time", "5.2 h"),
        (3_600_000_000 * 72, "time", "3.0 d"),
        (1234.0, "rows", "1,234 rows"),
    ],
)
def test_waits_are_written_for_people(wait: float | None, unit: str, words: str) -> None:
    assert wait_in_words(wait, unit) == words


def test_never_is_not_advised_and_warned_of_at_once() -> None:
    close = results(score("batch", 0.5, 9.0), score("never", 0.5005, 0.1, (0.0005, 0.0001)))
    assert close.choice == "never"
    assert "next to nothing" in advise(close)[1]
    dear = results(
        priced(score("batch", 0.5, 9.0), 9.0), priced(score("never", 0.55, 0.1, (0.05, 0.01)), 1.0)
    )
    assert dear.choice == "never"
    assert "at your prices is less than updates do" in advise(dear)[1]


def priced(made: Score, total: float) -> Score:
    made.cost = {"cpu": total, "errors": 0.0, "total": total}
    return made


def test_with_prices_a_strategy_is_held_against_what_errors_without_a_model_cost() -> None:
    made = priced(score("batch", 0.9, 1.0), 60.0)
    made.metrics["accuracy"] = 0.8
    made.cost = {"cpu": 10.0, "errors": 50.0, "total": 60.0}
    worth = results(made)  # majority: 0.3 wrong instead of 0.2, so 75
    assert not any("No strategy is worth" in sentence for sentence in advise(worth))
    made.cost = {"cpu": 30.0, "errors": 50.0, "total": 80.0}
    assert advise(results(made))[0].endswith(
        "costs 80.00, and majority, which needs no model, 75.00."
    )


def test_few_answers_are_said_to_be_few() -> None:
    made = score("batch", 0.5, 1.0)
    made.rows = 10
    assert advise(results(made))[0].startswith("Only 10 answers were scored")
