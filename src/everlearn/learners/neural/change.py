"""What an adaptation makes of a PyTorch module."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from everlearn.base import Batch, Hashes, InputError, Json, State

if TYPE_CHECKING:
    from torch import Tensor, nn

    from everlearn.learners.neural.training import Training


class Change:
    """Which parameters of a module move, and what is added to it. Whatever a method needs is
    overridden; this one changes nothing. All of it runs inside of the learner's own generators."""

    kind: ClassVar[str] = ""
    routes: ClassVar[bool] = False  # whether it answers otherwise in training than in use
    alone: ClassVar[bool] = False  # whether the changed module answers one thread at a time

    def apply(self, module: nn.Module, blank: Tensor) -> nn.Module:
        """Change the module, and return it, or what answers in its place.

        Args:
            module: on its device.
            blank: (1, width) a row of zeros.

        Raises:
            SpecError: it cannot be changed so.
        """
        return module

    def to_json(self) -> Json:
        """What it did. A state that was saved with something else is taken over as it answers:
        what was added there is merged into the module's weights first."""
        return None

    def rate(self, name: str) -> float:
        """The factor of the optimizer's step for a parameter that moves."""
        return 1.0

    def stored(self, name: str) -> str:
        """The name in a state of what the changed module calls so: the unchanged module's own."""
        return name

    def adds(self, name: str) -> bool:
        """Whether a module that was not changed lacks the tensor that is stored as this."""
        return False

    def fixes(self, name: str) -> bool:
        """Whether a buffer that is stored as this never changes, so that it is stored once."""
        return False

    def repeats(self, name: str) -> bool:
        """Whether what the changed module calls so is a tensor that it has elsewhere too."""
        return False

    def heads(self, name: str) -> list[str]:
        """The layers that stand in the place of the unchanged module's head."""
        return [name]

    def marked(self, batch: Batch, x: Tensor, learned: bool = False) -> Tensor:
        """(n, width) rows, with what more the changed module is told of each, for answers or (as
        `learned` says) for learning."""
        return x

    def begin(self, training: Training, x: Tensor, y: Tensor) -> bool:
        """Rows are about to be learned. True if other parameters move from here on."""
        return False

    def settle(self, training: Training) -> bool:
        """The increment is over. True if other parameters move from here on."""
        return False

    def erase(self, keys: Hashes) -> int:
        """Forget what was learned for these keys alone; returns for how many that was."""
        return 0

    def save(self) -> State:
        """What it knows beside the module's tensors."""
        return {}

    def prepare(self, state: State) -> bool:
        """Become what `save` saw, before tensors are loaded. True if other parameters move.

        Raises:
            InputError: the state is of another kind.
        """
        if state:
            raise InputError(f"the state has {sorted(state)}, which nothing here takes")
        return False
