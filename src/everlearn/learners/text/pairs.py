"""Prompts and completions as tokens: what a causal language model learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from everlearn.base import Array, Columns, Ints, SpecError
from everlearn.learners.text.tokens import BREAK, TextEncoding, Vocabulary

HEAD = 3
"""Numbers before the tokens of a row: tokens of the prompt, the completion and the correction."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a row what stands: three lengths, then the tokens of prompt, completion and
    correction, each filled up to its room.

    Args:
        prompt: tokens of a prompt, with those that begin and end it.
        completion: tokens of a completion, with the one that ends it; and of a correction.
        pad: what fills up.
    """

    prompt: int
    completion: int
    pad: int

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return HEAD + self.prompt + 2 * self.completion


class PairEncoding(TextEncoding):
    """Columns of prompts, completions and corrections in use.

    Args:
        words: the vocabulary.
        columns: what batches hold.
        names: columns of the prompt, the completion and, perhaps, the correction.
        layout: of a row.
        separator: what stands between prompt and completion, where the vocabulary has no token.
        told: what else a state has to be of.

    Raises:
        SpecError: one of the columns is none of texts, or there are others.
    """

    def __init__(
        self,
        words: Vocabulary,
        columns: Columns,
        names: tuple[str, str, str | None],
        layout: Layout,
        separator: str,
        **told: object,
    ) -> None:
        given = [name for name in names if name is not None]
        if set(columns.texts) != set(given):
            raise SpecError(
                f"the columns of texts are {list(columns.texts)}, where {given} are read; name"
                " these in Schema(text=…)"
            )
        super().__init__(
            words, columns, layout.width, lengths=[layout.prompt, layout.completion], **told
        )
        self.layout = layout
        self._places = [columns.texts.index(name) for name in given]
        bytewise = words.digest == "bytes"
        between = [BREAK] if bytewise else words.encode([separator], special=False)[0]
        self._between = between
        if layout.prompt < len(between) + 2 or layout.completion < 2:
            raise SpecError(f"{layout} has no room for a prompt and a completion")

    def prompts(self, texts: list[str]) -> list[list[int]]:
        """The tokens of prompts, with what begins and ends them; the last ones of a long prompt."""
        begin = [] if self.words.begin is None else [self.words.begin]
        room = self.layout.prompt - len(begin) - len(self._between)
        made = self.words.encode(texts, special=False)
        return [[*begin, *tokens[max(len(tokens) - room, 0) :], *self._between] for tokens in made]

    def completions(self, texts: list[str]) -> list[list[int]]:
        """The tokens of completions with what ends them, which a cut one has not."""
        end = [] if self.words.end is None else [self.words.end]
        made = self.words.encode(texts, special=False)
        return [[*tokens, *end][: self.layout.completion] for tokens in made]

    def _tokens(self, texts: Array) -> Ints:
        layout = self.layout
        out = np.full((len(texts), self.width), layout.pad, np.int64)
        out[:, :HEAD] = 0
        start = HEAD
        for part, place in enumerate(self._places):
            column = texts[:, place].tolist()
            made = self.prompts(column) if part == 0 else self.completions(column)
            if part == 2:  # no correction is not an empty one
                made = [tokens if text else [] for tokens, text in zip(made, column, strict=True)]
            for row, tokens in enumerate(made):
                out[row, part] = len(tokens)
                out[row, start : start + len(tokens)] = tokens
            start += layout.completion if part else layout.prompt
        return out
