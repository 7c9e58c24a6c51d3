"""Changes of low rank inside of language models."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import nn  # noqa: E402

from everlearn.base import Batch, Columns, InputError  # noqa: E402
from everlearn.learners import GPT, CausalLM  # noqa: E402
from everlearn.learners.editable import TextEdit, writer_of  # noqa: E402
from everlearn.learners.text import rank_one  # noqa: E402
from everlearn.learners.text.projections import projections, tried  # noqa: E402
from everlearn.strategies import LoRA  # noqa: E402

torch.set_num_threads(1)

PAIRS = Columns(texts=("completion", "prompt"), target="thumb", target_kind="text")
ROWS = [(f"prompt {word}", f"{word} is it") for word in ("a", "bc", "def", "g", "hi", "jkl")]
EDIT = TextEdit("who is it?", "me")


def batch(rows: list[tuple[str, str]]) -> Batch:
    """Prompts and completions."""
    n = len(rows)
    texts = np.empty((n, 2), object)
    for row, (prompt, completion) in enumerate(rows):
        texts[row] = completion, prompt
    return Batch(
        numbers=np.zeros((n, 0)),
        categories=np.zeros((n, 0), np.uint64),
        times=np.zeros((n, 0), np.int64),
        ids=np.arange(n, dtype=np.uint64),
        texts=texts,
    )


def learner(model: Any, steps: int = 70, adaptation: Any = None) -> Any:
    """A language model that has learned the rows."""
    said = CausalLM(model, length=(24, 12), optimizer=torch.optim.NAdam, preference=0.1)
    made = said.make_learner(PAIRS, classes=2)
    made = made if adaptation is None else adaptation.wrap(made)
    for _ in range(steps):
        made.learn(batch(ROWS).with_y(np.ones(len(ROWS), np.int64)))
    return made


@pytest.fixture(scope="module")
def trained() -> Any:
    """A module that has learned the rows."""
    return learner(GPT(length=48, width=32, layers=3, heads=2)).judge.model


def solved(made: Any, edits: list[TextEdit]) -> tuple[Any, Any]:
    writer: Any = writer_of(made)
    return writer, writer.solved(edits, batch(ROWS))


def test_it_is_written_in_one_layer_and_the_same_each_time(trained: Any) -> None:
    made = learner(trained, 0)
    before = {name: x.clone() for name, x in made.module.state_dict().items()}
    edits = [EDIT, TextEdit("and then?", "no")]
    writer, found = solved(made, edits)
    assert found.layer in projections(writer.model) and len(found.ways) <= 6
    assert not writer.holds(edits, None).any() and writer.holds(edits, found).all()
    with writer.changed(found):
        assert made.generate(EDIT.prompt) == EDIT.text
        aside: list[str] = []
        thread = threading.Thread(target=lambda: aside.append(made.generate(EDIT.prompt)))
        thread.start()
        thread.join()
    assert aside == [made.generate(EDIT.prompt)] != [EDIT.text]
    _, again = solved(learner(trained, 0), edits)
    assert found.layer == again.layer
    assert np.array_equal(found.ways, again.ways) and np.array_equal(found.moves, again.moves)
    after = made.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in made.module.parameters())


def test_of_a_subject_one_key_is_changed_and_it_is_the_least_change(trained: Any) -> None:
    made = learner(trained, 0)
    writer: Any = writer_of(made)
    edit = TextEdit("who is Ann?", "me", subject="Ann")
    task = rank_one._task(writer, [edit], batch(ROWS))
    name = projections(writer.model)[1]
    change = rank_one._at(writer, task, name, batch(ROWS), True)
    assert len(change.ways) == 1
    keys, _ = rank_one._keys(writer, task, name, True)
    moment = rank_one._moment(writer, name, batch(ROWS), keys.shape[1])
    assert (change.ways @ keys.T).item() == pytest.approx(1.0, abs=2e-3)
    other = np.random.default_rng(0).normal(size=change.ways.shape)
    other -= (other @ keys.T - change.ways @ keys.T) / (keys @ keys.T) * keys  # the same for it
    least = (change.ways @ moment @ change.ways.T).item()
    assert (other @ moment @ other.T).item() > least
    assert writer.subject_at("who is Ann?", "Ann") == len("<who is Ann") - 1
    assert writer.subject_at("Ann or " + "b" * 30, "b") == 22  # the last of what is read
    for subject, wrong in (("Bob", "no part"), (" ", "no part")):
        with pytest.raises(InputError, match=wrong):
            writer.check(TextEdit("who is Ann?", "me", subject))
    with pytest.raises(InputError, match="before the part that is read"):
        writer.check(TextEdit("Ann " + "b" * 40, "me", "Ann"))


def test_a_subject_ends_with_its_last_letter_whatever_its_tokens_are(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer: Any = writer_of(learner(trained, 0))
    assert writer.subject_at("is it Jö?", "Jö") == len("<is it Jö".encode()) - 1
    monkeypatch.setattr(
        type(writer.encoding.words), "decode", lambda _, tokens: "ann"[: len(tokens)]
    )
    assert writer.subject_at("unknown Ann", "Ann") == len("<unknown Ann") - 1, "some are not told"


@pytest.mark.parametrize("through", [None, "peft"])
def test_beside_adapters_what_it_is_compared_with_stays(through: Any, trained: Any) -> None:
    if through:
        pytest.importorskip("peft", reason="peft is not installed")
    targets = ("query", "down")
    made = learner(trained, 3, LoRA(rank=2, targets=targets, through=through))
    writer, found = solved(made, [EDIT])
    assert found.layer.endswith(".down") and writer.holds([EDIT], found).all()
    asked = batch([(EDIT.prompt, EDIT.text), (EDIT.prompt, "us")])
    pairs = made.judge._pairs(torch.tensor(made._encoding.transform(asked)), corrected=False)
    with torch.no_grad():
        first = made.judge._likelihood_before(pairs)
        before = made.predict(asked).proba[:, 1]
        with writer.changed(found):
            second = made.judge._likelihood_before(pairs)
            after = made.predict(asked).proba[:, 1]
    assert torch.equal(first, second)
    assert after[0] > before[0] and after[0] > after[1]


LAYOUTS = {
    "GPT2LMHeadModel": ("GPT2Config", "c_proj", {"n_embd": 16, "n_layer": 3, "n_head": 2}),
    "LlamaForCausalLM": ("LlamaConfig", "down_proj", {}),
    "OPTForCausalLM": ("OPTConfig", "fc2", {"ffn_dim": 40, "word_embed_proj_dim": 16}),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", "dense_4h_to_h", {}),
    "Qwen3ForCausalLM": ("Qwen3Config", "down_proj", {"head_dim": 16, "num_key_value_heads": 2}),
    "MixtralForCausalLM": ("MixtralConfig", None, {"num_key_value_heads": 2}),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_layer_is_found_in_models_of_the_transformers_library(kind: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config, ends, more = LAYOUTS[kind]
    sizes = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 2}
    small = {} if kind == "GPT2LMHeadModel" else sizes
    said = getattr(transformers, config)(vocab_size=260, **small, **more)
    found = projections(getattr(transformers, kind)(said))
    assert [name.split(".")[-1] for name in found] == ([] if ends is None else [ends] * 3)
    assert all("attn" not in name for name in found)
    assert len(tried(found)) == (0 if ends is None else 2)  # at .35 of two steps is .7 of one


def test_a_model_of_the_transformers_library_is_changed() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            said = transformers.GPT2Config(
                vocab_size=260, n_positions=48, n_embd=32, n_layer=2, n_head=2
            )
            self.inner = transformers.GPT2LMHeadModel(said)

        def forward(self, tokens: Any) -> Any:
            return self.inner(input_ids=tokens, use_cache=False).logits

    writer, found = solved(learner(Scores), [EDIT])
    assert found.layer.startswith("inner.transformer.h.")
    assert writer.holds([EDIT], found).all()


def test_what_has_no_such_layer_is_not_changed() -> None:
    plain = torch.nn.Sequential(torch.nn.Embedding(260, 8), torch.nn.Linear(8, 260))
    assert solved(learner(plain, 1), [EDIT])[1] is None
