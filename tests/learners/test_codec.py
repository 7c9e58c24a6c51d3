import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

from everlearn.base import InputError, Part, SpecError
from everlearn.learners import codec

X = np.random.default_rng(0).normal(size=(100, 4))
Y = (X[:, 0] > 0).astype(np.int64)


def fitted(estimator):
    return estimator.partial_fit(X, Y, classes=[0, 1])


def test_an_alias_stays_one():
    estimator = fitted(SGDClassifier(average=10, random_state=0))
    restored = SGDClassifier(average=10, random_state=0)
    codec.restore(restored, codec.dump(estimator))
    assert np.shares_memory(restored.coef_, restored._average_coef)
    assert not np.shares_memory(restored._standard_coef, restored._average_coef)


def test_what_passes_is_left_out():
    estimator = fitted(MLPClassifier((3,), random_state=0))
    for _ in range(3):
        fitted(estimator)
    attributes = codec.dump(estimator).meta["attributes"]
    assert len(attributes["loss_curve_"]["list"]) == 1
    assert "_best_coefs" not in attributes
    assert "_loss_function_" not in codec.dump(fitted(SGDClassifier())).meta["attributes"]


def test_restoring_copies():
    part = codec.dump(fitted(SGDClassifier(random_state=0)))
    before = Part({k: v.copy() for k, v in part.arrays.items()}, part.meta).digest
    restored = SGDClassifier(random_state=0)
    codec.restore(restored, part)
    fitted(restored)
    assert Part(part.arrays, part.meta).digest == before


def changed(part, **attributes):
    return Part(part.arrays, {**part.meta, "attributes": {**part.meta["attributes"], **attributes}})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"a_": {"object": "os.system", "attributes": {}}}, "may not stand in it"),
        ({"a_": {"object": "subprocess.Popen", "attributes": {"args": "id"}}}, "may not stand"),
        ({"a_": {"object": "sklearn.Pipeline", "attributes": {}}}, "may not stand"),
        ({"partial_fit": 3}, "is code of"),
        ({"__class__": 3}, "is code of"),
        ({"__reduce__": {"list": []}}, "is code of"),
        (
            {"a_": {"object": "sklearn.LabelBinarizer", "attributes": {"transform": 1}}},
            "is code of",
        ),
        ({"a_": {"array": "no such"}}, "broken"),
        ({"a_": {"same": "no such", "shape": [1]}}, "broken"),
        ({"a_": {"ref": "no such"}}, "broken"),
        ({"a_": {"pickle": "gASV"}}, "unknown form"),
        ({"a_": {"scalar": ["O", 1]}}, "scalar"),
        ({"a_": [1]}, "unknown form"),
    ],
)
def test_a_malicious_state_is_refused(attributes, message):
    part = changed(codec.dump(fitted(SGDClassifier(random_state=0))), **attributes)
    with pytest.raises(InputError, match=message):
        codec.restore(SGDClassifier(random_state=0), part)


def test_a_state_of_another_class_is_refused():
    part = codec.dump(fitted(SGDClassifier(random_state=0)))
    with pytest.raises(InputError, match=r"sklearn\.SGDClassifier"):
        codec.restore(MLPClassifier(), part)
    with pytest.raises(InputError):
        codec.restore(MLPClassifier(), Part())


class Odd:
    """An estimator of a user's, with everything that can be saved, and what cannot."""

    def __init__(self):
        self.counts = {"a": [1, 2.5, float("inf")], 3: (True, None, "text")}
        self.scalar = np.float32(0.1)
        self.zero = np.array(7)
        self.empty = np.zeros((0, 3))
        self.columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        self.texts = np.array(["x", "y"], object)
        self.same = self.counts
        self.generator = np.random.RandomState(3)
        self.flags = np.array([True, False])


def test_every_kind_of_attribute():
    odd = Odd()
    odd.generator.normal()
    other = Odd()
    other.counts, other.zero = None, None
    codec.restore(other, codec.dump(odd))
    assert other.counts == odd.counts
    assert other.same is other.counts
    assert other.scalar == odd.scalar and other.scalar.dtype == np.float32
    assert other.zero.shape == () and other.zero == 7
    assert other.empty.shape == (0, 3)
    assert other.columns.flags.f_contiguous and (other.columns == odd.columns).all()
    assert other.texts.tolist() == ["x", "y"]
    assert other.generator.normal() == odd.generator.normal()
    assert other.flags.dtype == bool
    assert codec.dump(other).digest == codec.dump(odd).digest


@pytest.mark.parametrize(
    "value",
    [lambda: 1, object(), np.array([object()]), {1, 2}, {(1, 2): 3}, np.datetime64("2020"), open],
)
def test_what_needs_pickle_is_refused_by_name(value):
    odd = Odd()
    odd.culprit = value
    with pytest.raises(SpecError, match="culprit"):
        codec.dump(odd)
