"""How likely a language model makes completions, and what follows from thumbs up and down.

Ethayarajh, Xu, Muennighoff, Jurafsky & Kiela, "KTO: Model alignment as prospect theoretic
optimization", arXiv 2402.01306, section 4.1, equation 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from everlearn.learners.text.pairs import HEAD, Layout

BLOCK = 64
"""Rows that answer at once outside of training."""

KEPT = 0.9
"""Share of the reference point that a step leaves as it was, where rows are judged one by one."""


class Pairs(NamedTuple):
    """Sequences of a prompt and a completion: (n, length) tokens, and which are the completion."""

    tokens: Tensor
    asked: Tensor


class Judge(nn.Module):
    """A causal language model that judges completions, for `Training`: rows of tokens → (n, 4):

    0. log π(completion | prompt) − log π_ref(completion | prompt), of the reference;
    1. the mean over the tokens of −log π of what is to be imitated: the correction, or where there
       is none the completion;
    2. in training, the same difference as in 0 for the completion of another row of the step: its
       mean is the step's estimate of KL(π ‖ π_ref).
    3. whether there is a correction.

    Args:
        model: (n, length) tokens → (n, length, vocabulary) scores.
        layout: of a row.
        reference: makes the model that π_ref is of, as it was before it learned anything here; None
            where there is none, and 0 and 2 are 0.
    """

    point: Tensor

    def __init__(
        self, model: nn.Module, layout: Layout, reference: Callable[[], nn.Module] | None
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("point", torch.zeros(()))
        self._layout = layout
        self._make = reference
        self.before = False
        self._made: list[nn.Module] = []  # not among the modules: it is no part of the state

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self._judged(x)
        pieces = [self._judged(rows) for rows in torch.split(x, BLOCK)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def loss_of(self, tokens: Tensor, counted: Tensor) -> Tensor:
        """(n,) −log π of the tokens that are counted, each given those before it."""
        return -_likelihood(self.model, Pairs(tokens, counted))

    def _judged(self, x: Tensor) -> Tensor:
        x = x.clamp(min=0)
        answered = self._pairs(x, corrected=False)
        sure = _likelihood(self.model, answered)
        ratio = drift = torch.zeros_like(sure)
        if self._make is not None and bool(answered.asked.any()):
            with torch.no_grad():
                before = self._likelihood_before(answered)
                if self.training and len(x) > 1:
                    drift = self._drift(x)
            ratio = sure - before
        wanted = sure / answered.asked.sum(dim=1).clamp(min=1)
        fixed = x[:, 2] > 0
        if bool(fixed.any()):
            better = self._pairs(x[fixed], corrected=True)
            mean = _likelihood(self.model, better) / better.asked.sum(dim=1).clamp(min=1)
            wanted = wanted.index_put((fixed.nonzero()[:, 0],), mean)
        return torch.stack([ratio, -wanted, drift, fixed.to(sure.dtype)], dim=1)

    def _drift(self, x: Tensor) -> Tensor:
        """The difference of each prompt's likelihoods of the completion of the row after it; the
        last one takes that of the first."""
        start, stop = (
            HEAD + self._layout.prompt,
            HEAD + self._layout.prompt + self._layout.completion,
        )
        other = x.clone()
        other[:, 1] = x[:, 1].roll(-1)
        other[:, start:stop] = x[:, start:stop].roll(-1, dims=0)
        strange = self._pairs(other, corrected=False)
        drift = _likelihood(self.model, strange) - self._likelihood_before(strange)
        self.point.mul_(KEPT).add_((1.0 - KEPT) * drift.mean().clamp(min=0.0))
        return drift

    def _pairs(self, x: Tensor, corrected: bool) -> Pairs:
        """Prompt and completion, or correction, one right after the other."""
        layout = self._layout
        first = x[:, :1].clamp(max=layout.prompt)
        second = x[:, 2:3] if corrected else x[:, 1:2]
        second = second.clamp(max=layout.completion)
        begin = HEAD + layout.prompt + (layout.completion if corrected else 0)
        length = max(int((first + second).max()), 2)
        place = torch.arange(length, device=x.device).expand(len(x), -1)
        of_prompt = place < first
        asked = ~of_prompt & (place < first + second)
        source = torch.where(of_prompt, HEAD + place, begin + place - first)
        tokens = x.gather(1, source.clamp(0, x.shape[1] - 1))
        return Pairs(tokens.where(of_prompt | asked, layout.pad), asked)

    def _likelihood_before(self, pairs: Pairs) -> Tensor:
        """log π_ref: with the adapters of low rank off, if there are any; else of a frozen copy of
        the model as it was before it learned anything here."""
        adapters = [layer for layer in self.model.modules() if _has_adapter(layer)]
        if adapters:
            self._made.clear()
            self.before = True
            try:
                with _off(adapters):
                    return _likelihood(self.model, pairs)
            finally:
                self.before = False
        if not self._made:
            assert self._make is not None
            weight = next(self.model.parameters())
            made = self._make().to(weight.device, weight.dtype).eval()
            self._made.append(made.requires_grad_(False))
        return _likelihood(self._made[0], pairs)


def _likelihood(model: nn.Module, pairs: Pairs) -> Tensor:
    """(n,) sums over the tokens that are asked for of log π(token | tokens before it)."""
    scores = model(pairs.tokens)[:, :-1]
    scores = scores if scores.dtype == torch.float64 else scores.float()
    surprise = functional.cross_entropy(
        scores.flatten(0, 1), pairs.tokens[:, 1:].flatten(), reduction="none"
    )
    return -(surprise.view(len(scores), -1) * pairs.asked[:, 1:]).sum(dim=1)


def _has_adapter(layer: nn.Module) -> bool:
    return "lora_A" in layer._parameters or "lora_A" in layer._modules


@contextmanager
def _off(adapters: list[Any]) -> Iterator[None]:
    """Without what adapters add: our own have a scale, those of the peft library a switch."""
    own, other = "lora_scale", "_disable_adapters"
    names = [own if hasattr(one, own) else other for one in adapters]
    before = [getattr(one, name) for one, name in zip(adapters, names, strict=True)]
    try:
        for one, name in zip(adapters, names, strict=True):
            setattr(one, name, 0.0 if name == own else True)
        yield
    finally:
        for one, name, value in zip(adapters, names, before, strict=True):
            setattr(one, name, value)


class FeedbackLoss:
    """(output, thumbs) → (n,) KTO's loss and −log π of each row.

    A row with a thumb up costs λ_D (1 − σ(β (r − z))), one with a thumb down
    λ_U (1 − σ(β (z − r))), with r its first output, and z the mean of the third ones, but not below
    0. To this is added `imitation` times the second output where there is something to imitate: a
    thumb up, or a correction.

    Args:
        beta: β; the lower, the further π may go from π_ref.
        desirable, undesirable: λ_D of thumbs up and λ_U of thumbs down.
        preference: weight of KTO's loss.
        imitation: weight of −log π.
    """

    def __init__(
        self,
        beta: float,
        desirable: float,
        undesirable: float,
        preference: float,
        imitation: float,
    ) -> None:
        self._beta, self._desirable, self._undesirable = beta, desirable, undesirable
        self._preference, self._imitation = preference, imitation

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        ratio, surprise, drift, fixed = output.unbind(dim=1)
        up = y == 1
        each = self._imitation * surprise * (up | (fixed > 0))
        if self._preference:
            apart = self._beta * (ratio - drift.mean().clamp(min=0.0).detach())
            value = torch.sigmoid(torch.where(up, apart, -apart))
            scale = torch.where(up, self._desirable, self._undesirable)
            each = each + self._preference * scale * (1.0 - value)
        return each
