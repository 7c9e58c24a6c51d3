"""Causal language models that are improved from feedback: what is to be trained, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from everlearn.base import Columns, LearnerKind, SpecError
from everlearn.learners.neural.definition import PRECISIONS, adam
from everlearn.learners.text.gpt import GPT

if TYPE_CHECKING:
    import torch

    from everlearn.learners.text.language import LanguageModel


@dataclass(frozen=True, eq=False)
class CausalLM:
    """A causal language model that learns from thumbs up and down and from corrected answers.

    A row is a prompt, a completion and a target of two classes, of which the last in natural order
    (True, 1, "up" after "down") is the thumb up; name them in `Schema(classes=)`. A third column
    may hold a corrected answer. What is learned is the sum of two losses, each with the rows'
    weights: KTO's (Ethayarajh et al. 2024, arXiv 2402.01306, equation 8), which needs no pairs of
    answers, and −log π a token of corrections, or of the completion where the thumb is up
    (weighted fine-tuning). π_ref of the first is the model without its adapters (with
    `Strategy(adaptation=LoRA())`), else a copy of the model that learning began from.

    The answer to a row is the chance of a thumb up that follows from KTO's value function,
    σ(β (log π/π_ref − z)): before anything is learned it is ½. A `learner` that was made also has
    `generate(prompt)` and `loss_of(texts)`.

    Args:
        model: a `GPT`, or the folder (or "package:path") of a causal language model as the
            transformers library saves it, or a function that makes a module of tokens → scores.
        tokenizer: as of `Tokens`; None for the folder's, or for bytes where there is no folder.
        prompt, completion, correction: columns of texts; the last may be None.
        length: most tokens of a prompt, whose last ones are kept, and of a completion.
        separator: what stands between the two, where tokens are no bytes (those have a token).
        beta: β of KTO.
        desirable, undesirable: λ_D and λ_U of KTO: weights of thumbs up and down. The paper keeps
            their ratio times that of the rows from 1 to 4/3.
        preference: weight of KTO's loss; 0 for weighted fine-tuning alone.
        imitation: weight of −log π; 0 for KTO alone.
        optimizer, scheduler, batch, device, precision, clip: as of `TorchLearner`.
        dropout: of a folder's model in training.

    Raises:
        SpecError: an argument that is none of these.
        MissingDependencyError: PyTorch, or what a folder needs, is not installed.

    Example:
        >>> CausalLM(GPT(width=32, layers=1, heads=2), length=(32, 32)).kind_for(Columns())
        'classifier'
    """

    model: Any
    tokenizer: str | None = None
    prompt: str = "prompt"
    completion: str = "completion"
    correction: str | None = None
    length: tuple[int, int] = (64, 64)
    separator: str = "\n"
    beta: float = 0.1
    desirable: float = 1.0
    undesirable: float = 1.0
    preference: float = 1.0
    imitation: float = 1.0
    optimizer: Callable[[Any], torch.optim.Optimizer] = adam
    scheduler: Callable[[Any], Any] | None = None
    batch: int | None = 16
    device: str = "cpu"
    precision: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    clip: float | None = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not (callable(self.model) or isinstance(self.model, str)):
            raise SpecError(f"CausalLM(model=) is a GPT(…), a folder or makes one: {self.model!r}")
        length = tuple(self.length)
        if len(length) != 2 or not all(isinstance(n, int) and n > 1 for n in length):
            raise SpecError(f"CausalLM(length=) is two numbers of tokens, not {self.length!r}")
        object.__setattr__(self, "length", length)
        for name in ("beta", "desirable", "undesirable", "preference", "imitation"):
            value = getattr(self, name)
            if not 0.0 <= value < float("inf") or (name == "beta" and not value):
                raise SpecError(f"CausalLM({name}=) is a number above 0, not {value!r}")
        if not (self.preference or self.imitation):
            raise SpecError("CausalLM(preference=0, imitation=0) has nothing to learn from")
        if isinstance(self.model, GPT) and sum(length) > self.model.length:
            raise SpecError(
                f"CausalLM(length={length}) is more than GPT(length={self.model.length}) has"
            )
        if self.batch is not None and not (isinstance(self.batch, int) and self.batch > 0):
            raise SpecError(f"CausalLM(batch=) is a number of rows, not {self.batch!r}")
        if self.precision not in PRECISIONS:
            raise SpecError(f"CausalLM(precision=) is one of {PRECISIONS}, not {self.precision!r}")

    def kind_for(self, columns: Columns, classes: int = 0) -> LearnerKind:
        """It tells thumbs up from thumbs down."""
        return "classifier"

    def make_learner(self, columns: Columns, *, classes: int = 0, seed: int = 0) -> LanguageModel:
        """A learner that has learned nothing."""
        from everlearn.learners.text.language import LanguageModel

        if classes != 2:
            raise SpecError(
                "CausalLM has to know which of two classes is the thumb up; name both in"
                " Schema(classes=): the last in natural order is it, as in ('down', 'up')"
            )
        return LanguageModel(self, columns, seed=seed)
