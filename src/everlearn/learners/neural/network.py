"""A PyTorch module that learns, behind the `Learner` protocol."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from everlearn.base import (
    Array,
    Batch,
    Columns,
    Hashes,
    InputError,
    Ints,
    Part,
    Prediction,
    SpecError,
    State,
    prefixed,
    under,
)
from everlearn.learners.answers import prior
from everlearn.learners.checks import checked_target, weighing
from everlearn.learners.editable import Editable
from everlearn.learners.encoder import encoding_of, learned_rows
from everlearn.learners.neural import heads
from everlearn.learners.neural.answering import (
    answer,
    answers_alike,
    draws,
    put_prior,
    takes_statistics,
)
from everlearn.learners.neural.change import Change
from everlearn.learners.neural.editable import EditableHead
from everlearn.learners.neural.holder import Holder
from everlearn.learners.neural.losses import LOSSES, own
from everlearn.learners.neural.making import device_of, form_of, module_of, room_of, room_of_new
from everlearn.learners.neural.random import Generators
from everlearn.learners.neural.stored import Stored
from everlearn.learners.neural.tensors import part_of, tensors_of
from everlearn.learners.neural.training import Training, steps_of
from everlearn.learners.neural.undo import unchanged

if TYPE_CHECKING:
    from everlearn.learners.neural.definition import TorchLearner

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

    _alone = False  # whether the module answers one thread at a time

    def __init__(
        self, definition: TorchLearner, columns: Columns, *, classes: int = 0, seed: int = 0
    ) -> None:
        self.definition, self.columns = definition, columns
        self.kind = definition.kind_for(columns, classes)
        self._encoding = encoding_of(definition.encoder, columns)
        self._type = torch.float64 if definition.precision == "float64" else torch.float32
        self._numbers = np.float64 if self._type == torch.float64 else np.float32
        self._device = device_of(definition.device)
        self._random = Generators(self._device)
        loss = definition.loss or ("cross_entropy" if self.kind == "classifier" else "mse")
        self._form = form_of(self.kind, loss)
        self._one_score = self._form != "scores"
        self._loss = LOSSES[loss] if isinstance(loss, str) else own(loss, self._one_score)
        self._classes, self._room = 0, 0
        self._module: torch.nn.Module
        self._training: Training
        self._head: str | None = None
        self._change = Change()
        self._frozen: Part | None = None  # the part of what does not move, once it is made
        self._make(seed, classes)
        self.grow(max(classes, self.definition.room if self._head is not None else 0))

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
        x = self._change.marked(batch, self._tensor(self._encoding.transform(batch)))
        if not len(batch) or not (self._training.steps or self.definition.pretrained):
            return prior(len(batch), self.kind, self._classes, has_proba=True)
        self._module.eval()
        alone = self._draws or self._change.alone or self._alone
        own = self._random.own(keep=False) if alone else nullcontext()
        with torch.inference_mode(), own, self._training.cast():
            output = self._module(x)
        return self._answer(output)

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        """Learn the rows in steps; what is returned was predicted before the first of them, or, by
        a module that answers as it learns (no dropout, no statistics of batches), each before its
        own step, whose answers these are.

        Rows of weight 0 are not learned.

        Raises:
            InputError: other columns, class codes that there is no room for, a target that is not
                finite, or a loss that is not, saying in which step: that one, and those after it,
                are not learned.
        """
        scored = batch if score >= len(batch) else batch.take(slice(score))
        learned, weight = weighing(batch)
        joins = self._answers_as_it_learns and len(learned) == len(batch)
        answer = self.predict(scored) if score and not joins else None
        y = self._target(learned)
        matrix = learned_rows(self._encoding, learned)
        if not len(learned):
            return answer
        x = self._about_to_learn(learned, matrix, y)
        size = self.definition.batch or len(learned)
        unlearned = 0 if self._training.steps or self.definition.pretrained else size
        order, outputs = self._steps(x, y, None if weight is None else self._tensor(weight), size)
        if score and joins:
            whole = self._answer(outputs)
            put_prior(whole, min(unlearned, len(order)), self.kind, self._classes)
            answer = whole.take(np.argsort(order)[: len(scored)])
        return answer

    def grow(self, classes: int) -> bool:
        """Make room for codes 0 … classes−1: for as many as the module has outputs, or gets."""
        if self.kind != "classifier" or (classes > self._room and self._head is None):
            return False
        if classes > self._room:
            self._widen(classes)
        self._classes = self._training.classes = max(self._classes, classes)
        return True

    def save(self) -> State:
        """Weights and buffers, optimizer, scheduler, generators and the encoder's statistics.
        Weights that do not learn are a part of their own.

        Raises:
            InputError: a weight is not finite: the module diverged.
        """
        stored = self._stored
        still, tensors = stored.still(), stored.tensors()
        moving = {name: tensor for name, tensor in tensors.items() if name not in still}
        if self._frozen is None:
            stored.check_finite(tensors)
            self._frozen = part_of({name: tensors[name] for name in tensors if name in still})
        stored.check_finite(moving)
        parts, known = self._training.save()
        said = {"change": self._change.to_json(), "moving": stored.moving()}
        if self._training.holders and said["moving"] != [*self._training.moving]:
            said["called"] = [*self._training.moving]
        return {
            **parts,
            **prefixed("change", self._change.save()),
            "encoder": self._encoding.save(),
            "known": Part(meta={**known, **said, "classes": self._classes}),
            "module/frozen": self._frozen,
            "module/moving": part_of(moving),
            "random": part_of(self._random.state),
        }

    def load(self, state: State) -> None:
        """Become what `save` saw. Where other parameters moved in it, or otherwise, the optimizer
        and its scheduler begin anew; what was added to the module is merged into its weights.

        Raises:
            InputError: the state is of another architecture, optimizer or encoder; the message
                names what differs. This learner is then not to be used.
        """
        if sorted(name for name in state if not name.startswith(("held/", "change/"))) != list(
            PARTS
        ):
            raise InputError(f"the state has parts {sorted(state)}; it is of no PyTorch module")
        known = state["known"].meta
        same = known.get("change") == self._change.to_json()
        tensors = {**tensors_of(state["module/frozen"]), **tensors_of(state["module/moving"])}
        if not same:
            tensors = unchanged(tensors, known["change"])
        if (
            self._head is not None
            and (outputs := heads.outputs_in(tensors, self._head)) > self._room
        ):
            self._widen(outputs)
        if same and self._change.prepare(under("change", state)):
            self._train_anew()
        stored = self._stored
        stored.load(tensors, same)
        frozen = state["module/frozen"]
        self._frozen = frozen if same and set(frozen.arrays) == stored.still() else None
        self._encoding.load(state["encoder"])
        self._random.state = tensors_of(state["random"])
        self._classes = self._training.classes = int(known["classes"])
        anew = not same or known.get("moving", stored.moving()) != stored.moving()
        self._training.load(state, known, anew)
        if not same:
            self._training.renamed(stored.other_names(known))

    def erase(self, ids: Hashes | None = None, keys: Hashes | None = None) -> int:
        """Forget what was learned for these keys alone; returns for how many that was."""
        return 0 if keys is None else self._change.erase(keys)

    def change(self, change: Change) -> Self:
        """Let what an adaptation makes of the module be what learns. Returns this learner.

        Raises:
            SpecError: the module cannot be changed so, or is changed already.
        """
        if self._change.kind:
            raise SpecError(f"the module is changed already, by {self._change.kind!r}")
        with self._random.own():
            self._module = change.apply(self._module, self._blank())
        self._change = change
        self._train_anew()
        return self

    def hold(self, holder: Holder) -> Self:
        """Let what a retention brings take part in learning. Returns this learner."""
        self._training.holders.append(holder)
        return self

    def editable(self) -> Editable | None:
        """How a patch can change its answers: by the weights of the linear layer that gives them,
        where there is one."""
        answers = self._training.steps or self.definition.pretrained
        if not answers or self._last is None or self._form == "logarithm":
            return None
        head = self._module.get_submodule(self._last)
        assert isinstance(head, torch.nn.Linear)
        classes = 0 if self._one_score else self._classes
        return EditableHead(head, self.predict, self._answer, classes)

    def settle(self) -> None:
        """The increment is over."""
        with self._random.own():
            self._training.settle()
            if self._change.settle(self._training):
                self._train_anew()

    # --- making it ---

    def _make(self, seed: int, classes: int) -> None:
        """The module and all that trains it, from generators that the seed began."""
        definition = self.definition
        with self._random.begun(seed):
            self._module = module_of(definition).to(self._device, self._type)
            self._room = room_of(self._module, self._blank(), definition, self._one_score)
            if definition.new_head:
                name = heads.head_said(self._module, self._blank(), definition.new_head)
                self._room = room_of_new(definition, classes, self._one_score)
                outputs = 1 if self._one_score else self._room
                self._module = heads.renew(self._module, name, outputs)
            if definition.grow and self.kind == "classifier":
                self._head = heads.growing(
                    self._module, self._blank(), definition.grow, self._one_score
                )
            self._draws = draws(self._module, self._blank(), self._random)
            self._training = Training(self._module, definition, self._loss, self._device)

    def _widen(self, outputs: int) -> None:
        """Give the head more outputs, drawn from this learner's generator."""
        assert self._head is not None
        replaced: heads.Replaced = {}
        with self._random.own():
            for head in self._change.heads(self._head):
                replaced |= heads.widen(self._module, head, outputs)
        self._training.grown(replaced)
        self._room, self._frozen = outputs, None

    def _train_anew(self) -> None:
        """A loss, an optimizer and a scheduler for what moves now."""
        before = self._training
        self._training = Training(
            self._module, self.definition, self._loss, self._device, self._change.rate
        )
        self._training.steps, self._training.classes = before.steps, before.classes
        self._training.holders = before.holders
        self._frozen = None

    def _blank(self) -> Tensor:
        """A row of zeros."""
        return self._tensor(np.zeros((1, self._encoding.width), self._row_type()))

    def _row_type(self) -> np.dtype[Any]:
        """Of what the encoder makes of rows: numbers, or tokens."""
        return np.dtype(getattr(self._encoding, "dtype", np.float64))

    # --- learning ---

    def _about_to_learn(self, batch: Batch, matrix: Array, y: Tensor) -> Array | Tensor:
        """The rows as the module takes them: on a CPU, each step makes its own tensor of its rows;
        a GPU, or a changed module that looks at what is coming, is given all of them at once."""
        if not self._change.kind:
            return matrix if self._device.type == "cpu" else self._tensor(matrix)
        with self._random.own():
            x = self._change.marked(batch, self._tensor(matrix), learned=True)
            if self._change.begin(self._training, x, y):
                self._train_anew()
        return x

    def _target(self, batch: Batch) -> Tensor:
        """(n,) class codes or numbers, checked."""
        y = checked_target(batch, self.kind, self._classes)
        if self.kind != "classifier":
            return self._tensor(y)
        return torch.from_numpy(np.array(y, np.int64)).to(self._device)

    def _steps(
        self, x: Array | Tensor, y: Tensor, w: Tensor | None, size: int
    ) -> tuple[Ints, Tensor]:
        """Learn rows in steps of `size`, in an order drawn from the state.

        Returns:
            (n,) that order, and what the module answered to each row, in that order, in its step.
        """
        self._module.train()
        places, outputs = None, []
        if len(x) > size:
            with self._random.own():
                places = torch.randperm(len(x))
        order = np.arange(len(x)) if places is None else places.numpy()
        at = None if places is None else places.to(self._device)
        for start, stop in steps_of(len(x), size, takes_statistics(self._module)):
            step = slice(start, stop) if at is None else at[start:stop]
            own = None if w is None else w[step]
            if isinstance(x, Tensor):
                rows = x[step]
            else:
                rows = self._tensor(x[start:stop] if at is None else x.take(order[start:stop], 0))
            with self._random.own():  # others may draw in between
                outputs.append(self._training.step(rows, y[step], own))
        return order, outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    # --- answering ---

    @cached_property
    def _last(self) -> str | None:
        """The linear layer whose answer is the module's, or None."""
        try:
            return heads.head_of(self._module, self._blank())
        except SpecError:
            return None

    @cached_property
    def _answers_as_it_learns(self) -> bool:
        """Whether the module answers in training what it would answer to the same rows in use."""
        if self._draws or self._change.routes:
            return False
        rows = np.random.default_rng(0).normal(size=(16, self._encoding.width))
        kind = self._row_type()
        some = rows if kind.kind == "f" else np.abs(rows).astype(kind)
        with self._random.own(keep=False):
            return answers_alike(self._module, self._tensor(some))

    def _answer(self, output: Tensor) -> Prediction:
        return answer(self.kind, output.to("cpu", torch.float64), self._classes, self._form)

    # --- its state ---

    @property
    def _stored(self) -> Stored:
        """The module as a state has it."""
        return Stored(self._module, self._change, self._training)

    def _tensor(self, array: Array) -> Tensor:
        """On the device; numbers in the module's type, whole numbers (tokens) as they are."""
        kind = self._numbers if array.dtype.kind == "f" else np.int64
        with np.errstate(over="ignore"):  # what becomes infinite is refused by its loss
            own = np.array(array, kind, order="C")
        return torch.from_numpy(own).to(self._device)
