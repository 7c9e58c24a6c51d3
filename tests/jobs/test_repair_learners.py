"""Repair of models of other libraries: patched, patched on, taken back, and folded again without
rows that they should not have learned."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.learners import Encoder
from everlearn.strategies.patch_weights import UnsolvableError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

WORDS = (("late", "lost", "broken", "refund"), ("thanks", "great", "fast", "lovely"))
"""What tells the two classes of texts apart."""


def keras_net() -> Any:
    import keras

    model = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    return model


def keras_learner(folder: Path) -> Any:
    pytest.importorskip("keras", reason="Keras is needed")
    return el.learners.KerasLearner(keras_net, batch=20, encoder=Encoder(missing="mean"))


def torch_net() -> Any:
    from torch import nn

    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 2))


def torch_learner(folder: Path) -> Any:
    pytest.importorskip("torch", reason="PyTorch is needed")
    return el.learners.TorchLearner(torch_net, batch=20, encoder=Encoder(missing="mean"))


def text_learner(folder: Path) -> Any:
    """A sentence encoder of one layer, of which the head learns."""
    pytest.importorskip("torch", reason="PyTorch is needed")
    transformers = pytest.importorskip("transformers", reason="transformers is needed")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from torch import manual_seed

    manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(
        vocab_size=16, intermediate_size=16, max_position_embeddings=16, **sizes
    )
    transformers.BertModel(config).save_pretrained(folder)
    words = ("[PAD]", "[UNK]", *WORDS[0], *WORDS[1])
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    net = el.learners.SentenceClassifier(str(folder), classes=2)
    return el.learners.TorchLearner(net, batch=20, encoder=net.tokens(8))


def xgboost_learner(folder: Path) -> Any:
    pytest.importorskip("xgboost", reason="XGBoost is needed")
    return el.learners.XGBoost({"max_depth": 3}, trees=3)


def lightgbm_learner(folder: Path) -> Any:
    pytest.importorskip("lightgbm", reason="LightGBM is needed")
    return el.learners.LightGBM({"num_leaves": 5}, trees=3)


def river_learner(folder: Path) -> Any:
    bayes = pytest.importorskip("river.naive_bayes", reason="River is needed")
    compose = pytest.importorskip("river.compose")
    return compose.SelectType(float) | bayes.GaussianNB()


LEARNERS: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "keras": (keras_learner, True),
    "torch": (torch_learner, True),
    "text": (text_learner, True),
    "xgboost": (xgboost_learner, True),
    "lightgbm": (lightgbm_learner, True),
    "river": (river_learner, False),
}
"""Name → (what makes it, whether it has weights or leaves that a patch can change)."""


def rows(name: str, n: int, seed: int) -> list[dict[str, Any]]:
    """Rows of two classes, that tell who said them."""
    rng = np.random.default_rng(seed)
    found = []
    for place, x in enumerate(rng.normal(size=(n, 2)).round(3).tolist()):
        late = int(x[0] > 0)
        words = rng.choice(WORDS[late], 2)
        features = {"said": " ".join(words)} if name == "text" else {"x0": x[0], "x1": x[1]}
        who = "bot" if place % 5 == 4 and seed in (1, 2) else "web"
        found.append({**features, "who": who, "y": late ^ (who == "bot")})
    return found


def edit(name: str, row: dict[str, Any], output: int) -> dict[str, Any]:
    features = {key: value for key, value in row.items() if key not in ("y", "who")}
    return {"features": features, "output": output, "reason": "seen by a clerk"}


def trained(folder: Path, name: str, learner: Any, without: str = "") -> el.ModelHandle:
    """A model that learned three tables."""
    workspace = el.open(folder)
    text = ("said",) if name == "text" else ()
    handle = workspace.model(
        el.Model(
            "m",
            learner=learner,
            schema=el.Schema(target="y", ignore=("who",), text=text, classes=(0, 1)),
            strategy=el.Strategy(chunk=40, memory=el.Reservoir(30)),
            holdout=0.0,
        )
    )
    for seed in range(3):
        kept = [row for row in rows(name, 60, seed) if row["who"] != without]
        handle.train(kept, source=f"week-{seed}")
    return handle


def answers(handle: el.ModelHandle, edits: list[dict[str, Any]]) -> list[Any]:
    said = handle.predict([edit["features"] for edit in edits], log=False)
    assert isinstance(said, list)
    return [one.value for one in said]


@pytest.mark.parametrize("name", LEARNERS)
def test_a_model_of_another_library_is_repaired(name: str, tmp_path: Path) -> None:
    make, has_weights = LEARNERS[name]
    learner = make(tmp_path)
    handle = trained(tmp_path / "one", name, learner)
    asked = [edit(name, row, 0) for row in rows(name, 8, 9)]
    said = answers(handle, asked)
    edits = [{**one, "output": 1 - value} for one, value in zip(asked, said, strict=True)][:3]
    wanted = [one["output"] for one in edits]
    ways = ["memory", "weights"] if has_weights else ["memory"]
    if len(ways) == 1:
        with pytest.raises(UnsolvableError, match="no linear layer and no leaves"):
            handle.repair.patch(edits, way="weights")
    for way in ways:
        found = handle.repair.patch(edits, way=way, dry_run=True)
        harmless = way == "memory" or found.report["turned_wrong"] <= 0.02
        assert found.report["success"] == 1.0
        assert found.decision.action == ("pass" if harmless else "refuse")
    found = handle.repair.patch(edits)
    assert (found.decision.action, answers(handle, edits)) == ("promote", wanted)
    handle.train(rows(name, 40, 3), source="week-3")
    assert answers(handle, edits) == wanted, "what was patched is carried on"
    handle.repair.revoke_edit(1)
    states = [one["state"] for one in handle.repair.edits()]
    assert states[0] == "revoked" and answers(handle, edits)[1:] == wanted[1:]
    where = "who = 'bot'"
    excised = handle.repair.excise(where=where)
    assert excised.report["base"] == 1 and excised.result is not None
    assert answers(handle, edits)[1:] == wanted[1:]
    other = trained(tmp_path / "other", name, learner, without="bot")
    other.train(rows(name, 40, 3), source="week-3")

    def learned(one: el.ModelHandle) -> dict[str, str]:
        manifest = one.workspace.registry.version("m").manifest
        parts = {part: entry["digest"] for part, entry in manifest.items()}
        return {part: digest for part, digest in parts.items() if not part.startswith("patch/")}

    assert learned(handle) == learned(other), "to the bit"
    for one in (handle, other):
        one.workspace.close()
