import pytest
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import SGDClassifier

from everlearn.base import SpecError
from everlearn.learners import Chain, Encoder


def test_parts():
    encoder, components, estimator = Encoder(), IncrementalPCA(2), SGDClassifier()
    chain = Chain(encoder, components, estimator)
    assert chain.encoder is encoder
    assert chain.transformers == (components,)
    assert chain.estimator is estimator
    assert Chain(estimator).encoder is None
    assert Chain([encoder, estimator]) == Chain(encoder, estimator)


def test_equality():
    assert Chain(Encoder(), SGDClassifier()) == Chain(Encoder(), SGDClassifier())
    assert Chain(Encoder(), SGDClassifier()) != Chain(Encoder(), SGDClassifier(alpha=1))
    assert Chain(Encoder(), SGDClassifier()) != Chain(SGDClassifier())
    assert Chain(Encoder(), SGDClassifier()) != Chain(Encoder("as_is"), SGDClassifier())
    assert hash(Chain(SGDClassifier())) == hash(Chain(SGDClassifier(alpha=1)))


def test_cannot_be_changed():
    with pytest.raises(AttributeError):
        Chain(SGDClassifier()).steps = ()


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (Encoder(),),
        (SGDClassifier(), SGDClassifier()),
        (IncrementalPCA(), Encoder(), SGDClassifier()),
        (Chain(SGDClassifier()), SGDClassifier()),
        (Encoder(), SGDClassifier),
        (Encoder(), object()),
    ],
)
def test_refuses_what_is_no_chain(steps):
    with pytest.raises(SpecError):
        Chain(*steps)
