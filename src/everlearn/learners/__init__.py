"""What learns: native learners, which learn row by row, and scikit-learn's estimators, behind one
protocol (`everlearn.base.Learner`).

A definition is an estimator that has learned nothing, a `Chain` of some, or a name; what is learned
in a model lives in what `as_learner` makes of it. What compiles is imported where it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everlearn.learners.adapt import as_learner as as_learner
    from everlearn.learners.adapt import learner_kind as learner_kind
    from everlearn.learners.boosting.lightgbm import LightGBM as LightGBM
    from everlearn.learners.boosting.xgboost import XGBoost as XGBoost
    from everlearn.learners.chain import Chain as Chain
    from everlearn.learners.encoder import Encoder as Encoder
    from everlearn.learners.files import load_file as load_file
    from everlearn.learners.files import save_file as save_file
    from everlearn.learners.keras_models.definition import KerasLearner as KerasLearner
    from everlearn.learners.labels import Labels as Labels
    from everlearn.learners.native.adaptive_random_forest import (
        AdaptiveRandomForestClassifier as AdaptiveRandomForestClassifier,
    )
    from everlearn.learners.native.adaptive_random_forest_regressor import (
        AdaptiveRandomForestRegressor as AdaptiveRandomForestRegressor,
    )
    from everlearn.learners.native.auto import Auto as Auto
    from everlearn.learners.native.baselines import LastValue as LastValue
    from everlearn.learners.native.baselines import Majority as Majority
    from everlearn.learners.native.baselines import NoChange as NoChange
    from everlearn.learners.native.baselines import RunningMean as RunningMean
    from everlearn.learners.native.bayesian_personalized_ranking import (
        BayesianPersonalizedRanking as BayesianPersonalizedRanking,
    )
    from everlearn.learners.native.experts import Experts as Experts
    from everlearn.learners.native.half_space_trees import HalfSpaceTrees as HalfSpaceTrees
    from everlearn.learners.native.hoeffding_adaptive_tree import (
        HoeffdingAdaptiveTreeClassifier as HoeffdingAdaptiveTreeClassifier,
    )
    from everlearn.learners.native.hoeffding_adaptive_tree_regressor import (
        HoeffdingAdaptiveTreeRegressor as HoeffdingAdaptiveTreeRegressor,
    )
    from everlearn.learners.native.hoeffding_tree import (
        HoeffdingTreeClassifier as HoeffdingTreeClassifier,
    )
    from everlearn.learners.native.hoeffding_tree_regressor import (
        HoeffdingTreeRegressor as HoeffdingTreeRegressor,
    )
    from everlearn.learners.native.linear import LinearRegression as LinearRegression
    from everlearn.learners.native.linear import LinearSVM as LinearSVM
    from everlearn.learners.native.linear import LogisticRegression as LogisticRegression
    from everlearn.learners.native.matrix_factorization import (
        MatrixFactorization as MatrixFactorization,
    )
    from everlearn.learners.native.naive_bayes import BernoulliNB as BernoulliNB
    from everlearn.learners.native.naive_bayes import GaussianNB as GaussianNB
    from everlearn.learners.native.naive_bayes import MultinomialNB as MultinomialNB
    from everlearn.learners.native.passive_aggressive import (
        PassiveAggressiveClassifier as PassiveAggressiveClassifier,
    )
    from everlearn.learners.native.passive_aggressive import (
        PassiveAggressiveRegressor as PassiveAggressiveRegressor,
    )
    from everlearn.learners.neural.definition import TorchLearner as TorchLearner
    from everlearn.learners.river import River as River
    from everlearn.learners.text.causal import CausalLM as CausalLM
    from everlearn.learners.text.gpt import GPT as GPT
    from everlearn.learners.text.sentences import SentenceClassifier as SentenceClassifier
    from everlearn.learners.text.tokens import Tokens as Tokens

_HOME = {
    "AdaptiveRandomForestClassifier": "native.adaptive_random_forest",
    "AdaptiveRandomForestRegressor": "native.adaptive_random_forest_regressor",
    "Auto": "native.auto",
    "BayesianPersonalizedRanking": "native.bayesian_personalized_ranking",
    "BernoulliNB": "native.naive_bayes",
    "CausalLM": "text.causal",
    "Chain": "chain",
    "Encoder": "encoder",
    "Experts": "native.experts",
    "GPT": "text.gpt",
    "GaussianNB": "native.naive_bayes",
    "HalfSpaceTrees": "native.half_space_trees",
    "HoeffdingAdaptiveTreeClassifier": "native.hoeffding_adaptive_tree",
    "HoeffdingAdaptiveTreeRegressor": "native.hoeffding_adaptive_tree_regressor",
    "HoeffdingTreeClassifier": "native.hoeffding_tree",
    "HoeffdingTreeRegressor": "native.hoeffding_tree_regressor",
    "KerasLearner": "keras_models.definition",
    "Labels": "labels",
    "LastValue": "native.baselines",
    "LightGBM": "boosting.lightgbm",
    "LinearRegression": "native.linear",
    "LinearSVM": "native.linear",
    "LogisticRegression": "native.linear",
    "Majority": "native.baselines",
    "MatrixFactorization": "native.matrix_factorization",
    "MultinomialNB": "native.naive_bayes",
    "NoChange": "native.baselines",
    "PassiveAggressiveClassifier": "native.passive_aggressive",
    "PassiveAggressiveRegressor": "native.passive_aggressive",
    "River": "river",
    "RunningMean": "native.baselines",
    "SentenceClassifier": "text.sentences",
    "Tokens": "text.tokens",
    "TorchLearner": "neural.definition",
    "XGBoost": "boosting.xgboost",
    "as_learner": "adapt",
    "learner_kind": "adapt",
    "load_file": "files",
    "save_file": "files",
}

__all__ = [
    "GPT",
    "AdaptiveRandomForestClassifier",
    "AdaptiveRandomForestRegressor",
    "Auto",
    "BayesianPersonalizedRanking",
    "BernoulliNB",
    "CausalLM",
    "Chain",
    "Encoder",
    "Experts",
    "GaussianNB",
    "HalfSpaceTrees",
    "HoeffdingAdaptiveTreeClassifier",
    "HoeffdingAdaptiveTreeRegressor",
    "HoeffdingTreeClassifier",
    "HoeffdingTreeRegressor",
    "KerasLearner",
    "Labels",
    "LastValue",
    "LightGBM",
    "LinearRegression",
    "LinearSVM",
    "LogisticRegression",
    "Majority",
    "MatrixFactorization",
    "MultinomialNB",
    "NoChange",
    "PassiveAggressiveClassifier",
    "PassiveAggressiveRegressor",
    "River",
    "RunningMean",
    "SentenceClassifier",
    "Tokens",
    "TorchLearner",
    "XGBoost",
    "as_learner",
    "learner_kind",
    "load_file",
    "save_file",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
