"""River's estimators as learners, and the graphs of objects that they are saved as."""

from __future__ import annotations

import collections
import functools
import json
import pkgutil
import random
import threading
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

river = pytest.importorskip("river", reason="River is needed")

from river import (  # noqa: E402
    anomaly,
    base,
    cluster,
    compose,
    drift,
    ensemble,
    facto,
    feature_extraction,
    forest,
    imblearn,
    linear_model,
    multiclass,
    naive_bayes,
    neighbors,
    optim,
    preprocessing,
    rules,
    tree,
)

import everlearn as el  # noqa: E402
from everlearn.base import (  # noqa: E402
    Columns,
    InputError,
    Learner,
    Part,
    SpecError,
    state_digest,
)
from everlearn.learners import River, as_learner, learner_kind  # noqa: E402
from everlearn.learners.objects import Given, Library, dump  # noqa: E402
from everlearn.learners.objects_made import restore  # noqa: E402
from everlearn.learners.river import LIBRARY, RiverLearner  # noqa: E402
from everlearn.registry.config import equal_when_rebuilt, from_config, to_config  # noqa: E402
from everlearn.testing.learner import (  # noqa: E402
    COLUMNS,
    LearnerSuite,
    copied,
    make_rows,
    restricted,
    same_prediction,
)

NUMBERS = replace(COLUMNS, categories=())


def mixed() -> Any:
    numbers = compose.SelectType(float) | preprocessing.StandardScaler()
    return numbers + (compose.SelectType(str) | preprocessing.OneHotEncoder())


def scaled(estimator: Any) -> Any:
    return preprocessing.StandardScaler() | estimator


class RiverSuite(LearnerSuite):
    per_row = True
    made: Any

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        return River(self.made).make_learner(columns, classes=classes, seed=seed)


class TestPipeline(RiverSuite):
    made = mixed() | linear_model.LogisticRegression()


class TestNumbers(RiverSuite):
    made = mixed() | linear_model.LinearRegression()


class TestManyClasses(RiverSuite):
    made = mixed() | linear_model.SoftmaxRegression()


class TestTree(RiverSuite):
    made = tree.HoeffdingTreeClassifier(grace_period=20)


class TestForest(RiverSuite):
    made = forest.ARFClassifier(n_models=2, grace_period=20)


class TestWithoutProbabilities(RiverSuite):
    made = mixed() | linear_model.PAClassifier()


class TestClusters(RiverSuite):
    made = mixed() | cluster.KMeans(n_clusters=3)
    learns = False


class TestAnomalies(RiverSuite):
    made = compose.SelectType(float) | anomaly.HalfSpaceTrees(n_trees=3, height=4)
    learns = False


def log_step() -> Any:
    return linear_model.LogisticRegression(optimizer=optim.Adam(0.05))


ESTIMATORS: dict[str, Any] = {
    "scaler and logistic regression": scaled(linear_model.LogisticRegression()),
    "Adam": scaled(log_step()),
    "FTRL": linear_model.LogisticRegression(optimizer=optim.FTRLProximal()),
    "passive-aggressive": linear_model.PAClassifier(),
    "passive-aggressive values": scaled(linear_model.PARegressor()),
    "ALMA": linear_model.ALMAClassifier(),
    "perceptron": preprocessing.MinMaxScaler() | linear_model.Perceptron(),
    "softmax": scaled(linear_model.SoftmaxRegression()),
    "Bayesian linear regression": linear_model.BayesianLinearRegression(),
    "linear regression, robust": preprocessing.RobustScaler() | linear_model.LinearRegression(),
    "polynomials": feature_extraction.PolynomialExtender()
    | scaled(linear_model.LinearRegression()),
    "imputed": preprocessing.StatImputer() | scaled(linear_model.LogisticRegression()),
    "target scaled": preprocessing.TargetStandardScaler(linear_model.LinearRegression()),
    "factorization": facto.FMClassifier(),
    "naive Bayes": naive_bayes.GaussianNB(),
    "neighbours": neighbors.KNNClassifier(n_neighbors=3),
    "neighbours, one by one": neighbors.KNNRegressor(3, engine=neighbors.LazySearch(50)),
    "Hoeffding tree": tree.HoeffdingTreeClassifier(grace_period=40),
    "Hoeffding tree of values": tree.HoeffdingTreeRegressor(grace_period=40),
    "adaptive tree": tree.HoeffdingAdaptiveTreeClassifier(grace_period=40),
    "adaptive tree of values": tree.HoeffdingAdaptiveTreeRegressor(grace_period=40),
    "extremely fast tree": tree.ExtremelyFastDecisionTreeClassifier(grace_period=40),
    "gradient tree": tree.SGTClassifier(grace_period=40),
    "adaptive forest": forest.ARFClassifier(n_models=3, grace_period=40),
    "adaptive forest of values": forest.ARFRegressor(n_models=2, grace_period=40),
    "Mondrian forest": forest.AMFClassifier(n_estimators=3),
    "extra trees": forest.OXTRegressor(n_models=2, grace_period=40),
    "bagging": ensemble.BaggingClassifier(scaled(linear_model.LogisticRegression()), n_models=3),
    "bagging with ADWIN": ensemble.ADWINBaggingClassifier(naive_bayes.GaussianNB(), n_models=3),
    "leveraging": ensemble.LeveragingBaggingClassifier(naive_bayes.GaussianNB(), n_models=3),
    "random patches": ensemble.SRPClassifier(n_models=2, model=naive_bayes.GaussianNB()),
    "boosting": ensemble.AdaBoostClassifier(naive_bayes.GaussianNB(), n_models=3),
    "stacking": ensemble.StackingClassifier(
        [linear_model.LogisticRegression(), naive_bayes.GaussianNB()],
        meta_classifier=linear_model.LogisticRegression(),
    ),
    "experts": ensemble.EWARegressor([linear_model.LinearRegression(), linear_model.PARegressor()]),
    "rules": rules.AMRules(n_min=40),
    "one against the rest": multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    "retrained on drift": drift.DriftRetrainingClassifier(
        naive_bayes.GaussianNB(), drift.binary.DDM()
    ),
    "under-sampled": imblearn.RandomUnderSampler(
        linear_model.LogisticRegression(), desired_dist={0: 0.5, 1: 0.5}
    ),
    "clusters": cluster.KMeans(n_clusters=3),
    "anomalies": anomaly.HalfSpaceTrees(n_trees=3, height=4),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_saved_in_the_middle_it_goes_on_as_if_never_saved(name: str) -> None:
    """Predictions row by row, and the state, are equal to those of one that was not saved."""
    definition = River(ESTIMATORS[name])
    learner = definition.make_learner(NUMBERS, classes=2, seed=4)
    classes = 2 if learner.kind == "classifier" else 0
    first, second = (
        restricted(make_rows(a, b, classes=classes, missing=False), NUMBERS)
        for a, b in ((0, 150), (150, 300))
    )
    learner.learn(first)
    other = definition.make_learner(NUMBERS, seed=9)
    other.load(copied(learner.save()))
    assert state_digest(other.save()) == state_digest(learner.save())
    assert same_prediction(learner.learn(second, score=150), other.learn(second, score=150))
    if name != "rules":  # AMRules names a rule by where it is in memory
        assert state_digest(other.save()) == state_digest(learner.save())


@pytest.mark.parametrize("name", ["adaptive forest", "bagging", "factorization", "experts"])
def test_seeds_that_are_none_are_the_strategys(name: str) -> None:
    def taught(seed: int) -> str:
        learner = River(ESTIMATORS[name]).make_learner(NUMBERS, classes=2, seed=seed)
        classes = 2 if learner.kind == "classifier" else 0
        learner.learn(restricted(make_rows(0, 60, classes=classes, missing=False), NUMBERS))
        return learner.save()["estimator"].digest

    assert taught(1) == taught(1)
    assert (taught(1) == taught(2)) == (name == "experts"), "which draws nothing"


def test_is_rivers_own_loop() -> None:
    """Test, then train, on dicts."""
    learner = River(ESTIMATORS["Hoeffding tree"]).make_learner(NUMBERS, classes=2)
    model = tree.HoeffdingTreeClassifier(grace_period=40)
    rows = restricted(make_rows(0, 300, missing=False), NUMBERS)
    answer = learner.learn(rows, score=300)
    assert answer is not None and answer.proba is not None
    for number, x in enumerate(learner._dicts(rows)):
        assert set(x) == {*NUMBERS.numbers, "seen:day", "seen:week", "seen:year"}
        expected = model.predict_proba_one(x)
        if number:
            told = [expected.get(code, 0.0) for code in (0, 1)]
            assert answer.proba[number].tolist() == (np.array(told) / sum(told)).tolist()
        model.learn_one(x, int(rows.y[number]))  # type: ignore[index]


def test_estimators_stand_in_a_model_as_they_are() -> None:
    for name, estimator in ESTIMATORS.items():
        target = replace(NUMBERS, target_kind="integer")
        kind = learner_kind(estimator, target, classes=2)
        assert isinstance(as_learner(estimator, target, classes=2), RiverLearner), name
        assert kind == River(estimator).kind_for(target)
        if name == "anomalies":  # it keeps another `limits` than it was given
            continue
        model = el.Model("m", learner=estimator)
        config = equal_when_rebuilt(model)
        assert repr(from_config(config).learner) == repr(estimator), name


def test_learns_in_a_model_and_is_found_again(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"x": float(x), "colour": "red" if x + noise > 0 else "blue", "late": int(x > 0)}
        for x, noise in rng.normal(size=(600, 2))
    ]
    pipeline = mixed() | linear_model.LogisticRegression()
    model = el.Model("late", learner=pipeline, schema=el.Schema(target="late"))
    with el.open(tmp_path / "ws") as workspace:
        workspace.model(model).train(rows[:400])
    with el.open(tmp_path / "ws") as workspace:
        late = workspace.model("late")
        assert late.train(rows[400:]).version == 2
        answer = late.predict({"x": 2.0, "colour": "red"})
        assert answer.value == 1


@pytest.mark.parametrize("weight", [2.0, 0.5])
def test_weights_reach_those_that_take_them(weight: float) -> None:
    rows = restricted(make_rows(0, 40, missing=False), NUMBERS)
    weighted = replace(rows, weight=np.full(40, weight))
    plain, heavy = (River(naive_bayes.GaussianNB()) for _ in range(2))
    with pytest.raises(InputError, match="GaussianNB takes no sample weights"):
        plain.make_learner(NUMBERS, classes=2).learn(weighted)
    made = River(tree.HoeffdingTreeClassifier())
    learner, other = (made.make_learner(NUMBERS, classes=2) for _ in range(2))
    learner.learn(weighted)
    other.learn(rows)
    assert learner.estimator._root.total_weight == weight * other.estimator._root.total_weight
    assert heavy.kind_for(NUMBERS) == "classifier"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_target_that_is_not_finite_is_refused(value: float) -> None:
    learner = River(ESTIMATORS["passive-aggressive values"]).make_learner(NUMBERS)
    rows = restricted(make_rows(0, 20, classes=0), NUMBERS)
    before = state_digest(learner.save())
    with pytest.raises(InputError, match="NaN or infinite"):
        learner.learn(rows.with_y(np.full(20, value)))
    assert state_digest(learner.save()) == before


def test_two_classes_are_all_that_a_binary_estimator_has() -> None:
    learner = River(scaled(linear_model.LogisticRegression())).make_learner(NUMBERS, classes=2)
    assert not learner.grow(3) and learner._classes == 2
    assert River(naive_bayes.GaussianNB()).make_learner(NUMBERS, classes=2).grow(5)


# --- what is refused beforehand ----------------------------------------------------------------


class Locked(base.Transformer):
    """A transformer that keeps what cannot be saved."""

    def __init__(self) -> None:
        self.kept = threading.Lock()

    def transform_one(self, x: dict[str, Any]) -> dict[str, Any]:
        return x


class Late(base.Transformer):
    """A transformer that makes what cannot be saved when it learns."""

    def learn_one(self, x: dict[str, Any]) -> None:
        self.kept = iter([1])

    def transform_one(self, x: dict[str, Any]) -> dict[str, Any]:
        return x


class Doubled(base.Transformer):
    """A user's transformer, with a state of its own."""

    def __init__(self, by: Any = None) -> None:
        self.by = by
        self.rows = 0

    def learn_one(self, x: dict[str, Any]) -> None:
        self.rows += 1

    def transform_one(self, x: dict[str, Any]) -> dict[str, Any]:
        return {name: self.by(value) if self.by else 2 * value for name, value in x.items()}


def test_what_cannot_be_saved_is_refused_beforehand_by_its_name() -> None:
    estimator = Locked() | naive_bayes.GaussianNB()
    with pytest.raises(SpecError, match=r"without pickle: .*kept is _thread\.lock"):
        River(estimator).make_learner(NUMBERS, classes=2)
    with pytest.raises(SpecError, match=r"kept is builtins\.list_iterator"):
        River(Late() | naive_bayes.GaussianNB()).make_learner(NUMBERS, classes=2)


def test_what_a_user_writes_is_found_by_its_place() -> None:
    for by in (None, lambda value: value + 1, abs):
        definition = River(Doubled(by) | scaled(linear_model.LogisticRegression()))
        learner = definition.make_learner(NUMBERS, classes=2)
        rows = restricted(make_rows(0, 50, missing=False), NUMBERS)
        learner.learn(rows)
        other = definition.make_learner(NUMBERS)
        other.load(copied(learner.save()))
        assert other.estimator.steps["Doubled"].rows == 50
        assert same_prediction(other.predict(rows), learner.predict(rows))


def test_texts_that_an_estimator_cannot_learn_are_refused_beforehand() -> None:
    with pytest.raises(SpecError, match=r"categories are texts: begin with compose\.SelectType"):
        River(scaled(linear_model.LogisticRegression())).make_learner(COLUMNS, classes=2)


@pytest.mark.parametrize("estimator", [preprocessing.StandardScaler(), drift.ADWIN(), 3, None])
def test_what_predicts_nothing_is_refused(estimator: Any) -> None:
    with pytest.raises(SpecError, match=r"neither classifies|is one of River's"):
        River(estimator)


def test_a_state_of_another_estimator_is_refused_with_what_differs() -> None:
    state = River(tree.HoeffdingTreeClassifier(grace_period=10)).make_learner(NUMBERS).save()
    other = River(tree.HoeffdingTreeClassifier(grace_period=20)).make_learner(NUMBERS)
    with pytest.raises(InputError, match="with 'grace_period=10', not 'grace_period=20'"):
        other.load(state)
    narrow = River(tree.HoeffdingTreeClassifier(grace_period=10)).make_learner(
        replace(NUMBERS, numbers=("length",))
    )
    with pytest.raises(InputError, match=r"columns .*'width'.* not .*'length'"):
        narrow.load(state)


def test_a_state_that_does_not_say_its_columns_is_refused() -> None:
    learner = River(naive_bayes.GaussianNB()).make_learner(NUMBERS, classes=2)
    state = copied(learner.save())
    known = {name: value for name, value in state["known"].meta.items() if name != "columns"}
    with pytest.raises(InputError, match="columns None, not"):
        learner.load({**state, "known": Part(meta=known)})


# --- the codec ---------------------------------------------------------------------------------


def _graph(nodes: list[Any], **arrays: Any) -> Part:
    text = json.dumps(nodes).encode()
    return Part({"graph": np.frombuffer(text, np.uint8), **arrays})


def _state_of(nodes: list[Any]) -> Any:
    fresh = naive_bayes.GaussianNB()
    key = np.zeros(624, np.uint32)
    return restore(_graph(nodes, key=key), type(fresh), LIBRARY, Given(fresh, LIBRARY))


NB = "river.naive_bayes.gaussian:GaussianNB"


@pytest.mark.parametrize(
    "attribute",
    [
        ["class", "subprocess:Popen"],
        ["class", "os:system"],
        ["function", "os:system"],
        ["function", "builtins:eval"],
        ["class", "river.datasets.base:RemoteDataset"],
        ["function", "river.base.base:inspect"],
        ["class", "river.bandit.datasets.news:NewsArticles"],
        ["class", "river.drift.datasets.apple:Apple"],
        ["class", "river.base.base:inspect.Signature"],
        ["function", "river.utils.random:random.Random"],
        ["given", "._nothing"],
        ["method", 0, "__class__"],
        ["method", 1, "clear"],
        ["scalar", "O", 1],
        ["ref", 99],
        ["ref", -1],
        ["unheard"],
        {"a": 1},
    ],
)
def test_a_state_that_names_what_it_may_not_is_refused(attribute: Any) -> None:
    nodes = [{"object": NB, "attributes": [["class_counts", attribute]]}, {"dict": []}]
    with pytest.raises(InputError):
        _state_of(nodes)


@pytest.mark.parametrize(
    "node",
    [
        {"object": "subprocess:Popen", "attributes": []},
        {"object": NB, "made": [], "state": None},
        {"object": "builtins:dict", "made": [["ref", 1]]},
        {"object": "builtins:int", "attributes": []},
        {"partial": [["class", "builtins:list"], ["ref", 1], ["ref", 1]]},
        {"tuple": [["ref", 1]]},
        {"dict": [], "class": "collections:defaultdict", "factory": 3},
        {"view": 0, "shape": [9], "strides": [8], "dtype": "<f8", "offset": 0},
        {"array": "none", "order": "C"},
        {"random": "none", "version": 3, "gauss": None},
        {"numpy random": "key", "rest": [10**9, 0, 0.0]},
        {"numpy random": "key", "rest": [-1, 0, 0.0]},
        {"object": "builtins:bytes", "made": [10**16], "state": None},
        {"object": "river._river_rust.stats:RsRollingQuantile", "made": [0.5, 10**13]},
        {"object": "river._river_rust.stats:RsRollingQuantile", "made": [0.5, -1]},
        {"bytes": "no base64!"},
        {"deque": [1], "most": -1},
        {"nothing": 1},
        [],
    ],
)
def test_a_state_of_a_form_that_there_is_not_is_refused(node: Any) -> None:
    with pytest.raises(InputError):
        _state_of([{"object": NB, "attributes": [["class_counts", ["ref", 1]]]}, node])


class Panic(BaseException):
    """As River's compiled parts raise it."""


class Panicking(base.Regressor):
    """Cannot go on after three rows."""

    def __init__(self) -> None:
        self.rows = 0

    def learn_one(self, x: Any, y: Any) -> None:
        self.rows += 1
        if self.rows > 3:
            raise Panic("out of range")

    def predict_one(self, x: Any) -> float:
        return 0.0


def test_a_panic_of_a_compiled_part_is_an_error_of_these_rows() -> None:
    learner = River(Panicking()).make_learner(NUMBERS)
    with pytest.raises(InputError, match="Panic: out of range"):
        learner.learn(restricted(make_rows(0, 9, classes=0), NUMBERS))


def test_no_class_of_a_state_inherits_from_what_may_not_stand_in_it() -> None:
    """A data set of River downloads from an address and unpacks, and would do so when called."""
    for module in pkgutil.walk_packages(river.__path__, "river."):
        if not LIBRARY.has(module.name):
            continue
        try:
            found = vars(import_module(module.name))
        except ImportError:
            continue
        for name, kind in found.items():
            if isinstance(kind, type) and kind.__module__ == module.name:
                bases = [base.__module__ for base in kind.__mro__]
                assert not [b for b in bases if b.startswith("river.") and not LIBRARY.has(b)], name


def test_broken_bytes_are_refused_or_harmless() -> None:
    """A byte changed anywhere: another state of the same class, or refused."""
    learner = River(ESTIMATORS["adaptive tree"]).make_learner(NUMBERS, classes=2)
    learner.learn(restricted(make_rows(0, 120), NUMBERS))
    state = learner.save()
    chance = random.Random(0)
    refused = 0
    for _ in range(60):
        arrays = {name: array.copy() for name, array in state["estimator"].arrays.items()}
        graph = arrays["graph"]
        graph[chance.randrange(len(graph))] = chance.randrange(32, 127)
        other = River(ESTIMATORS["adaptive tree"]).make_learner(NUMBERS)
        try:
            other.load({**state, "estimator": Part(arrays)})
        except InputError:
            refused += 1
    assert refused > 10


def test_a_graph_keeps_what_is_shared_and_what_goes_round() -> None:
    class Bag:
        """Anything."""

    bag = Bag()
    numbers = np.arange(12.0).reshape(3, 4)
    shared: list[Any] = [1, 2.5, float("nan"), "ü"]
    vars(bag).update(
        again=bag,
        first=shared,
        second=shared,
        fields={"b": 1, "a": (shared, None), 3: True, (1, "x"): {4, 5}},
        queue=collections.deque([1, 2, 3], maxlen=3),
        counts=collections.Counter("abca"),
        ordered=collections.OrderedDict([("z", 1), ("y", 2)]),
        defaults=collections.defaultdict(functools.partial(collections.defaultdict, list)),
        numbers=numbers,
        column=numbers[:, 1],
        scalar=np.float32(0.1),
        raw=b"\x00\xff",
        chance=random.Random(3),
        noise=np.random.RandomState(3),
        fixed=frozenset({1, 2}),
    )
    bag.chance.gauss(0, 1)  # type: ignore[attr-defined]
    vars(bag)["defaults"]["k"]["l"].append(bag)
    library = Library("river")
    given = Given(bag, library)
    part = dump(bag, library, given)
    made = restore(part, Bag, library, given)
    assert dump(made, library, given).digest == part.digest
    assert made.again is made and made.first is made.second is made.fields["a"][0]
    assert list(made.fields) == ["b", "a", 3, (1, "x")] and made.fields[3] is True
    assert made.queue.maxlen == 3 and list(made.ordered) == ["z", "y"]
    made.ordered.move_to_end("z")
    assert made.counts == bag.counts and made.defaults["k"]["l"] == [made]  # type: ignore[attr-defined]
    assert made.defaults["new"]["er"] == []
    made.numbers[2, 1] = -1.0
    assert made.column[2] == -1.0 and numbers[2, 1] == 9.0
    assert made.chance.gauss(0, 1) == bag.chance.gauss(0, 1)  # type: ignore[attr-defined]
    assert made.noise.normal() == bag.noise.normal()  # type: ignore[attr-defined]
    assert type(made.scalar) is np.float32 and made.raw == b"\x00\xff"


def test_configurations_of_pipelines_are_json() -> None:
    config = to_config(mixed() | linear_model.LogisticRegression(l2=0.1))
    assert json.loads(json.dumps(config)) == config
