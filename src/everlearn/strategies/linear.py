"""What methods for weights share where a native linear learner has them."""

from __future__ import annotations

from everlearn.base import Learner, SpecError


def held_linear(
    learner: Learner, name: str, strength: float, *, decay: float = 1.0, fisher: bool
) -> Learner | None:
    """The learner with its weights held, if it is a native linear one; None for a network.

    Args:
        name: of the method, for messages.
        strength, decay, fisher: as for `HeldWeights`.

    Raises:
        SpecError: it is neither, and has no weights that could be held.
    """
    if getattr(learner, "has_weights", False):
        from everlearn.learners.native.descent.held import HeldWeights

        held = HeldWeights(name, strength, decay=decay, fisher=fisher)
        return learner.hold_weights(held)  # type: ignore[attr-defined, no-any-return]
    if hasattr(learner, "hold") or getattr(learner, "is_keras", False):
        return None
    estimator = getattr(learner, "estimator", learner)
    raise SpecError(
        f"{name} holds on to weights, and {type(estimator).__name__} has none that it can hold: "
        "give Model(learner=) a native linear learner (LogisticRegression, LinearSVM or "
        "LinearRegression of everlearn.learners), a TorchLearner(…) or a KerasLearner(…); for "
        "trees and others use a memory, as in Strategy(memory=Reservoir(20_000))"
    )
