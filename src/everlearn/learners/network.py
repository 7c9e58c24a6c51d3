"""A PyTorch module that learns, behind the `Learner` protocol."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from everlearn.base import (
    Array,
    Batch,
    Columns,
    Floats,
    InputError,
    Json,
    Part,
    Prediction,
    SpecError,
    State,
)
from everlearn.learners.answers import prior
from everlearn.learners.encoder import Encoder, Encoding
from everlearn.learners.losses import LOSSES, own
from everlearn.learners.tensors import (
    as_json,
    check_same_shapes,
    from_json,
    load_optimizer,
    optimizer_part,
    part_of,
    tensors_of,
)

if TYPE_CHECKING:
    from everlearn.learners.torch import TorchLearner

PARTS = ("encoder", "known", "module/frozen", "module/moving", "optimizer", "random")


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
        self._encoding = Encoding(definition.encoder or Encoder(), columns, sparse=False)
        self._type = torch.float64 if definition.precision == "float64" else torch.float32
        self._device = _device(definition.device)
        loss = definition.loss or ("cross_entropy" if self.kind == "classifier" else "mse")
        self._counts = loss == "poisson"
        self._one_score = self.kind == "regressor" or loss == "bce"
        self._loss = LOSSES[loss] if isinstance(loss, str) else own(loss, self._one_score)
        self._steps, self._classes = 0, 0
        self._make(seed)
        self.grow(classes)

    @property
    def module(self) -> torch.nn.Module:
        """What learns, as it stands; do not change it."""
        return self._module

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
        if not len(batch) or not (self._steps or self.definition.pretrained):
            return prior(len(batch), self.kind, self._classes, has_proba=True)
        self._module.eval()
        with torch.inference_mode(), self._own_random(keep=False), self._cast():
            output = self._module(x)
        return self._answer(output.to("cpu", torch.float64))

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        """Learn the rows in steps; what is returned was predicted before the first of them.

        Rows of weight 0 are not learned.

        Raises:
            InputError: other columns, class codes that there is no room for, a target that is not
                finite, or a loss that is not, saying at which rows: that step, and those after it,
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
                self._step(x[step], y[step], None if w is None else w[step])
        return answer

    def grow(self, classes: int) -> bool:
        """Make room for codes 0 … classes−1: for as many as the module has outputs."""
        if self.kind != "classifier" or classes > self._room:
            return False
        self._classes = max(self._classes, classes)
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
                raise InputError(f"{name} is not finite after {self._steps} steps; {DIVERGED}")
        still = {name for name, p in self._module.named_parameters() if not p.requires_grad}
        return {
            "encoder": self._encoding.save(),
            "known": Part(meta=self._known()),
            "module/frozen": part_of({k: v for k, v in tensors.items() if k in still}),
            "module/moving": part_of({k: v for k, v in tensors.items() if k not in still}),
            "optimizer": optimizer_part(self._optimizer),
            "random": part_of(self._random),
        }

    def load(self, state: State) -> None:
        """Become what `save` saw.

        Raises:
            InputError: the state is of another architecture, optimizer or encoder; the message
                names what differs. This learner is then not to be used.
        """
        if sorted(state) != list(PARTS):
            raise InputError(f"the state has parts {sorted(state)}; it is of no PyTorch module")
        tensors = {**tensors_of(state["module/frozen"]), **tensors_of(state["module/moving"])}
        check_same_shapes("architecture", tensors, self._module.state_dict())
        self._encoding.load(state["encoder"])
        self._module.load_state_dict(tensors)
        load_optimizer(self._optimizer, state["optimizer"])
        self._random = tensors_of(state["random"])
        known = state["known"].meta
        for name, part in self._stepping().items():
            part.load_state_dict(from_json(known[name]))
        self._steps, self._classes = int(known["steps"]), int(known["classes"])

    # --- making it ---

    def _make(self, seed: int) -> None:
        """The module and all that trains it, from generators that the seed began."""
        definition = self.definition
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            made = definition.module
            module = copy.deepcopy(made) if isinstance(made, torch.nn.Module) else made()
            if not isinstance(module, torch.nn.Module):
                raise SpecError(f"{made!r} made {module!r}, which is no torch.nn.Module")
            self._module = module.to(self._device, self._type)
            self._room = self._outputs()
            moving = [p for p in self._module.parameters() if p.requires_grad]
            if not moving:
                raise SpecError("the module has no parameter that requires a gradient")
            self._optimizer = definition.optimizer(moving)
            make = definition.scheduler
            self._scheduler = None if make is None else make(self._optimizer)
            self._random = self._generators()
        scaled = definition.precision == "float16" and self._device.type == "cuda"
        self._scaler = torch.amp.GradScaler("cuda") if scaled else None

    def _outputs(self) -> int:
        """How many classes the module tells apart, by its answer to a row of zeros, which also
        tells lazy layers their width."""
        self._module.eval()
        width = self._encoding.width
        row = torch.zeros((1, width), dtype=self._type, device=self._device)
        try:
            with torch.no_grad(), self._cast():
                shape = tuple(self._module(row).shape)
        except Exception as error:
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

    def _step(self, x: Tensor, y: Tensor, weight: Tensor | None) -> None:
        """One step of the optimizer; in parts, for the same gradient, where memory runs out."""
        parts = 1
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            try:
                value = self._gradient(x, y, weight, parts)
                break
            except (torch.OutOfMemoryError, MemoryError):
                if parts >= len(x):
                    raise
            parts *= 2
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        if not math.isfinite(value):
            self._optimizer.zero_grad(set_to_none=True)
            raise InputError(
                f"the loss is {value} in step {self._steps + 1}, of {len(x)} rows; {DIVERGED}"
            )
        self._move()
        self._steps += 1

    def _gradient(self, x: Tensor, y: Tensor, weight: Tensor | None, parts: int) -> float:
        """Leave the gradient of the mean loss in the parameters; returns that mean."""
        whole = len(x) if weight is None else float(weight.sum())
        size = -(-len(x) // parts)
        total = 0.0
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            own = None if weight is None else weight[rows]
            with self._cast():
                mean = self._loss(self._module(x[rows]), y[rows], own)
            share = (len(x[rows]) if own is None else float(own.sum())) / whole
            loss = mean if parts == 1 else mean * share
            total += loss.item()
            if not math.isfinite(total):
                return total
            scaled = loss if self._scaler is None else self._scaler.scale(loss)
            scaled.backward()  # type: ignore[no-untyped-call]
        return total

    def _move(self) -> None:
        clip = self.definition.clip
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self._module.parameters(), clip)
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        if self._scheduler is not None:
            self._scheduler.step()

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

    def _known(self) -> Json:
        known: dict[str, Json] = {"steps": self._steps, "classes": self._classes}
        for name, part in self._stepping().items():
            saved = {k: v for k, v in part.state_dict().items() if not callable(v)}
            known[name] = as_json(saved, f"the {name}")
        return known

    def _stepping(self) -> dict[str, Any]:
        """What counts steps beside the optimizer."""
        found = {"scheduler": self._scheduler, "scaler": self._scaler}
        return {name: part for name, part in found.items() if part is not None}

    def _generators(self) -> dict[str, Tensor]:
        made = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            made["cuda"] = torch.cuda.get_rng_state(self._device)
        return made

    @contextmanager
    def _own_random(self, keep: bool = True) -> Iterator[None]:
        """Draw from this learner's generators, and leave the process's as they were."""
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

    def _cast(self) -> torch.autocast:
        kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.definition.precision)
        return torch.autocast(self._device.type, dtype=kind, enabled=kind is not None)

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self._device, self._type)


DIVERGED = "lower the optimizer's step, or give TorchLearner(clip=1.0)"


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
