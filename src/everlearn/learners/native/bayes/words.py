"""How much of each word came with each class, for rows with few words of very many.

A word is a column of a sparse matrix, or a number above 0 or a category of a dense row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from everlearn.base import Array, Floats, InputError, Ints
from everlearn.learners.native.compile import kernel
from everlearn.learners.native.loading import like
from everlearn.learners.native.random import mix


class Words(NamedTuple):
    """Words in `width` places, with k classes.

    Args:
        weights: (width, k) weight of a word in the rows of a class.
        seen: (width,) places of the words that came in any learned row, as they came.
        size: (1,) how many they are: the size of the vocabulary.
    """

    weights: Floats
    seen: Ints
    size: Ints


def begin_words(width: int, classes: int) -> dict[str, Array]:
    """The arrays of `Words`, of none."""
    return {
        "weights": np.zeros((width, classes)),
        "seen": np.zeros(width, np.int64),
        "size": np.zeros(1, np.int64),
    }


def words_of(state: dict[str, Array]) -> Words:
    """The words of a state."""
    return Words(state["weights"], state["seen"], state["size"])


def packed_words(state: dict[str, Array]) -> dict[str, Array]:
    """What is to be saved of words: those that were seen."""
    seen = state["seen"][: state["size"][0]].copy()
    return {"seen": seen, "weights": state["weights"][seen]}


def unpack_words(state: dict[str, Array], arrays: Mapping[str, Array]) -> None:
    """Put into a state without words what `packed_words` has saved."""
    seen, weights = arrays["seen"], arrays["weights"]
    seen = like(np.zeros(len(seen), np.int64), seen, "seen")
    weights = like(np.zeros((len(seen), state["weights"].shape[1])), weights, "weights")
    if seen.min(initial=0) < 0 or seen.max(initial=0) >= len(state["weights"]):
        raise InputError(f"words are in places below {len(state['weights'])}; see bits=")
    if len(np.unique(seen)) < len(seen) or not (weights.max(axis=1) > 0.0).all():
        raise InputError("a word is twice there, or of no weight")
    state["weights"][seen] = weights
    state["seen"][: len(seen)] = seen
    state["size"][0] = len(seen)


def find_seen(state: dict[str, Array]) -> None:
    """Put right which words were seen, by their weights."""
    seen = np.flatnonzero(state["weights"].any(axis=1))
    state["seen"][: len(seen)] = seen
    state["size"][0] = len(seen)


@kernel
def place_of(column: int, width: int) -> int:
    """The place of a column among `width`, a power of 2: its own if it is below, else by hash."""
    if column < width:
        return column
    return np.int64(mix(column) & np.uint64(width - 1))  # type: ignore[return-value]


@kernel
def place_of_category(value: int, column: int, width: int) -> int:
    """The place of a category among `width`, a power of 2."""
    bits = mix(value + np.uint64(column) * np.uint64(0x9E3779B97F4A7C15))  # type: ignore[arg-type]
    return np.int64(bits & np.uint64(width - 1))  # type: ignore[return-value]


@kernel
def longest_row(starts: Ints) -> int:
    """The most that any sparse row holds."""
    longest = 0
    for i in range(len(starts) - 1):
        longest = max(longest, starts[i + 1] - starts[i])
    return longest


@kernel
def is_known(words: Words, place: int) -> bool:
    """Whether a word came in any learned row."""
    heaviest = 0.0
    for c in range(words.weights.shape[1]):
        heaviest = max(heaviest, words.weights[place, c])
    return heaviest > 0.0


@kernel
def meet(words: Words, place: int, c: int) -> None:
    """Take a word into the vocabulary, if it is not there, before it is learned of class c."""
    if words.weights[place, c] == 0.0 and not is_known(words, place):
        words.seen[words.size[0]] = place
        words.size[0] += 1
