"""A small causal language model: a decoder-only transformer, in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from everlearn.base import MissingDependencyError, SpecError
from everlearn.learners.text.folders import INSTALL, found
from everlearn.learners.text.tokens import BYTES

try:
    from torch import Tensor, nn
    from torch.nn import functional
except ImportError as error:  # pragma: no cover
    raise MissingDependencyError(f"GPT needs PyTorch: {INSTALL}") from error


@dataclass(frozen=True, slots=True)
class GPT:
    """Makes a small causal language model for `CausalLM`: the answer to each token are the scores
    of the next one.

    Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.3: layer
    normalisation before each block, learned positions, the embedding as output layer.

    Args:
        vocabulary: different tokens; 260 for bytes.
        length: most tokens of a sequence.
        width: of a token's state.
        layers: blocks of attention and two linear layers.
        heads: of the attention; they share `width`.
        weights: a .safetensors file that `save` wrote, from which learning begins; without one,
            weights are drawn.

    Raises:
        SpecError: an argument that is none of these.

    Example:
        >>> made = GPT(width=32, layers=1, heads=2)()
        >>> sum(p.numel() for p in made.parameters())
        29280
    """

    vocabulary: int = BYTES
    length: int = 256
    width: int = 128
    layers: int = 4
    heads: int = 4
    weights: str | None = None

    def __post_init__(self) -> None:
        for name in ("vocabulary", "length", "width", "layers", "heads"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SpecError(f"GPT({name}=) is a whole number from 1, not {value!r}")
        if self.width % self.heads:
            raise SpecError(f"GPT(width={self.width}) is no multiple of heads={self.heads}")
        if self.weights is not None:
            found(self.weights)

    def __call__(self) -> Transformer:
        """The module.

        Raises:
            SpecError: the weights are of another shape.
        """
        module = Transformer(self)
        if self.weights is not None:
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            path = str(found(self.weights))
            try:
                module.load_state_dict(load_file(path))
            except (RuntimeError, SafetensorError) as error:
                raise SpecError(f"{path!r} has no weights for {self}: {error}") from error
        return module


class Transformer(nn.Module):
    """(n, length) int64 tokens → (n, length, vocabulary) scores.

    Args:
        definition: its sizes.
    """

    def __init__(self, definition: GPT) -> None:
        super().__init__()
        width = definition.width
        self.words = nn.Embedding(definition.vocabulary, width)
        self.places = nn.Embedding(definition.length, width)
        self.blocks = nn.ModuleList(
            Block(width, definition.heads) for _ in range(definition.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.length = definition.length
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                deep = name.endswith(("answer.weight", "down.weight"))
                std = 0.02 / (2 * definition.layers) ** 0.5 if deep else 0.02
                nn.init.normal_(parameter, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.words(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            states = block(states)
        return functional.linear(self.norm(states), self.words.weight)

    def save(self, path: str | Path) -> None:
        """Write the weights for `GPT(weights=)`."""
        from safetensors.torch import save_file

        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, str(path))


class Block(nn.Module):
    """Attention to the tokens before, then two linear layers; each is added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.before = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.answer = nn.Linear(width, width), nn.Linear(width, width)
        self.between = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (self.query, self.key, self.value, self.answer, self.up, self.down):
            nn.init.zeros_(layer.bias)

    def forward(self, states: Tensor) -> Tensor:
        n, length, width = states.shape

        def apart(x: Tensor) -> Tensor:
            return x.view(n, length, self._heads, width // self._heads).transpose(1, 2)

        x = self.before(states)
        mixed = functional.scaled_dot_product_attention(
            apart(self.query(x)), apart(self.key(x)), apart(self.value(x)), is_causal=True
        )
        states = states + self.answer(mixed.transpose(1, 2).reshape(n, length, width))
        hidden = functional.gelu(self.up(self.between(states)))
        added: Tensor = states + self.down(hidden)
        return added
