"""A sample of the rows that a network learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everlearn.base import Part, State
from everlearn.strategies.neural import part_of_tensors, tensors_of_part

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class RowSample:
    """A uniform sample of n of all rows that were offered (algorithm R of Vitter 1985), drawn by
    PyTorch's generator.

    Args:
        n: rows to hold.
    """

    def __init__(self, n: int) -> None:
        self._n, self._offered = n, 0
        self._held: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._held[0]) if self._held else 0

    @property
    def x(self) -> Tensor:
        """(m, width) rows that are held; not to be asked of none."""
        return self._held[0]

    @property
    def columns(self) -> list[Tensor]:
        """(m, …) all that is held of them."""
        return self._held

    def offer(self, *columns: Tensor) -> None:
        """Rows that are learned, in columns of (r, …): their numbers first, then what belongs to
        them. Always as many columns."""
        import torch

        rows = len(columns[0])
        self.fit(columns[0])
        if len(self) > self._n:  # loaded from a larger one
            self._held = self.draw(self._n)
        free = min(self._n - len(self), rows)
        if free:
            head = [column[:free].detach().clone() for column in columns]
            known = self._held or [column[:0] for column in head]
            self._held = [torch.cat(pair) for pair in zip(known, head, strict=True)]
        if rows > free:  # row number t takes place ⌊u·t⌋, if there is one; of several, the last
            number = torch.arange(self._offered + free + 1, self._offered + rows + 1)
            place = (torch.rand(rows - free, dtype=torch.float64) * number).long()
            hits = torch.nonzero(place < self._n)[:, 0]
            taken = dict(zip(place[hits].tolist(), (hits + free).tolist(), strict=True))
            if taken:
                to = torch.tensor(list(taken), device=columns[0].device)
                of = torch.tensor(list(taken.values()), device=columns[0].device)
                for held, column in zip(self._held, columns, strict=True):
                    held.index_copy_(0, to, column.detach().index_select(0, of))
        self._offered += rows

    def draw(self, rows: int) -> list[Tensor]:
        """Columns of rows that are held, without repetition: as many as asked for, or all."""
        import torch

        chosen = torch.randperm(len(self))[:rows].to(self._held[0].device)
        return [column[chosen] for column in self._held]

    def widen(self, column: int, width: int) -> None:
        """Let a column of (m, k) have `width` numbers a row; those that were not there are NaN."""
        import torch

        if self._held and (more := width - self._held[column].shape[1]) > 0:
            held = self._held[column]
            self._held[column] = torch.cat([held, held.new_full((len(held), more), torch.nan)], 1)

    def fit(self, x: Tensor) -> None:
        """Let rows have as many numbers as these, (n, width): an adaptation that was put in or
        taken out tells the module more of each row, or less. Nobody's number is 0."""
        from torch.nn import functional

        if len(self) and (more := x.shape[-1] - self.x.shape[-1]):
            self._held[0] = functional.pad(self.x, (0, more))

    def merge(self, other: RowSample) -> None:
        """Become a uniform sample of all rows that were offered to either."""
        import torch

        ours, theirs, from_other = self._offered, other._offered, 0
        total = min(self._n, ours + theirs)
        for chance in torch.rand(total, dtype=torch.float64).tolist():  # a hypergeometric draw
            if chance * (ours + theirs) < theirs:
                from_other, theirs = from_other + 1, theirs - 1
            else:
                ours -= 1
        parts = [
            one.draw(rows)
            for one, rows in ((self, total - from_other), (other, from_other))
            if rows
        ]
        self._held = [torch.cat(columns) for columns in zip(*parts, strict=True)]
        self._offered += other._offered

    def clear(self) -> None:
        """Begin anew."""
        self._offered, self._held = 0, []

    def save(self) -> Part:
        """The rows held."""
        columns = {str(index): column for index, column in enumerate(self._held)}
        part = part_of_tensors(columns)
        return Part(part.arrays, {**part.meta, "offered": self._offered})

    def load(self, part: Part, device: torch.device) -> None:
        """The inverse of `save`, on a device."""
        columns = tensors_of_part(part, device)
        self._offered = int(part.meta["offered"])
        self._held = [columns[str(index)] for index in range(len(columns))]


def is_of_rows(name: str) -> bool:
    """Whether a part of a version's state is what a sample saved."""
    return name.startswith("learner/held/") and name.endswith(("/rows", "/memory", "/coming"))


def holds_rows(state: State) -> bool:
    """Whether a sample of a version's state has any rows. Whose they are is not known: a network is
    told numbers."""
    return any(is_of_rows(name) and part.meta["offered"] for name, part in state.items())


def without_rows(state: State) -> State:
    """A version's state with empty samples."""
    empty = Part(meta={"kinds": {}, "offered": 0})
    return {name: empty if is_of_rows(name) else part for name, part in state.items()}
