"""XGBoost's trees as a learner."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from everlearn.base import (
    Floats,
    InputError,
    Json,
    LearnerKind,
    MissingDependencyError,
    SpecError,
)
from everlearn.learners.boosting.definition import Boosted, Link, objective_of, refuse
from everlearn.learners.boosting.forest import RATE

try:
    import xgboost
except ImportError as error:  # pragma: no cover
    raise MissingDependencyError("XGBoost needs xgboost: pip install everlearn[boost]") from error

if TYPE_CHECKING:
    from everlearn.learners.boosting.forest import Libraries

CLASSIFIES = ("binary:logistic", "multi:softprob", "multi:softmax")
EXPONENTIAL = ("count:poisson", "reg:gamma", "reg:tweedie")
IDENTITY = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror")
INSTEAD = {
    **dict.fromkeys(
        ("num_round", "num_boost_round", "n_estimators"),
        "say trees=, the rounds of each chunk, and at_most=",
    ),
    **dict.fromkeys(("nthread", "n_jobs"), "say threads="),
    **dict.fromkeys(("seed", "random_state"), "the strategy has the seed"),
    **dict.fromkeys(("early_stopping_rounds", "callbacks"), "a gate judges what is new"),
    **dict.fromkeys(("updater", "process_type", "refresh_leaf"), "say full='refit'"),
    "base_score": "the first chunk says where it begins",
    "num_class": "say classes=",
}


@dataclass(frozen=True)
class XGBoost(Boosted):
    """Boosted trees of XGBoost (Chen & Guestrin 2016, "XGBoost: a scalable tree boosting system"),
    continued with every chunk.

    A chunk, with the remembered rows among it, adds `trees` rounds, which begin where the trees
    before them ended (what `xgboost.train(xgb_model=)` does). Where `at_most` would be passed, the
    oldest rounds go (`full="drop"`), or no tree is added and the leaves of all are fitted again
    (`full="refit"`, XGBoost's updater "refresh"; a leaf that no row reaches stays as it was). New
    classes get trees of their own from then on; `classes=` only spares the change from two to more.

    Missing values are split on as such, categories by integer codes in the order in which they were
    learned, times by their place in the day, the week and the year.

    Trees that a chunk added fit that chunk better than what comes after it, and old ones are never
    mended, so that without decay the probabilities become too sure. Learning the electricity data
    in chunks of 1,000, each predicted before it was learned, cost a log loss of .67
    with 10 rounds a chunk and no decay, .57 with 5 and no decay, .51 with 5 and a decay of .9
    (accuracy .744, .755, .766), and .54 where leaves were refitted at 50 rounds.

    Args:
        params: XGBoost's own, but for those that are arguments here. `learning_rate` is .1 unless
            said; `min_child_weight` is at most a fortieth of a chunk's rows, so that small chunks
            are learned too.
        trees: rounds that a chunk adds.
        at_most: rounds in all.
        full: what happens then, "drop" or "refit".
        keep: the share of a leaf's value that stays when it is refitted.
        decay: what the leaves of all trees are multiplied by before each chunk; .9 where nothing is
            said, 1 with `full="refit"`.
        classes: the classes, or how many are expected.
        categories: codes of a column; values that come later are as if they were missing.
        threads: of XGBoost. Sums, and so the last digits of leaves, may depend on it.

    Raises:
        SpecError: an argument that is none of these.
        MissingDependencyError: XGBoost is not installed.

    Example:
        >>> from everlearn.base import Columns
        >>> XGBoost({"max_depth": 4}, trees=5).kind_for(Columns(target_kind="text"))
        'classifier'
    """

    library = "xgboost"

    def regresses(self) -> bool | None:
        """Whether the objective is one of numbers; None where none is named."""
        named = objective_of(self, ("objective",))
        if named is None or named in CLASSIFIES:
            return None if named is None else False
        if named not in IDENTITY + EXPONENTIAL:
            raise SpecError(
                f"XGBoost: the objective {named!r} cannot be continued; there are"
                f" {', '.join(CLASSIFIES + IDENTITY + EXPONENTIAL)}"
            )
        return True

    def link(self) -> Link:
        """How scores become numbers."""
        named = objective_of(self, ("objective",))
        return "exponential" if named in EXPONENTIAL else "identity"

    def settings(self, kind: LearnerKind, outputs: int, rows: int) -> dict[str, Any]:
        """XGBoost's parameters for a chunk of so many rows."""
        refuse(self, INSTEAD)
        given = dict(self.params)
        plain = (("booster", "gbtree"), ("num_parallel_tree", 1))
        if given.get("multi_strategy", "one_output_per_tree") != "one_output_per_tree" or any(
            given.pop(name, usual) != usual for name, usual in plain
        ):
            raise SpecError("XGBoost: trees that are continued are plain ones: booster='gbtree'")
        if kind == "classifier":
            objective = "binary:logistic" if outputs == 1 else "multi:softprob"
        else:
            objective = objective_of(self, ("objective",)) or "reg:squarederror"
        fixed = {
            "objective": objective,
            "nthread": self.threads,
            "base_score": 0.5,
            "verbosity": 0,
            "validate_parameters": False,
            "min_child_weight": min(given.pop("min_child_weight", 1.0), rows / 40),
        }
        if outputs > 1:
            fixed["num_class"] = outputs
        rate = {} if {"eta", "learning_rate"} & given.keys() else {"learning_rate": RATE}
        return {"tree_method": "hist", **rate, **given, **fixed}

    def library_for(self, kind: LearnerKind, width: int, categorical: range) -> Libraries:
        """XGBoost, by number of outputs."""
        made = lru_cache(maxsize=None)(partial(Trees, self, kind, width, categorical))
        made(1).check()
        return made


def definition_of(estimator: Any) -> XGBoost:
    """`XGBoost` with the parameters of an `XGBClassifier` or `XGBRegressor`: its `n_estimators` are
    the most rounds, `at_most`, and its `n_jobs` the threads.

    Raises:
        SpecError: it is another one, or has parameters that need all data at once.
    """
    kinds = {xgboost.XGBClassifier: "binary:logistic", xgboost.XGBRegressor: "reg:squarederror"}
    default = next((kinds[kind] for kind in kinds if isinstance(estimator, kind)), None)
    if default is None or isinstance(estimator, xgboost.XGBRFClassifier | xgboost.XGBRFRegressor):
        raise SpecError(f"{type(estimator).__name__} of XGBoost cannot be continued in chunks")
    params = {k: v for k, v in estimator.get_params().items() if v is not None}
    if not np.isnan(params.get("missing", np.nan)):
        raise SpecError(
            f"XGBoost(missing={params['missing']!r}): a missing value is NaN here; make it so in"
            " the data"
        )
    most = params.pop("n_estimators", 100)
    threads = params.pop("n_jobs", 1)
    for name in ("random_state", "importance_type", "missing", "enable_categorical", "verbosity"):
        params.pop(name, None)
    return XGBoost(
        {"objective": default, **params},
        trees=min(XGBoost.trees, most),
        at_most=most,
        threads=max(1, threads),
    )


class Trees:
    """XGBoost for one number of outputs; see `Library`."""

    def __init__(
        self, definition: XGBoost, kind: LearnerKind, width: int, categorical: range, outputs: int
    ) -> None:
        self._settings = partial(definition.settings, kind, outputs)
        self._types = ["c" if place in categorical else "q" for place in range(width)]
        self._threads, self._outputs = definition.threads, outputs
        self._shell: Json = None

    def check(self) -> None:
        """Refuse parameters that XGBoost refuses.

        Raises:
            SpecError: with what it says.
        """
        x: Floats = np.repeat(np.arange(4, dtype=np.float64)[:, None], len(self._types), axis=1)
        least = 0.0 if self._settings(0)["objective"] in CLASSIFIES else 1.0
        try:
            data = self._data(x, np.zeros((4, self._outputs)), np.mod(x[:, 0], 2.0) + least)
            made = xgboost.train(self._settings(4), data, 1)
        except (xgboost.core.XGBoostError, TypeError, ValueError) as error:
            raise SpecError(f"XGBoost cannot learn: {_last_line(error)}") from error
        known = set(_names(json.loads(made.save_config()))) | {"eval_metric", "verbosity"}
        if unknown := sorted(self._settings(4).keys() - known):
            raise SpecError(f"XGBoost has no parameter {', '.join(unknown)}; see params=")

    def boost(
        self, x: Floats, y: Floats, weight: Floats | None, start: Floats, rounds: int, seed: int
    ) -> tuple[bytes, int]:
        """New trees."""
        with _explained(len(x)):
            data = self._data(x, start, y, weight)
            booster = xgboost.train({**self._settings(len(x)), "seed": seed}, data, rounds)
        return _text(_trees(booster)), rounds

    def booster(self, texts: Sequence[bytes], rounds: int, trusted: bool) -> Any:
        """A booster of these trees."""
        trees = b"".join(texts).splitlines()
        if len(trees) != rounds * self._outputs:
            raise InputError(f"the state has {len(trees)} trees of {rounds} rounds")
        if not trusted:
            for tree in trees:
                check_tree(tree, len(self._types))
        numbered = b",".join(b'{"id":%d,' % at + tree[1:] for at, tree in enumerate(trees))
        shell = self._empty()
        inside = shell["learner"]["gradient_booster"]["model"]
        inside["gbtree_model_param"]["num_trees"] = str(len(trees))
        inside["iteration_indptr"] = list(range(0, len(trees) + 1, self._outputs))
        inside["tree_info"] = list(range(self._outputs)) * rounds
        inside["trees"] = "TREES"
        begin, _, end = json.dumps(shell).encode().partition(b'"TREES"')
        try:
            model = bytearray(begin + b"[" + numbered + b"]" + end)
            return xgboost.Booster({"nthread": self._threads}, model_file=model)
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise InputError(
                f"the state's trees are none of XGBoost's: {_last_line(error)}"
            ) from error

    def margins(self, booster: Any, x: Floats, skip: int) -> Floats:
        """(n, outputs) scores."""
        if not len(x):
            return np.zeros((0, self._outputs))
        data = self._data(x, np.zeros((len(x), self._outputs)))
        rounds = (skip, booster.num_boosted_rounds())
        made = booster.predict(data, output_margin=True, iteration_range=rounds)
        return np.asarray(made, np.float64).reshape(len(x), self._outputs)

    def refit(
        self, booster: Any, x: Floats, y: Floats, weight: Floats | None, start: Floats, keep: float
    ) -> bytes:
        """The same trees with other leaves."""
        refresh = {"process_type": "update", "updater": "refresh", "refresh_leaf": True}
        settings = {**self._settings(len(x)), **refresh}
        settings.pop("tree_method")
        rounds = booster.num_boosted_rounds()
        with _explained(len(x)):
            data = self._data(x, start, y, weight)
            made = xgboost.train(settings, data, rounds, xgb_model=booster)
        pairs = zip(_trees(booster), _trees(made), strict=True)
        return _text([_blended(old, new, keep) for old, new in pairs])

    def scaled(self, text: bytes, factor: float) -> bytes:
        """The same trees, leaves multiplied."""
        trees = [json.loads(line) for line in text.splitlines()]
        for tree in trees:
            for node in _leaves(tree):
                tree["split_conditions"][node] *= factor
        return _text(trees)

    def _data(
        self, x: Floats, start: Floats, y: Floats | None = None, weight: Floats | None = None
    ) -> Any:
        return xgboost.DMatrix(
            x,
            y,
            weight=weight,
            base_margin=start[:, 0] if start.shape[1] == 1 else start,
            feature_types=self._types,
            enable_categorical=True,
            nthread=self._threads,
        )

    def _empty(self) -> Json:
        """The JSON of a booster, in which only its trees are wanted."""
        if self._shell is None:
            x = np.zeros((2, len(self._types)))
            data = self._data(x, np.zeros((2, self._outputs)), np.ones(2))
            raw = xgboost.train(self._settings(2), data, 1).save_raw("json")
            self._shell = json.loads(bytes(raw))
        return self._shell


def _names(config: Json) -> Iterator[str]:
    """All keys of nested JSON."""
    if isinstance(config, dict):
        yield from config
        for item in config.values():
            yield from _names(item)


def _trees(booster: Any) -> list[Json]:
    """The JSON of each tree."""
    made = json.loads(bytes(booster.save_raw("json")))
    trees: list[Json] = made["learner"]["gradient_booster"]["model"]["trees"]
    return trees


def _text(trees: Sequence[Json]) -> bytes:
    """A line a tree, without its number."""
    lines = []
    for tree in trees:
        told = {name: value for name, value in tree.items() if name != "id"}
        lines.append(json.dumps(told, separators=(",", ":"), sort_keys=True) + "\n")
    return "".join(lines).encode()


def _leaves(tree: Json) -> list[int]:
    return [node for node, child in enumerate(tree["left_children"]) if child == -1]


def _blended(old: Json, new: Json, keep: float) -> Json:
    """The new tree, with leaves between the two trees'; the old ones where no row came."""
    for node in _leaves(new):
        value, before = new["split_conditions"][node], old["split_conditions"][node]
        reached = new["sum_hessian"][node] > 0
        value = keep * before + (1.0 - keep) * value if reached else before
        new["split_conditions"][node] = new["base_weights"][node] = value
    return new


def _last_line(error: Exception) -> str:
    """What XGBoost says, without where in its source it says so."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if "Check failed" in line or "Invalid" in line), "")
    return (said or (lines or [""])[0]).strip()


@contextmanager
def _explained(rows: int) -> Iterator[None]:
    """What XGBoost warns of is known, and what it refuses is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
            raise InputError(f"XGBoost cannot learn {rows} rows: {_last_line(error)}") from error


NODES = (
    *("base_weights", "default_left", "left_children", "loss_changes", "parents"),
    *("right_children", "split_conditions", "split_indices", "split_type", "sum_hessian"),
)
"""What a tree has of each of its nodes."""

SETS = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


def check_tree(text: bytes, width: int) -> None:
    """Refuse the text of a tree that XGBoost would not have written: it reads them without looking
    where they lead.

    Raises:
        InputError: it is none.
    """
    try:
        tree = json.loads(text)
        nodes = {name: np.array(tree[name], np.float64) for name in NODES}
        sets = {name: np.array(tree[name], np.float64) for name in SETS}
        told = {name: int(value) for name, value in tree["tree_param"].items()}
        count = len(nodes["left_children"])
        left, right = nodes["left_children"], nodes["right_children"]
        split = left >= 0
        inner = np.concatenate([left[split], right[split]])
        begins, sizes = sets["categories_segments"], sets["categories_sizes"]
        good = [
            set(tree) == {*NODES, *SETS, "tree_param"},
            all(array.shape == (count,) for array in nodes.values()) and count > 0,
            told
            == {"num_deleted": 0, "num_feature": width, "num_nodes": count, "size_leaf_vector": 1},
            ((left >= 0) == (right >= 0)).all() and (left[~split] == -1).all(),
            (inner > 0).all() and (inner < count).all() and len(np.unique(inner)) == len(inner),
            _are_parents(nodes["parents"], left, right),
            np.isin(nodes["split_type"], (0, 1)).all(),
            ((nodes["split_indices"] >= 0) & (nodes["split_indices"] < width)).all(),
            np.isfinite(nodes["split_conditions"][~split]).all(),
            np.array_equal(sets["categories_nodes"], np.flatnonzero(nodes["split_type"] == 1)),
            len(begins) == len(sizes) == len(sets["categories_nodes"]),
            np.array_equal(begins, np.cumsum(sizes) - sizes) and (sizes > 0).all(),
            sizes.sum() == len(sets["categories"]),
            ((sets["categories"] >= 0) & (sets["categories"] < 2**24)).all(),
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"a tree of the state is none: {error!r}") from error
    if not all(good):
        raise InputError("a tree of the state has splits that lead nowhere")


def _are_parents(parents: Floats, left: Floats, right: Floats) -> bool:
    """Whether every node but the root is a child of its parent; that of the root is none."""
    expected = np.full(len(left), float(np.iinfo(np.int32).max))
    for children in (left, right):
        inner = np.flatnonzero(children >= 0)
        expected[children[inner].astype(np.int64)] = inner
    return np.array_equal(parents, expected)
