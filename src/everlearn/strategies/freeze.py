"""Transfer learning: only some layers of a pretrained module move, at rates of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from everlearn.base import Json, Learner, Part, SpecError, State
from everlearn.learners.neural.change import Change
from everlearn.strategies.neural import network_of
from everlearn.strategies.strategy import share, whole

if TYPE_CHECKING:
    from torch import Tensor, nn

    from everlearn.learners.neural.training import Training


@dataclass(frozen=True, slots=True)
class Freeze:
    """Keep layers of a PyTorch module as they are, and let others move, each at its own rate.

    What is still costs no gradient and no memory of the optimizer, is stored once for all versions,
    and its batch normalisations keep their statistics. Layers are named as in the module's
    `named_parameters`; a name stands for all below it, and may have * and ?.

    Howard, Ruder, "Universal language model fine-tuning for text classification", ACL 2018,
    section 3.2 (discriminative rates, which divide the rate by 2.6 a layer) and 3.3 (gradual
    unfreezing).

    >>> Freeze(until="layer4", rates={"layer4": 0.1}).describe()
    'all from layer4 on, at 0.1 of the rate in layer4'

    Args:
        until: the first layer that moves: what comes before it in the module is still.
        all_but: names of what moves.
        last: how many of the last layers with parameters move.
        rates: name → factor of the optimizer's rate (of several, the longest name's); or one
            factor, which each layer has once more than the layer behind it (1 / 2.6, say).
        thaw: how many more layers move with each increment, from the last one that does not.

    With none of `until`, `all_but` and `last`, only the layer that answers moves; with `rates`
    alone, everything does.

    Raises:
        SpecError: an argument that is none of these, or more than one way to say what moves.
    """

    until: str | None = None
    all_but: str | tuple[str, ...] = ()
    last: int | None = None
    rates: Mapping[str, float] | float = field(default_factory=dict)
    thaw: int = 0

    def __post_init__(self) -> None:
        names = self.named
        object.__setattr__(self, "all_but", names)
        if (self.until is not None) + bool(names) + (self.last is not None) > 1:
            raise SpecError("Freeze() takes one of until=, all_but= and last=")
        if self.last is not None:
            object.__setattr__(self, "last", whole("Freeze(last=)", self.last))
        if isinstance(self.rates, Mapping):
            rates = {str(k): share(f"Freeze(rates={{{k!r}: …}})", v) for k, v in self.rates.items()}
            object.__setattr__(self, "rates", rates)
        else:
            object.__setattr__(self, "rates", share("Freeze(rates=)", self.rates))
        object.__setattr__(self, "thaw", whole("Freeze(thaw=)", self.thaw, least=0))

    def describe(self) -> str:
        """What moves, in words."""
        words = "the head"
        if self.until is not None:
            words = f"all from {self.until} on"
        elif self.all_but:
            words = ", ".join(self.named)
        elif self.last is not None:
            words = "the last layer" if self.last == 1 else f"the last {self.last} layers"
        elif self.moves_all:
            words = "everything"
        if isinstance(self.rates, float):
            words += f", at {self.rates:g} of the rate for each layer further back"
        elif self.rates:
            each = (f"at {factor:g} of the rate in {name}" for name, factor in self.rates.items())
            words += ", " + ", ".join(each)
        return words + (f", {self.thaw} more with each increment" if self.thaw else "")

    @property
    def named(self) -> tuple[str, ...]:
        """What moves by name."""
        return (self.all_but,) if isinstance(self.all_but, str) else tuple(self.all_but)

    @property
    def moves_all(self) -> bool:
        """Whether nothing is still."""
        said = self.until is not None or self.all_but or self.last is not None
        return not said and self.rates != {}

    def wrap(self, learner: Learner) -> Learner:
        """See `Adaptation`. Raises `SpecError` for a learner that is no PyTorch module, and for
        names that it does not have."""
        return network_of(learner, "Freeze").change(Moves(self))


class Moves(Change):
    """`Freeze` in use."""

    kind: ClassVar[str] = "freeze"

    def __init__(self, definition: Freeze) -> None:
        self._definition = definition
        self._increments = 0  # that are over
        self._learned = False  # anything in this one

    def apply(self, module: nn.Module, blank: Tensor) -> nn.Module:
        """Fix what does not move."""
        from everlearn.learners.neural.layers import layers_of

        self._module, self._layers = module, layers_of(module)
        self._wanted = [name for name, p in module.named_parameters() if p.requires_grad]
        self._first = self._moving_layers(blank)
        self._fix()
        return module

    def to_json(self) -> Json:
        """The rates; what moves is said by the names of what moves."""
        rates = self._definition.rates
        said = dict(sorted(rates.items())) if isinstance(rates, Mapping) else rates
        return {"kind": self.kind, "rates": said}

    def rate(self, name: str) -> float:
        """The factor of the optimizer's step for a parameter."""
        rates = self._definition.rates
        if isinstance(rates, Mapping):
            from everlearn.learners.neural.layers import is_under

            fitting = [key for key in rates if is_under(name, [key])]
            return rates[max(fitting, key=len)] if fitting else 1.0
        layer = name.rpartition(".")[0]
        behind = len(self._layers) - 1 - self._layers.index(layer)
        return float(rates**behind)

    def begin(self, training: Training, x: Tensor, y: Tensor) -> bool:
        """Something is learned in this increment."""
        self._learned = True
        return False

    def settle(self, training: Training) -> bool:
        """More layers move from the next increment on, where that is wanted."""
        if not (self._definition.thaw and self._learned):
            return False
        self._learned = False
        self._increments += 1
        return self._fix()

    def save(self) -> State:
        """How many increments there were."""
        if not self._definition.thaw:
            return {}
        return {"thaw": Part(meta={"increments": self._increments, "learned": self._learned})}

    def prepare(self, state: State) -> bool:
        """Let those layers move that moved."""
        if not self._definition.thaw or "thaw" not in state:
            return False
        self._increments = int(state["thaw"].meta["increments"])
        self._learned = bool(state["thaw"].meta["learned"])
        return self._fix()

    def _moving_layers(self, blank: Tensor) -> set[str]:
        """The layers that move in the first increment."""
        from torch import nn

        from everlearn.learners.neural.layers import calls_of, check_named, is_under

        definition, layers = self._definition, self._layers
        names = [name for name, _ in self._module.named_parameters()]
        if isinstance(definition.rates, Mapping):
            check_named("Freeze(rates=)", definition.rates, names)
        if definition.until is not None:
            check_named("Freeze(until=)", [definition.until], names)
            start = next(i for i, n in enumerate(layers) if is_under(n, [definition.until]))
            return set(layers[start:])
        if definition.all_but:
            check_named("Freeze(all_but=)", definition.named, names)
            return set()  # names of parameters may be meant: see _fix
        if definition.last is not None:
            return set(layers[-definition.last :])
        if definition.moves_all:
            return set(layers)
        _, head = calls_of(self._module, blank, (nn.Linear,))
        if head is None:
            raise SpecError(
                "Freeze() lets the linear layer move whose answer is the module's, and there is"
                " none: name what moves by all_but="
            )
        return {head}

    def _fix(self) -> bool:
        """Set what moves; whether that is other than it was."""
        from everlearn.learners.neural.layers import is_under, keep_still, loosen

        before = [name for name, p in self._module.named_parameters() if p.requires_grad]
        moving, more = set(self._first), self._increments * self._definition.thaw
        named = self._definition.named
        for layer in reversed(self._layers):
            begun = layer in moving or any(is_under(n, named) for n in self._under(layer))
            if more and not begun:
                moving.add(layer)
                more -= 1
        loosen(self._module, self._wanted)
        still = {
            name
            for name, _ in self._module.named_parameters()
            if name.rpartition(".")[0] not in moving and not is_under(name, named)
        }
        keep_still(self._module, still)
        after = [name for name, p in self._module.named_parameters() if p.requires_grad]
        return before != after

    def _under(self, layer: str) -> list[str]:
        own = self._module.get_submodule(layer)._parameters
        return [f"{layer}.{key}" if layer else key for key in own]
