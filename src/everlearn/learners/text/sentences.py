"""A sentence encoder of the transformers library, and a linear layer on it that tells classes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from everlearn.base import MissingDependencyError, SpecError
from everlearn.learners.text.folders import INSTALL, config_of, found, load
from everlearn.learners.text.tokens import Tokens

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:  # pragma: no cover
    raise MissingDependencyError(f"SentenceClassifier needs PyTorch: {INSTALL}") from error

BLOCK = 128
"""Rows that answer at once outside of training, so that long batches need no more memory."""


@dataclass(frozen=True, slots=True)
class SentenceClassifier:
    """Makes a module for `TorchLearner`: tokens → a pretrained encoder → the mean over the tokens,
    of length 1 → a linear layer with a score for each class.

    Reimers & Gurevych, "Sentence-BERT", EMNLP 2019, section 3 (mean pooling).

    Args:
        folder: of a model as the transformers library or sentence-transformers saves it: its
            config.json, .safetensors and tokenizer.json; or "package:path".
        classes: how many classes the linear layer has scores for.
        trained: "head" (the encoder's weights stand still; an adaptation such as `LoRA` decides for
            itself what moves) or "all".
        dropout: share of what the encoder leaves out in training.
        sharpness: what the embeddings, which have length 1, are multiplied by.

    Raises:
        SpecError: an argument that is none of these, or no such folder.

    Example:
        >>> SentenceClassifier("everlearn:learners/text", classes=3).classes
        3
    """

    folder: str
    classes: int
    trained: str = "head"
    dropout: float = 0.0
    sharpness: float = 10.0

    def __post_init__(self) -> None:
        found(self.folder)
        if self.trained not in ("head", "all"):
            raise SpecError(
                f"SentenceClassifier(trained=) is 'head' or 'all', not {self.trained!r}"
            )
        if not isinstance(self.classes, int) or self.classes < 1:
            raise SpecError(f"SentenceClassifier(classes=) is a number, not {self.classes!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise SpecError(
                f"SentenceClassifier(dropout=) is a share below 1, not {self.dropout!r}"
            )

    def __call__(self) -> nn.Module:
        """The module; its linear layer is drawn from PyTorch's generator."""
        return Sentences(self)

    def tokens(self, length: int = 64) -> Tokens:
        """The encoder that goes with it: `TorchLearner(made, encoder=made.tokens())`."""
        most = int(config_of(self.folder).get("max_position_embeddings", length))
        return Tokens(self.folder, min(length, most))


class Sentences(nn.Module):
    """The module that a `SentenceClassifier` makes.

    Args:
        definition: the same.
    """

    def __init__(self, definition: SentenceClassifier) -> None:
        super().__init__()
        config = config_of(definition.folder)
        self.encoder = load(definition.folder, "AutoModel", definition.dropout)
        if "add_pooling_layer" in inspect.signature(type(self.encoder)).parameters:
            self.encoder.pooler = None  # type: ignore[assignment]  # its answer is not used
        self.encoder.requires_grad_(definition.trained == "all")
        self.head = nn.Linear(int(config["hidden_size"]), definition.classes)
        nn.init.zeros_(self.head.bias)
        self._pad = int(config.get("pad_token_id") or 0)
        self._sharpness = definition.sharpness

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) int64 → (n, classes)."""
        if self.training or len(tokens) <= BLOCK:
            return self._answer(tokens)
        order = (tokens != self._pad).sum(dim=1).argsort()  # rows of one length have no padding
        pieces = [self._answer(tokens[rows]) for rows in torch.split(order, BLOCK)]
        answer = torch.cat(pieces)
        return torch.empty_like(answer).index_copy_(0, order, answer)

    def _answer(self, tokens: Tensor) -> Tensor:
        scores: Tensor = self.head(self.embed(tokens) * self._sharpness)
        return scores

    def embed(self, tokens: Tensor) -> Tensor:
        """(n, length) int64 → (n, hidden) embeddings of length 1."""
        tokens = tokens.clamp(min=0)
        seen = tokens != self._pad
        longest = max(int(seen.sum(dim=1).max()) if len(tokens) else 0, 1)
        tokens, seen = tokens[:, :longest], seen[:, :longest]
        states = self.encoder(input_ids=tokens, attention_mask=seen.long()).last_hidden_state
        weight = seen.unsqueeze(-1).to(states.dtype)
        mean = (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
        return nn.functional.normalize(mean, dim=1)
