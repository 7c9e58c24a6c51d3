"""How a Keras model moves: its compiled loss, its optimizer, and what it is held to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from everlearn.base import Array, InputError, Part, SpecError, State
from everlearn.learners.keras_models.back_ends import back_end
from everlearn.learners.keras_models.holder import KerasHolder
from everlearn.learners.keras_models.losses import Form, at_full, mean_loss, reduction_of
from everlearn.learners.keras_models.variables import assign, named, named_of_optimizer, part_of

DIVERGED = "lower the optimizer's learning rate, or give it clipnorm=1.0"


class KerasTraining:
    """A compiled model's loss and optimizer, and steps of it.

    Args:
        model: built and compiled.
        form: of its answers and targets.
        seed: of the order of rows, and of what holders draw.

    Attributes:
        moving: name → variable that learns; `weights` are the same in a list.
        others: name → variable of the model that does not: statistics, generators, frozen weights.
        optimizer: as compiled.
        steps: of the optimizer so far.
        classes: how many class codes are known.
        holders: what it is held to.
        generator: of the order of rows, and of what holders draw.

    Raises:
        SpecError: nothing in the model learns.
    """

    def __init__(self, model: Any, form: Form, seed: int) -> None:
        self.model, self.form = model, form
        every = named(model)
        learns = {id(variable) for variable in model.trainable_variables}
        self.moving = {name: v for name, v in every.items() if id(v) in learns}
        self.others = {name: v for name, v in every.items() if id(v) not in learns}
        self.weights = list(self.moving.values())
        if not self.weights:
            raise SpecError(f"the model {model.name!r} has no weight that learns")
        self.optimizer = model.optimizer
        if not self.optimizer.built:
            self.optimizer.build(self.weights)
        self.of_optimizer = named_of_optimizer(self.optimizer, self.moving)
        self.steps, self.classes = 0, 0
        self.holders: list[KerasHolder] = []
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self._steps = back_end()
        self._steps.without_replicas(self.inner_optimizer)
        self._own_step = type(model).train_step is not keras.Model.train_step
        self._compile()

    def answer(self, x: Array) -> Array:
        """(n, k) answers to (n, width) rows, as the model gives them when it predicts."""
        return self._steps.array_of(self._answered(x))  # type: ignore[no-any-return]

    def hold(self, holder: KerasHolder) -> None:
        """Let what a retention brings take part.

        Raises:
            SpecError: the model has a `train_step` of its own.
        """
        if self._own_step:
            raise SpecError(
                f"{type(self.model).__name__} has a train_step of its own, into which"
                f" {holder.name} cannot be put; override compute_loss instead"
            )
        holder.attach(self)
        self.holders.append(holder)
        self._compile()

    def step(self, x: Array, y: Array, weight: Array | None) -> Any:
        """One step of the optimizer; in parts, for the same gradient, where memory runs out.

        Args:
            x: (n, width) rows.
            y: (n, …) targets as the loss takes them.
            weight: (n,) or None where all weigh 1.

        Returns:
            What the model answered to the rows in the step, a tensor; None if the model has a
            `train_step` of its own.

        Raises:
            InputError: the loss is not finite. Nothing has moved.
        """
        at_risk = [*self.others.values()]
        if self._own_step:
            at_risk += [*self.weights, *self.of_optimizer.values()]
        before = self._steps.taken(at_risk)
        given = [array for holder in self.holders for array in holder.begin(self, len(x))]
        try:
            if self._own_step:
                value, output = self._user_step(x, y, weight), None
            else:
                loss, output = self._whole(x, y, weight, *given)
                value = float(self._steps.array_of(loss))
        except self._steps.OUT_OF_MEMORY:
            self._take_back(at_risk, before)
            if self._own_step or len(x) == 1:
                raise
            value, output = self._in_parts(x, y, weight, given, at_risk, before)
        if not math.isfinite(value):
            self._take_back(at_risk, before)
            raise InputError(
                f"the loss is {value} in step {self.steps + 1}, of {len(x)} rows; {DIVERGED}"
            )
        self.steps += 1
        if self.holders:
            answers = self._steps.array_of(output)
            for holder in self.holders:
                holder.seen(self, x, y, answers)
        return output

    def data_loss(self, y: Any, output: Any) -> Any:
        """The mean of the compiled loss alone, without what layers add to it."""
        return mean_loss(self.model.loss, y, output)

    def gradients(self, value: Any) -> list[Any]:
        """The gradient of a number, which `value` computes, for each weight, or None."""
        found, _ = self._steps.gradients(lambda: (value(), None), self.weights)
        return list(found)

    @property
    def inner_optimizer(self) -> Any:
        """The optimizer that moves the weights, under one that scales the loss."""
        return getattr(self.optimizer, "inner_optimizer", self.optimizer)

    def scale(self, tensor: Any) -> Any:
        """A gradient as the optimizer takes it: multiplied as the loss is, in mixed precision."""
        return self.optimizer.scale_loss(tensor)

    @property
    def tells_answers(self) -> bool:
        """Whether a step says what the model answered to its rows."""
        return not self._own_step

    def settle(self) -> None:
        """The increment is over."""
        for holder in self.holders:
            holder.settle(self)

    def save(self) -> dict[str, Part]:
        """The optimizer, and the holders."""
        parts = {"optimizer": part_of(self.of_optimizer)}
        for holder in self.holders:
            parts |= {f"held/{holder.name}/{key}": part for key, part in holder.save().items()}
        return parts

    def load(self, state: State) -> None:
        """The inverse of `save`. A holder of which the state has nothing begins here.

        Raises:
            InputError: the state is of another optimizer or holder.
        """
        assign(self.of_optimizer, state["optimizer"], "optimizer")
        for holder in self.holders:
            start = f"held/{holder.name}/"
            own = {k[len(start) :]: part for k, part in state.items() if k.startswith(start)}
            if own:
                holder.load(own)
            else:
                holder.taken_up(self)

    # --- one step ---

    def _compile(self) -> None:
        eager = bool(self.model.run_eagerly)
        make = self._steps.Compiled
        self._answered = make(self._call, learns=False, eager=eager)
        self._whole = make(self._learn, learns=True, eager=eager)
        self._part = make(self._gradients, learns=True, eager=eager)

    def _call(self, x: Any) -> Any:
        return self.model(x, training=False)

    def _learn(self, x: Any, y: Any, weight: Any, *given: Any) -> tuple[Any, Any]:
        """(loss, answers) of a step; the weights have moved if the loss is finite."""
        loss, output, found = self._gradients(x, y, weight, *given)
        self._steps.when(ops.isfinite(loss), lambda: self._move(found, given))
        return loss, output

    def _gradients(self, x: Any, y: Any, weight: Any, *given: Any) -> tuple[Any, Any, list[Any]]:
        """(loss, answers, gradient for each weight)."""

        def value() -> tuple[Any, Any]:
            output = self.model(x, training=True)
            loss = self.model.compute_loss(x=x, y=y, y_pred=output, sample_weight=weight)
            output = at_full(output)
            for holder, own in self._shared_out(given):
                more = holder.loss(self, output, x, own)
                loss = loss if more is None else loss + ops.cast(more, loss.dtype)
            return self.optimizer.scale_loss(loss), (loss, output)

        found, (loss, output) = self._steps.gradients(value, self.weights)
        return loss, output, list(found)

    def _move(self, found: list[Any], given: Sequence[Any]) -> None:
        for holder, own in self._shared_out(given):
            found = holder.gradients(self, found, own)
        self.optimizer.apply(found, self.weights)
        for holder in self.holders:
            holder.after_step(self)

    def _shared_out(self, given: Sequence[Any]) -> Iterator[tuple[KerasHolder, Sequence[Any]]]:
        """Each holder with what it gave."""
        start = 0
        for holder in self.holders:
            yield holder, given[start : start + holder.given]
            start += holder.given

    def _in_parts(
        self,
        x: Array,
        y: Array,
        weight: Array | None,
        given: list[Array | None],
        at_risk: list[Any],
        before: list[Any],
    ) -> tuple[float, Any]:
        """The same step in parts that are halved until memory holds them."""
        size = len(x)
        while True:
            size = -(-size // 2)
            try:
                total, outputs, sums = self._sum_of_parts(x, y, weight, given, size)
                break
            except self._steps.OUT_OF_MEMORY:
                self._take_back(at_risk, before)
                if size == 1:
                    raise
        if math.isfinite(total):
            tensors = [None if a is None else ops.convert_to_tensor(a) for a in given]
            self._steps.when(ops.convert_to_tensor(True), lambda: self._move(sums, tensors))
        return total, ops.concatenate(outputs)

    def _sum_of_parts(
        self, x: Array, y: Array, weight: Array | None, given: list[Array | None], size: int
    ) -> tuple[float, list[Any], list[Any]]:
        """(loss, answers of each part, sum of the gradients)."""
        total, outputs, sums = 0.0, [], [None] * len(self.weights)
        reduction = reduction_of(self.model.loss)
        every = np.ones(len(x), np.float32) if weight is None else weight
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            own = None if weight is None else weight[rows]
            share = len(x[rows]) / len(x)
            if reduction == "sum":  # so that the shares of the parts' sums are the sum
                own = every[rows] / np.float32(share)
            elif reduction == "mean_with_sample_weight":
                share = float(every[rows].sum() / every.sum())
            loss, output, found = self._part(x[rows], y[rows], own, *given)
            total += share * float(self._steps.array_of(loss))
            outputs.append(output)
            sums = [
                old if new is None else new * share if old is None else old + new * share
                for old, new in zip(sums, found, strict=True)
            ]
        return total, outputs, sums

    def _user_step(self, x: Array, y: Array, weight: Array | None) -> float:
        """What the model's own `train_step` says of its loss."""
        said = self.model.train_on_batch(x, y, sample_weight=weight, return_dict=True)
        return float(said.get("loss", sum(float(value) for value in said.values())))

    @staticmethod
    def _take_back(variables: list[Any], before: list[Any]) -> None:
        """Set variables back to what they were before a step."""
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
