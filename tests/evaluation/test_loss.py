"""Losses row by row, and DeLong's variance from the influence of rows on the area."""

import numpy as np
import pytest
from sklearn import metrics as sk

from everlearn.base import InputError, Prediction, SpecError
from everlearn.evaluation.loss import auc_influence, losses, metric_losses, midranks

Y = np.array([0, 1, 1, 0, 1])
PROBA = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6], [0.0, 1.0]])
BOTH = Prediction(value=PROBA.argmax(axis=1), proba=PROBA)


def test_natural_losses_by_kind():
    chance = np.array([0.9, 0.8, 0.3, 0.4, 1.0])
    assert losses("classifier", Y, BOTH) == pytest.approx(-np.log(chance))
    hard = Prediction(value=BOTH.value)
    assert losses("classifier", Y, hard).tolist() == [0, 0, 1, 1, 0]
    numbers = Prediction(value=np.array([1.0, 3.0]))
    assert losses("regressor", np.array([0.0, 1.0]), numbers).tolist() == [1.0, 4.0]
    assert losses("transformer", None, numbers).tolist() == [1.0, 3.0]
    assert losses("clusterer", None, Prediction(value=np.array([3, 4]))).tolist() == [0, 0]


def test_losses_of_no_rows():
    none = Prediction(value=np.zeros(0, np.int64), proba=np.zeros((0, 2)))
    assert losses("classifier", np.zeros(0, np.int64), none).shape == (0,)


def test_mean_losses_are_the_metrics():
    mean = {name: metric_losses(name, Y, BOTH).mean() for name in ("accuracy", "brier", "roc_auc")}
    assert mean["accuracy"] == pytest.approx(1 - sk.accuracy_score(Y, BOTH.value))
    assert mean["brier"] == pytest.approx(sk.brier_score_loss(Y, PROBA[:, 1]))
    assert mean["roc_auc"] == pytest.approx(1 - sk.roc_auc_score(Y, PROBA[:, 1]))
    numbers = Prediction(value=np.array([1.0, 3.0]))
    assert metric_losses("mae", np.array([0.0, 1.0]), numbers).tolist() == [1.0, 2.0]
    assert metric_losses("rmse", np.array([0.0, 1.0]), numbers).tolist() == [1.0, 4.0]


def test_probability_zero_is_dear_but_finite():
    loss = losses("classifier", np.array([0]), Prediction(value=np.array([1]), proba=PROBA[4:]))
    assert loss[0] == pytest.approx(-np.log(np.finfo(float).eps))


def test_class_beyond_the_learner_has_probability_zero():
    loss = losses("classifier", np.array([-1, 2]), Prediction(value=Y[:2], proba=PROBA[:2]))
    assert loss == pytest.approx(-np.log(np.finfo(float).eps))


def test_not_a_number_stays_one_so_that_gates_see_it():
    bad = Prediction(value=np.array([0]), proba=np.array([[np.nan, np.nan]]))
    assert np.isnan(losses("classifier", np.array([0]), bad)).all()


def test_metrics_that_have_no_loss_per_row_are_refused():
    with pytest.raises(SpecError, match=r"'kappa' has no loss per row.*log_loss.*mae"):
        metric_losses("kappa", Y, BOTH)
    for name in ("log_loss", "brier", "roc_auc"):
        with pytest.raises(InputError, match="needs probabilities"):
            metric_losses(name, Y, Prediction(value=Y))
    with pytest.raises(InputError, match="two classes"):
        metric_losses("roc_auc", Y, Prediction(value=Y, proba=np.full((5, 3), 1 / 3)))
    with pytest.raises(InputError, match="all of one"):
        metric_losses("roc_auc", Y * 0, BOTH)


def delong_variance(y, scores):
    """DeLong et al. 1988, eq. 5, by comparing every positive with every negative row."""
    up, down = scores[y == 1], scores[y == 0]
    wins = (up[:, None] > down[None, :]) + 0.5 * (up[:, None] == down[None, :])
    return wins.mean(axis=1).var() / len(up) + wins.mean(axis=0).var() / len(down)


def test_influence_has_delongs_variance():
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.3).astype(np.int64)
    scores = np.round(np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 1), 2)
    prediction = Prediction(value=y, proba=np.stack([1 - scores, scores], axis=1))
    influence = auc_influence(y, prediction)
    assert influence.mean() == pytest.approx(1 - sk.roc_auc_score(y, scores))
    assert influence.var() / len(y) == pytest.approx(delong_variance(y, scores), rel=1e-9)


def test_midranks():
    assert midranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
