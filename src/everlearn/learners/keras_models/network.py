"""A Keras model that learns, behind the `Learner` protocol."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from keras import ops

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
    generator_from_json,
    generator_to_json,
)
from everlearn.learners.answers import prior
from everlearn.learners.checks import checked_target, weighing
from everlearn.learners.editable import Editable
from everlearn.learners.encoder import encoding_of, learned_rows
from everlearn.learners.keras_models.back_ends import back_end, without_numpy_warnings
from everlearn.learners.keras_models.editable import EditableDense, has_head
from everlearn.learners.keras_models.holder import KerasHolder
from everlearn.learners.keras_models.losses import Form
from everlearn.learners.keras_models.making import make_model, seeded
from everlearn.learners.keras_models.training import DIVERGED, KerasTraining
from everlearn.learners.keras_models.variables import assign, check_same, part_of

if TYPE_CHECKING:
    from everlearn.learners.keras_models.definition import KerasLearner

PARTS = ("encoder", "known", "model/frozen", "model/moving", "optimizer", "random")


class KerasNetwork:
    """A model, its optimizer and its generators as one learner.

    Args:
        definition: what it is made from.
        columns: what batches hold.
        classes: how many class codes are known beforehand.
        seed: of the weights, where the model is made here, and of all randomness.

    Raises:
        SpecError: the model cannot be made, has nothing that learns, or answers in a shape that
            does not go with its loss.
    """

    is_keras = True

    def __init__(
        self, definition: KerasLearner, columns: Columns, *, classes: int = 0, seed: int = 0
    ) -> None:
        self.definition = definition
        self._encoding = encoding_of(definition.encoder, columns)
        self._steps = back_end()
        self._model = make_model(definition.model, seed)
        self.kind = definition.kind_by(self._model.loss, columns, classes)
        with seeded(seed + 1):  # layers that are made only here draw anew
            form = Form(self._model, self.kind, self._built())
            self._random = self._steps.random_state()
        self._room = self._counted(form)
        self._training = KerasTraining(self._model, form, seed)
        self._frozen = _frozen(self._training.others, self._model)
        self.grow(classes)

    @property
    def model(self) -> Any:
        """What learns, as it stands; do not change it. ``model.save("name.keras")`` writes it, with
        its optimizer, to a file that Keras loads."""
        return self._model

    @property
    def classifies(self) -> bool:
        """Whether the model answers with classes."""
        return self.kind == "classifier"

    @property
    def classes(self) -> int:
        """How many class codes are known."""
        return self._training.classes

    def predict(self, batch: Batch) -> Prediction:
        """Predict for every row; changes nothing.

        Raises:
            InputError: the rows have other columns.
        """
        x = self._matrix(batch)
        if not len(batch) or not (self._training.steps or self.definition.answers_first):
            return prior(len(batch), self.kind, self.classes, has_proba=True)
        before = self._steps.taken(self._moved_by_answers)
        with self._steps.own_random(self._random) if self._draws else nullcontext():
            output = self._training.answer(x)
        for variable, value in zip(self._moved_by_answers, before, strict=True):
            variable.assign(value)
        return self._training.form.prediction(output, self.classes)

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        """Learn the rows in steps; what is returned was predicted before the first of them. A model
        that answers as it learns (no dropout, no statistics of batches), and learns them in one
        step, is not asked twice: what it answered in the step is returned.

        Rows of weight 0 are not learned.

        Raises:
            InputError: other columns, class codes that there is no room for, a target that is not
                finite, or a loss that is not, saying in which step: that one, and those after it,
                are not learned.
        """
        scored = batch if score >= len(batch) else batch.take(slice(score))
        learned, weight = weighing(batch)
        size = self.definition.batch or len(learned)
        joins = self._answers_as_it_learns and len(batch) == len(learned) <= size
        joins = joins and bool(self._training.steps or self.definition.answers_first)
        answer = self.predict(scored) if score and not joins else None
        y = self._target(learned)
        x = self._typed(learned_rows(self._encoding, learned))
        if not len(learned):
            return answer
        output = self._learn(x, y, weight, size)
        if score and joins:
            found = self._steps.array_of(output)[: len(scored)]
            answer = self._training.form.prediction(found, self.classes)
        return answer

    def grow(self, classes: int) -> bool:
        """Make room for codes 0 … classes−1: for as many as the model has outputs."""
        if self.kind != "classifier" or classes > self._room:
            return False
        self._training.classes = max(self._training.classes, classes)
        return True

    def save(self) -> State:
        """Weights and statistics, optimizer, generators and the encoder's statistics. Weights of
        frozen layers are a part of their own.

        Raises:
            InputError: a weight is not finite: the model diverged.
        """
        training = self._training
        moving = part_of({**training.moving, **self._changing})
        for name, array in moving.arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(f"{name} is not finite after {training.steps} steps; {DIVERGED}")
        known = {"steps": training.steps, "classes": training.classes}
        return {
            **training.save(),
            "encoder": self._encoding.save(),
            "known": Part(meta=known),
            "model/frozen": part_of(self._frozen),
            "model/moving": moving,
            "random": Part(self._random, {"order": generator_to_json(training.generator)}),
        }

    def load(self, state: State) -> None:
        """Become what `save` saw.

        Raises:
            InputError: the state is of another architecture, optimizer or encoder; the message
                names what differs. This learner is then not to be used.
        """
        if sorted(name for name in state if not name.startswith("held/")) != list(PARTS):
            raise InputError(f"the state has parts {sorted(state)}; it is of no Keras model")
        training = self._training
        moving = {**training.moving, **self._changing}
        check_same("architecture", state["model/moving"], moving)
        assign(self._frozen, state["model/frozen"], "architecture")
        assign(moving, state["model/moving"], "architecture")
        self._encoding.load(state["encoder"])
        if bool(state["random"].arrays) != bool(self._random):
            raise InputError(
                "the state is of a Keras model on another back end; start Keras with the"
                " KERAS_BACKEND with which it learned"
            )
        self._random = {**self._random, **state["random"].arrays}  # of a GPU, if one has been used
        training.generator = generator_from_json(state["random"].meta["order"])
        training.steps = int(state["known"].meta["steps"])
        training.classes = int(state["known"].meta["classes"])
        training.load(state)

    def hold(self, holder: KerasHolder) -> Self:
        """Let what a retention brings take part in learning. Returns this learner."""
        self._training.hold(holder)
        return self

    def editable(self) -> Editable | None:
        """How a patch can change its answers: by the weights of the dense layer that gives them,
        where there is one."""
        answers = self._training.steps or self.definition.answers_first
        return self._head if answers else None

    @cached_property
    def _head(self) -> EditableDense | None:
        """The model's last layer, if it can be changed."""
        if not has_head(self._model):
            return None
        form, array_of = self._training.form, self._steps.array_of
        return EditableDense(
            self._model, self._matrix, array_of, form.prediction, lambda: self.classes
        )

    def settle(self) -> None:
        """The increment is over."""
        with self._steps.own_random(self._random) as after:
            self._training.settle()
        self._random = after

    def save_file(self, path: str | os.PathLike[str]) -> None:
        """Write the model, with its optimizer, to a ``.keras`` file.

        Raises:
            InputError: the path has another ending.
        """
        if not os.fspath(path).endswith(".keras"):
            raise InputError(f"a file of a Keras model ends in .keras, not {os.fspath(path)!r}")
        with without_numpy_warnings():
            self._model.save(os.fspath(path))

    # --- making it ---

    def _built(self) -> tuple[int, ...]:
        """The shape of its answer to a row of zeros, which also tells layers their width."""
        inputs = getattr(self._model, "inputs", None)
        if inputs is not None and len(inputs) != 1:
            raise SpecError(
                f"the model {self._model.name!r} has {len(inputs)} inputs; KerasLearner takes one:"
                " the matrix that the encoder makes of the columns. Cut it up inside of the model"
            )
        width = self._encoding.width
        blank = np.zeros((1, width), np.dtype(getattr(self._encoding, "dtype", np.float64)))
        try:
            answer = self._model(ops.convert_to_tensor(self._typed(blank)), training=False)
        except Exception as error:
            raise SpecError(
                f"the model cannot take (1, {width}) numbers, which is what the encoder makes of a"
                f" row: {type(error).__name__}: {error}"
            ) from error
        if isinstance(answer, dict | list | tuple):
            raise SpecError(
                f"the model {self._model.name!r} has {len(answer)} outputs; KerasLearner takes one"
            )
        return tuple(answer.shape)

    def _counted(self, form: Form) -> int:
        """How many classes there is room for."""
        room = 2 if form.one_score else form.outputs
        said = self.definition.room
        if self.kind == "classifier" and said > room:
            raise SpecError(f"classes= says {said}, but the model has room for {room}")
        return said or room

    @property
    def _changing(self) -> dict[str, Any]:
        """Variables that change without being learned: statistics and generators."""
        return {k: v for k, v in self._training.others.items() if k not in self._frozen}

    # --- learning ---

    def _learn(self, x: Array, y: Array, weight: Floats | None, size: int) -> Any:
        """Steps of `size` rows, in an order drawn from the state; the last one's answers."""
        w = None if weight is None else weight.astype(np.float32)
        output = None
        if len(x) > size:
            order = self._training.generator.permutation(len(x))
            x, y, w = x[order], y[order], None if w is None else w[order]
        for start in range(0, len(x), size):
            step = slice(start, start + size)
            with self._steps.own_random(self._random) as after:  # others may draw in between
                output = self._training.step(x[step], y[step], None if w is None else w[step])
            self._random = after
        return output

    def _matrix(self, batch: Batch) -> Array:
        return self._typed(self._encoding.transform(batch))

    def _typed(self, matrix: Array) -> Array:
        """Numbers in the type of the model's input, whole numbers (tokens) as they are."""
        if matrix.dtype.kind != "f":
            return np.array(matrix, np.int64)
        with np.errstate(over="ignore"):  # what is infinite then makes the loss so
            return np.array(matrix, self._number_type)

    @cached_property
    def _number_type(self) -> Any:
        inputs = getattr(self._model, "inputs", None)
        kind = inputs[0].dtype if inputs else self._model.variable_dtype
        layers = getattr(self._model, "layers", None) or [self._model]
        wide = "float64" in (kind, *(layer.variable_dtype for layer in layers))
        return np.float64 if wide else np.float32

    def _target(self, batch: Batch) -> Array:
        """(n, …) targets as the loss takes them, checked."""
        y = checked_target(batch, self.kind, self.classes)
        return self._training.form.target(y)

    # --- how it answers ---

    @cached_property
    def _moved_by_answers(self) -> list[Any]:
        """Variables that move where the model predicts (generators, in few models)."""
        every = list(self._training.others.values())
        before = self._steps.taken(every)
        with self._steps.own_random(self._random):
            self._training.answer(self._probe)
        moved = [
            v
            for v, was in zip(every, before, strict=True)
            if not np.array_equal(self._steps.array_of(v.value), self._steps.array_of(was))
        ]
        for variable, value in zip(every, before, strict=True):
            variable.assign(value)
        return moved

    @cached_property
    def _draws(self) -> bool:
        """Whether the model draws random numbers where it predicts, as few do: the others answer
        while another learner learns."""
        with self._steps.own_random(self._random) as after:
            self._training.answer(self._probe)
        return any(not np.array_equal(after[name], self._random[name]) for name in after)

    @cached_property
    def _answers_as_it_learns(self) -> bool:
        """Whether the model answers in training what it would answer to the same rows in use."""
        if self._changing or self._draws or not self._training.tells_answers:
            return False
        x = ops.convert_to_tensor(self._probe)
        with self._steps.own_random(self._random):
            in_training = self._steps.array_of(self._model(x, training=True))
        in_use = self._training.answer(self._probe)
        return np.allclose(in_use, in_training, rtol=1e-4, atol=1e-5, equal_nan=True)

    @property
    def _probe(self) -> Array:
        """(16, width) rows of no meaning."""
        kind = np.dtype(getattr(self._encoding, "dtype", np.float64))
        rows = np.random.default_rng(0).normal(size=(16, self._encoding.width))
        return self._typed(rows.astype(kind) if kind.kind == "f" else np.zeros(rows.shape, kind))


def _frozen(variables: dict[str, Any], model: Any) -> dict[str, Any]:
    """Those of the variables that are weights of frozen layers."""
    still = {
        id(v) for layer in model._flatten_layers() if not layer.trainable for v in layer.weights
    }
    return {name: v for name, v in variables.items() if id(v) in still}
