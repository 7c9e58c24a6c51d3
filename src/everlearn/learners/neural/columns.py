"""Copies of a module that learned different increments, and the way of a row to its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from everlearn.learners.neural.density import Density
from everlearn.learners.neural.layers import is_under, keep_still, loosen


class Columns(nn.Module):
    """Answers each row with the column whose rows looked most like it. In training, the current
    column answers all.

    Args:
        module: the first column.
        own: names of what a further column has of its own; it shares the rest with the first, which
            then is still. Empty for everything.
        head: the layer whose answer is the module's, whose inputs are looked at where rows are
            whole numbers (tokens).
        directions: of a column's density.
    """

    def __init__(
        self, module: nn.Module, own: tuple[str, ...], head: str | None, directions: int
    ) -> None:
        super().__init__()
        self.columns = nn.ModuleList([module])
        self.densities = [Density(directions)]
        self.current = 0
        self._own, self._head, self._directions = own, head, directions
        self._wanted = [name for name, p in module.named_parameters() if p.requires_grad]

    def forward(self, x: Tensor) -> Tensor:
        if self.training or len(self.columns) == 1:
            return self.columns[self.current](x)  # type: ignore[no-any-return]
        places = self.route(x)
        rows = [torch.nonzero(places == k)[:, 0] for k in range(len(self.columns))]
        answers = [self.columns[k](x[own]) for k, own in enumerate(rows) if len(own)]
        order = torch.cat(rows)
        return torch.cat(answers)[torch.argsort(order)]

    def route(self, x: Tensor) -> Tensor:
        """(n,) the column of each row."""
        seen = self.looks(x)
        known = [(k, density) for k, density in enumerate(self.densities) if density.rows]
        best = torch.stack([density.of(seen) for _, density in known]).argmax(0)
        return torch.tensor([k for k, _ in known], device=best.device)[best]

    def looks(self, x: Tensor) -> Tensor:
        """(n, d) what is looked at: the row, or what the first column's head is given of it."""
        if x.is_floating_point():
            return x.detach().flatten(1)
        found: list[Tensor] = []

        def note(_: nn.Module, given: Any) -> None:
            found.append(given[0].detach())

        first = self.columns[0]
        head = first.get_submodule(str(self._head))
        hook, was_training = head.register_forward_pre_hook(note), first.training
        try:
            first.eval()
            with torch.no_grad():
                first(x)
        finally:
            first.train(was_training)
            hook.remove()
        return found[-1].reshape(len(x), -1)

    def add(self, like: int) -> None:
        """One more column, which begins as a copy."""
        before = self.columns[like]
        named = [*before.named_parameters(remove_duplicate=False), *before.named_buffers()]
        shared = {id(t): t for name, t in named if self._own and not is_under(name, self._own)}
        self.columns.append(copy.deepcopy(before, shared))
        self.densities.append(Density(self._directions))

    def turn_to(self, column: int) -> None:
        """Let this column, and no other, learn."""
        self.current = column
        for one in self.columns:
            loosen(one, self._wanted)
        alone = len(self.columns) == 1 or not self._own
        for k, one in enumerate(self.columns):
            names = {name for name, _ in one.named_parameters()}
            if k == column:
                names = set() if alone else {n for n in names if not is_under(n, self._own)}
            keep_still(one, names)
        if not alone:
            chosen = self.columns[column]
            for name in self._wanted:
                chosen.get_parameter(name).requires_grad_(is_under(name, self._own))

    def is_shared(self, name: str) -> bool:
        """Whether what a further column calls so is the first one's."""
        if not self._own or not name.startswith("columns.") or name.startswith("columns.0."):
            return False
        return not is_under(name.split(".", 2)[2], self._own)
