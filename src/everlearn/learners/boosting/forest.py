"""Trees in the order in which they were grown, kept as text that does not change any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from everlearn.base import Floats, InputError, Json, Part, State

RATE = 0.1
"""The learning rate where none is said."""

BLOCK = 32
"""Rounds of a block: of what is a booster of its own while it is used. What was learned last is
stored again when a block becomes full, and never after that."""


class Library(Protocol):
    """What a library of boosted trees does for one number of outputs (scores of a row)."""

    def boost(
        self, x: Floats, y: Floats, weight: Floats | None, start: Floats, rounds: int, seed: int
    ) -> tuple[bytes, int]:
        """The text of at most so many rounds of new trees, and how many rounds they are; `start`
        is (n, outputs), what is predicted without them. Raises `InputError` for rows that the
        library does not take."""
        ...

    def booster(self, texts: Sequence[bytes], rounds: int, trusted: bool) -> Any:
        """What predicts with these trees. Raises `InputError` for what are none, which is looked
        for before the library sees it unless they are trusted: it would read out of bounds."""
        ...

    def margins(self, booster: Any, x: Floats, skip: int) -> Floats:
        """(n, outputs): the sum of a booster's trees but those of its first `skip` rounds."""
        ...

    def refit(
        self, booster: Any, x: Floats, y: Floats, weight: Floats | None, start: Floats, keep: float
    ) -> bytes:
        """The text of the same trees, whose leaves are `keep` times what they were and 1 − keep
        times what these rows say."""
        ...

    def scaled(self, text: bytes, factor: float) -> bytes:
        """The text of the same trees, whose leaves are multiplied."""
        ...


Libraries = Callable[[int], Library]
"""The library, by number of outputs."""


@dataclass(slots=True, eq=False)
class Block:
    """Some rounds of trees that are one booster.

    Args:
        outputs: scores that it adds to.
        pieces: name → the text of some rounds, as a part of the state.
        rounds: of all pieces.
        skip: of these, how many at its beginning are dropped.
        weight: what its leaves are multiplied by.
        booster: what predicts with it, once it was needed.
        trusted: whether its trees were grown here.
    """

    outputs: int
    pieces: dict[str, Part] = field(default_factory=dict)
    rounds: int = 0
    skip: int = 0
    weight: float = 1.0
    booster: Any = None
    trusted: bool = True

    @property
    def texts(self) -> list[bytes]:
        return [part.arrays["text"].tobytes() for part in self.pieces.values()]


def piece(text: bytes) -> Part:
    """Text as a part of a state."""
    return Part({"text": np.frombuffer(text, np.uint8)})


class Forest:
    """Blocks of trees, the oldest first."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._serial = 0

    @property
    def rounds(self) -> int:
        """How many rounds of trees there are."""
        return sum(block.rounds - block.skip for block in self.blocks)

    def margins(self, library: Libraries, x: Floats, outputs: int) -> Floats:
        """(n, outputs): the sum of all trees."""
        total = np.zeros((len(x), outputs))
        for block in self.blocks:
            self.add(total, self.of(block, library, x), block)
        return total

    def of(self, block: Block, library: Libraries, x: Floats) -> Floats:
        """(n, outputs of the block): the sum of its trees."""
        booster = self.booster(block, library)
        margins: Floats = library(block.outputs).margins(booster, x, block.skip)
        return margins if block.weight == 1.0 else margins * block.weight

    @staticmethod
    def booster(block: Block, library: Libraries) -> Any:
        """What predicts with a block's trees; made where it is first needed."""
        if block.booster is None:
            block.booster = library(block.outputs).booster(block.texts, block.rounds, block.trusted)
            block.trusted = True
        return block.booster

    @staticmethod
    def add(total: Floats, margins: Floats, block: Block) -> None:
        """Add a block's scores to the columns that they are for: one score is that of code 1,
        also where there are more classes by now."""
        if block.outputs == 1:
            total[:, min(1, total.shape[1] - 1)] += margins[:, 0]
        else:
            total[:, : block.outputs] += margins

    def append(self, text: bytes, rounds: int, outputs: int, library: Library) -> None:
        """Add the newest trees."""
        last = self.blocks[-1] if self.blocks else None
        if last is None or last.outputs != outputs or last.rounds + rounds > BLOCK:
            self._close()
            last = Block(outputs)
            self.blocks.append(last)
        if last.weight != 1.0:
            text = library.scaled(text, 1.0 / last.weight)
        last.pieces[self._name()] = piece(text)
        last.rounds += rounds
        last.booster = None

    def replace(self, block: Block, text: bytes) -> None:
        """Let a block have other trees, as many as it had."""
        block.pieces = {self._name(): piece(text)}
        block.booster = None

    def drop(self, rounds: int) -> None:
        """Take the oldest rounds away."""
        while rounds > 0 and self.blocks:
            first = self.blocks[0]
            taken = min(rounds, first.rounds - first.skip)
            first.skip += taken
            rounds -= taken
            if first.skip == first.rounds:
                del self.blocks[0]

    def decay(self, factor: float) -> None:
        """Multiply all leaves."""
        for block in self.blocks:
            block.weight *= factor

    def save(self) -> tuple[State, Json]:
        """The text of the trees, in parts that versions share, and how they stand together."""
        parts = {f"trees/{name}": part for name, part in self._pieces()}
        blocks = [
            {
                "outputs": block.outputs,
                "pieces": list(block.pieces),
                "rounds": block.rounds,
                "skip": block.skip,
                "weight": block.weight,
            }
            for block in self.blocks
        ]
        return parts, {"blocks": blocks, "serial": self._serial}

    def load(self, state: State, known: Json) -> None:
        """The inverse of `save`.

        Raises:
            InputError: it has other trees than it says.
        """
        self.blocks, self._serial = [], int(known["serial"])
        for told in known["blocks"]:
            pieces = {}
            for name in told["pieces"]:
                part = state[f"trees/{name}"]
                if part.arrays["text"].dtype != np.uint8:
                    raise InputError(f"trees/{name} is no text")
                pieces[str(name)] = part
            outputs, rounds, skip = (int(told[name]) for name in ("outputs", "rounds", "skip"))
            weight = float(told["weight"])
            if not (0.0 < weight <= 1.0 and 0 <= skip < rounds):
                raise InputError(f"a block of trees weighs {weight} and skips {skip} of {rounds}")
            self.blocks.append(Block(outputs, pieces, rounds, skip, weight, trusted=False))
        named = {f"trees/{name}" for name, _ in self._pieces()}
        if found := {name for name in state if name.startswith("trees/")} - named:
            raise InputError(f"the state has trees that are in no block: {sorted(found)[:3]}")

    def _pieces(self) -> Iterator[tuple[str, Part]]:
        for block in self.blocks:
            yield from block.pieces.items()

    def _close(self) -> None:
        """The last block is full: its pieces become one."""
        if self.blocks and len(self.blocks[-1].pieces) > 1:
            last = self.blocks[-1]
            last.pieces = {self._name(): piece(b"".join(last.texts))}

    def _name(self) -> str:
        self._serial += 1
        return f"{self._serial:08d}"
