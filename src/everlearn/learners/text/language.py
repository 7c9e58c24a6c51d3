"""A causal language model that learns from feedback, behind the `Learner` protocol."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from everlearn.base import Columns, InputError, Prediction, SpecError
from everlearn.learners.neural.change import Change
from everlearn.learners.neural.definition import TorchLearner
from everlearn.learners.neural.holder import Holder
from everlearn.learners.neural.network import Network
from everlearn.learners.text.folders import load, weights_digest
from everlearn.learners.text.gpt import GPT
from everlearn.learners.text.pairs import Layout, PairEncoding
from everlearn.learners.text.preference import FeedbackLoss, Judge
from everlearn.learners.text.rank_one import RankOne
from everlearn.learners.text.tokens import Vocabulary, vocabulary

if TYPE_CHECKING:
    from everlearn.learners.text.causal import CausalLM

WINDOWS = 16
"""Windows of a held-out text that are judged at once."""


class LanguageModel(Network):
    """A `CausalLM` in use.

    Args:
        said: what it is made from.
        columns: what batches hold.
        seed: of the weights, where they are drawn, and of all randomness.

    Raises:
        SpecError: the model cannot be made, or the columns are not those of the definition.
    """

    _answers_as_it_learns = False  # the reference point of a step is that of its rows
    _alone = True  # π_ref is the model with its adapters off

    def __init__(self, said: CausalLM, columns: Columns, *, seed: int = 0) -> None:
        folder = said.model if isinstance(said.model, str) else None
        self._words = vocabulary(said.tokenizer or folder)
        self._beta = said.beta
        self._asked = said.prompt, said.completion
        self._layout = Layout(*said.length, pad=self._words.pad)
        definition = TorchLearner(
            lambda: _judge(said, self._layout, self._words),
            loss=FeedbackLoss(
                said.beta, said.desirable, said.undesirable, said.preference, said.imitation
            ),
            optimizer=said.optimizer,
            classes=2,
            scheduler=said.scheduler,
            batch=said.batch,
            encoder=_Pairs(said, self._words, self._layout),
            device=said.device,
            precision=said.precision,
            clip=said.clip,
            pretrained=True,
        )
        super().__init__(definition, columns, classes=2, seed=seed)

    def change(self, change: Change) -> Self:
        """Let what an adaptation makes of the module be what learns. Returns this learner.

        Raises:
            SpecError: the adaptation answers in the model's place, or the module is changed
                already.
        """
        if change.kind not in ("freeze", "lora"):
            raise SpecError(
                f"a CausalLM judges by its model's own answers, and {change.kind!r} puts others in"
                " their place: adapt it by LoRA(…) or Freeze(…)"
            )
        return super().change(change)

    def hold(self, holder: Holder) -> Self:
        """Let what a retention brings take part in learning. Returns this learner.

        Raises:
            SpecError: the retention reads the answers as scores of classes.
        """
        if holder.name in ("ewc", "lwf"):
            raise SpecError(
                f"{holder.name!r} reads answers as scores of classes, and a CausalLM's are"
                " likelihoods: hold it by SI(…), Anchor(…), AGEM(…) or a memory"
            )
        return super().hold(holder)

    @property
    def judge(self) -> Judge:
        """The module, with the language model as `model`."""
        return cast(Judge, self.module)

    @property
    def steps(self) -> int:
        """Of the optimizer so far."""
        return self._training.steps

    @property
    def share(self) -> float:
        """The share of the model's parameters that move."""
        moving = sum(p.numel() for p in self._training.moving.values())
        return moving / sum(p.numel() for p in self.module.parameters())

    def generate(
        self, prompt: str, *, most: int | None = None, temperature: float = 0.0, seed: int = 0
    ) -> str:
        """A completion of a prompt: token by token, up to the one that ends it.

        Args:
            prompt: a text; of a long one, the last tokens.
            most: tokens; those of a completion unless said.
            temperature: 0 for the likeliest token each time; else scores are divided by it, and a
                token is drawn.
            seed: of the drawing.

        Raises:
            InputError: a temperature below 0, or a prompt that has no UTF-8.
        """
        if not 0.0 <= temperature < float("inf"):
            raise InputError(f"temperature is a number from 0, not {temperature!r}")
        encoding = cast(PairEncoding, self._encoding)
        tokens = torch.tensor(encoding.prompts([prompt]), device=self._device)
        generator = torch.Generator().manual_seed(seed)
        made: list[int] = []
        self._module.eval()
        with torch.inference_mode(), self._training.cast():
            while len(made) < min(most or self._layout.completion, self._layout.completion):
                with self._random.own(keep=False):
                    scores = self.judge.model(tokens)[0, -1].double().cpu()
                token = _chosen(scores, temperature, generator)
                if token == self._words.end:
                    break
                made.append(token)
                tokens = torch.cat([tokens, tokens.new_tensor([[token]])], dim=1)
        return self._words.decode(made)

    def loss_of(self, texts: Sequence[str]) -> float:
        """The mean over the tokens of texts of −log π(token | tokens before it), in nats: what is
        compared before and after an increment to see what was forgotten. Long texts are cut into
        windows of the length of a prompt and a completion.

        Raises:
            InputError: there is no token to judge.
        """
        size = self._layout.prompt + self._layout.completion
        begin = [] if self._words.begin is None else [self._words.begin]
        windows = [
            [*begin, *tokens[start : start + size - len(begin)]]
            for tokens in self._words.encode(list(texts), special=False)
            for start in range(0, len(tokens), size - len(begin))
        ]
        windows = [window for window in windows if len(window) > 1]
        if not windows:
            raise InputError("there is no text of more than one token to judge")
        rows = torch.full((len(windows), size), self._layout.pad)
        for row, window in zip(rows, windows, strict=True):
            row[: len(window)] = torch.tensor(window)
        lengths = torch.tensor([len(window) for window in windows])
        counted = torch.arange(size).expand(len(rows), -1) < lengths[:, None]
        total = 0.0
        self._module.eval()
        with torch.inference_mode(), self._training.cast():
            for some, these in zip(
                *(torch.split(t, WINDOWS) for t in (rows, counted)), strict=True
            ):
                with self._random.own(keep=False):
                    lost = self.judge.loss_of(some.to(self._device), these.to(self._device))
                total += float(lost.sum())
        return total / float((lengths - 1).sum())

    def writer(self) -> RankOne:
        """How a patch can change what it writes: inside of the MLP of a block."""
        encoding = cast(PairEncoding, self._encoding)
        places = [self.columns.texts.index(name) for name in self._asked]
        return RankOne(self.judge, encoding, self._asked, places, self._quietly)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """The model may be asked, as it answers in use."""
        self._module.eval()
        with self._random.own(keep=False), self._training.cast():
            yield

    def _answer(self, output: Tensor) -> Prediction:
        """The chance of a thumb up, which is class 1."""
        point = float(self.judge.point)
        margin = self._beta * (output[:, 0] - point)
        up = torch.sigmoid(margin)
        proba = torch.stack([1.0 - up, up], dim=1).numpy()
        value = np.asarray(margin.numpy() > 0, np.int64)
        return Prediction(value=value, proba=proba, margin=margin.numpy())


@dataclass(frozen=True)
class _Pairs:
    """The encoder of a `CausalLM`."""

    said: CausalLM
    words: Vocabulary
    layout: Layout

    def encoding(self, columns: Columns) -> PairEncoding:
        said = self.said
        names = (said.prompt, said.completion, said.correction)
        told = {"weights": _weights(said)} if _weights(said) else {}
        return PairEncoding(self.words, columns, names, self.layout, said.separator, **told)


class Folder(nn.Module):
    """A folder's model as (n, length) tokens → (n, length, vocabulary) scores.

    Args:
        place, dropout: as of `CausalLM`.
    """

    def __init__(self, place: str, dropout: float) -> None:
        super().__init__()
        self.model = load(place, "AutoModelForCausalLM", dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        scores: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return scores


def _weights(said: CausalLM) -> str | None:
    """The digest of the weights from which learning begins, where they are on disk."""
    place = said.model if isinstance(said.model, str) else getattr(said.model, "weights", None)
    return weights_digest(place) if isinstance(place, str) else None


def _model(said: CausalLM) -> nn.Module:
    if isinstance(said.model, str):
        return Folder(said.model, said.dropout)
    made = copy.deepcopy(said.model) if isinstance(said.model, nn.Module) else said.model()
    if not isinstance(made, nn.Module):
        raise SpecError(f"CausalLM(model=) made {made!r}, which is no torch.nn.Module")
    return made


def _judge(said: CausalLM, layout: Layout, words: Vocabulary) -> Judge:
    """The module, with a reference that is made when it is needed, or kept where it is drawn."""
    model = _model(said)
    if isinstance(said.model, GPT) and words.size > said.model.vocabulary:
        raise SpecError(
            f"GPT(vocabulary={said.model.vocabulary}) has less than the {words.size} tokens that"
            " its tokenizer makes"
        )
    reference: Callable[[], nn.Module] | None = None
    if said.preference:
        kept = None if _weights(said) else copy.deepcopy(model)
        reference = (lambda: _model(said)) if kept is None else (lambda: kept)
    return Judge(model, layout, reference)


def _chosen(scores: Tensor, temperature: float, generator: torch.Generator) -> int:
    if not temperature:
        return int(scores.argmax())
    chances = torch.softmax(scores / temperature, dim=0)
    return int(torch.multinomial(chances, 1, generator=generator))
