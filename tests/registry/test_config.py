from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import everlearn as el
from everlearn.base import (
    InputError,
    Model,
    Schema,
    SpecError,
    canonical_json,
    generator_from_json,
    generator_to_json,
)
from everlearn.registry.config import (
    MAX_ARRAY,
    equal_when_rebuilt,
    from_config,
    to_config,
)
from everlearn.registry.references import check_untrusted, class_names

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
hashables = st.booleans() | st.integers() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.frozensets(hashables, max_size=3)
    ),
    max_leaves=8,
)


MEMORIES = [
    el.Reservoir(100, ratio=0.5),
    el.Balanced(100),
    el.Prioritized(100),
    el.Window(rows=5),
    el.Window(time=dt.timedelta(days=7)),
    el.Decay(half_life="2h"),
    el.Everything(),
]
JFK = el.Slice("JFK", column="origin", equals="JFK")


@dataclass(frozen=True)
class Point:
    x: float
    tags: tuple[str, ...] = ()


class Convention:
    """Rebuilt from the attributes that are named like the constructor's parameters."""

    def __init__(self, *steps: Any, seed: int = 0) -> None:
        self.steps = steps
        self.seed = seed

    def partial_fit(self, X: Any, y: Any = None) -> None: ...


class Forgetful:
    def __init__(self, alpha: float) -> None:
        self.twice = 2 * alpha

    def partial_fit(self, X: Any, y: Any = None) -> None: ...


class Drifting(Convention):
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha * 2


def through_text(config: Any) -> Any:
    return json.loads(json.dumps(config, allow_nan=False))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@given(values)
def test_values_come_back_equal_through_strict_json(value: Any) -> None:
    config = through_text(to_config(value))
    assert same(from_config(config), value)
    assert canonical_json(to_config(from_config(config))) == canonical_json(config)


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.25),
        np.int32(7),
        np.bool_(True),
        np.str_("log"),
        dt.timedelta(hours=2, microseconds=3),
        dt.datetime(2013, 1, 1, tzinfo=dt.UTC),
        Path("weights.safetensors"),
        Point(0.5, ("a",)),
        Schema(target="late", classes=(True, False)),
        np.log1p,
        canonical_json,
        {1, 2, 3},
    ],
)
def test_other_values_come_back_equal(value: Any) -> None:
    assert from_config(through_text(to_config(value))) == value


def test_arrays_and_generators_come_back() -> None:
    priors = np.array([0.25, np.nan, np.inf], dtype=np.float32)
    back = from_config(through_text(to_config(priors)))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, priors)
    random = np.random.RandomState(5)
    random.normal(size=3)
    back = from_config(through_text(to_config(random)))
    assert back.normal() == random.normal()
    generator = np.random.default_rng(5)
    back = from_config(through_text(to_config(generator)))
    assert back.normal() == generator.normal()


@pytest.mark.parametrize(
    "estimator",
    [
        SGDClassifier(loss="log_loss", class_weight={0: 1.0, 1: 3.0}, random_state=1),
        GaussianNB(priors=np.array([0.4, 0.6])),
        MLPClassifier(hidden_layer_sizes=(8, 4)),
        make_pipeline(StandardScaler(), IncrementalPCA(3), SGDClassifier()),
        make_pipeline(FunctionTransformer(np.log1p), SGDClassifier()),
        Convention(SGDClassifier(), GaussianNB(), seed=4),
    ],
)
def test_learners_come_back_equal(estimator: Any) -> None:
    model = Model("m", learner=estimator, schema=Schema(target="y"))
    config = through_text(equal_when_rebuilt(model))
    assert canonical_json(to_config(from_config(config))) == canonical_json(config)
    assert type(from_config(config).learner) is type(estimator)


@pytest.mark.parametrize(
    "sections",
    [
        {"learner": el.Chain(el.Encoder(buckets=64), IncrementalPCA(3), SGDClassifier())},
        *({"strategy": el.Strategy(memory=memory)} for memory in MEMORIES),
        {"strategy": el.Strategy(start="scratch", order=el.Shuffle(100), passes=2)},
        {"strategy": el.Strategy(start=el.Pretrained("delays-2.zip"))},
        {"gate": el.NonInferior("log_loss", margin=0.01, slices=(JFK,))},
    ],
)
def test_everlearns_own_parts_come_back_equal_and_are_trusted(sections: dict[str, Any]) -> None:
    model = Model("m", schema=Schema(target="y"), **sections)
    config = through_text(equal_when_rebuilt(model))
    check_untrusted(config)
    back = from_config(config)
    if "learner" not in sections:
        assert back == model
    for name in class_names(config):
        assert name.startswith(("everlearn:", "sklearn."))


def test_classes_are_named_by_their_public_module() -> None:
    assert to_config(SGDClassifier())["class"] == "sklearn.linear_model:SGDClassifier"
    assert to_config(Schema())["class"] == "everlearn:Schema"


def test_what_cannot_be_rebuilt_is_refused_with_its_place() -> None:
    class Local(Convention):
        pass

    lambdas = make_pipeline(FunctionTransformer(lambda x: x), SGDClassifier())
    fitted = GaussianNB().fit(np.eye(2), [0, 1])
    for learner, said in [
        (lambdas, r"learner.steps\[0\]\[1\].func: .*lambda"),
        (Local(), "defined inside of a function"),
        (Forgetful(0.5), "does not keep it in an attribute"),
        (Drifting(0.5), "not the same after it is rebuilt"),
        (fitted, "already fitted"),
        (object(), "cannot stand in a definition"),
        (np.zeros(MAX_ARRAY + 1), "too much for a definition"),
    ]:
        with pytest.raises(SpecError, match=said):
            equal_when_rebuilt(Model("m", learner=learner))


def test_a_list_that_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(SpecError, match="holds itself"):
        to_config(circle)


def test_a_class_of_main_is_refused() -> None:
    made = type("Mine", (Convention,), {"__module__": "__main__"})
    with pytest.raises(SpecError, match="__main__"):
        to_config(made())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"class": "subprocess:Popen", "params": {"args": ["false"]}}, "may not|may stand"),
        ({"class": "builtins:eval", "params": {}}, "may stand"),
        ({"class": "pathlib:os.system", "params": {}}, "does not define"),
        ({"class": "no_such_package.sub:X", "params": {}}, "install it"),
        ({"class": "sklearn.linear_model:Nothing", "params": {}}, "does not define"),
        ({"class": "everlearn.base:Schema", "params": {"colour": 1}}, "cannot be rebuilt with"),
        ({"class": "spec:Mine", "params": {}}, "text was not kept"),
        ({"made_up": 1}, "newer release"),
        ({"a": 1, "b": 2}, "does not know"),
    ],
)
def test_configs_that_cannot_be_used_are_refused(config: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        from_config(config)


@pytest.mark.parametrize(
    "name",
    [
        "storage.blobs:FolderBlobs",
        "data.parquet:ParquetSource",
        "data.streams.kafka:KafkaStream",
        "serving.client:Client",
    ],
)
def test_nothing_is_opened_by_a_config(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match="may stand in a definition"):
        from_config({"class": f"everlearn.{name}", "params": {}, "args": [str(tmp_path / "made")]})
    assert not (tmp_path / "made").exists()


def test_untrusted_configs_may_only_name_our_and_sklearns_classes() -> None:
    check_untrusted(to_config(Model("m", learner=SGDClassifier())))
    for config in [
        {"class": "subprocess:Popen", "params": {}},
        {"class": "spec:Mine", "params": {}},
        {"ref": "numpy:log1p"},
        {"ref": "sklearn.utils:gen_batches"},
        {"tuple": [{"dict": [["a", {"class": "os:stat_result", "params": {}}]]}]},
        {"class": "sklearn.base:BaseEstimator.get_params", "params": {}},
        {"class": "everlearn.base:os.kill", "params": {}},
    ]:
        with pytest.raises(SpecError):
            check_untrusted(config)


@pytest.mark.parametrize("position", [-1, 625, 10**9, "1"])
def test_a_generator_whose_position_is_nowhere_is_refused(position: Any) -> None:
    """NumPy reads there without looking, and ends the process."""
    config = to_config(np.random.RandomState(0))
    config["random_state"][2] = position
    with pytest.raises(InputError, match="624"):
        from_config(config)
    philox = generator_to_json(np.random.Generator(np.random.Philox(0)))
    philox["buffer_pos"] = {"int": "-9"}
    with pytest.raises(InputError, match="buffer"):
        generator_from_json(philox)
