"""How a PyTorch module moves: its loss, its optimizer, and what it is held to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from everlearn.base import InputError, Json, Part, SpecError, State
from everlearn.learners.neural.heads import Replaced, pad_optimizer, padding
from everlearn.learners.neural.holder import Holder
from everlearn.learners.neural.losses import Loss
from everlearn.learners.neural.tensors import as_json, from_json, load_optimizer, optimizer_part

if TYPE_CHECKING:
    from everlearn.learners.neural.definition import TorchLearner

DIVERGED = "lower the optimizer's step, or give TorchLearner(clip=1.0)"


def steps_of(rows: int, size: int, takes_statistics: bool) -> Iterator[tuple[int, int]]:
    """(start, stop) of each step over some rows. Where a module takes statistics of a step's rows,
    a last one that would be alone joins the step before.

    Raises:
        InputError: there is one row in all, and statistics are taken.
    """
    starts = list(range(0, rows, size))
    if takes_statistics and rows - starts[-1] == 1:
        if rows == 1:
            raise InputError(
                "one row alone has no statistics, which a module with batch normalisation learns"
                " by: learn in larger chunks, or normalise otherwise (LayerNorm)"
            )
        starts.pop()
    return zip(starts, [*starts[1:], rows], strict=True)


class Training:
    """A module's loss, optimizer, scheduler and precision.

    Args:
        module: on its device, in its type.
        definition: of the learner.
        loss: (output, target, weights) → mean.
        device: of the module.
        rate: name → the factor of the optimizer's step for that parameter.

    Attributes:
        moving: name → parameter that learns.
        steps: of the optimizer so far.
        classes: how many class codes are known.
        holders: what it is held to.

    Raises:
        SpecError: nothing in the module learns.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        definition: TorchLearner,
        loss: Loss,
        device: torch.device,
        rate: Callable[[str], float] = lambda name: 1.0,
    ) -> None:
        self.module, self.loss = module, loss
        self.moving = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not self.moving:
            raise SpecError("the module has no parameter that requires a gradient")
        self.optimizer = _optimizer(definition, self.moving, rate)
        self.steps, self.classes = 0, 0
        self._counted = [name for name, _ in module.named_buffers()]
        self.holders: list[Holder] = []
        self._device, self._clip = device, definition.clip
        kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
        self._cast_to = kinds.get(definition.precision)
        make = definition.scheduler
        self._scheduler = None if make is None else make(self.optimizer)
        if isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise SpecError(
                "TorchLearner(scheduler=) is one that steps by itself; ReduceLROnPlateau waits for"
                " a score of each epoch, and a stream has none"
            )
        scaled = definition.precision == "float16" and device.type == "cuda"
        self._scaler = torch.amp.GradScaler("cuda") if scaled else None

    def cast(self) -> torch.autocast:
        """The precision in which the module answers."""
        kind = self._cast_to
        return torch.autocast(self._device.type, dtype=kind, enabled=kind is not None)

    def step(self, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """One step of the optimizer; in parts, for the same gradient, where memory runs out.

        Args:
            x: (n, width) rows.
            y: (n,) targets.
            weight: (n,) or None where all weigh 1.

        Returns:
            What the module answered to the rows before the step.

        Raises:
            InputError: the loss is not finite. Nothing has moved.
        """
        parts = 1
        buffers = {name: self.module.get_buffer(name).clone() for name in self._counted}
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            for holder in self.holders:
                holder.begin()
            try:
                value, outputs = self._gradient(x, y, weight, parts)
                break
            except (torch.OutOfMemoryError, MemoryError):
                if parts >= len(x):
                    raise
            parts *= 2
            self._take_back(buffers)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        if not math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            self._take_back(buffers)
            raise InputError(
                f"the loss is {value} in step {self.steps + 1}, of {len(x)} rows; {DIVERGED}"
            )
        self._move()
        self.steps += 1
        for holder in self.holders:
            holder.seen(x, y)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    @property
    def loss_scale(self) -> float:
        """By which the loss is multiplied before its gradient is taken."""
        return 1.0 if self._scaler is None else float(self._scaler.get_scale())

    def settle(self) -> None:
        """The increment is over."""
        for holder in self.holders:
            holder.settle(self)

    def save(self) -> tuple[dict[str, Part], dict[str, Json]]:
        """(parts, what is said of the steps): optimizer, scheduler, scaler, and the holders."""
        parts = {"optimizer": optimizer_part(self.optimizer)}
        for holder in self.holders:
            parts |= {f"held/{holder.name}/{key}": part for key, part in holder.save().items()}
        known: dict[str, Json] = {"steps": self.steps}
        for name, one in self._stepping().items():
            saved = {key: value for key, value in one.state_dict().items() if not callable(value)}
            known[name] = as_json(saved, f"the {name}")
        return parts, known

    def grown(self, replaced: Replaced) -> None:
        """Parameters have more rows: others stand in their places."""
        for name, (_, new) in replaced.items():
            if name in self.moving:
                self.moving[name] = new
        self._counted = [name for name, _ in self.module.named_buffers()]
        pad_optimizer(self.optimizer, replaced)
        for holder in self.holders:
            holder.grown(padding(replaced))

    def load(self, state: State, known: dict[str, Json], anew: bool = False) -> None:
        """The inverse of `save`. A holder of which the state has nothing begins here.

        Args:
            anew: whether other parameters moved: optimizer and scheduler begin anew.

        Raises:
            InputError: the state is of another optimizer or holder.
        """
        self.steps = int(known["steps"])
        if not anew:
            load_optimizer(self.optimizer, state["optimizer"])
            for name, one in self._stepping().items():
                if name not in known:
                    raise InputError(f"the state has no {name}")
                one.load_state_dict(from_json(known[name]))
        for holder in self.holders:
            start = f"held/{holder.name}/"
            own = {k[len(start) :]: part for k, part in state.items() if k.startswith(start)}
            if own:
                holder.load(own, self._device)
            if anew or not own:
                holder.taken_up(self)

    def renamed(self, names: Mapping[str, str]) -> None:
        """Tell the holders what the module's parameters are called now, by what they were."""
        for holder in self.holders:
            holder.renamed(names)

    def _stepping(self) -> dict[str, Any]:
        """What counts steps beside the optimizer."""
        found = {"scheduler": self._scheduler, "scaler": self._scaler}
        return {name: one for name, one in found.items() if one is not None}

    def _take_back(self, buffers: dict[str, Tensor]) -> None:
        """Set what the module counts of the rows it has seen back to what it was before a step."""
        with torch.no_grad():
            for name, before in buffers.items():
                self.module.get_buffer(name).copy_(before)

    def _gradient(
        self, x: Tensor, y: Tensor, weight: Tensor | None, parts: int
    ) -> tuple[float, list[Tensor]]:
        """Leave the gradient of the mean loss in the parameters.

        Returns:
            That mean, and the module's answers, a tensor for each part.
        """
        whole = len(x) if weight is None else float(weight.sum())
        size = -(-len(x) // parts)
        total, outputs = 0.0, []
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            own = None if weight is None else weight[rows]
            with self.cast():
                output = self.module(x[rows])
                outputs.append(output.detach())
                mean = self.loss(output, y[rows], own)
                for holder in self.holders:
                    more = holder.loss(self, x[rows], y[rows], output)
                    mean = mean if more is None else mean + more
            share = (len(x[rows]) if own is None else float(own.sum())) / whole
            loss = mean if parts == 1 else mean * share
            total += loss.item()
            if not math.isfinite(total):
                return total, outputs
            scaled = loss if self._scaler is None else self._scaler.scale(loss)
            scaled.backward()  # type: ignore[no-untyped-call]
        return total, outputs

    def _move(self) -> None:
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        for holder in self.holders:
            holder.before_step(self)
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(list(self.moving.values()), self._clip)
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        if self._scheduler is not None:
            self._scheduler.step()
        for holder in self.holders:
            holder.after_step(self)


def _optimizer(
    definition: TorchLearner, moving: dict[str, Any], rate: Callable[[str], float]
) -> torch.optim.Optimizer:
    """The definition's optimizer, with a group of parameters for each rate."""
    groups: dict[float, list[Any]] = {}
    for name, parameter in moving.items():
        groups.setdefault(rate(name), []).append(parameter)
    if set(groups) == {1.0}:
        return definition.optimizer(list(moving.values()))
    optimizer = definition.optimizer([{"params": own} for own in groups.values()])
    for group, factor in zip(optimizer.param_groups, groups, strict=True):
        group["lr"] = group["lr"] * factor
    return optimizer
