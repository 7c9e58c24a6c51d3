"""Dynamic expansion: an increment that does not fit gets a column of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from everlearn.base import InputError, Json, Learner, Part, SpecError, State
from everlearn.learners.neural.change import Change
from everlearn.learners.neural.holder import Holder
from everlearn.strategies.lora import named
from everlearn.strategies.neural import network_of
from everlearn.strategies.sampled import RowSample
from everlearn.strategies.strategy import share, whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from everlearn.learners.neural.columns import Columns
    from everlearn.learners.neural.training import Training

APART = 0.5
"""How far the mean log density of rows that look different is below that of a column's own, in
standard deviations of theirs."""

FEW = 20
"""Fewer rows do not tell whether an increment fits: the column that learned last takes them."""


@dataclass(frozen=True, slots=True)
class Expand:
    """Add a column, a copy of the module, where an increment fits none; the others are still.

    An increment's first rows tell, as many as are learned at once. They do not fit a column if more
    than a share `when` of what it gained on its own rows over a constant answer is lost on them. A
    column is added if they fit none and also look different from the rows of each; otherwise, or at
    the bound, the column with the least loss on them learns on. Rows that look alike but mean
    something else would not find their way to a column of their own.

    A row is answered by the column whose rows looked most like it: by a normal distribution of
    each column's rows (of what the first column's head is given of them, where they are tokens).

    Rusu et al., "Progressive neural networks", arXiv 1606.04671, section 2 (columns, here without
    lateral connections); Aljundi, Chakravarty, Tuytelaars, "Expert Gate: lifelong learning with a
    network of experts", CVPR 2017, section 3 (a gate by what rows look like, a new expert that
    begins as the nearest one).

    A memory mixes rows of other columns into the one that learns: use it without one.

    >>> Expand(at_most=3).describe()
    'up to 3 columns'

    Args:
        at_most: columns.
        when: share of the gain that may be lost.
        own: names of what a further column has of its own beside the layer that answers; it shares
            the rest with the first. None for everything.
        directions: of a column's rows in which their spread is known.
        rows: of an increment, drawn from all of it, by which they are known.

    Raises:
        SpecError: an argument that is none of these.
    """

    at_most: int = 5
    when: float = 0.5
    own: str | tuple[str, ...] | None = None
    directions: int = 32
    rows: int = 512

    def __post_init__(self) -> None:
        object.__setattr__(self, "at_most", whole("Expand(at_most=)", self.at_most))
        object.__setattr__(self, "when", share("Expand(when=)", self.when))
        object.__setattr__(self, "directions", whole("Expand(directions=)", self.directions))
        object.__setattr__(self, "rows", whole("Expand(rows=)", self.rows, least=2))
        if self.own is not None:
            object.__setattr__(self, "own", named(self.own))

    def describe(self) -> str:
        """The method in words."""
        return f"up to {self.at_most} columns"

    def wrap(self, learner: Learner) -> Learner:
        """See `Adaptation`. Raises `SpecError` for a learner that is no PyTorch module."""
        network = network_of(learner, "Expand")
        change = Growth(self)
        return network.change(change).hold(Seen(change))


class Growth(Change):
    """`Expand` in use."""

    kind: ClassVar[str] = "expand"
    routes: ClassVar[bool] = True
    alone: ClassVar[bool] = True
    module: Columns

    def __init__(self, definition: Expand) -> None:
        self._definition = definition
        self._own: tuple[str, ...] = ()
        self._known: list[dict[str, float]] = []  # of each column's own rows: losses, log densities
        self._begun = False
        self.sample = RowSample(definition.rows)
        self.offered = 0

    def apply(self, module: nn.Module, blank: Tensor) -> nn.Module:
        """Make the module the first column."""
        from torch import nn

        from everlearn.learners.neural.columns import Columns
        from everlearn.learners.neural.layers import calls_of, check_named

        definition = self._definition
        _, head = calls_of(module, blank, (nn.Linear,))
        if definition.own is not None:
            names = [name for name, _ in module.named_parameters()]
            check_named("Expand(own=)", named(definition.own), names)
            self._own = tuple(sorted({*named(definition.own), *([head] if head else [])}))
        if head is None and not blank.is_floating_point():
            raise SpecError("Expand needs a module whose answer is that of a linear layer")
        self.module = Columns(module, self._own, head, definition.directions)
        return self.module

    def to_json(self) -> Json:
        """What columns have of their own."""
        return {"kind": self.kind, "own": list(self._own)}

    def stored(self, name: str) -> str:
        """The first column's names are the module's own."""
        if name.startswith("columns.0."):
            return name.removeprefix("columns.0.")
        return name.replace("columns.", "expand.", 1)

    def adds(self, name: str) -> bool:
        """Whether it is of a further column."""
        return name.startswith("expand.")

    def repeats(self, name: str) -> bool:
        """Whether a further column shares it."""
        return self.module.is_shared(name)

    def heads(self, name: str) -> list[str]:
        """The head of each column."""
        return [f"columns.{k}.{name}".rstrip(".") for k in range(len(self.module.columns))]

    def begin(self, training: Training, x: Tensor, y: Tensor) -> bool:
        """Find the column for an increment by its first rows."""
        if self._begun:
            return False
        self._begun = True
        if not self._known or len(x) < FEW:
            return False
        before, module = (self.module.current, len(self._known)), self.module
        losses = [self._loss(training, k, x, y) for k in range(len(self._known))]
        best = min(range(len(losses)), key=losses.__getitem__)
        fits = any(
            loss - known["loss"]
            <= self._definition.when * max(known["constant"] - known["loss"], 0)
            for loss, known in zip(losses, self._known, strict=True)
        )
        if not fits and len(losses) < self._definition.at_most and self._looks_different(x):
            module.add(like=best)
            best = len(self._known)
            self._known.append({})
            module.densities[best].add(module.looks(x), len(x))
        module.turn_to(best)
        return before != (best, len(self._known))

    def settle(self, training: Training) -> bool:
        """Remember what the increment's rows look like, and how well they are answered."""
        if not len(self.sample):
            return False
        module, k = self.module, self.module.current
        x, y = self.sample.columns[:2]
        if not self._known:
            self._known.append({})
        density, seen = module.densities[k], module.looks(x)
        if not self._known[k]:
            density.rows = 0.0  # of the first rows only, until here
        density.add(seen, self.offered)
        found = density.of(seen)
        self._known[k] = (
            self._known[k]
            if self._known[k] and len(x) < FEW
            else {
                "loss": self._loss(training, k, x, y),
                "constant": _constant_loss(training, y, len(x)),
                "mean": float(found.mean()),
                "spread": max(float(found.std(correction=0)), 1e-9),
            }
        )
        self.sample.clear()
        self.offered, self._begun = 0, False
        return False

    def save(self) -> State:
        """What is known of each column."""
        densities = {f"density/{k}": d.save() for k, d in enumerate(self.module.densities)}
        meta = {"current": self.module.current, "begun": self._begun, "known": self._known}
        return {"columns": Part(meta={**meta, "offered": self.offered}), **densities}

    def prepare(self, state: State) -> bool:
        """Make as many columns as there were."""
        if "columns" not in state:
            raise InputError(f"the state has {sorted(state)}; it is of no columns")
        meta, module = state["columns"].meta, self.module
        self._known = [dict(known) for known in meta["known"]]
        self._begun, self.offered = bool(meta["begun"]), int(meta["offered"])
        while len(module.columns) < len(self._known):
            module.add(like=0)
        device = next(module.parameters()).device
        for k, density in enumerate(module.densities):
            density.load(state[f"density/{k}"], device)
        module.turn_to(int(meta["current"]))
        return True

    def _looks_different(self, x: Tensor) -> bool:
        seen, module = self.module.looks(x), self.module
        away = [
            (known["mean"] - float(density.of(seen).mean())) / known["spread"]
            for known, density in zip(self._known, module.densities, strict=True)
        ]
        return min(away) > APART

    def _loss(self, training: Training, column: int, x: Tensor, y: Tensor) -> float:
        import torch

        module: Any = self.module.columns[column]
        was_training = module.training
        module.eval()
        with torch.no_grad(), training.cast():
            loss = float(training.loss(module(x), y, None))
        module.train(was_training)
        return loss


class Seen(Holder):
    """Keeps a sample of an increment's rows for `Growth`."""

    def __init__(self, change: Growth) -> None:
        super().__init__("expand")
        self._change = change

    def seen(self, x: Tensor, y: Tensor) -> None:
        """Keep a sample of the increment's rows."""
        self._change.sample.offer(x, y)
        self._change.offered += len(x)

    def save(self) -> State:
        """The rows kept of an increment that is not over."""
        return {"rows": self._change.sample.save()}

    def load(self, state: State, device: torch.device) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if set(state) != {"rows"}:
            raise InputError(f"the state has {sorted(state)}; it is not of columns")
        self._change.sample.load(state["rows"], device)


def _constant_loss(training: Training, y: Tensor, rows: int) -> float:
    """What the best constant answer costs on these targets: the entropy of classes, or the loss of
    the mean."""
    import torch

    if y.is_floating_point():
        mean = y.mean().expand(rows, 1)
        losses = [
            training.loss(mean, y, None),
            training.loss(torch.log(mean.abs() + 1e-9), y, None),
        ]
        return float(min(losses, key=float))
    chance = torch.bincount(y).double() / len(y)
    return float(-(chance * chance.clamp(min=1e-12).log()).sum())
