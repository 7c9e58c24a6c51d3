"""Definitions survive the registry's JSON."""

import pytest
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import SGDClassifier

from everlearn.learners import Chain, Encoder, LinearRegression, LogisticRegression
from everlearn.registry.config import equal_when_rebuilt, from_config


@pytest.mark.parametrize(
    "definition",
    [
        LogisticRegression(eta0=0.1),
        LinearRegression(random_state=3),
        Encoder(categories="onehot", scales=(1.0, 2.0, 3.0)),
        Chain(Encoder(), IncrementalPCA(3), SGDClassifier(alpha=0.1)),
        "logistic",
    ],
    ids=repr,
)
def test_rebuilt_equal(definition):
    assert from_config(equal_when_rebuilt(definition)) == definition
