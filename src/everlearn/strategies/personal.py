"""Personalisation: an adapter for each user or tenant on one shared module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from everlearn.base import Batch, Hashes, Json, Learner, SpecError, State
from everlearn.learners.neural.change import Change
from everlearn.learners.neural.holder import Holder, Padded
from everlearn.strategies.lora import chosen_layers, named
from everlearn.strategies.neural import network_of
from everlearn.strategies.strategy import share, whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from everlearn.learners.neural.keyed import Table
    from everlearn.learners.neural.training import Training


@dataclass(frozen=True, slots=True)
class Personal:
    """Learn, for each key (`Schema(key=)`: a user, a tenant, a machine), what is added for it to
    the answers of a module that all share.

    To what a layer answers to x, B x̂ is added, where x̂ is x in `rank` directions that all keys
    share, and 1. B, (outputs, rank + 1), is 0 for a key that is new, and drawn to 0 by `shrink`:
    who has few rows is answered nearly as all are. Rows of many keys are answered and learned at
    once, each with its own B. What is learned of a key moves no other key's B.

    The directions are fixed, as in Zhang et al., "LoRA-FA", arXiv 2308.03303, section 3; each B
    moves by its own rows alone, with the step of AdaGrad-Norm (Ward, Wu, Bottou, ICML 2019,
    algorithm 1): rate / √(1 + sum of its squared gradients).

    >>> Personal(rank=4).describe()
    'an adapter of rank 4 for each key'

    Args:
        rank: directions of a layer's input.
        targets: layers that get adapters, as in `LoRA`; None for the one that answers.
        rate: of B's steps.
        shrink: of the pull to 0, with each step in which a key has rows.
        shared: whether the module's own weights move too, by the learner's optimizer; otherwise
            they are still, and one B for all moves in their place.
        at_most: keys with an adapter; beyond, the one that was learned longest ago is dropped, and
            its rows are answered as a new key's.

    Raises:
        SpecError: an argument that is none of these.
    """

    rank: int = 8
    targets: str | tuple[str, ...] | None = None
    rate: float = 0.3
    shrink: float = 0.01
    shared: bool = True
    at_most: int = 10_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole("Personal(rank=)", self.rank))
        object.__setattr__(self, "rate", share("Personal(rate=)", self.rate))
        object.__setattr__(self, "shrink", share("Personal(shrink=)", self.shrink))
        object.__setattr__(self, "at_most", whole("Personal(at_most=)", self.at_most))
        if self.targets is not None:
            object.__setattr__(self, "targets", named(self.targets))

    def describe(self) -> str:
        """The method in words."""
        return f"an adapter of rank {self.rank} for each key"

    def wrap(self, learner: Learner) -> Learner:
        """See `Adaptation`. Raises `SpecError` for a learner that is no PyTorch module, or has no
        such layers, and for rows without keys."""
        network = network_of(learner, "Personal")
        if network.columns.key is None:
            raise SpecError(
                "Personal() learns rows by their keys: name the column in Schema(key=…)"
            )
        change = Deltas(self)
        return network.change(change).hold(Steps(change))


ADAPTERS = "learner/change/keys"
"""The part of a version's state that says whose adapters there are."""


def has_adapter(state: State, keys: Hashes) -> bool:
    """Whether a version has an adapter of one of these keys."""
    return ADAPTERS in state and bool(np.isin(state[ADAPTERS].arrays["keys"], keys).any())


class Deltas(Change):
    """`Personal` in use."""

    kind: ClassVar[str] = "personal"
    alone: ClassVar[bool] = True
    table: Table

    def __init__(self, definition: Personal) -> None:
        self.definition = definition
        self._layers: dict[str, str] = {}

    def apply(self, module: nn.Module, blank: Tensor) -> nn.Module:
        """Add the adapters."""
        import torch

        from everlearn.learners.neural.keyed import Keyed, Table
        from everlearn.learners.neural.layers import keep_still

        definition = self.definition
        head, names = chosen_layers(module, blank, named(definition.targets), "Personal")
        if definition.targets is None:
            if head is None:
                raise SpecError(
                    "Personal() adapts the linear layer whose answer is the module's, and there is"
                    " none: name layers by targets="
                )
            names = [head]
        layers: dict[str, Any] = {name: module.get_submodule(name) for name in names}
        kinds = {name: type(layer).__name__ for name, layer in layers.items()}
        self._layers = {n: k if k == "Conv1D" else "Linear" for n, k in kinds.items()}
        if not definition.shared:
            keep_still(module, {name for name, _ in module.named_parameters()})
        self.table = Table(layers, definition.rank, definition.at_most)
        if not definition.shared:
            for name, layer in layers.items():
                zeros = torch.zeros_like(self.table.matrices[name][0])
                layer.register_parameter("personal_B", torch.nn.Parameter(zeros))
        return Keyed(module, blank.shape[1], self.table)

    def to_json(self) -> Json:
        """Rank, layers, and whether the module moves."""
        definition = self.definition
        return {
            "kind": self.kind,
            "rank": definition.rank,
            "shared": definition.shared,
            "layers": self._layers,
        }

    def stored(self, name: str) -> str:
        """Without what stands before the module."""
        return name.removeprefix("module.")

    def adds(self, name: str) -> bool:
        """Whether it is the shared part of an adapter."""
        return name.rpartition(".")[2] in ("personal_A", "personal_B")

    def fixes(self, name: str) -> bool:
        """Whether it is the directions of an adapter."""
        return name.rpartition(".")[2] == "personal_A"

    def heads(self, name: str) -> list[str]:
        """The head, behind what stands before the module."""
        return [f"module.{name}" if name else "module"]

    def marked(self, batch: Batch, x: Tensor, learned: bool = False) -> Tensor:
        """The rows, with the number of the adapter of each."""
        import torch

        from everlearn.learners.neural.keyed import halves

        if batch.key is None:
            return x
        numbers = torch.from_numpy(self.table.numbers(batch.key, learned))
        return torch.cat([x, halves(numbers, x)], 1)

    def save(self) -> State:
        """The adapters."""
        return self.table.save()

    def prepare(self, state: State) -> bool:
        """Become what `save` saw."""
        self.table.widen()
        self.table.load(state)
        return False

    def erase(self, keys: Hashes) -> int:
        """Forget the adapters of keys; returns how many there were."""
        return self.table.erase(keys)


class Steps(Holder):
    """Moves the adapters of `Deltas` with each step."""

    def __init__(self, change: Deltas) -> None:
        super().__init__("personal")
        self._change, self._rows = change, 0

    def begin(self) -> None:
        """No row of this step is known yet."""
        self._change.table.moved.clear()
        self._rows = 0

    def loss(self, training: Training, x: Tensor, y: Tensor, output: Tensor) -> Tensor | None:
        """Count the rows."""
        self._rows += len(x)
        return None

    def before_step(self, training: Training) -> None:
        """Let adapters move with the module."""
        definition, table = self._change.definition, self._change.table
        if table.moved:
            table.move(self._rows, definition.rate, definition.shrink, training.loss_scale)
            table.moved.clear()

    def grown(self, padded: Padded) -> None:
        """Adapters of the head get rows for new outputs."""
        self._change.table.widen()

    def save(self) -> State:
        """Nothing: the adapters are the change's."""
        return {}

    def load(self, state: State, device: torch.device) -> None:
        """Nothing."""
