"""A causal language model as a patch sees it: what it writes, and how that is changed inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from everlearn.base import Batch, InputError, IntegrityError, Json
from everlearn.learners.editable import Rewrite, TextEdit
from everlearn.learners.neural.low_rank import shape_of
from everlearn.learners.text.pairs import PairEncoding
from everlearn.learners.text.preference import BLOCK, Judge, Pairs
from everlearn.learners.text.projections import hooked, is_linear

Mask = npt.NDArray[np.bool_]

JUDGED = 200
"""Prompts of reference rows whose answers are compared before and after a change."""

PROBES = 4
"""Beginnings that are put before each edited prompt to see whether its answer holds there too."""

WORDS = 4
"""Words of a text that is put before a prompt."""

CUT = "\ufffd"
"""What tokens tell of a letter that goes on in the next one."""


class LanguageWriter:
    """What `everlearn.learners.editable.Writer` asks for, but how it is solved.

    Args:
        judge: of the model.
        encoding: of prompts and completions.
        columns: of the batch, which are the prompt's and the completion's.
        places: of these two among the columns of texts.
        quiet: within it, the model is asked.
    """

    def __init__(
        self,
        judge: Judge,
        encoding: PairEncoding,
        columns: tuple[str, str],
        places: Sequence[int],
        quiet: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.judge, self.model, self.encoding = judge, judge.model, encoding
        self.prompt, self.completion = columns
        self.quiet = quiet
        self._places = places
        self._room = encoding.layout.completion
        weight = next(self.model.parameters())
        self.device, self.type = weight.device, weight.dtype
        self._written: dict[str, list[int]] = {}

    # --- what a patch asks ---

    def check(self, edit: TextEdit) -> None:
        """See `Writer`."""
        words = self.encoding.words
        (tokens,) = words.encode([edit.text], special=False)
        room = self._room - (words.end is not None)
        if not 0 < len(tokens) <= room:
            raise InputError(
                f"the text has {len(tokens)} tokens; one that can be written has 1 to {room}"
            )
        if edit.subject is not None:
            self.subject_at(edit.prompt, edit.subject)

    def holds(self, edits: Sequence[TextEdit], rewrite: Rewrite | None) -> Mask:
        """See `Writer`."""
        texts = [self.tokens_of(edit.text) for edit in edits]
        with self._maybe(rewrite):
            return self.written([edit.prompt for edit in edits], texts)

    def effects(self, edits: Sequence[TextEdit], rewrite: Rewrite, reference: Batch) -> Json:
        """JSON: the "layer" and the "rank" of the change; "locality": the share of other "prompts",
        those of the reference rows, whose whole answers stay to the token, and "next_token", whose
        first token does; "generalisation": the share of the edits' prompts with the beginning of
        another text before them, to which the wanted text is answered, and "usual": the share of
        other prompts whose answers stay with that before them, without any change; "lost": the
        share of other prompts whose answer a row with a thumb up has, and that are answered
        otherwise now. Shares of nothing are None."""
        others = self.others(reference, edits, JUDGED)
        answers = self.greedy(others)
        starts = self.beginnings(reference, PROBES, seed=1)
        near = [(f"{start} {edit.prompt}", edit.text) for edit in edits for start in starts]
        wanted = [self.tokens_of(text) for _, text in near]
        usual = self.stays(others, answers, starts)
        with self.changed(rewrite):
            kept = self.written(others, answers)
            first = self.written(others, [answer[:1] for answer in answers])
            follow = self.written([prompt for prompt, _ in near], wanted)
        return {
            "layer": rewrite.layer,
            "rank": len(rewrite.ways),
            "prompts": len(others),
            "locality": _share(kept),
            "next_token": _share(first),
            "generalisation": _share(follow),
            "usual": usual,
            "lost": _share(~kept & self._right(others, answers, reference)),
        }

    @contextmanager
    def changed(self, rewrite: Rewrite) -> Iterator[None]:
        """See `Writer`. What the model is compared with, π_ref, stays.

        Raises:
            IntegrityError: the change is of another model.
        """
        layer = self._layer(rewrite)
        ways, moves = (
            torch.tensor(matrix, dtype=self.type, device=self.device)
            for matrix in (rewrite.ways, rewrite.moves)
        )

        def add(inputs: Tensor, output: Tensor) -> Tensor | None:
            if self.judge.before:
                return None
            return output + functional.linear(functional.linear(inputs, ways), moves)

        with hooked(layer, add):
            yield

    # --- what it is solved with ---

    def others(self, reference: Batch, edits: Sequence[TextEdit], most: int) -> list[str]:
        """Different prompts of reference rows, but those of edits, evenly chosen."""
        told = dict.fromkeys(self.column(reference, 0))
        left = [prompt for prompt in told if prompt not in {edit.prompt for edit in edits}]
        places = np.unique(np.linspace(0, len(left) - 1, min(most, len(left))).astype(np.int64))
        return [left[place] for place in places]

    def beginnings(self, reference: Batch, count: int, seed: int) -> list[str]:
        """First words of different texts of reference rows, drawn."""
        texts = [*self.column(reference, 0), *self.column(reference, 1)]
        starts = sorted({" ".join(text.split()[:WORDS]) for text in texts} - {""})
        drawn = np.random.default_rng(seed).permutation(len(starts))[:count]
        return [starts[place] for place in drawn]

    def stays(
        self, prompts: Sequence[str], answers: Sequence[list[int]], starts: Sequence[str]
    ) -> float | None:
        """The share of prompts whose answers stay where something is put before them."""
        if not starts or not prompts:
            return None
        before = [f"{starts[at % len(starts)]} {one}" for at, one in enumerate(prompts)]
        return _share(self.written(before, answers))

    def _right(
        self, prompts: Sequence[str], answers: Sequence[list[int]], reference: Batch
    ) -> Mask:
        """(n,) whether a reference row with a thumb up has this answer to a prompt."""
        up = np.zeros(len(reference), bool) if reference.y is None else reference.y == 1
        rows = reference.take(up)
        told = set(zip(self.column(rows, 0), self.column(rows, 1), strict=True))
        texts = [self.encoding.words.decode(answer) for answer in answers]
        return np.array([pair in told for pair in zip(prompts, texts, strict=True)], bool)

    def column(self, reference: Batch, which: int) -> list[str]:
        """The prompts (0) or the completions (1) of rows."""
        assert reference.texts is not None
        return [text or "" for text in reference.texts[:, self._places[which]].tolist()]

    def tokens_of(self, text: str) -> list[int]:
        """A text as it is written, with what ends it."""
        return self.encoding.completions([text])[0]

    def pairs(self, prompts: Sequence[str], answers: Sequence[list[int]]) -> Pairs:
        """Prompts and tokens of answers, one right after the other."""
        asked = self.encoding.prompts(list(prompts))
        size = max((len(a) + len(b) for a, b in zip(asked, answers, strict=True)), default=0)
        tokens = torch.full((len(asked), max(size, 2)), self.encoding.layout.pad)
        counted = torch.zeros(tokens.shape, dtype=torch.bool)
        for row, (a, b) in enumerate(zip(asked, answers, strict=True)):
            tokens[row, : len(a) + len(b)] = torch.tensor([*a, *b])
            counted[row, len(a) : len(a) + len(b)] = True
        return Pairs(tokens.to(self.device), counted.to(self.device))

    def written(self, prompts: Sequence[str], answers: Sequence[list[int]]) -> Mask:
        """(n,) whether each token of an answer is the likeliest one in its place."""
        found: list[Tensor] = []
        for start in range(0, len(prompts), BLOCK):
            some = slice(start, start + BLOCK)
            pairs = self.pairs(prompts[some], answers[some])
            with torch.inference_mode(), self.quiet():
                likeliest = self.model(pairs.tokens)[:, :-1].argmax(dim=-1)
            same = (likeliest == pairs.tokens[:, 1:]) | ~pairs.asked[:, 1:]
            found.append(same.all(dim=1).cpu())
        return torch.cat(found).numpy() if found else np.zeros(0, bool)

    def greedy(self, prompts: Sequence[str]) -> list[list[int]]:
        """The tokens that are written to prompts, with the one that ends them."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._written]
        for start in range(0, len(new), BLOCK):
            some = new[start : start + BLOCK]
            self._written |= dict(zip(some, self._greedy(some), strict=True))
        return [self._written[prompt] for prompt in prompts]

    def _greedy(self, prompts: list[str]) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in prompts]
        going = list(range(len(prompts)))
        while going and len(answers[going[0]]) < self._room:
            pairs = self.pairs([prompts[row] for row in going], [answers[row] for row in going])
            ends = [len(x) - 1 for x in self.encoding.prompts([prompts[row] for row in going])]
            last = torch.tensor(ends, device=self.device) + len(answers[going[0]])
            rows = torch.arange(len(going), device=self.device)
            with torch.inference_mode(), self.quiet():
                tokens = self.model(pairs.tokens)[rows, last].argmax(dim=-1).tolist()
            for row, token in zip(going, tokens, strict=True):
                answers[row].append(token)
            end = self.encoding.words.end
            going = [row for row, token in zip(going, tokens, strict=True) if token != end]
        return answers

    def subject_at(self, prompt: str, subject: str) -> int:
        """The place of a subject's last token among those of a prompt.

        Raises:
            InputError: it is not in the prompt, or before what is read of it.
        """
        words, stop = self.encoding.words, prompt.rfind(subject) + len(subject)
        if not subject.strip() or subject not in prompt:
            raise InputError(f"the subject {subject!r} is no part of the prompt {prompt!r}")
        (tokens,) = words.encode([prompt], special=False)
        told = [words.decode(tokens[: n + 1]) for n in range(len(tokens))]
        ended = (n for n, text in enumerate(told) if len(text) >= stop and text[-1] != CUT)
        last = next(ended, len(tokens) - 1)  # of unknown words tokens tell less than was said
        (whole,) = self.encoding.prompts([prompt])
        (empty,) = self.encoding.prompts([""])
        begin = int(words.begin is not None)
        place = begin + last - (len(tokens) - (len(whole) - len(empty)))
        if place < begin:
            raise InputError(f"the subject {subject!r} stands before the part that is read")
        return place

    def _layer(self, rewrite: Rewrite) -> nn.Module:
        """The layer that is changed."""
        named: dict[str, Any] = dict(self.model.named_modules())
        found = named.get(rewrite.layer, self.model)
        plain = getattr(found, "base_layer", found)
        shape = len(rewrite.moves), rewrite.ways.shape[1]
        if not is_linear(plain) or shape_of(plain) != shape:
            raise IntegrityError(f"the model has no layer {rewrite.layer!r} of shape {shape}")
        layer: nn.Module = found
        return layer

    def _maybe(self, rewrite: Rewrite | None) -> AbstractContextManager[None]:
        return self.quiet() if rewrite is None else self.changed(rewrite)


def _share(mask: Mask) -> float | None:
    return float(cast(float, mask.mean())) if len(mask) else None
