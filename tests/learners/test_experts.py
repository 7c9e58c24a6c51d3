"""Prediction with expert advice: the theory's bounds, and what it is to be a learner."""

import doctest
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier

from everlearn.base import InputError, Part, SpecError, state_digest
from everlearn.learners import Chain, Encoder, as_learner, learner_kind
from everlearn.learners.native import experts as module
from everlearn.learners.native.baselines import LastValue, Majority, NoChange, RunningMean
from everlearn.learners.native.experts import Experts
from everlearn.learners.native.linear import LogisticRegression
from everlearn.learners.native.mixing import mix_classes, mix_values, temper, waves_of
from everlearn.learners.native.rows import rows_of_batch
from everlearn.testing.learner import COLUMNS, LearnerSuite, copied, make_rows

EVERY_ROW = np.empty(0)


def even(*shape):
    return np.full(shape, 1.0 / math.prod(shape))


def mixed_classes(advice, y, *shares, rate=1.0, weight=EVERY_ROW):
    """What the experts answer together, and their weights."""
    weights = even(len(shares), len(advice))
    room, out = np.empty((2, len(advice))), np.zeros(advice.shape[1:])
    mix_classes(advice, y, weight, rate, np.array(shares), weights, room, out)
    return out, weights.sum(axis=0)


def mixed_values(advice, y, *shares, rate=0.0):
    weights, above = even(len(shares), len(advice)), np.zeros(1)
    room, out = np.empty((2, len(advice))), np.zeros((len(y), 1))
    state = (weights, np.log(weights), above, room)
    mix_values(advice[:, :, None], y, EVERY_ROW, rate, np.array(shares), *state, out)
    return out[:, 0], weights.sum(axis=0), above[0]


# --- the bounds --------------------------------------------------------------------------------


@st.composite
def advised_classes(draw):
    """Probabilities of some experts, and classes that are as bad for them as can be."""
    experts, rows, classes = draw(st.integers(1, 6)), draw(st.integers(1, 200)), 3
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    sharpness = draw(st.sampled_from([0.1, 1.0, 30.0]))
    scores = sharpness * generator.normal(size=(experts, rows, classes))
    advice = np.exp(scores - scores.max(axis=2, keepdims=True))
    advice = 1e-9 + (1 - 3e-9) * advice / advice.sum(axis=2, keepdims=True)
    how = draw(st.sampled_from(["random", "against the first", "against all"]))
    y = generator.integers(0, classes, rows)
    if how == "against the first":
        y = advice[0].argmin(axis=1)
    elif how == "against all":
        y = advice.sum(axis=0).argmin(axis=1)
    return advice, y.astype(np.int64)


def log_losses(advice, y):
    chances = np.take_along_axis(advice, y[None, :, None], axis=2)[:, :, 0]
    return -np.log(chances)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(advised_classes(), st.sampled_from([1.0, 0.5, 0.1]))
def test_log_loss_is_at_most_log_n_above_the_best_expert(case, rate):
    """Vovk 1990; Cesa-Bianchi & Lugosi 2006, proposition 3.1 and section 3.3."""
    advice, y = case
    out, _ = mixed_classes(advice, y, 0.0, rate=rate)
    losses = log_losses(advice, y).sum(axis=1)
    together = log_losses(out[None], y).sum()
    assert together <= losses.min() + math.log(len(advice)) / rate + 1e-6


@settings(deadline=None, max_examples=100, derandomize=True)
@given(advised_classes(), st.sampled_from([1e-4, 0.01, 0.3]), st.integers(0, 4))
def test_log_loss_is_near_that_of_any_sequence_of_experts(case, share, changes):
    """Herbster & Warmuth 1998, theorem 1, with α spread over all experts."""
    advice, y = case
    experts, rows = advice.shape[:2]
    out, _ = mixed_classes(advice, y, share)
    losses = log_losses(advice, y)
    ends = np.linspace(0, rows, changes + 2).round().astype(int)
    parts = [losses[:, a:b].sum(axis=1).min() for a, b in pairwise(ends)]
    bound = sum(parts) + math.log(experts) - changes * math.log(share / experts)
    bound -= (rows - 1 - changes) * math.log(1 - share + share / experts)
    assert log_losses(out[None], y).sum() <= max(bound, sum(parts) + math.log(experts)) + 1e-6


@settings(deadline=None, max_examples=100, derandomize=True)
@given(advised_classes(), st.lists(st.sampled_from([0.0, 1e-4, 0.01, 0.3]), min_size=1, max_size=4))
def test_log_loss_is_at_most_log_a_above_that_of_the_best_share(case, shares):
    """Monteleoni & Jaakkola 2003, section 4."""
    advice, y = case
    alone = [log_losses(mixed_classes(advice, y, share)[0][None], y).sum() for share in shares]
    together = log_losses(mixed_classes(advice, y, *shares)[0][None], y).sum()
    assert together <= min(alone) + math.log(len(shares)) + 1e-6


@st.composite
def advised_values(draw):
    experts, rows = draw(st.integers(2, 6)), draw(st.integers(1, 200))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    advice = generator.uniform(-1, 1, size=(experts, rows))
    if draw(st.booleans()):
        advice = np.sign(advice)
    how = draw(st.sampled_from(["random", "against the first", "against all", "for the last"]))
    y = generator.uniform(-1, 1, rows)
    if how == "against the first":
        y = -np.sign(advice[0])
    elif how == "against all":
        y = -np.sign(advice.sum(axis=0) + 1e-9)
    elif how == "for the last":
        y = advice[-1] + 0.0
    sizes = draw(st.sampled_from([np.ones(rows), 10.0 ** generator.integers(-6, 1, rows)]))
    return advice * sizes, y * sizes, draw(st.sampled_from([1e-9, 1.0, 1e6]))


@settings(deadline=None, max_examples=200, derandomize=True)
@given(advised_values())
def test_squared_loss_is_at_most_a_constant_above_the_best_expert(case):
    """With η = ln N / Δ, the regret is at most 2 Δ (de Rooij et al. 2014, section 2.1); on [−1, 1],
    where η = 1/8 is small enough for Δ not to grow (Cesa-Bianchi & Lugosi 2006, section 3.3),
    Δ is at most 8 ln N plus one row's loss."""
    advice, y, scale = case
    out, _, above = mixed_values(advice * scale, y * scale, 0.0)
    best = ((y - advice) ** 2).sum(axis=1).min() * scale**2
    regret = ((y * scale - out) ** 2).sum() - best
    slack = 1e-9 * (best + scale**2)
    assert regret <= 2 * above + slack
    assert above <= (8 * math.log(len(advice)) + 4) * scale**2 * (1 + 1e-9)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(advised_values())
def test_squared_loss_with_a_given_rate(case):
    """Cesa-Bianchi & Lugosi 2006, proposition 3.1: squared loss on [−1, 1] is 1/8-exp-concave."""
    advice, y, _ = case
    out, _, _ = mixed_values(advice, y, 0.0, rate=0.125)
    best = ((y - advice) ** 2).sum(axis=1).min()
    assert ((y - out) ** 2).sum() <= best + 8 * math.log(len(advice)) + 1e-9


def test_the_unit_of_the_target_makes_no_difference():
    generator = np.random.default_rng(0)
    y = generator.normal(size=500)
    advice = y + generator.normal(size=(3, 500)) * [[0.1], [0.5], [1.0]]
    expected = mixed_values(advice, y, 1e-3, 0.1)[0]
    for scale in (2.0**-200, 2.0**80):
        found = mixed_values(advice * scale, y * scale, 1e-3, 0.1)[0]
        np.testing.assert_allclose(found / scale, expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_fixed_share_follows_a_switch(kind):
    """The best of two experts changes in the middle; without a share that costs as many rows as
    the past is long."""
    rows = 4_000
    right = np.arange(rows) < rows // 2
    if kind == "classes":
        good, bad = np.array([0.2, 0.8]), np.array([0.8, 0.2])
        first = np.where(right[:, None], good, bad)
        advice, y = np.array([first, first[:, ::-1]]), np.ones(rows, np.int64)
        weights = [
            [mixed_classes(advice[:, :n], y[:n], share)[1][1] for n in (2_000, 2_020)]
            for share in (0.0, 1e-3)
        ]
    else:
        noise = np.random.default_rng(0).normal(size=rows)
        advice = np.array([np.where(right, 0.0, 3.0), np.where(right, 3.0, 0.0)])
        weights = [
            [mixed_values(advice[:, :n], noise[:n], share)[1][1] for n in (2_000, 2_020)]
            for share in (0.0, 1e-3)
        ]
    still, followed = weights
    assert still[1] < 1e-6
    assert followed[0] < 0.01 < 0.9 < followed[1]


def test_without_a_row_in_which_they_differ_all_weigh_the_same():
    y = np.arange(10.0)
    advice = np.tile(y + 1.0, (3, 1))
    out, weights, above = mixed_values(advice, y, 0.01)
    np.testing.assert_allclose(out, y + 1.0)
    np.testing.assert_allclose(weights, 1 / 3)
    assert above == pytest.approx(0.0, abs=1e-12)


# --- an oracle ---------------------------------------------------------------------------------


def stream(rows=600, classes=2, seed=0):
    """Two columns, of which the first tells the class until it turns round in the middle."""
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, 2))
    sign = np.where(np.arange(rows) < rows // 2, 1.0, -1.0)
    return X, np.digitize(sign * X[:, 0], [-0.5, 0.5] if classes == 3 else [0.0]).astype(np.int64)


@pytest.mark.parametrize("share", [0.0, 0.02, None])
@pytest.mark.parametrize("rate", [None, 0.3])
def test_experts_are_mixed_as_in_the_book(share, rate):
    X, y = stream()
    weight = np.tile([1.0, 1.0, 0.0, 2.0], 150)
    made = [LogisticRegression(2), LogisticRegression(2, learning_rate=0.2)]
    experts = Experts(made, share=share, learning_rate=rate, classes=2)
    found = experts.score_then_learn(X, y, weight, proba=True)
    alone = [*made, Majority(2), NoChange(2)]
    advice = [one.clone().score_then_learn(X, y, weight, proba=True) for one in alone]
    advice += [tempered(one, y, weight) for one in advice]
    shares = [1e-4, 1e-3, 1e-2, 1e-1] if share is None else [share]
    belief = even(len(shares), 8)
    for row in range(len(y)):
        expected = sum(w * one[row] for w, one in zip(belief.sum(axis=0), advice, strict=True))
        np.testing.assert_allclose(found[row], expected, rtol=1e-9)
        if weight[row]:
            chances = np.array([one[row, y[row]] for one in advice])
            belief = belief * chances ** (weight[row] * (rate or 1.0))
            belief /= belief.sum()
            for own, part in zip(belief, shares, strict=True):
                own[:] = (1 - part) * own + part * own.sum() / 8
    expected = belief.sum(axis=0).reshape(2, 4).sum(axis=0)
    np.testing.assert_allclose(list(experts.weights_.values()), expected, rtol=1e-9)


def tempered(chances, y, weight):
    """Probabilities to a power that follows the gradient of their log loss."""
    power = squares = 1.0
    found = np.empty_like(chances)
    for row, chance in enumerate(chances):
        logs = np.log(chance / chance.max())
        raised = np.exp(power * logs)
        found[row] = raised / raised.sum()
        slope = weight[row] * (found[row] @ logs - logs[y[row]])
        if weight[row]:
            squares += slope**2
            power = np.clip(power - 0.3 * slope / np.sqrt(squares), 0.01, 100)
    return found


def test_who_is_too_sure_is_tempered():
    generator = np.random.default_rng(0)
    chance = generator.uniform(0.1, 0.9, 20_000)
    y = (generator.random(20_000) < chance).astype(np.int64)
    for power in (0.2, 5.0):
        said = chance**power / (chance**power + (1 - chance) ** power)
        advice = np.column_stack([1 - said, said])[None]
        powers, out = np.array([[1.0, 1.0, 0.0]]), np.empty_like(advice)
        temper(advice, y, EVERY_ROW, True, powers, out)
        assert powers[0, 0] == pytest.approx(1 / power, rel=0.15)
        np.testing.assert_allclose(out[0, -100:, 1], chance[-100:], atol=0.05)
        np.testing.assert_allclose(out.sum(axis=2), 1.0, atol=1e-12)


def test_values_are_mixed_as_in_the_paper():
    generator = np.random.default_rng(0)
    y = np.cumsum(generator.normal(size=400)) + 5.0
    X = generator.normal(size=(400, 1))
    share = 0.01
    experts = Experts([], share=share)
    found = experts.score_then_learn(X, y)
    advice = np.array([one.score_then_learn(X, y) for one in (RunningMean(), LastValue())])
    belief, above = even(2), 0.0
    for row in range(len(y)):
        blended = belief @ advice[:, row]
        assert found[row] == pytest.approx(blended)
        losses = (y[row] - advice[:, row]) ** 2
        mixed = losses.min()
        if row == 0:
            continue
        if above > 0:
            rate = math.log(2) / above
            sums = belief @ np.exp(-rate * (losses - losses.min()))
            mixed -= math.log(sums) / rate
            belief = belief * np.exp(-rate * (losses - losses.min())) / sums
            belief = (1 - share) * belief + share / 2
        gap = max(0.0, (y[row] - blended) ** 2 - mixed)
        if gap and above:
            belief = belief ** (above / (above + gap))
            belief /= belief.sum()
        above += gap
    assert experts.weights_["LastValue()"] == pytest.approx(belief[1])
    assert belief[1] > 0.9


# --- learners ----------------------------------------------------------------------------------


class TestExperts(LearnerSuite):
    per_row = True

    def learner(self, columns, classes=0, seed=0):
        return as_learner(Experts(["gaussian_nb"]), columns, classes=classes, seed=seed)


class TestExpertsOfValues(LearnerSuite):
    per_row = True
    learns = False

    def learner(self, columns, classes=0, seed=0):
        return as_learner(Experts([RunningMean()]), columns, classes=classes, seed=seed)


class TestJudgedByVersion(LearnerSuite):
    per_row = True

    def learner(self, columns, classes=0, seed=0):
        definition = Experts(["gaussian_nb", Perceptron()], judge="version")
        return as_learner(definition, columns, classes=classes, seed=seed)


class TestChunkExperts(LearnerSuite):
    per_row = True

    def learner(self, columns, classes=0, seed=0):
        definitions = [
            Chain(Encoder(buckets=16), SGDClassifier(loss="log_loss")),
            Chain(Encoder(buckets=16), Perceptron()),
        ]
        return as_learner(Experts(definitions), columns, classes=classes, seed=seed)


class TestChunkExpertsOfValues(LearnerSuite):
    per_row = True

    def learner(self, columns, classes=0, seed=0):
        definition = Chain(Encoder(buckets=16), SGDRegressor())
        return as_learner(Experts([definition]), columns, classes=classes, seed=seed)


def test_examples():
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_chunks_make_no_difference(classes):
    X, y = stream(classes=classes)
    whole, pieces = (Experts([Majority()], classes=classes) for _ in range(2))
    expected = whole.score_then_learn(X, y, proba=True)
    start = 0
    for size in [1, 1, 2, 5, 300, 291]:
        part = slice(start, start + size)
        found = pieces.score_then_learn(X[part], y[part], proba=True)
        np.testing.assert_array_equal(found, expected[part, : found.shape[1]])
        start += size
    assert state_digest(whole.save()) == state_digest(pieces.save())


def test_values_in_chunks_make_no_difference():
    X, _ = stream()
    y = np.cumsum(X[:, 0])
    whole, pieces = Experts([]), Experts([])
    expected = whole.score_then_learn(X, y)
    found = [pieces.score_then_learn(X[i : i + 7], y[i : i + 7]) for i in range(0, 600, 7)]
    assert (np.concatenate(found) == expected).all()
    assert state_digest(whole.save()) == state_digest(pieces.save())


@pytest.mark.parametrize("classes", [0, 2])
def test_goes_on_bit_equal_after_save_and_load(classes):
    X, y = stream()
    target = y if classes else np.cumsum(X[:, 0])
    learners = ["gaussian_nb", SGDClassifier(loss="log_loss")] if classes else [SGDRegressor()]
    first, second = (Experts(learners) for _ in range(2))
    first.partial_fit(X[:300], target[:300])
    second.load(copied(first.save()))
    for model in (first, second):
        model.partial_fit(X[300:], target[300:])
    assert (first.predict(X) == second.predict(X)).all()
    assert state_digest(first.save()) == state_digest(second.save())


def test_a_class_that_appears_late():
    X, y = stream(classes=3)
    texts = np.array(["low", "middle", "high"])[y]
    late = np.concatenate([np.flatnonzero(y < 2), np.flatnonzero(y == 2)])
    experts = Experts(["gaussian_nb", MLPClassifier((4,), random_state=0)])
    experts.partial_fit(X[late][:200], texts[late][:200])
    assert experts.classes_.tolist() == ["low", "middle"]
    for _ in range(3):
        experts.partial_fit(X, texts)
    chances = experts.predict_proba(X)
    assert chances.shape == (600, 3)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-12)
    assert experts.classes_.tolist() == ["high", "low", "middle"]
    assert "high" in experts.predict(X)


def test_experts_that_only_name_classes_count_by_how_often_they_are_right():
    X, y = stream(2_000)
    experts = Experts([Perceptron()])
    for start in range(0, 1000, 50):
        experts.partial_fit(X[start : start + 50], y[start : start + 50])
    chances = experts.predict_proba(X[:1000])
    assert 0.6 < chances.max() < 1.0
    assert (experts.predict(X[:1000]) == y[:1000]).mean() > 0.8
    assert experts.weights_["Perceptron()"] > 0.9


def staying(rows=6_000):
    """Labels that stay for a while, and a column that tells a little of them."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, rows)[np.cumsum(generator.random(rows) < 0.05)]
    return y[:, None] + generator.normal(size=(rows, 1)), y


def test_what_is_only_good_for_the_next_row_is_nothing_to_a_version():
    X, y = staying()
    by = {}
    for judge in ("row", "version"):
        learners = [LogisticRegression(2)]
        by[judge] = Experts(learners, judge=judge, classes=2).partial_fit(X[:3_000], y[:3_000])
    assert by["row"].weights_["NoChange()"] > 0.9
    assert by["version"].weights_["NoChange()"] < 0.1
    found = {judge: experts.predict(X[3_000:]) for judge, experts in by.items()}
    hits = {judge: (answers == y[3_000:]).mean() for judge, answers in found.items()}
    assert hits["row"] < 0.63 < 0.65 < hits["version"]


def test_experts_are_judged_by_what_the_last_version_would_have_answered():
    """An increment in parts, after which a version is complete."""
    X, y = staying(890)
    learners = [LogisticRegression(2), LogisticRegression(2, learning_rate=0.2)]
    experts = Experts(learners, judge="version", classes=2, share=0.01, baselines=False)
    made = experts.of_kind("classifier")
    made.partial_fit(X[:600], y[:600])
    made.settle()
    before, powers = made._trust[0].copy(), made._members._powers.copy()
    raw = np.array([one.predict_proba(X[600:]) for one in fitted(learners, X[:600], y[:600])])
    soft = np.empty_like(raw)
    temper(raw, y[600:], EVERY_ROW, False, powers, soft)
    losses = log_losses(np.concatenate([raw, soft]), y[600:]).sum(axis=1) * 30 / 290
    for start in (600, 745):
        made.partial_fit(X[start : start + 145], y[start : start + 145])
        assert (made._trust[0] == before).all()
    for _ in range(2):
        made.settle()
        after = before * np.exp(-losses)
        after = 0.99 * after / after.sum() + 0.01 / 4
        np.testing.assert_allclose(made._trust[0], after, rtol=1e-9)


def fitted(learners, X, y):
    return [one.clone().partial_fit(X, y) for one in learners]


def test_within_an_increment_experts_are_judged_ever_more_rarely():
    X, y = staying(500)
    experts = Experts([], judge="version", classes=2)
    changes, weights = [], None
    for row in range(500):
        experts.learn_one(X[row], y[row])
        if experts.weights_ != weights:
            changes.append(row + 1)
            weights = experts.weights_
    steps = np.diff(changes)
    assert (steps[5:] == np.array(changes[5:-1]) // 2).all()
    assert len(changes) < 20


def test_judged_by_versions_chunks_make_no_difference():
    X, y = staying(700)
    weight = np.tile([1.0, 0.0, 2.0, 1.0], 175)
    digests, answers = [], []
    for size in (1, 13, 700):
        experts = Experts(["gaussian_nb"], judge="version", classes=2)
        found = []
        for start in range(0, 700, size):
            part = slice(start, start + size)
            found.append(experts.score_then_learn(X[part], y[part], weight[part], proba=True))
        digests.append(state_digest(experts.save()))
        answers.append(np.concatenate(found))
    assert len(set(digests)) == 1
    assert (answers[0] == answers[1]).all() and (answers[1] == answers[2]).all()


@pytest.mark.parametrize("classes", [0, 2])
def test_judged_by_versions_it_goes_on_bit_equal_after_save_and_load(classes):
    X, y = staying(700)
    target = y if classes else np.cumsum(X[:, 0])
    first, second = (Experts([], judge="version") for _ in range(2))
    first.partial_fit(X[:500], target[:500])
    second.load(copied(first.save()))
    assert state_digest(first.save()) == state_digest(second.save())
    for model in (first, second):
        model.partial_fit(X[500:], target[500:])
    assert state_digest(first.save()) == state_digest(second.save())


def test_a_complete_version_holds_every_expert_once():
    X, y = staying(700)
    made = Experts([], judge="version", classes=2).of_kind("classifier").partial_fit(X, y)
    assert any(name.startswith("judged/") for name in made.save())
    made.settle()
    assert not any(name.startswith("judged/") for name in made.save())


def test_jobs_are_judged_by_versions():
    for frozen in (False, True):
        for judge in (None, "row", "version"):
            learner = as_learner(Experts([], judge=judge), COLUMNS, classes=2, frozen=frozen)
            assert learner.per_row
            by_version = judge == "version" or (judge is None and frozen)
            assert learner.estimator.by_version == by_version


def test_times_reach_every_expert_as_it_wants_them():
    rows = make_rows(0, 50)
    phases, waves = rows_of_batch(rows, "phases").times, rows_of_batch(rows, "waves").times
    out = np.empty_like(waves)
    waves_of(phases, out)
    np.testing.assert_array_equal(out, waves)


def test_the_kind_is_that_of_the_experts_or_of_the_target():
    assert Experts(["logistic"]).kind == "classifier"
    assert Experts([SGDRegressor()]).kind == "regressor"
    assert Experts([]).kind is None
    X = np.zeros((3, 1))
    assert Experts([]).partial_fit(X, ["a", "b", "a"]).kind == "classifier"
    assert Experts([]).partial_fit(X, [1, 2, 1]).kind == "classifier"
    assert Experts([]).partial_fit(X, [0.0, 1.0, 0.0]).kind == "classifier"
    assert Experts([]).partial_fit(X, [0.5, 1.0, 0.0]).kind == "regressor"
    assert Experts([], classes=[0.5, 1.0]).partial_fit(X, [0.5, 1.0, 0.5]).kind == "classifier"
    whole = np.arange(30)
    assert Experts([]).partial_fit(np.zeros((30, 1)), whole).kind == "regressor"
    assert learner_kind(Experts([]), COLUMNS) == "classifier"
    assert learner_kind(Experts([]), COLUMNS, y=whole) == "regressor"
    assert learner_kind(Experts([SGDRegressor()]), COLUMNS) == "regressor"


def test_it_is_an_estimator_by_scikit_learns_conventions():
    experts = Experts(["gaussian_nb", SGDClassifier(alpha=0.1)], share=0.01)
    copy = clone(experts)
    assert repr(copy) == repr(experts)
    assert copy.get_params()["share"] == 0.01
    X, y = stream()
    assert experts.fit(X, y).score(X, y) > 0.3
    assert experts.set_params(share=0.1).weights_ is not None
    assert sum(experts.fit(X, y).weights_.values()) == pytest.approx(1.0)
    assert next(iter(experts.weights_)) == "gaussian_nb"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"share": -0.1}, "share"),
        ({"share": 1.5}, "share"),
        ({"share": "much"}, "share"),
        ({"learning_rate": "high"}, "learning_rate"),
        ({"learners": None}, "it takes a list"),
        ({"learners": Majority()}, "it takes a list"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"judge": "year"}, "judge"),
        ({"learners": [], "baselines": False, "classes": 2}, "learners"),
        ({"learners": "logistic"}, "learners"),
        ({"learners": ["gaussian_nb", SGDRegressor()]}, "regressor"),
        ({"learners": ["kmeans"]}, "clusterer"),
        ({"learners": ["nothing"]}, "nothing"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(SpecError, match=message):
        Experts(**{"learners": ["gaussian_nb"]} | params).partial_fit([[0.0], [1.0]], [0, 1])


def test_a_state_of_other_experts_is_refused():
    X, y = stream()
    state = Experts(["gaussian_nb"]).partial_fit(X, y).save()
    with pytest.raises(InputError):
        Experts(["gaussian_nb", "gaussian_nb"]).load(state)
    with pytest.raises(InputError):
        Experts([SGDRegressor()]).load(state)
    with pytest.raises(InputError):
        Experts(["gaussian_nb"]).load({})


@pytest.mark.parametrize("judge", ["row", "version"])
@pytest.mark.parametrize("classes", [0, 2])
def test_a_state_that_would_lead_a_kernel_out_of_its_arrays_is_refused(classes, judge):
    X, y = stream(300)
    y = y if classes else X[:, 0]
    names = ["gaussian_nb", "logistic"] if classes else ["linear", "tree"]

    def learned(X, y):
        return Experts(names, judge=judge).partial_fit(X, y).save()

    state = learned(X, y)
    Experts(names, judge=judge).load(state).partial_fit(X, y)
    spoilt = []
    for part, other in (("mixture", "weights"), ("expert/trust", "records")):
        arrays = state[part].arrays
        assert other in arrays
        for name, array in arrays.items():
            for wrong in (array[:-1], array[:0], np.concatenate([array, array]), array * np.nan):
                spoilt.append({part: Part(arrays | {name: wrong})})
    mixture = state["mixture"].arrays
    spoilt += [
        {"mixture": Part(mixture | {"weights": 0.0 * mixture["weights"]})},
        {"mixture": Part(mixture | {"block": np.array([0.0, 1e300])})},
    ]
    wide = learned(np.hstack([X, X]), y)
    head = state["expert/0/native"].meta
    for part in ("expert/0", "expert/1", "judged/1"):
        theirs = {name: wide[name] for name in wide if name.startswith(f"{part}/")}
        spoilt += [theirs] if theirs else []
    spoilt.append({"expert/0/native": Part(meta=head | {"begun": False})})
    if classes:
        three = learned(X, np.digitize(X[:, 0], [-0.5, 0.5]))
        spoilt.append({name: three[name] for name in three if name.startswith("expert/")})
    for change in spoilt:
        experts = Experts(names, judge=judge)
        with pytest.raises(InputError, match="is broken"):
            experts.load(state | change)
    for fewer in (Experts(names[:1], judge=judge), Experts(names, baselines=False, judge=judge)):
        with pytest.raises(InputError, match="is broken"):
            fewer.load(state)
    with pytest.raises(InputError, match="is broken"):
        Experts(names, share=0.1, judge=judge).load(state)


def test_an_expert_that_diverges_is_dropped():
    """Plain gradient descent over columns of other units grows beyond all bounds."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(3000, 3)) * [1.0, 1e4, 1e6]
    y = X[:, 0] + 0.1 * generator.normal(size=3000)
    errors = []
    for learners in (["linear"], ["linear", SGDRegressor(random_state=0)]):
        experts = Experts(learners)
        answers = [
            experts.score_then_learn(X[i : i + 100], y[i : i + 100]) for i in range(0, 3000, 100)
        ]
        errors.append(np.abs(np.concatenate(answers) - y)[1500:].mean())
        assert experts.weights_["linear"] > 0.9
    assert errors[1] < 1.2 * errors[0]
    for huge in (1.7e308, -1.7e308):
        experts = Experts([SGDRegressor()])
        for value in (huge, huge, -huge):
            experts.partial_fit(X[:1], [value])
            assert np.isfinite(experts.predict(X[:5])).all()


def test_equal_definitions_have_names_of_their_own():
    X, y = stream()
    experts = Experts([Majority(), Majority()], baselines=False).partial_fit(X, y)
    assert list(experts.weights_) == ["Majority() 1", "Majority() 2"]
    assert list(experts.weights_.values()) == pytest.approx([0.5, 0.5])
