"""LightGBM's trees as a learner."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from everlearn.base import Floats, InputError, LearnerKind, MissingDependencyError, SpecError
from everlearn.learners.boosting.definition import Boosted, Link, objective_of, refuse

try:
    import lightgbm
except ImportError as error:  # pragma: no cover
    raise MissingDependencyError("LightGBM needs lightgbm: pip install everlearn[boost]") from error

if TYPE_CHECKING:
    from everlearn.learners.boosting.forest import Libraries

OBJECTIVE = ("objective", "objective_type", "app", "application", "loss")
CLASSIFIES = ("binary", "multiclass", "softmax")
EXPONENTIAL = ("poisson", "gamma", "tweedie")
IDENTITY = (
    *("regression", "regression_l2", "l2", "mse", "mean_squared_error", "rmse", "l2_root"),
    *("regression_l1", "l1", "mae", "mean_absolute_error", "huber", "fair", "quantile", "mape"),
)
SMALLEST = ("min_data_in_leaf", "min_child_samples", "min_data", "min_data_per_leaf")
INSTEAD = {
    **dict.fromkeys(
        ("num_iterations", "num_boost_round", "n_estimators", "num_trees", "num_rounds", "n_iter"),
        "say trees=, the rounds of each chunk, and at_most=",
    ),
    **dict.fromkeys(("num_threads", "n_jobs", "nthread", "num_thread"), "say threads="),
    **dict.fromkeys(("seed", "random_state", "random_seed"), "the strategy has the seed"),
    **dict.fromkeys(("early_stopping_round", "early_stopping_rounds"), "a gate judges what is new"),
    "num_class": "say classes=",
    "categorical_feature": "say Schema(categorical=…)",
    "class_weight": "give rows a weight, Schema(weight=…)",
    "is_unbalance": "give rows a weight, Schema(weight=…)",
    "input_model": "begin with nothing, or with a version",
}


@dataclass(frozen=True)
class LightGBM(Boosted):
    """Boosted trees of LightGBM (Ke et al. 2017, "LightGBM: a highly efficient gradient boosting
    decision tree"), continued with every chunk.

    A chunk, with the remembered rows among it, adds `trees` rounds, which begin where the trees
    before them ended (what `lightgbm.train(init_model=)` does). Where `at_most` would be passed,
    the oldest rounds go (`full="drop"`), or no tree is added and the leaves of all are fitted
    again (`full="refit"`, LightGBM's `Booster.refit`). New classes get trees of their own from then
    on; `classes=` only spares the change from two to more.

    Missing values are split on as such, categories by integer codes in the order in which they were
    learned, times by their place in the day, the week and the year.

    Trees that a chunk added fit that chunk better than what comes after it, and old ones are never
    mended, so that without decay the probabilities become too sure. Learning the electricity data
    in chunks of 1,000, each predicted before it was learned, cost a log loss of .80
    with 10 rounds a chunk and no decay, .65 with 5 and no decay, .51 with 5 and a decay of .9
    (accuracy .741, .754, .768), and .51 where leaves were refitted at 50 rounds.

    Args:
        params: LightGBM's own, but for those that are arguments here. `min_data_in_leaf` is at most
            a quarter of a chunk's rows, so that small chunks are learned too; `lambda_l2` is 1
            unless said, so that a leaf of a class that has been rare takes no leap.
        trees: rounds that a chunk adds.
        at_most: rounds in all.
        full: what happens then, "drop" or "refit".
        keep: the share of a leaf's value that stays when it is refitted (`decay_rate`).
        decay: what the leaves of all trees are multiplied by before each chunk; .9 where nothing is
            said, 1 with `full="refit"`.
        classes: the classes, or how many are expected.
        categories: codes of a column; values that come later are as if they were missing.
        threads: of LightGBM. Sums, and so the last digits of leaves, may depend on it.

    Raises:
        SpecError: an argument that is none of these.
        MissingDependencyError: LightGBM is not installed.

    Example:
        >>> from everlearn.base import Columns
        >>> LightGBM({"num_leaves": 15}, trees=5).kind_for(Columns(target_kind="number"))
        'regressor'
    """

    library = "lightgbm"

    def regresses(self) -> bool | None:
        """Whether the objective is one of numbers; None where none is named."""
        named = objective_of(self, OBJECTIVE)
        if named is None or named in CLASSIFIES:
            return None if named is None else False
        if named not in IDENTITY + EXPONENTIAL:
            raise SpecError(
                f"LightGBM: the objective {named!r} cannot be continued; there are"
                f" {', '.join(CLASSIFIES + IDENTITY + EXPONENTIAL)}"
            )
        return True

    def link(self) -> Link:
        """How scores become numbers."""
        named = objective_of(self, OBJECTIVE)
        return "exponential" if named in EXPONENTIAL else "identity"

    def settings(self, kind: LearnerKind, outputs: int, rows: int) -> dict[str, Any]:
        """LightGBM's parameters for a chunk of so many rows."""
        refuse(self, INSTEAD)
        given = {name: value for name, value in self.params.items() if name not in OBJECTIVE}
        boosting = next(
            (given[n] for n in ("boosting", "boosting_type", "boost") if n in given), "gbdt"
        )
        if boosting not in ("gbdt", "goss", "gbrt") or given.get("linear_tree"):
            raise SpecError("LightGBM: trees that are continued are plain ones: boosting='gbdt'")
        if given.get("path_smooth") and self.full == "refit":
            raise SpecError(
                "LightGBM ends the process where smoothed leaves are refitted: leave"
                " 'path_smooth' out, or say full='drop'"
            )
        if kind == "classifier":
            objective = "binary" if outputs == 1 else "multiclass"
        else:
            objective = objective_of(self, OBJECTIVE) or "regression"
        smallest = next((given.pop(name) for name in SMALLEST if name in given), 20)
        fixed = {
            "objective": objective,
            "num_class": outputs if objective == "multiclass" else 1,
            "min_data_in_leaf": max(1, min(smallest, rows // 4)),
            "min_data_per_group": max(1, min(given.pop("min_data_per_group", 100), rows // 4)),
            "num_threads": self.threads,
            "verbosity": -1,
        }
        l2 = {} if {"reg_lambda", "lambda", "lambda_l2"} & given.keys() else {"lambda_l2": 1.0}
        told = {"deterministic": True, "force_row_wise": True, "min_data_in_bin": 1, **l2}
        return {**told, **given, **fixed}

    def library_for(self, kind: LearnerKind, width: int, categorical: range) -> Libraries:
        """LightGBM, by number of outputs."""
        made = lru_cache(maxsize=None)(partial(Trees, self, kind, width, tuple(categorical)))
        made(1).check()
        return made


def definition_of(estimator: Any) -> LightGBM:
    """`LightGBM` with the parameters of an `LGBMClassifier` or `LGBMRegressor`: its `n_estimators`
    are the most rounds, `at_most`, and its `n_jobs` the threads.

    Raises:
        SpecError: it is another one, or has parameters that need all data at once.
    """
    kinds = {lightgbm.LGBMClassifier: "binary", lightgbm.LGBMRegressor: "regression"}
    default = next((kinds[kind] for kind in kinds if isinstance(estimator, kind)), None)
    if default is None:
        raise SpecError(f"{type(estimator).__name__} of LightGBM cannot be continued in chunks")
    usual = type(estimator)().get_params()
    given = estimator.get_params()
    params = {k: v for k, v in given.items() if v is not None and (k, v) != (k, usual.get(k))}
    most = given["n_estimators"]
    threads = params.pop("n_jobs", None)
    for name in ("n_estimators", "random_state", "importance_type"):
        params.pop(name, None)
    return LightGBM(
        {"objective": default, **params},
        trees=min(LightGBM.trees, most),
        at_most=most,
        threads=max(1, threads or 1),
    )


class Trees:
    """LightGBM for one number of outputs; see `Library`."""

    def __init__(
        self,
        definition: LightGBM,
        kind: LearnerKind,
        width: int,
        categorical: tuple[int, ...],
        outputs: int,
    ) -> None:
        self._settings = partial(definition.settings, kind, outputs)
        self._names = [f"f{place}" for place in range(width)]
        self._categorical, self._outputs = list(categorical), outputs
        self._threads = definition.threads
        self._width = width

    def check(self) -> None:
        """Refuse parameters that LightGBM refuses.

        Raises:
            SpecError: with what it says.
        """
        x: Floats = np.repeat(np.arange(40, dtype=np.float64)[:, None], self._width, axis=1)
        least = 0.0 if self._settings(0)["objective"] in CLASSIFIES else 1.0
        try:
            self.boost(x, np.mod(x[:, 0], 2.0) + least, None, np.zeros((40, 1)), 1, 0)
        except InputError as error:
            raise SpecError(str(error)) from error

    def boost(
        self, x: Floats, y: Floats, weight: Floats | None, start: Floats, rounds: int, seed: int
    ) -> tuple[bytes, int]:
        """New trees; none where the rows cannot be split."""
        settings = {**self._settings(len(x)), "seed": seed}
        with _explained(len(x)):
            booster = lightgbm.train(settings, self._data(settings, x, y, weight, start), rounds)
        trees = _trees(booster)
        grown = [tree for tree in trees if not tree.startswith(b"num_leaves=1\n")]
        text = b"".join(TREE + tree for tree in trees)
        return (text, len(trees) // self._outputs) if grown else (b"", 0)

    def booster(self, texts: Sequence[bytes], rounds: int, trusted: bool) -> Any:
        """A booster of these trees."""
        trees = b"".join(texts).split(TREE)[1:]
        if len(trees) != rounds * self._outputs:
            raise InputError(f"the state has {len(trees)} trees of {rounds} rounds")
        if not trusted:
            for tree in trees:
                check_tree(tree, self._width)
        numbered = [b"Tree=%d\n%s" % (number, tree) for number, tree in enumerate(trees)]
        told = self._settings(0)
        head = {
            "version": "v4",
            "num_class": told["num_class"],
            "num_tree_per_iteration": self._outputs,
            "label_index": 0,
            "max_feature_idx": self._width - 1,
            "objective": {
                "binary": "binary sigmoid:1",
                "multiclass": f"multiclass num_class:{self._outputs}",
            }.get(told["objective"], told["objective"]),
            "feature_names": " ".join(self._names),
            "feature_infos": " ".join(["none"] * self._width),
            "tree_sizes": " ".join(str(len(tree)) for tree in numbered),
        }
        lines = ["tree", *(f"{name}={value}" for name, value in head.items()), "", ""]
        text = "\n".join(lines).encode() + b"".join(numbered) + b"end of trees\n"
        try:
            return lightgbm.Booster(model_str=text.decode("ascii"))
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise InputError(f"the state's trees are none of LightGBM's: {error}") from error

    def margins(self, booster: Any, x: Floats, skip: int) -> Floats:
        """(n, outputs) scores."""
        if not len(x):
            return np.zeros((0, self._outputs))
        made = booster.predict(
            x, start_iteration=skip, num_iteration=-1, raw_score=True, num_threads=self._threads
        )
        return np.asarray(made, np.float64).reshape(len(x), self._outputs)

    def refit(
        self, booster: Any, x: Floats, y: Floats, weight: Floats | None, start: Floats, keep: float
    ) -> bytes:
        """The same trees with other leaves."""
        settings = self._settings(len(x))
        with _explained(len(x)):
            made = booster.refit(
                x,
                y,
                decay_rate=keep,
                weight=weight,
                init_score=start[:, 0] if self._outputs == 1 else start,
                categorical_feature=self._categorical,
                dataset_params=settings,
                **{
                    name: settings[name]
                    for name in settings
                    if name.startswith("lambda") or name in ("reg_lambda", "reg_alpha")
                },
                num_threads=self._threads,
                verbosity=-1,
            )
        return b"".join(TREE + tree for tree in _trees(made))

    def scaled(self, text: bytes, factor: float) -> bytes:
        """The same trees, leaves multiplied."""

        def times(found: re.Match[bytes]) -> bytes:
            values = (repr(float(value) * factor) for value in found[2].split())
            return found[1] + " ".join(values).encode()

        return LEAVES.sub(times, text)

    def _data(
        self, settings: dict[str, Any], x: Floats, y: Floats, weight: Floats | None, start: Floats
    ) -> Any:
        return lightgbm.Dataset(
            x,
            y,
            weight=weight,
            init_score=start[:, 0] if self._outputs == 1 else start,
            feature_name=self._names,
            categorical_feature=self._categorical,
            params=settings,
        )


TREE = b"#tree\n"
"""Stands before each tree in the text that is kept, in place of its number."""

LEAVES = re.compile(rb"^(leaf_value=)(.*)$", re.MULTILINE)


def _trees(booster: Any) -> list[bytes]:
    """The text of each tree, without its number."""
    text = booster.model_to_string(num_iteration=-1).encode()
    begin, end = text.index(b"\nTree=") + 1, text.index(b"end of trees")
    return [tree.partition(b"\n")[2] for tree in text[begin:end].split(b"Tree=")[1:]]


@contextmanager
def _explained(rows: int) -> Iterator[None]:
    """What LightGBM warns of is known, and what it refuses is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (lightgbm.basic.LightGBMError, ValueError, TypeError) as error:
            raise InputError(f"LightGBM cannot learn {rows} rows: {error}") from error


WHOLE = (
    *("num_leaves", "num_cat", "split_feature", "decision_type", "left_child", "right_child"),
    *("cat_boundaries", "cat_threshold"),
)
"""What a tree is read by: LightGBM takes other forms of a number (10e-1) for other numbers."""


def check_tree(text: bytes, width: int) -> None:
    """Refuse the text of a tree that LightGBM would not have written: it reads them without looking
    where they lead.

    Raises:
        InputError: it is none.
    """
    try:
        told = dict(line.split("=", 1) for line in text.decode("ascii").split("\n") if line)
        leaves, sets = int(told["num_leaves"]), int(told["num_cat"])
        if leaves < 1 or sets < 0:
            raise InputError(f"a tree of the state has {leaves} leaves and {sets} sets")
        lengths = {
            **dict.fromkeys(("leaf_value", "leaf_weight", "leaf_count"), leaves),
            **dict.fromkeys(("split_feature", "threshold", "decision_type"), leaves - 1),
            **dict.fromkeys(("left_child", "right_child", "split_gain"), leaves - 1),
            **dict.fromkeys(("internal_value", "internal_weight", "internal_count"), leaves - 1),
            **dict.fromkeys(("num_leaves", "num_cat", "is_linear", "shrinkage"), 1),
        }
        if sets:
            lengths |= {"cat_boundaries": sets + 1, "cat_threshold": -1}
        if any(re.search(r"[^0-9 -]", told.get(name, "")) for name in WHOLE):
            raise InputError("a tree of the state leads to what is no whole number")
        values = {name: np.array(told[name].split(), np.float64) for name in told}
        wrong = [n for n in values if lengths.get(n) not in (len(values[n]), -1)]
        if leaves == 1 and "leaf_weight" in wrong and not len(values["leaf_weight"]):
            wrong.remove("leaf_weight")
        needed = {name for name, count in lengths.items() if count}
        if wrong or told.keys() < needed - {"leaf_weight", "leaf_count"}:
            raise InputError(f"a tree of the state has not what a tree has: {wrong}")
        if values["is_linear"][0] or not np.isfinite(values["leaf_value"]).all():
            raise InputError("a tree of the state has leaves that are no numbers")
        if leaves > 1:
            _check_splits(values, leaves, sets, width)
    except (KeyError, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a tree of the state is none: {error!r}") from error


def _check_splits(values: dict[str, Floats], leaves: int, sets: int, width: int) -> None:
    """Refuse splits that lead out of the tree or look at what is not there."""
    children = np.concatenate([values["left_child"], values["right_child"]])
    inner = children[children >= 0]
    kinds = values["decision_type"].astype(np.int64)
    chosen = values["threshold"][(kinds & 1) == 1]
    good = [
        (children >= -leaves).all() and (inner < leaves - 1).all() and (inner > 0).all(),
        len(np.unique(inner)) == len(inner),
        ((values["split_feature"] >= 0) & (values["split_feature"] < width)).all(),
        ((chosen >= 0) & (chosen < max(sets, 0))).all(),
    ]
    if sets:
        bounds = values["cat_boundaries"]
        good += [bounds[0] == 0, bounds[-1] == len(values["cat_threshold"])]
        good += [(np.diff(bounds) >= 0).all()]
    if not all(good):
        raise InputError("a tree of the state has splits that lead nowhere")
