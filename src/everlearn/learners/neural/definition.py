"""PyTorch modules as learners: what is to be trained, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from everlearn.base import Columns, LearnerKind, MissingDependencyError, SpecError

try:
    import torch
except ImportError as error:  # pragma: no cover
    raise MissingDependencyError(
        "TorchLearner needs PyTorch: pip install everlearn[torch]"
    ) from error

if TYPE_CHECKING:
    from everlearn.learners.neural.network import Network

CLASSIFIES = ("cross_entropy", "bce")
REGRESSES = ("mse", "l1", "huber", "poisson")
PRECISIONS = ("float32", "float64", "bfloat16", "float16")


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam with its usual step of .001: the optimizer that is used where none is named."""
    return torch.optim.Adam(parameters, lr=1e-3)


@dataclass(frozen=True, eq=False, kw_only=False)
class TorchLearner:
    """Any `torch.nn.Module` as a learner, on a CPU or a GPU.

    Rows become one matrix of float32, (n, width), by the encoder; the module turns it into (n, k)
    scores of classes, or (n, 1) or (n,) numbers. A chunk of the strategy is learned in steps of
    `batch` rows, in an order drawn from the state; remembered rows are among them. What it learns
    is all that its `state_dict`, the optimizer's and the scheduler's hold.

    Args:
        module: a class or function that makes the module (its weights are then drawn by the
            strategy's seed), or a module, whose weights are where learning begins.
        loss: "cross_entropy" (scores of all classes) or "bce" (one score for two classes), "mse",
            "l1", "huber" or "poisson" (of the logarithm), or a function of output ((n, k) scores or
            (n,) numbers) and target that returns (n,) losses or their mean. None for cross-entropy
            or squared error, by the target.
        optimizer: makes the optimizer from the parameters that require a gradient.
        classes: the classes, or how many the module has room for. None if its output says it.
        scheduler: makes a scheduler from the optimizer; it takes a step after each of the
            optimizer's.
        batch: rows of a step; None for a step a chunk.
        encoder: how columns become the matrix: an `Encoder`, or an object of which
            ``encoding(columns)`` makes an encoder in use (for text: tokens, which are whole numbers
            and reach the module as int64).
        device: as of PyTorch ("cpu", "cuda", "cuda:1"); "auto" for a GPU where there is one.
        precision: "float32"; "float64"; "bfloat16" or "float16" for mixed precision (autocast; the
            latter with scaled gradients).
        clip: largest norm of the gradient, or None.
        pretrained: whether the module answers before it has learned anything here. Otherwise that
            answer is a prior.
        new_head: whether the linear layer that answers is replaced by one that has an output for
            each of `classes` (one for two classes by "bce", or for a number), or that layer's name.
        grow: whether the linear layer that answers gets an output for each class that comes and
            that it has none for, or that layer's name.

    Raises:
        SpecError: an argument that is none of these.
        MissingDependencyError: PyTorch is not installed.

    Example:
        >>> from torch import nn
        >>> def net():
        ...     return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> TorchLearner(net, loss="cross_entropy", classes=3, batch=32).kind_for(Columns())
        'classifier'
    """

    module: Callable[[], torch.nn.Module] | torch.nn.Module
    loss: str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    optimizer: Callable[[Any], torch.optim.Optimizer] = adam
    classes: int | Sequence[Any] | None = None
    scheduler: Callable[[Any], Any] | None = None
    batch: int | None = None
    encoder: Any = None
    device: str = "cpu"
    precision: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    clip: float | None = None
    pretrained: bool = False
    new_head: bool | str = False
    grow: bool | str = False

    def __post_init__(self) -> None:
        if not callable(self.module):
            raise SpecError(f"TorchLearner(module=) is a module or makes one: {self.module!r}")
        if isinstance(self.loss, str) and self.loss not in CLASSIFIES + REGRESSES:
            raise SpecError(
                f"TorchLearner(loss={self.loss!r}): there are {', '.join(CLASSIFIES + REGRESSES)},"
                " and functions of output and target"
            )
        if not (self.loss is None or isinstance(self.loss, str) or callable(self.loss)):
            raise SpecError(f"TorchLearner(loss=) is a name or a function, not {self.loss!r}")
        for name in ("optimizer", "scheduler"):
            given = getattr(self, name)
            if isinstance(given, torch.optim.Optimizer) or not (given is None or callable(given)):
                raise SpecError(f"TorchLearner({name}=) is a function that makes it, not {given!r}")
        if self.batch is not None and not (isinstance(self.batch, int) and self.batch > 0):
            raise SpecError(f"TorchLearner(batch=) is a number of rows, not {self.batch!r}")
        if self.clip is not None and not self.clip > 0:
            raise SpecError(f"TorchLearner(clip=) is a norm above 0, not {self.clip!r}")
        if self.precision not in PRECISIONS:
            raise SpecError(
                f"TorchLearner(precision=) is one of {PRECISIONS}, not {self.precision!r}"
            )
        try:
            torch.device("cpu" if self.device == "auto" else self.device)
        except (RuntimeError, TypeError) as error:
            raise SpecError(f"TorchLearner(device={self.device!r}): {error}") from error

    @property
    def room(self) -> int:
        """How many classes are said; 0 if none are."""
        if self.classes is None:
            return 0
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    def kind_for(self, columns: Columns, classes: int = 0) -> LearnerKind:
        """What it predicts: as the loss says; where that is open, as the target is."""
        if isinstance(self.loss, str):
            return "classifier" if self.loss in CLASSIFIES else "regressor"
        told = classes or self.room or columns.target_kind != "number"
        return "classifier" if told else "regressor"

    def make_learner(self, columns: Columns, *, classes: int = 0, seed: int = 0) -> Network:
        """A learner that has learned nothing; its module is a copy."""
        from everlearn.learners.neural.network import Network

        return Network(self, columns, classes=classes, seed=seed)
