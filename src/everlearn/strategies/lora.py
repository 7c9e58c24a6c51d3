"""Low-rank adaptation: the module's weights stay, and small products of matrices are learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from everlearn.base import Json, Learner, MissingDependencyError, SpecError
from everlearn.learners.neural.change import Change
from everlearn.strategies.neural import network_of
from everlearn.strategies.strategy import share, whole

if TYPE_CHECKING:
    from torch import Tensor, nn

ATTENTION = ("query", "value", "q_proj", "v_proj", "q_lin", "v_lin", "c_attn", "query_key_value")
"""What the transformers library's models call the projections that Hu et al. adapt."""


@dataclass(frozen=True, slots=True)
class LoRA:
    """Learn ``W + scale · B A`` with W as it is: B (outputs, rank) begins at 0, A (rank, inputs)
    at random, so that the first answers are the module's own.

    The module's weights are stored once for all versions; a version costs A, B and the head. Taken
    out of a strategy again, or with another rank, B A is added to W, and learning goes on from
    there; the optimizer begins anew.

    Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685, section 4.1.

    >>> LoRA(rank=8).describe()
    'adapters of rank 8'

    Args:
        rank: r; of A's rows.
        alpha: scale · rank; None for a scale of 1.
        targets: names of the linear layers that get an adapter, whole, below one, their ends
            ("query"), or patterns with * and ?. None for the query and value projections where the
            module has layers of these names, else for all linear layers that are called, but the
            head. Weights that are read and not called (those of `nn.MultiheadAttention`) cannot
            get one.
        dropout: share of x that A does not see in training.
        head: whether the linear layer whose answer is the module's moves whole. One that shares its
            weights with another layer never does.
        through: "peft" for the layers of the peft library (`everlearn[text]`), which the state does
            not tell from our own; None for our own.

    Raises:
        SpecError: an argument that is none of these.
    """

    rank: int = 4
    alpha: float | None = None
    targets: str | tuple[str, ...] | None = None
    dropout: float = 0.0
    head: bool = True
    through: Literal["peft"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", whole("LoRA(rank=)", self.rank))
        if self.alpha is not None:
            object.__setattr__(self, "alpha", share("LoRA(alpha=)", self.alpha))
        if self.targets is not None:
            given = named(self.targets)
            object.__setattr__(self, "targets", given)
            if not given or not all(isinstance(name, str) for name in given):
                raise SpecError(f"LoRA(targets=) is names of layers or None, not {self.targets!r}")
        object.__setattr__(self, "dropout", share("LoRA(dropout=)", self.dropout))
        if self.dropout >= 1:
            raise SpecError(f"LoRA(dropout=) is a share from 0 to below 1, not {self.dropout!r}")
        if self.through not in (None, "peft"):
            raise SpecError(f"LoRA(through=) is 'peft' or None, not {self.through!r}")

    def describe(self) -> str:
        """The method in words."""
        where = "" if not self.targets else f" on {', '.join(named(self.targets))}"
        return f"adapters of rank {self.rank}{where}"

    @property
    def scale(self) -> float:
        """Of B A."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def wrap(self, learner: Learner) -> Learner:
        """See `Adaptation`. Raises `SpecError` for a learner that is no PyTorch module, or has no
        such layers, and `MissingDependencyError` without peft."""
        return network_of(learner, "LoRA").change(Adapters(self))


class Adapters(Change):
    """`LoRA` in use."""

    kind: ClassVar[str] = "lora"

    def __init__(self, definition: LoRA) -> None:
        self._definition = definition
        self._layers: dict[str, str] = {}

    def apply(self, module: nn.Module, blank: Tensor) -> nn.Module:
        """Add the adapters, and fix all else but the head."""
        from everlearn.learners.neural.layers import keep_still
        from everlearn.learners.neural.low_rank import adapt

        definition = self._definition
        head, names = chosen_layers(module, blank, named(definition.targets), "LoRA")
        self._layers = {n: type(module.get_submodule(n)).__name__ for n in names}
        self._layers = {n: k if k == "Conv1D" else "Linear" for n, k in self._layers.items()}
        whole_head = definition.head and head is not None and head not in names
        whole_head = whole_head and not _shares(module, str(head))
        moves = [f"{head}." if head else ""] if whole_head else []
        keep_still(module, {n for n, _ in module.named_parameters() if not _starts(n, moves)})
        if definition.through == "peft":
            self._through_peft(module)
            return module
        for name in names:
            adapt(module.get_submodule(name), definition.rank, definition.scale, definition.dropout)
        return module

    def to_json(self) -> Json:
        """Rank, scale and layers."""
        definition = self._definition
        return {
            "kind": self.kind,
            "rank": definition.rank,
            "scale": definition.scale,
            "layers": self._layers,
        }

    def stored(self, name: str) -> str:
        """peft's names as our own."""
        if self._definition.through != "peft":
            return name
        name = name.replace(".base_layer.", ".")
        return name.replace(".lora_A.default.weight", ".lora_A").replace(
            ".lora_B.default.weight", ".lora_B"
        )

    def adds(self, name: str) -> bool:
        """Whether it is a matrix of an adapter."""
        return name.rpartition(".")[2] in ("lora_A", "lora_B")

    def _through_peft(self, module: nn.Module) -> None:
        """Let peft put its layers in the place of those that are adapted."""
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:  # pragma: no cover
            raise MissingDependencyError(
                "LoRA(through='peft') needs peft: pip install everlearn[text]"
            ) from error
        if "" in self._layers:
            raise SpecError("peft adapts layers inside of a module, and this one is a layer")
        moving = {name: p.requires_grad for name, p in module.named_parameters()}
        definition = self._definition
        config = LoraConfig(
            r=definition.rank,
            lora_alpha=definition.scale * definition.rank,  # type: ignore[arg-type]
            lora_dropout=definition.dropout,
            target_modules=list(self._layers),
            fan_in_fan_out="Conv1D" in self._layers.values(),
        )
        inject_adapter_in_model(config, module)
        for name, parameter in module.named_parameters():  # peft fixes what is none of its own
            own = self.stored(name)
            parameter.requires_grad_(self.adds(own) or moving.get(own, False))


def named(targets: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Names, of which one may stand alone."""
    return (targets,) if isinstance(targets, str) else tuple(targets or ())


def chosen_layers(
    module: nn.Module, blank: Tensor, targets: tuple[str, ...], what: str
) -> tuple[str | None, list[str]]:
    """(the layer whose answer is the module's, the layers that get an adapter).

    Raises:
        SpecError: there are none, or one of the targets is not called.
    """
    from torch import nn

    from everlearn.learners.neural.layers import calls_of, is_kind
    from everlearn.learners.neural.low_rank import KINDS

    called, _ = calls_of(module, blank, KINDS)
    _, head = calls_of(module, blank, (nn.Linear,))
    if not targets:
        names = [name for name in called if name.rpartition(".")[2] in ATTENTION]
        names = names or [name for name in called if name != head] or called
    else:
        there = [name for name, layer in module.named_modules() if is_kind(layer, KINDS)]
        for target in targets:
            if not any(_fits(name, target) for name in called):
                read = [name for name in there if _fits(name, target)]
                why = f"{read[0]!r} is read and not called" if read else "there is none"
                raise SpecError(
                    f"{what}(targets=) names {target!r}, and {why}; linear layers that are called:"
                    f" {', '.join(called[:12])}{', …' if len(called) > 12 else ''}"
                )
        names = [name for name in called if any(_fits(name, target) for target in targets)]
    if not names:
        raise SpecError(f"{what} adapts linear layers, and the module calls none")
    return head, names


def _fits(name: str, target: str) -> bool:
    from everlearn.learners.neural.layers import is_under

    return is_under(name, [target]) or name.endswith(f".{target}")


def _shares(module: Any, head: str) -> bool:
    from everlearn.learners.neural.heads import is_shared

    return is_shared(module, head)


def _starts(name: str, starts: list[str]) -> bool:
    return any(name.startswith(start) for start in starts)
