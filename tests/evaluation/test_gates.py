"""The gate lets through what is as good, refuses what is worse, and refuses when in doubt."""

import json

import numpy as np
import pytest

from everlearn.base import Decision, Part, Prediction, SpecError
from everlearn.evaluation.comparison import compare_losses
from everlearn.evaluation.gates import NonInferior, parts_not_finite, try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.slices import Slice
from everlearn.evaluation.trial import evaluate
from tests.evaluation.rows import COLUMNS, Linear, Logistic, rows

GOOD = Logistic([2.0, -1.0])
AS_GOOD = Logistic([1.95, -1.02])
BAD = Logistic([0.2, 0.3])
CLASSIFIER_METRICS = ("log_loss", "accuracy", "brier", "roc_auc")


def holdouts(*sizes, **options):
    held = HoldOuts(recent_rows=100)
    for number, n in enumerate(sizes):
        held.add(rows(n, seed=number, start=number * 10_000, **options))
        held.settle()
    return held


HELD = holdouts(400, 400, 1_500)


@pytest.mark.parametrize("metric", CLASSIFIER_METRICS)
def test_as_good_passes_and_worse_is_refused(metric):
    gate = NonInferior(metric, margin=0.03, historical=0.05)
    passed = try_candidate(AS_GOOD, GOOD, HELD, gate)
    assert passed.action == "pass"
    assert "within the margin of 0.03" in passed.reason
    refused = try_candidate(BAD, GOOD, HELD, gate)
    assert refused.action == "refuse"
    assert "the margin is 0.03" in refused.reason
    assert [check["on"] for check in refused.evidence["checks"]] == ["recent", "historical"]
    assert try_candidate(GOOD, BAD, HELD, gate).action == "pass"


@pytest.mark.parametrize("metric", ["mae", "rmse", "mse"])
def test_regressors(metric):
    gate = NonInferior(metric, margin=0.05)
    good, bad = Linear([0.4, -0.2]), Linear([-0.3, 0.9])
    assert try_candidate(Linear([0.41, -0.2]), good, HELD, gate).action == "pass"
    refused = try_candidate(bad, good, HELD, gate)
    assert refused.action == "refuse"
    check = refused.evidence["checks"][0]
    both = [evaluate(model, HELD.recent) for model in (bad, good)]
    if metric != "mse":
        assert check["candidate"] == pytest.approx(both[0][metric])
        assert check["champion"] == pytest.approx(both[1][metric])
    assert check["worse_by"]["mean"] == pytest.approx(check["candidate"] - check["champion"])
    changed = refused.evidence["recent"]["churn"]
    assert changed["mean_change"] > 0


def test_first_version_must_not_be_below_the_best_constant_answer():
    for metric in CLASSIFIER_METRICS:
        passed = try_candidate(GOOD, None, HELD, NonInferior(metric))
        assert passed.action == "pass", metric
        assert "first version" in passed.reason
        inverted = Logistic([-2.0, 1.0])
        refused = try_candidate(inverted, None, HELD, NonInferior(metric))
        assert refused.action == "refuse"
        assert "worse than the best constant answer" in refused.reason
    regressor = NonInferior("rmse")
    centred = HoldOuts()
    batch = rows(500)
    centred.add(batch.with_y(batch.numbers @ [0.4, -0.2]))
    assert try_candidate(Linear([0.4, -0.2]), None, centred, regressor).action == "pass"
    assert try_candidate(Linear([-0.4, 0.2]), None, centred, regressor).action == "refuse"
    absolute = NonInferior("mae")
    assert try_candidate(Linear([0.4, -0.2]), None, centred, absolute).action == "pass"


def test_too_few_rows_are_refused():
    for champion in (GOOD, None):
        decision = try_candidate(GOOD, champion, holdouts(29), NonInferior("log_loss"))
        assert decision.action == "refuse"
        assert "29 recent hold-out rows are too few" in decision.reason
        nothing = try_candidate(GOOD, champion, HoldOuts(), NonInferior("log_loss"))
        assert nothing.action == "refuse"
        assert "0 recent hold-out rows" in nothing.reason
    assert try_candidate(GOOD, GOOD, holdouts(30), NonInferior("log_loss")).action == "pass"


def test_models_that_agree_on_few_rows_may_differ_on_others():
    """With no row on which they differ, the difference of accuracies still has a variance."""
    gate = NonInferior("accuracy", margin=0.01)
    few = try_candidate(GOOD, GOOD, holdouts(60), gate)
    assert few.action == "refuse"
    assert "worse by at most 0.02" in few.reason
    assert try_candidate(GOOD, GOOD, holdouts(300), gate).action == "pass"
    generator = np.random.default_rng(0)
    passed = 0
    for _ in range(400):  # the candidate is wrong on 2 % more
        mine = (generator.random(60) < 0.02).astype(float)
        passed += compare_losses("accuracy", mine, np.zeros(60), level=0.95).worse.high <= 0.01
    assert passed / 400 < 0.05


def test_an_area_is_not_judged_on_a_handful_of_positives():
    """The variance of one positive row's share is unknown, not 0."""
    batch = rows(800)
    late = np.flatnonzero(batch.y == 1)
    for positives in (1, 9, 10):
        held = HoldOuts()
        held.add(batch.take(np.sort(np.r_[np.flatnonzero(batch.y == 0), late[:positives]])))
        for champion in (GOOD, None):
            decision = try_candidate(GOOD, champion, held, NonInferior("roc_auc"))
            assert (decision.action == "pass") == (positives == 10)
            if positives < 10:
                assert f"{positives} recent hold-out rows of the rarer class" in decision.reason


def test_the_positive_class_is_the_last_in_order_in_any_code():
    for batch in (HELD.recent, rows(300, text=True)):
        values = sorted(set(batch.y.tolist()))
        one, other = (evaluate(Logistic([2.0, -1.0], v), batch) for v in (values, values[::-1]))
        assert one["pr_auc"] == pytest.approx(other["pr_auc"], abs=1e-12)
    decision = try_candidate(Logistic([2.0, -1.0], [1.0, 0.0]), GOOD, HELD)
    recent = decision.evidence["recent"]
    assert recent["candidate"]["pr_auc"] == pytest.approx(recent["champion"]["pr_auc"], abs=1e-12)


@pytest.mark.parametrize("gate", [NonInferior("log_loss"), NonInferior("accuracy"), None])
def test_answers_that_are_not_finite_are_refused(gate):
    broken = Logistic([np.nan, 1.0])
    for champion in (GOOD, None):
        decision = try_candidate(broken, champion, HELD, gate)
        assert decision.action == "refuse"
        assert "candidate gives answers that are not finite" in decision.reason
        json.dumps(decision.to_json(), allow_nan=False)
    if gate is not None:
        by_champion = try_candidate(GOOD, broken, HELD, gate)
        assert by_champion.action == "refuse"
        assert "champion gives answers that are not finite" in by_champion.reason


@pytest.mark.parametrize("weights", [[np.inf, 1.0], [1e300, 1e300], [np.nan, np.nan]])
def test_diverged_regressors_are_refused_quietly(weights):
    for gate in (NonInferior("rmse"), None):
        decision = try_candidate(Linear(weights), Linear([0.1, 0.1]), HELD, gate)
        json.dumps(decision.to_json(), allow_nan=False)
        if gate is not None:
            assert decision.action == "refuse"


def test_without_a_gate_every_finite_candidate_passes():
    assert try_candidate(BAD, GOOD, HELD).action == "pass"
    assert "no hold-out rows" in try_candidate(BAD, GOOD, HoldOuts()).reason


def test_historical_rows_are_only_reported_unless_a_margin_is_given():
    held = HoldOuts(recent_rows=100)
    old = rows(800, seed=1)
    held.add(old.with_y(1.0 - old.y))
    held.settle()
    held.add(rows(800, seed=2, start=10_000))
    held.settle()
    champion = Logistic([0.0, 0.0])
    reported = try_candidate(GOOD, champion, held, NonInferior("log_loss"))
    assert reported.action == "pass"
    assert reported.evidence["historical"]["candidate"]["log_loss"] > 0.9
    judged = try_candidate(GOOD, champion, held, NonInferior("log_loss", historical=0.05))
    assert judged.action == "refuse"
    assert "historical rows" in judged.reason


def test_too_few_historical_rows_are_judged_with_the_recent_ones():
    held = holdouts(12, 500)
    decision = try_candidate(AS_GOOD, GOOD, held, NonInferior("log_loss", 0.05, historical=0.05))
    assert decision.action == "pass"
    assert decision.evidence["checks"][1]["on"] == "recent and historical"
    assert decision.evidence["checks"][1]["rows"] == 512


def test_a_slice_that_became_worse_refuses():
    held = holdouts(3_000)
    night = Slice("high a", column="a", above=1.2)
    gate = NonInferior("log_loss", margin=0.03, slices=(night,))

    class WorseThere(Logistic):
        def predict(self, batch):
            found = super().predict(batch)
            there = batch.numbers[:, 0] > 1.2
            return Prediction(
                value=np.where(there, 0, found.value),
                proba=np.where(there[:, None], [0.7, 0.3], found.proba),
            )

    bad = WorseThere([2.0, -1.0])
    assert try_candidate(AS_GOOD, GOOD, held, gate, columns=COLUMNS).action == "pass"
    refused = try_candidate(bad, GOOD, held, gate, columns=COLUMNS)
    assert refused.action == "refuse"
    assert "high a rows" in refused.reason
    unknown = try_candidate(AS_GOOD, GOOD, held, gate)
    assert unknown.action == "refuse"
    assert "names of their columns are not known" in unknown.reason
    lost = NonInferior("log_loss", margin=1.0, slices=(Slice("x", column="zzz", equals=1),))
    assert "zzz" in try_candidate(AS_GOOD, GOOD, held, lost, columns=COLUMNS).reason
    rare = NonInferior("log_loss", margin=1.0, slices=(Slice("rare", column="a", above=3.0),))
    own = Logistic([2.0, -1.0], columns=COLUMNS)
    assert "too few" in try_candidate(own, GOOD, held, rare).reason
    assert try_candidate(own, None, held, rare).action == "pass"


def test_evidence_has_all_figures_and_is_json():
    decision = try_candidate(AS_GOOD, GOOD, HELD, NonInferior("log_loss"))
    assert (
        Decision.from_json(json.loads(json.dumps(decision.to_json(), allow_nan=False))) == decision
    )
    evidence = decision.evidence
    assert evidence["rows"] == 2_300
    for part, n in (("recent", 1_500), ("historical", 800)):
        figures = evidence[part]
        assert figures["rows"] == n
        assert figures["baselines"]["majority"]["accuracy"] >= 0.5
        assert figures["churn"]["negative_flip_rate"] <= figures["churn"]["churn"] < 0.1
        for who in ("candidate", "champion"):
            assert figures[who]["rows"] == n
            assert figures[who]["roc_auc"] > 0.8
    periods = evidence["periods"]
    assert [period["rows"] for period in periods] == [400, 400, 1_500]
    last = evaluate(AS_GOOD, HELD.recent)
    assert periods[-1]["candidate"]["log_loss"] == pytest.approx(last["log_loss"])
    assert periods[-1]["candidate"]["accuracy"] == pytest.approx(last["accuracy"])


def test_models_that_code_classes_differently_are_compared_by_value():
    held = holdouts(800, text=True)
    plain = Logistic([2.0, -1.0], values=("no", "yes"))
    turned = Logistic([2.0, -1.0], values=("yes", "maybe", "no"))
    decision = try_candidate(turned, plain, held, NonInferior("log_loss", margin=0.0))
    assert decision.action == "pass"
    assert decision.evidence["recent"]["churn"]["churn"] == 0.0
    opposite = Logistic([-2.0, 1.0], values=("yes", "no"))
    changed = try_candidate(opposite, plain, held).evidence["recent"]["churn"]
    assert changed["churn"] == 1.0
    assert changed["negative_flip_rate"] == pytest.approx(evaluate(plain, held)["accuracy"])


def test_metrics_that_do_not_fit_the_learner_refuse():
    decision = try_candidate(Linear([1.0, 0.0]), None, HELD, NonInferior("log_loss"))
    assert decision.action == "refuse"
    assert "mae" in decision.reason

    class Hard(Logistic):
        def predict(self, batch):
            return Prediction(value=super().predict(batch).value)

    hard = Hard([2.0, -1.0])
    decision = try_candidate(hard, hard, HELD, NonInferior("log_loss"))
    assert decision.action == "refuse"
    assert "use 'accuracy'" in decision.reason
    assert try_candidate(hard, hard, HELD, NonInferior("accuracy")).action == "pass"


def test_transformers_and_clusterers():
    class Errors(Linear):
        kind = "transformer"

        def predict(self, batch):
            return Prediction(value=np.abs(batch.numbers @ self.weights))

    held = HoldOuts()
    held.add(rows(200).with_y(None))
    gate = NonInferior("reconstruction_error", margin=0.1)
    assert try_candidate(Errors([0.1, 0.1]), Errors([0.2, 0.2]), held, gate).action == "pass"
    assert try_candidate(Errors([2.0, 2.0]), Errors([0.2, 0.2]), held, gate).action == "refuse"
    assert try_candidate(Errors([0.1, 0.1]), None, held, gate).action == "pass"
    assert "finite" in try_candidate(Errors([np.nan, 0.1]), None, held, gate).reason

    class Groups(Linear):
        kind = "clusterer"

        def predict(self, batch):
            return Prediction(value=(batch.numbers[:, 0] > 0).astype(np.int64))

    passed = try_candidate(Groups([0, 0]), Groups([0, 0]), held)
    assert passed.action == "pass"
    assert passed.evidence["recent"]["candidate"]["clusters"] == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metric": "kappa"}, "row by row, which 'kappa' does not allow; use one of log_loss"),
        ({"metric": "mae", "margin": -1}, "margin"),
        ({"metric": "mae", "margin": float("nan")}, "margin"),
        ({"metric": "mae", "historical": float("inf")}, "historical"),
        ({"metric": "mae", "level": 0.5}, "level"),
        ({"metric": "mae", "minimum": 1}, "minimum"),
        ({"metric": "mae", "slices": ("JFK",)}, "everlearn.Slice"),
    ],
)
def test_wrong_definitions(wrong, message):
    with pytest.raises(SpecError, match=message):
        NonInferior(**wrong)


def test_gates_are_definitions():
    gate = NonInferior("log_loss", slices=[Slice("JFK", column="origin", equals="JFK")])
    assert gate == NonInferior("log_loss", slices=(Slice("JFK", column="origin", equals="JFK"),))
    assert hash(gate)


def test_error_rates_of_the_gate():
    """A candidate exactly at the margin passes in at most 5 % of trials; an equal one in most."""
    rng = np.random.default_rng(0)
    gate, at_margin, equal = NonInferior("mae", margin=0.05), 0, 0
    for seed in range(300):
        held = HoldOuts()
        batch = rows(300, seed=seed, key=False)
        held.add(batch.with_y(batch.numbers @ [1.0, 1.0]))

        class Noisy(Linear):
            extra, noise = 0.0, rng.normal(size=300)

            def predict(self, batch):
                exact = super().predict(batch).value
                return Prediction(value=exact + 1.0 + self.extra + 0.2 * self.noise)

        champion, twin, worse = Noisy([1.0, 1.0]), Noisy([1.0, 1.0]), Noisy([1.0, 1.0])
        twin.noise, worse.noise = rng.normal(size=300), rng.normal(size=300)
        worse.extra = 0.05
        equal += try_candidate(twin, champion, held, gate).action == "pass"
        at_margin += try_candidate(worse, champion, held, gate).action == "pass"
    assert at_margin / 300 < 0.08
    assert equal / 300 > 0.85


def test_diverged_parts_are_named():
    state = {
        "learner/0": Part({"coef": np.array([1.0, np.inf])}),
        "learner/1": Part({"count": np.array([3])}),
        "memory/rows": Part({"numbers": np.array([np.nan])}),
    }
    assert parts_not_finite(state) == ["learner/0"]


def test_evaluate_hold_outs_and_batches():
    assert evaluate(GOOD, HoldOuts())["rows"] == 0
    assert evaluate(GOOD, HELD)["rows"] == 2_300
    assert evaluate(GOOD, rows(0))["rows"] == 0
