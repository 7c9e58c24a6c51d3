"""Adapters of many keys on one module: each row is answered with its key's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from everlearn.base import Hashes, InputError, Ints, Part, State
from everlearn.learners.neural.low_rank import shape_of
from everlearn.learners.neural.tensors import part_of, tensors_of

SHARDS = 256
"""Parts of a state over which adapters are spread by key, so that a version's list of parts stays
short; those of whose keys no adapter moved are shared between versions."""


HALF = 20
"""Bits of a number's lower half: a float32 holds whole numbers of 24 exactly, and numbers are never
used again, since remembered rows have them."""


def halves(numbers: Tensor, like: Tensor) -> Tensor:
    """(n, 2) upper and lower halves of (n,) numbers, as columns of rows like these.

    >>> halves(torch.tensor([2**24 + 1]), torch.zeros(1))
    tensor([[16.,  1.]])
    """
    return torch.stack([numbers >> HALF, numbers & ((1 << HALF) - 1)], 1).to(like)


def wholes(columns: Tensor) -> Tensor:
    """The inverse of `halves`."""
    upper, lower = columns.long().unbind(1)
    return (upper << HALF) + lower


class Keyed(nn.Module):
    """Answers rows that say, in two last columns, the number of the adapter that is theirs.

    Args:
        module: what answers.
        width: columns of a row without that number.
        table: the adapters.
    """

    def __init__(self, module: nn.Module, width: int, table: Table) -> None:
        super().__init__()
        self.module, self._width, self._table = module, width, table

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == self._width:
            return self.module(x)  # type: ignore[no-any-return]
        self._table.use(wholes(x[:, self._width :]), self.training)
        try:
            return self.module(x[:, : self._width])  # type: ignore[no-any-return]
        finally:
            self._table.use(None, False)


class Table:
    """An adapter for each key: B x̂ is added to what a layer answers to a row, where x̂ is the
    layer's input in `rank` directions that all keys share, and 1. B is 0 until the key is learned.

    Args:
        layers: by their names.
        rank: directions of each layer's input, which are drawn from PyTorch's generator; all of
            them where there are no more.
        at_most: keys with an adapter; who learned longest ago gives way.
    """

    def __init__(self, layers: dict[str, Any], rank: int, at_most: int) -> None:
        self._layers, self._at_most = layers, at_most
        self._numbers: dict[int, int] = {}  # key → its number, from 1
        self._learned: dict[int, int] = {}  # key → the learned batch in which it was seen last
        self._batches, self._next = 0, 1
        self._place = torch.zeros(1, dtype=torch.int64)  # number → its row below; 0 for nobody
        self._free: list[int] = []
        self._shards: dict[int, int] = {}  # row → the shard of its key
        self._parts: dict[int, Part] = {}  # of shards in which nothing moved
        self.matrices: dict[str, Tensor] = {}  # layer → (rows, outputs, directions)
        self.squares = torch.zeros(
            1, len(layers), dtype=torch.float64
        )  # of the gradients so far, by row and layer
        self.moved: list[tuple[Tensor, dict[str, Tensor]]] = []  # (rows, layer → leaf)
        self._places: Tensor | None = None
        self._leaves: dict[str, Tensor] = {}
        self._inverse = self._unique = self._place
        for name, layer in layers.items():
            self._add_to(name, layer, rank)

    def _add_to(self, name: str, layer: Any, rank: int) -> None:
        outputs, inputs = shape_of(layer)
        weight = layer.weight
        if inputs <= rank:
            directions = torch.eye(inputs, device=weight.device, dtype=weight.dtype)
        else:
            drawn = torch.randn(inputs, rank, dtype=torch.float64)
            directions = torch.linalg.qr(drawn)[0].T.to(weight.device, weight.dtype)
        layer.register_buffer("personal_A", directions.contiguous())
        width = len(directions) + (layer.bias is not None)
        self.matrices[name] = weight.new_zeros(1, outputs, width).detach()
        self._place, self.squares = self._place.to(weight.device), self.squares.to(weight.device)
        layer.register_forward_hook(
            lambda one, given, output: self._answer(name, one, given[0], output)
        )

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def bytes_of_one(self) -> int:
        """Of a key's adapter."""
        return sum(m[0].numel() * m.element_size() for m in self.matrices.values())

    # --- whose rows these are ---

    def numbers(self, keys: Hashes, learned: bool) -> Ints:
        """(n,) the number of each row's adapter; 0 for none. Keys that are learned get one."""
        different, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        if learned:
            self._batches += 1
            named = [int(different[at]) for at in np.argsort(first) if different[at]]
            for key in named[: self._at_most]:
                self._learned[key] = self._batches
            for key in named[: self._at_most]:
                if key not in self._numbers:
                    self._take_in(key)
        found = np.array([self._numbers.get(int(key), 0) for key in different], np.int64)
        return found[inverse]

    def erase(self, keys: Hashes) -> int:
        """Forget the adapters of keys; returns how many there were."""
        there = [int(key) for key in keys if int(key) in self._numbers]
        for key in there:
            self._drop(key)
        return len(there)

    def _take_in(self, key: int) -> None:
        if len(self._numbers) >= self._at_most:
            self._drop(min(self._numbers, key=lambda other: (self._learned[other], other)))
        if not self._free:
            self._make_room(max(64, len(self.squares)))
        self._numbers[key] = self._next
        if self._next >= len(self._place):
            more = self._place.new_zeros(max(64, len(self._place)))
            self._place = torch.cat([self._place, more])
        self._place[self._next] = row = self._free.pop()
        self._shards[row] = key % SHARDS
        self._next += 1
        self._parts.pop(key % SHARDS, None)

    def _drop(self, key: int) -> None:
        number = self._numbers.pop(key)
        row = int(self._place[number])
        self._place[number] = 0
        self._free.append(row)
        self.squares[row] = 0.0
        for matrix in self.matrices.values():
            matrix[row] = 0.0
        del self._learned[key]
        self._parts.pop(key % SHARDS, None)

    def _make_room(self, more: int) -> None:
        start = len(self.squares)
        self._free = list(range(start + more - 1, start - 1, -1))
        self.squares = torch.cat([self.squares, self.squares.new_zeros(more, len(self._layers))])
        for name, matrix in self.matrices.items():
            self.matrices[name] = torch.cat([matrix, matrix.new_zeros(more, *matrix.shape[1:])])

    # --- answering and learning ---

    def use(self, numbers: Tensor | None, learns: bool) -> None:
        """Answer for the adapters of these numbers, (n,), or for nobody's."""
        self._leaves = {}
        if numbers is None:
            self._places = None
            return
        known = numbers.clamp(0, len(self._place) - 1)
        self._places = self._place[known]
        if learns and torch.is_grad_enabled():
            self._unique, self._inverse = torch.unique(self._places, return_inverse=True)
            for name, matrix in self.matrices.items():
                self._leaves[name] = matrix[self._unique].requires_grad_()
            self.moved.append((self._unique, self._leaves))

    def _answer(self, name: str, layer: Any, x: Tensor, output: Tensor) -> Tensor:
        directions = functional.linear(x, layer.personal_A)
        if layer.bias is not None:
            directions = torch.cat([directions, torch.ones_like(directions[..., :1])], -1)
        if "personal_B" in layer._parameters:
            output = output + functional.linear(directions, layer.personal_B)
        if self._places is None:
            return output
        if len(x) != len(self._places):
            raise InputError(
                f"{name!r} sees {len(x)} inputs for {len(self._places)} rows; an adapter for each"
                " key needs a layer that sees one a row: leave it out of Personal(targets=)"
            )
        leaf = self._leaves.get(name)
        own = self.matrices[name][self._places] if leaf is None else leaf[self._inverse]
        own = own.to(directions.dtype)
        if x.ndim == 2:
            return output + (own @ directions.unsqueeze(-1)).squeeze(-1)
        flat = directions.reshape(len(x), -1, directions.shape[-1])
        return output + (flat @ own.mT).reshape(output.shape)

    @torch.no_grad()
    def move(self, rows: int, rate: float, shrink: float, scale: float) -> None:
        """Take a step for the adapters that the last rows used.

        Args:
            rows: of whose mean loss the gradient is.
            rate: of the step, divided by √(1 + the sum of squared gradients so far).
            shrink: of the pull to 0.
            scale: by which the loss was multiplied.
        """
        places = torch.cat([unique for unique, _ in self.moved])
        unique, inverse = torch.unique(places, return_inverse=True)
        for index, (name, matrix) in enumerate(self.matrices.items()):
            parts = [
                torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                for leaf in (leaves[name] for _, leaves in self.moved)
            ]
            total = torch.zeros_like(matrix[unique]).index_add_(0, inverse, torch.cat(parts))
            gradient = total * (rows / scale) + shrink * matrix[unique]
            finite = gradient.isfinite().flatten(1).all(1) & (unique > 0)
            gradient, at = gradient[finite], unique[finite]
            squares = self.squares[at, index] + gradient.double().square().flatten(1).sum(1)
            self.squares[at, index] = squares
            step = rate / (1.0 + squares).sqrt()
            matrix[at] -= step.to(gradient.dtype)[:, None, None] * gradient
        self._touch(unique)

    def _touch(self, rows: Tensor) -> None:
        """The shards of these rows are to be saved anew."""
        for row in rows.tolist():
            self._parts.pop(self._shards.get(row, -1), None)

    def widen(self) -> None:
        """Let adapters have a row for each output that their layers have now."""
        for name, layer in self._layers.items():
            matrix, outputs = self.matrices[name], shape_of(layer)[0]
            if (more := outputs - matrix.shape[1]) > 0:
                zeros = matrix.new_zeros(len(matrix), more, matrix.shape[2])
                self.matrices[name] = torch.cat([matrix, zeros], 1)
                self._parts.clear()

    # --- its state ---

    def save(self) -> State:
        """Whose adapters there are, and the adapters in shards."""
        keys = sorted(self._numbers)
        about = {
            "keys": np.array(keys, np.uint64),
            "numbers": np.array([self._numbers[key] for key in keys], np.int64),
            "learned": np.array([self._learned[key] for key in keys], np.int64),
        }
        meta = {"batches": self._batches, "next": self._next}
        shards: dict[int, list[int]] = {}
        for key in keys:
            shards.setdefault(key % SHARDS, []).append(key)
        self._parts = {
            shard: self._parts.get(shard) or self._part(own) for shard, own in shards.items()
        }
        named = {f"personal/{shard:02x}": part for shard, part in self._parts.items()}
        return {"keys": Part(about, meta), **named}

    def _part(self, keys: list[int]) -> Part:
        rows = self._place[[self._numbers[key] for key in keys]]
        own = {f"B/{name}": matrix[rows] for name, matrix in self.matrices.items()}
        return part_of({**own, "squares": self.squares[rows]})

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if "keys" not in state:
            raise InputError(f"the state has {sorted(state)}; it is of no adapters by key")
        about, meta = state["keys"].arrays, state["keys"].meta
        keys = [int(key) for key in about["keys"]]
        self._numbers = dict(zip(keys, about["numbers"].tolist(), strict=True))
        self._learned = dict(zip(keys, about["learned"].tolist(), strict=True))
        self._batches, self._next = int(meta["batches"]), int(meta["next"])
        device = self.squares.device
        self._place = torch.zeros(self._next, dtype=torch.int64, device=device)
        self._free, self._shards, self._parts = [], {}, {}
        self.squares = self.squares[:1]
        self.matrices = {name: matrix[:1] for name, matrix in self.matrices.items()}
        if keys:
            self._make_room(len(keys))
        shards: dict[int, list[int]] = {}
        for key in keys:
            self._place[self._numbers[key]] = row = self._free.pop()
            self._shards[row] = key % SHARDS
            shards.setdefault(key % SHARDS, []).append(key)
        for shard, own in shards.items():
            part = state[f"personal/{shard:02x}"]
            rows = self._place[[self._numbers[key] for key in own]]
            found = tensors_of(part)
            self.squares[rows] = found["squares"].to(device)
            for name, matrix in self.matrices.items():
                if found[f"B/{name}"].shape[1:] != matrix.shape[1:]:
                    raise InputError(
                        f"the state's adapters of {name!r} are"
                        f" {tuple(found[f'B/{name}'].shape[1:])}, not {tuple(matrix.shape[1:])}"
                    )
                matrix[rows] = found[f"B/{name}"].to(device)
            self._parts[shard] = part
