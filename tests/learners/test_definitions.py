"""Definitions survive the registry's JSON."""

import pytest
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import SGDClassifier

from everlearn.learners import (
    Auto,
    Chain,
    Encoder,
    Experts,
    GaussianNB,
    LinearRegression,
    LogisticRegression,
)
from everlearn.registry.config import equal_when_rebuilt, from_config


@pytest.mark.parametrize(
    "definition",
    [
        Encoder(categories="onehot", scales=(1.0, 2.0, 3.0)),
        Chain(Encoder(), IncrementalPCA(3), SGDClassifier(alpha=0.1)),
        "logistic",
    ],
    ids=repr,
)
def test_rebuilt_equal(definition):
    assert from_config(equal_when_rebuilt(definition)) == definition


@pytest.mark.parametrize(
    "definition",
    [
        LogisticRegression(classes=["a", "b"], learning_rate=0.1),
        LinearRegression(loss="huber", l2=0.5),
        Auto(task="regressor", seed=3),
        Experts(["logistic", GaussianNB(), SGDClassifier(alpha=0.1)], share=0.01),
    ],
    ids=repr,
)
def test_native_learners_are_rebuilt(definition):
    config = equal_when_rebuilt(definition)
    rebuilt = from_config(config)
    assert type(rebuilt) is type(definition)
    assert repr(rebuilt) == repr(definition)
    assert config["class"] == f"everlearn.learners:{type(definition).__name__}"
