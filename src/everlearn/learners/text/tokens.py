"""From texts to tokens: the matrix of whole numbers that a module of text reads."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from everlearn.base import (
    Array,
    Batch,
    Columns,
    InputError,
    Ints,
    MissingDependencyError,
    Part,
    SpecError,
    digest_bytes,
)
from everlearn.learners.text.folders import INSTALL, found

PAD, BEGIN, BREAK, END = 256, 257, 258, 259
"""After the 256 bytes: padding, the beginning of a text, what stands between two, the end."""

BYTES = 260
"""Different tokens of bytes."""


class Vocabulary(Protocol):
    """Texts ↔ tokens."""

    digest: str
    size: int
    pad: int
    begin: int | None
    end: int | None

    def encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """The tokens of each text; with `special`, with those that the model expects around."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        ...


def _utf8(text: str) -> bytes:
    """Raises `InputError` for a text that has no UTF-8 (a lone surrogate)."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"a text is no Unicode: {error}") from error


class Bytes:
    """Each byte of UTF-8 is a token. Needs no file, and knows every text.

    >>> Bytes().encode(["né"], special=False)
    [[110, 195, 169]]
    """

    digest = "bytes"
    size, pad = BYTES, PAD
    begin: int | None = BEGIN
    end: int | None = END

    def encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        made = [list(_utf8(text)) for text in texts]
        return [[BEGIN, *tokens, END] for tokens in made] if special else made

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < 256).decode(errors="replace")


class FileVocabulary:
    """A `tokenizer.json` as the Hugging Face libraries write it.

    Args:
        path: of the file, or of its folder.

    Raises:
        SpecError: it is no such file.
        MissingDependencyError: the library tokenizers is not installed.
    """

    def __init__(self, path: Path) -> None:
        file = path / "tokenizer.json" if path.is_dir() else path
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads survive no fork
        try:
            from tokenizers import Tokenizer
        except ImportError as error:  # pragma: no cover
            raise MissingDependencyError(f"Tokens needs tokenizers: {INSTALL}") from error
        try:
            data = file.read_bytes()
            self._tokenizer = Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises plain Exception
            raise SpecError(f"{str(file)!r} is no tokenizer: {error}") from error
        self.digest = digest_bytes(data)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.size = int(self._tokenizer.get_vocab_size())
        named = _special(file.parent)
        self.begin = self._first(named, "bos_token", "cls_token")
        self.end = self._first(named, "eos_token", "sep_token")
        pad = self._first(named, "pad_token", "eos_token")
        self.pad = 0 if pad is None else pad

    def encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        for text in texts:
            _utf8(text)  # the library fails otherwise, and says less
        made = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return [item.ids for item in made]

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _first(self, named: dict[str, Any], *names: str) -> int | None:
        for name in names:
            token = named.get(name)
            token = token.get("content") if isinstance(token, dict) else token
            place = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
            if place is not None:
                return int(place)
        return None


def _special(folder: Path) -> dict[str, Any]:
    """Which tokens begin, end and fill a text, by the files beside the tokenizer.

    Raises:
        SpecError: one of the files is not JSON of names.
    """
    known: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = folder / name
        if file.exists():
            try:
                known |= json.loads(file.read_text())
            except (TypeError, ValueError) as error:
                raise SpecError(f"{str(file)!r} names no tokens: {error}") from error
    return known


def vocabulary(place: str | None) -> Vocabulary:
    """The vocabulary of a file or folder; bytes without one."""
    return Bytes() if place is None else FileVocabulary(found(place))


@dataclass(frozen=True, slots=True)
class Tokens:
    """The columns of texts (`Schema(text=)`) as tokens, for `TorchLearner(encoder=)`.

    A row becomes `length` whole numbers: the texts of its columns one after the other, with the
    tokens that the model expects around them, cut at the end, and filled up with `pad`. Each of n
    columns of texts has length / n of them. The event time is not read; other features are refused,
    as they would be passed over.

    Args:
        tokenizer: a `tokenizer.json`, its folder, or "package:path" for one in an installed
            package; None for bytes, which need no file.
        length: tokens of a row.

    Raises:
        SpecError: an argument that is none of these.
        MissingDependencyError: the library tokenizers is not installed.

    Example:
        >>> Tokens(length=8).pad
        256
    """

    tokenizer: str | None = None
    length: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or not 4 <= self.length <= 2**20:
            raise SpecError(f"Tokens(length=) is a number from 4 to 2**20, not {self.length!r}")

    @property
    def pad(self) -> int:
        """The token with which rows are filled up."""
        return vocabulary(self.tokenizer).pad

    def encoding(self, columns: Columns) -> TokenEncoding:
        """The encoder in use."""
        return TokenEncoding(self, columns)


class TextEncoding:
    """What encoders of texts share: nothing is learned; a changed tokenizer is refused.

    Args:
        words: the vocabulary.
        columns: what batches hold.
        width: of the matrix.
        told: what else a state has to be of.

    Raises:
        SpecError: there is no column of texts, or there are features beside them.
    """

    dtype = np.int64

    def __init__(self, words: Vocabulary, columns: Columns, width: int, **told: Any) -> None:
        if not columns.texts:
            raise SpecError("there is no column of texts to read; name it in Schema(text=…)")
        others = [*columns.numbers, *columns.categories]
        others += [name for name in columns.times if name != columns.time]
        if others:
            raise SpecError(
                f"only texts are read here, and {others[:5]} would be passed over; put them into"
                " Schema(ignore=…)"
            )
        self.words, self.width = words, width
        self._count = len(columns.texts)
        self._told = {"tokenizer": words.digest, "width": width, **told}

    def learn(self, batch: Batch) -> None:
        """Nothing is learned."""

    def snapshot(self) -> Any:
        """There is nothing to go back to."""
        return None

    def restore(self, snapshot: Any) -> None:
        """There is nothing to go back to."""

    def save(self) -> Part:
        """Which tokenizer the tokens are of."""
        return Part(meta=self._told)

    def load(self, part: Part) -> None:
        """Raises `InputError` for a state of other tokens."""
        differ = [name for name, value in self._told.items() if part.meta.get(name) != value]
        if differ:
            raise InputError(
                f"the state was learned with another {' and '.join(differ)}: "
                f"{[part.meta.get(name) for name in differ]}, not {[self._told[n] for n in differ]}"
            )

    def transform(self, batch: Batch) -> Ints:
        """(n, width) int64 of (n,) rows.

        Raises:
            InputError: the batch has other columns.
        """
        found = 0 if batch.texts is None else batch.texts.shape[1]
        if batch.texts is None or found != self._count:
            raise InputError(f"rows have {self._count} columns of texts, but {found} were given")
        return self._tokens(batch.texts)

    def _tokens(self, texts: Array) -> Ints:
        raise NotImplementedError


class TokenEncoding(TextEncoding):
    """`Tokens` in use.

    Args:
        tokens: the definition.
        columns: what batches hold.
    """

    def __init__(self, tokens: Tokens, columns: Columns) -> None:
        super().__init__(vocabulary(tokens.tokenizer), columns, tokens.length)
        self._share = tokens.length // max(len(columns.texts), 1)

    def _tokens(self, texts: Array) -> Ints:
        out = np.full((len(texts), self.width), self.words.pad, np.int64)
        for row, pieces in enumerate(zip(*(self._column(c) for c in texts.T), strict=True)):
            joined = [token for piece in pieces for token in piece]
            out[row, : len(joined)] = joined
        return out

    def _column(self, texts: Array) -> list[list[int]]:
        """The tokens of a column, none longer than its share; the last special one stays."""
        made = self.words.encode(texts.tolist(), special=True)
        size = self._share
        return [t if len(t) <= size else [*t[: size - 1], t[-1]] for t in made]
