"""Every learner that the project has goes through the public suite."""

import warnings

import pytest
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import (
    PassiveAggressiveClassifier,
    PassiveAggressiveRegressor,
    Perceptron,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor

from everlearn.learners import Chain, Encoder, as_learner
from everlearn.testing.learner import LearnerSuite

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    PASSIVE = PassiveAggressiveClassifier()
    PASSIVE_VALUES = PassiveAggressiveRegressor(C=0.01)

DENSE = Encoder(buckets=16)
ALIKE = Encoder(buckets=64, missing="mean", times="drop")
PLAIN = Encoder("as_is", times="drop", missing="mean", buckets=32)

LEARNERS = {
    "logistic, bare": Chain(DENSE, SGDClassifier(loss="log_loss")),
    "hinge": Chain(DENSE, SGDClassifier()),
    "modified huber": Chain(DENSE, SGDClassifier(loss="modified_huber")),
    "averaged": Chain(DENSE, SGDClassifier(loss="log_loss", average=50)),
    "averaged values": Chain(DENSE, SGDRegressor(average=True)),
    "values": Chain(DENSE, SGDRegressor()),
    "perceptron": Chain(DENSE, Perceptron()),
    "passive-aggressive": Chain(DENSE, PASSIVE),
    "passive-aggressive values": Chain(DENSE, PASSIVE_VALUES),
    "gaussian": Chain(ALIKE, GaussianNB()),
    "multinomial": Chain(PLAIN, MultinomialNB()),
    "complement": Chain(PLAIN, ComplementNB()),
    "bernoulli": Chain(DENSE, BernoulliNB()),
    "network": Chain(DENSE, MLPClassifier((8,), learning_rate_init=0.02)),
    "network, sgd": Chain(
        DENSE, MLPClassifier((8,), solver="sgd", learning_rate="adaptive", learning_rate_init=0.2)
    ),
    "network for numbers": Chain(
        DENSE, MLPRegressor(hidden_layer_sizes=(8,), learning_rate_init=0.05)
    ),
    "means": Chain(DENSE, MiniBatchKMeans(4, n_init=1)),
    "means, seeded": Chain(DENSE, MiniBatchKMeans(4, n_init=1, random_state=3)),
    "components": Chain(DENSE, IncrementalPCA(3)),
    "chain": Chain(
        Encoder(categories="onehot", buckets=20), IncrementalPCA(5), SGDClassifier(loss="log_loss")
    ),
    "one against the rest": Chain(DENSE, OneVsRestClassifier(SGDClassifier(loss="log_loss"))),
}


FREE = ("passive-aggressive values", "multinomial", "complement", "network for numbers")
"""Need not be good on these rows."""


class TestLearners(LearnerSuite):
    @pytest.fixture(autouse=True, params=sorted(LEARNERS))
    def _choose(self, request):
        self.name = request.param
        self.positive = self.name in ("multinomial", "complement")
        self.learns = self.name not in FREE

    def learner(self, columns, classes=0, seed=0):
        return as_learner(LEARNERS[self.name], columns, classes=classes, seed=seed)


class TestBareEstimator(LearnerSuite):
    """Columns as they are: nothing is scaled, so nothing need be learned well."""

    learns = False

    def learner(self, columns, classes=0, seed=0):
        return as_learner(SGDClassifier(), columns, classes=classes, seed=seed)
