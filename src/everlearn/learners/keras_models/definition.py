"""Keras models as learners: what is to be trained, and how."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from everlearn.base import Columns, LearnerKind, MissingDependencyError, SpecError

try:
    import keras
except ImportError as error:  # pragma: no cover
    raise MissingDependencyError(
        f"KerasLearner needs Keras 3 and what it runs on ({error}): pip install everlearn[keras]"
        " brings TensorFlow; with PyTorch, set KERAS_BACKEND=torch"
    ) from error

if TYPE_CHECKING:
    from everlearn.learners.keras_models.network import KerasNetwork


@dataclass(frozen=True, eq=False, kw_only=False)
class KerasLearner:
    """Any compiled Keras 3 model of one input and one output as a learner, on TensorFlow or PyTorch
    (whichever Keras runs on: KERAS_BACKEND).

    Rows become one matrix, (n, width), by the encoder. A chunk of the strategy is learned in steps
    of `batch` rows, in an order drawn from the state; remembered rows are among them. A step does
    what the model's `train_on_batch` does, with its compiled loss and optimizer; weights of rows
    are its `sample_weight`; metrics that were compiled are left out.

    The compiled loss says what is predicted. Binary, categorical and sparse categorical
    cross-entropy (also the focal ones): classes, by probabilities, or by scores where the loss has
    ``from_logits=True``. Squared, absolute, Huber, Poisson and the other errors: quantities. Any
    other loss: what the target is; of classes it is given the codes, (n,), and the answers are
    probabilities if the last activation is a softmax or sigmoid.

    Layers of Keras draw from seed generators of their own, which are in the state. What a layer of
    yours draws with `keras.random` has to have such a generator too (``seed=self.seeds``, a
    `keras.random.SeedGenerator`): without one, a job that is resumed goes on with other numbers.

    Args:
        model: a compiled model, whose weights are where learning begins (it is copied); a function
            that makes one (its weights are then drawn by the strategy's seed); or the path of a
            ``.keras`` file, which is loaded in Keras's safe mode with its optimizer.
        classes: the classes, or how many the model has room for. None if its output says it.
        batch: rows of a step; None for a step a chunk.
        encoder: how columns become the matrix: an `Encoder`, or an object of which
            ``encoding(columns)`` makes an encoder in use (for text: tokens, which are whole numbers
            and reach the model as int64).
        pretrained: whether the model answers before it has learned anything here; otherwise that
            answer is a prior. None: a file does, another model does not.

    Raises:
        SpecError: an argument that is none of these.
        MissingDependencyError: Keras, or what it is to run on, is not installed.

    Example:
        >>> import keras
        >>> def net():
        ...     model = keras.Sequential([keras.layers.Dense(64, "relu"), keras.layers.Dense(1)])
        ...     model.compile("adam", "mse")
        ...     return model
        >>> KerasLearner(net, batch=32).kind_for(Columns())
        'regressor'
    """

    model: Callable[[], Any] | keras.Model | str | os.PathLike[str]
    classes: int | Sequence[Any] | None = None
    batch: int | None = None
    encoder: Any = None
    pretrained: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model, os.PathLike):
            object.__setattr__(self, "model", os.fspath(self.model))
        if isinstance(self.model, str):
            if not self.model.endswith(".keras"):
                raise SpecError(f"KerasLearner({self.model!r}) is no path of a .keras file")
        elif not callable(self.model):
            raise SpecError(
                "KerasLearner(model=) is a compiled model, a function that makes one or the path"
                f" of a .keras file, not {self.model!r}"
            )
        if isinstance(self.model, keras.Model) and not self.model.compiled:
            raise SpecError(
                f"the model {self.model.name!r} is not compiled; say"
                " model.compile(optimizer=…, loss=…) first"
            )
        if self.batch is not None and not (isinstance(self.batch, int) and self.batch > 0):
            raise SpecError(f"KerasLearner(batch=) is a number of rows, not {self.batch!r}")
        if keras.backend.backend() not in ("tensorflow", "torch"):
            raise SpecError(
                f"Keras runs on {keras.backend.backend()!r} here; KerasLearner needs"
                " KERAS_BACKEND=tensorflow or KERAS_BACKEND=torch"
            )

    @property
    def room(self) -> int:
        """How many classes are said; 0 if none are."""
        if self.classes is None:
            return 0
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def answers_first(self) -> bool:
        """Whether the model answers before it has learned anything here."""
        return isinstance(self.model, str) if self.pretrained is None else self.pretrained

    def kind_for(self, columns: Columns, classes: int = 0) -> LearnerKind:
        """What it predicts: as the compiled loss says; where that is open, as the target is."""
        return self.kind_by(self._loss, columns, classes)

    def kind_by(self, loss: Any, columns: Columns, classes: int = 0) -> LearnerKind:
        """What it predicts, by its compiled loss."""
        from everlearn.learners.keras_models.losses import kind_of

        said = kind_of(loss)
        if said is not None:
            return said
        told = classes or self.room or columns.target_kind != "number"
        return "classifier" if told else "regressor"

    @cached_property
    def _loss(self) -> Any:
        from everlearn.learners.keras_models.making import make_model

        given = self.model if isinstance(self.model, keras.Model) else make_model(self.model, 0)
        return given.loss

    def make_learner(self, columns: Columns, *, classes: int = 0, seed: int = 0) -> KerasNetwork:
        """A learner that has learned nothing; its model is a copy."""
        from everlearn.learners.keras_models.network import KerasNetwork

        return KerasNetwork(self, columns, classes=classes, seed=seed)
