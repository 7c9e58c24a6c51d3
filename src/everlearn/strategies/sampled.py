"""A sample of the rows that a network learns in an increment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everlearn.base import Part

if TYPE_CHECKING:
    from torch import Tensor


class RowSample:
    """A uniform sample of n of all rows that were offered (algorithm R of Vitter 1985), drawn by
    PyTorch's generator.

    Args:
        n: rows to hold.
    """

    def __init__(self, n: int) -> None:
        self._n, self._offered = n, 0
        self._rows: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return 0 if self._rows is None else len(self._rows[0])

    @property
    def x(self) -> Tensor:
        """(m, width) rows that are held; not to be asked of none."""
        assert self._rows is not None
        return self._rows[0]

    def offer(self, x: Tensor, y: Tensor) -> None:
        """Rows that are learned: (r, width) and (r,)."""
        import torch

        free = min(self._n - len(self), len(x))
        if free:
            head = (x[:free].clone(), y[:free].clone())
            self._rows = (
                head
                if self._rows is None
                else (torch.cat([self._rows[0], head[0]]), torch.cat([self._rows[1], head[1]]))
            )
        later = len(x) - free
        if later:
            assert self._rows is not None
            # row t takes place ⌊u·t⌋ if there is one; of rows for one place, the last stays
            number = torch.arange(self._offered + free + 1, self._offered + len(x) + 1)
            place = (torch.rand(later, dtype=torch.float64) * number).long()
            for row in torch.nonzero(place < self._n)[:, 0].tolist():
                for held, new in zip(self._rows, (x, y), strict=True):
                    held[place[row]] = new[free + row]
        self._offered += len(x)

    def clear(self) -> None:
        """Begin anew."""
        self._offered, self._rows = 0, None

    def save(self) -> Part:
        """The rows held."""
        from everlearn.learners.tensors import part_of

        held = {} if self._rows is None else {"x": self._rows[0], "y": self._rows[1]}
        return part_of(held, {"offered": self._offered})

    def load(self, part: Part) -> None:
        """The inverse of `save`."""
        from everlearn.learners.tensors import tensors_of

        held = tensors_of(part)
        self._offered = int(part.meta["offered"])
        self._rows = (held["x"], held["y"]) if held else None
