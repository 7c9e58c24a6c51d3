"""A PyTorch module that learns, behind the `Learner` protocol."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from everlearn.base import (
    Array,
    Batch,
    Columns,
    Floats,
    InputError,
    Part,
    Prediction,
    SpecError,
    State,
)
from everlearn.learners.answers import prior
from everlearn.learners.encoder import Encoder, Encoding
from everlearn.learners.neural.holder import Holder
from everlearn.learners.neural.losses import LOSSES, own
from everlearn.learners.neural.tensors import check_same_shapes, part_of, tensors_of
from everlearn.learners.neural.training import DIVERGED, Training

if TYPE_CHECKING:
    from everlearn.learners.neural.definition import TorchLearner

PARTS = ("encoder", "known", "module/frozen", "module/moving", "optimizer", "random")

_generators_in_use = threading.RLock()
"""PyTorch's generators are the process's: one learner at a time draws from them."""


class Network:
    """A module, its optimizer and its generators as one learner.

    Args:
        definition: what it is made from.
        columns: what batches hold.
        classes: how many class codes are known beforehand.
        seed: of the weights, where the module is made here, and of all randomness.

    Raises:
        SpecError: the module cannot be made, has nothing that learns, or answers in a shape that
            does not go with its loss.
    """

    def __init__(
        self, definition: TorchLearner, columns: Columns, *, classes: int = 0, seed: int = 0
    ) -> None:
        self.definition = definition
        self.kind = definition.kind_for(columns, classes)
        self._encoding = _encoding_of(definition.encoder, columns)
        self._type = torch.float64 if definition.precision == "float64" else torch.float32
        self._device = _device(definition.device)
        loss = definition.loss or ("cross_entropy" if self.kind == "classifier" else "mse")
        self._counts = loss == "poisson"
        self._one_score = self.kind == "regressor" or loss == "bce"
        self._loss = LOSSES[loss] if isinstance(loss, str) else own(loss, self._one_score)
        self._classes = 0
        self._make(seed)
        self.grow(classes)

    @property
    def module(self) -> torch.nn.Module:
        """What learns, as it stands; do not change it."""
        return self._module

    @property
    def classifies(self) -> bool:
        """Whether the module answers with scores of classes."""
        return self.kind == "classifier"

    @property
    def classes(self) -> int:
        """How many class codes are known."""
        return self._classes

    def predict(self, batch: Batch) -> Prediction:
        """Predict for every row; changes nothing.

        Raises:
            InputError: the rows have other columns.
        """
        x = self._tensor(self._encoding.transform(batch))
        if not len(batch) or not (self._training.steps or self.definition.pretrained):
            return prior(len(batch), self.kind, self._classes, has_proba=True)
        self._module.eval()
        own = self._own_random(keep=False) if self._draws else nullcontext()
        with torch.inference_mode(), own, self._training.cast():
            output = self._module(x)
        return self._answer(output.to("cpu", torch.float64))

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        """Learn the rows in steps; what is returned was predicted before the first of them.

        Rows of weight 0 are not learned.

        Raises:
            InputError: other columns, class codes that there is no room for, a target that is not
                finite, or a loss that is not, saying in which step: that one, and those after it,
                are not learned.
        """
        answer = None
        if score:
            answer = self.predict(batch if score >= len(batch) else batch.take(slice(score)))
        batch, weight = weighing(batch)
        y = self._target(batch)
        x = self._learned_matrix(batch)
        if not len(batch):
            return answer
        self._module.train()
        with self._own_random():
            order = self._order(len(batch))
        w = None if weight is None else self._tensor(weight)
        if order is not None:
            x, y, w = x[order], y[order], None if w is None else w[order]
        size = self.definition.batch or len(batch)
        for start in range(0, len(batch), size):
            step = slice(start, start + size)
            with self._own_random():  # others may draw in between
                self._training.step(x[step], y[step], None if w is None else w[step])
        return answer

    def grow(self, classes: int) -> bool:
        """Make room for codes 0 … classes−1: for as many as the module has outputs."""
        if self.kind != "classifier" or classes > self._room:
            return False
        self._classes = self._training.classes = max(self._classes, classes)
        return True

    def save(self) -> State:
        """Weights and buffers, optimizer, scheduler, generators and the encoder's statistics.
        Weights that do not learn are a part of their own.

        Raises:
            InputError: a weight is not finite: the module diverged.
        """
        tensors = self._module.state_dict()
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise InputError(
                    f"{name} is not finite after {self._training.steps} steps; {DIVERGED}"
                )
        still = {name for name, p in self._module.named_parameters() if not p.requires_grad}
        parts, known = self._training.save()
        return {
            **parts,
            "encoder": self._encoding.save(),
            "known": Part(meta={**known, "classes": self._classes}),
            "module/frozen": part_of({k: v for k, v in tensors.items() if k in still}),
            "module/moving": part_of({k: v for k, v in tensors.items() if k not in still}),
            "random": part_of(self._random),
        }

    def load(self, state: State) -> None:
        """Become what `save` saw.

        Raises:
            InputError: the state is of another architecture, optimizer or encoder; the message
                names what differs. This learner is then not to be used.
        """
        if sorted(name for name in state if not name.startswith("held/")) != list(PARTS):
            raise InputError(f"the state has parts {sorted(state)}; it is of no PyTorch module")
        tensors = {**tensors_of(state["module/frozen"]), **tensors_of(state["module/moving"])}
        check_same_shapes("architecture", tensors, self._module.state_dict())
        self._encoding.load(state["encoder"])
        self._module.load_state_dict(tensors)
        self._random = tensors_of(state["random"])
        known = state["known"].meta
        self._classes = self._training.classes = int(known["classes"])
        self._training.load(state, known)

    def hold(self, holder: Holder) -> Self:
        """Let what a retention brings take part in learning. Returns this learner."""
        self._training.holders.append(holder)
        return self

    def settle(self) -> None:
        """The increment is over."""
        with self._own_random():
            self._training.settle()

    # --- making it ---

    def _make(self, seed: int) -> None:
        """The module and all that trains it, from generators that the seed began."""
        definition = self.definition
        devices = [self._device] if self._device.type == "cuda" else []
        with _generators_in_use, torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            made = definition.module
            module = copy.deepcopy(made) if isinstance(made, torch.nn.Module) else made()
            if not isinstance(module, torch.nn.Module):
                raise SpecError(f"{made!r} made {module!r}, which is no torch.nn.Module")
            self._module = module.to(self._device, self._type)
            self._room = self._outputs()
            self._draws = self._draws_to_answer()
            self._training = Training(self._module, definition, self._loss, self._device)
            self._random = self._generators()

    def _outputs(self) -> int:
        """How many classes the module tells apart, by its answer to a row of zeros, which also
        tells lazy layers their width."""
        self._module.eval()
        try:
            with torch.no_grad():
                shape = tuple(self._module(self._blank()).shape)
        except Exception as error:
            width = self._encoding.width
            raise SpecError(
                f"the module cannot take (1, {width}) numbers, which is what the encoder makes of a"
                f" row: {type(error).__name__}: {error}"
            ) from error
        if self._one_score:
            if shape not in ((1,), (1, 1)):
                raise SpecError(f"the module answers {shape} to one row, where (1, 1) is wanted")
            return 2
        if len(shape) != 2 or shape[0] != 1:
            raise SpecError(f"the module answers {shape} to one row, where (1, classes) is wanted")
        said = self.definition.room
        if said > shape[1]:
            raise SpecError(f"classes= says {said}, but the module has {shape[1]} outputs")
        return said or int(shape[1])

    def _blank(self) -> Tensor:
        """A row of zeros."""
        kind = np.dtype(getattr(self._encoding, "dtype", np.float64))
        return self._tensor(np.zeros((1, self._encoding.width), kind))

    def _draws_to_answer(self) -> bool:
        """Whether the module draws random numbers where it predicts, as few do: the others answer
        while another learner learns."""
        before = self._generators()
        with torch.no_grad():
            self._module(self._blank())
        after = self._generators()
        return not all(torch.equal(before[name], after[name]) for name in before)

    # --- learning ---

    def _learned_matrix(self, batch: Batch) -> Tensor:
        """The rows as a matrix, after the encoder has learned them."""
        before = self._encoding.snapshot()
        try:
            self._encoding.learn(batch)
            return self._tensor(self._encoding.transform(batch))
        except InputError:
            self._encoding.restore(before)
            raise

    def _target(self, batch: Batch) -> Tensor:
        """(n,) class codes or numbers, checked."""
        y = batch.y
        if y is None:
            raise InputError("rows to learn have no target; name it in Schema(target=…)")
        if self.kind == "classifier":
            if len(y) and (y.max() >= self._classes or y.min() < 0):
                raise InputError(
                    f"class codes are 0 … {self._classes - 1}, not {y.min()} … {y.max()}; grow"
                    " first"
                )
            return torch.from_numpy(np.array(y, np.int64)).to(self._device)
        if not np.isfinite(y).all():
            raise InputError("the target is NaN or infinite in some row; set such rows aside")
        return self._tensor(y)

    def _order(self, rows: int) -> Tensor | None:
        """The order in which rows are learned in more than one step."""
        if not self.definition.batch or rows <= self.definition.batch:
            return None
        return torch.randperm(rows).to(self._device)

    # --- answering ---

    def _answer(self, output: Tensor) -> Prediction:
        """What the module's float64 output says."""
        if self.kind == "regressor":
            value = output.reshape(-1)
            return Prediction(value=(value.exp() if self._counts else value).numpy())
        if self._one_score:
            margin = output.reshape(-1)
            upper = torch.sigmoid(margin)
            proba = torch.stack([1.0 - upper, upper], dim=1)[:, : self._classes]
        else:
            proba = torch.softmax(output[:, : self._classes], dim=1)
        if self._classes == 1:
            proba = torch.ones_like(proba)
        return Prediction(value=proba.argmax(dim=1).numpy(), proba=proba.numpy())

    # --- its state ---

    def _generators(self) -> dict[str, Tensor]:
        made = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            made["cuda"] = torch.cuda.get_rng_state(self._device)
        return made

    @contextmanager
    def _own_random(self, keep: bool = True) -> Iterator[None]:
        """Draw from this learner's generators, and leave the process's as they were."""
        with _generators_in_use:
            before = self._generators()
            self._set_generators(self._random)
            try:
                yield
            finally:
                if keep:
                    self._random = self._generators()
                self._set_generators(before)

    def _set_generators(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self._device)

    def _tensor(self, array: Array) -> Tensor:
        """On the device; numbers in the module's type, whole numbers (tokens) as they are."""
        kind = self._type if array.dtype.kind == "f" else torch.int64
        return torch.from_numpy(np.array(array)).to(self._device, kind)


def _encoding_of(encoder: Any, columns: Columns) -> Any:
    """An encoder in use: an `Encoding`, or what else an encoder makes that does as it does."""
    made = getattr(encoder, "encoding", None)
    return made(columns) if made else Encoding(encoder or Encoder(), columns, sparse=False)


def weighing(batch: Batch) -> tuple[Batch, Floats | None]:
    """The rows that weigh anything, and their weights; None where all weigh 1.

    Raises:
        InputError: a weight is negative or not finite.
    """
    weight = batch.weight
    if weight is None or not len(batch):
        return batch, None
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise InputError("a row's weight is a finite number from 0")
    if (weight == 0).any():
        batch, weight = batch.take(weight > 0), weight[weight > 0]
    return batch, None if (weight == 1.0).all() else weight


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SpecError(f"TorchLearner(device={name!r}): PyTorch finds no GPU here; say 'auto'")
    return device
