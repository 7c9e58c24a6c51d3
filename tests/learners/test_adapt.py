import numpy as np
import pytest
from sklearn.cluster import Birch, MiniBatchKMeans
from sklearn.decomposition import IncrementalPCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression as Batchwise
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from everlearn.base import Columns, SpecError, state_digest
from everlearn.learners import Chain, Encoder, Labels, as_learner, learner_kind
from everlearn.learners.default import NAMES
from everlearn.testing.learner import COLUMNS, make_rows


def target(kind):
    return Columns(numbers=("a",), target="y", target_kind=kind)


def test_the_default_learner_follows_the_target():
    assert as_learner(None, target("text")).kind == "classifier"
    assert as_learner(None, target("boolean")).kind == "classifier"
    assert as_learner(None, target("integer")).kind == "classifier"
    assert as_learner(None, target("number")).kind == "regressor"
    assert as_learner(None, target("number"), classes=2).kind == "classifier"
    with pytest.raises(SpecError, match="target"):
        as_learner(None, target("none"))


def test_an_integer_with_many_values_is_a_quantity():
    assert learner_kind(None, target("integer"), y=np.arange(10.0)) == "classifier"
    assert learner_kind(None, target("integer"), y=np.arange(100.0)) == "regressor"
    assert learner_kind(None, target("integer"), y=np.arange(100.0), classes=9) == "classifier"


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    learner = as_learner(name, COLUMNS, classes=2)
    assert learner.kind == learner_kind(name, COLUMNS)
    learner.learn(make_rows(0, 100))
    assert len(learner.predict(make_rows(0, 10))) == 10


def test_import_paths():
    for path in ("sklearn.linear_model.SGDClassifier", "sklearn.linear_model:SGDClassifier"):
        assert as_learner(path, COLUMNS).kind == "classifier"
    assert as_learner("everlearn.learners.LinearRegression", COLUMNS).kind == "regressor"
    for wrong in ("wood", "sklearn.linear_model.Nothing", "no_such_module.Thing"):
        with pytest.raises(SpecError, match="learner"):
            as_learner(wrong, COLUMNS)


def test_kinds():
    assert as_learner(MiniBatchKMeans(), COLUMNS).kind == "clusterer"
    assert as_learner(IncrementalPCA(), COLUMNS).kind == "transformer"
    assert as_learner(SGDRegressor(), COLUMNS).kind == "regressor"
    assert as_learner(Chain(IncrementalPCA(2), SGDClassifier()), COLUMNS).kind == "classifier"


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (RandomForestClassifier(), "no partial_fit"),
        (Batchwise(), "no partial_fit"),
        (make_pipeline(StandardScaler(), SGDClassifier()), "Chain"),
        (MLPClassifier(solver="lbfgs"), "adam"),
        (SGDClassifier, r"SGDClassifier\(\)"),
        (Birch(), "cannot be saved without pickle"),
        (SGDClassifier(early_stopping=True), "early_stopping"),
        (SGDClassifier(class_weight="balanced"), "Balanced memory"),
        (SGDClassifier(class_weight={0: 2.0}), r"Schema\(classes=…\)"),
        (SGDClassifier(alpha=-1), "alpha"),
        (SGDClassifier().fit([[0.0], [1.0]], [0, 1]), "already fitted"),
        (42, "no partial_fit"),
    ],
)
def test_refuses_what_cannot_learn_in_increments(definition, message):
    with pytest.raises(SpecError, match=message):
        as_learner(definition, COLUMNS)


def test_class_weights_by_value_become_weights_by_code():
    estimator = SGDClassifier(class_weight={"late": 5.0, "early": 1.0})
    labels = Labels(["late", "early"])
    learner = as_learner(estimator, COLUMNS, classes=2, labels=labels)
    assert learner.estimator.class_weight == {0: 5.0, 1: 1.0}
    with pytest.raises(SpecError, match="class_weight names"):
        as_learner(estimator, COLUMNS, labels=Labels(["a", "b"]))


def test_the_definition_is_never_changed():
    estimator = SGDClassifier()
    generator = np.random.RandomState(0)
    seeded = SGDClassifier(random_state=generator)
    before = generator.get_state()[1].copy()
    for definition in (estimator, seeded):
        learner = as_learner(definition, COLUMNS, classes=2)
        learner.learn(make_rows(0, 100))
    assert not hasattr(estimator, "coef_")
    assert estimator.random_state is None
    assert (generator.get_state()[1] == before).all()


def test_seeds():
    digests = []
    for seed in (0, 0, 1):
        learner = as_learner(SGDClassifier(), COLUMNS, classes=2, seed=seed)
        learner.learn(make_rows(0, 100))
        digests.append(state_digest(learner.save()))
    assert digests[0] == digests[1] != digests[2]


def test_a_learner_is_copied():
    definition = as_learner("logistic", COLUMNS, classes=2)
    learner = as_learner(definition, COLUMNS)
    learner.learn(make_rows(0, 100))
    assert learner.kind == learner_kind(definition, COLUMNS)
    assert state_digest(definition.save()) != state_digest(learner.save())


class Majority:
    """A user's estimator, with nothing of scikit-learn's."""

    def __init__(self):
        self.counts = {}

    def partial_fit(self, X, y):
        for value in y.tolist():
            self.counts[value] = self.counts.get(value, 0) + 1
        return self

    def predict(self, X):
        return np.full(len(X), max(self.counts, key=self.counts.get))


def test_an_estimator_of_the_users():
    definition = Chain(Encoder(categories="drop"), Majority())
    columns = Columns(**{**COLUMNS.to_json(), "target_kind": "text"})
    learner = as_learner(definition, columns, classes=2)
    assert learner.kind == "classifier"
    rows = make_rows(0, 100)
    learner.learn(rows)
    other = as_learner(definition, columns)
    other.load(learner.save())
    assert (other.predict(rows).value == learner.predict(rows).value).all()
    assert not learner.grow(3)
