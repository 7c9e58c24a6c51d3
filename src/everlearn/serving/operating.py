"""What people do to a model: the same over HTTP and in the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everlearn.base import Json
from everlearn.data.feedback import Receipt
from everlearn.data.reviewers import SOURCE
from everlearn.data.streams.ingest import take_again
from everlearn.jobs import catchup
from everlearn.jobs.erasing import Erasing
from everlearn.registry.audit import note
from everlearn.registry.keys import ApiKey
from everlearn.serving.bodies import EraseBody, PromoteBody, RefuseBody, RollbackBody

if TYPE_CHECKING:
    from everlearn.serving.models import Models


def promote(models: Models, model: str, body: PromoteBody, where: str = "over HTTP") -> Json:
    """Make a version champion, if the one that is expected is champion still.

    Args:
        where: it was asked for.

    Raises:
        NotFoundError, ConflictError: as `Registry.promote`.
    """
    predictor = models.predictor(model)
    champion = models.versions.champion(model)
    expected = None if champion is None else champion.number
    if "expected" in body.model_fields_set:
        expected = body.expected
    reason = f"promoted {where}"
    moved = models.versions.promote(model, body.version, expected=expected, reason=reason)
    predictor.refresh()
    return moved.to_json()


def roll_back(models: Models, model: str, body: RollbackBody | None) -> Json:
    """Go back to an earlier champion. Raises what `Registry.rollback` does."""
    predictor = models.predictor(model)
    moved = models.versions.rollback(model, None if body is None else body.to)
    predictor.refresh()
    return moved.to_json()


def refuse(models: Models, model: str, body: RefuseBody | None, where: str = "over HTTP") -> Json:
    """Have a candidate catch up no more. Raises what `catchup.refuse` does."""
    models.predictor(model)
    asked = RefuseBody() if body is None else body
    reason = asked.reason or f"refused {where}"
    with models.versions.database.write() as connection:
        decision = catchup.refuse(connection, model, asked.version, reason=reason)
        note(connection, "refuse", model, {**decision.evidence, "reason": reason})
    return decision.to_json()


def erase(models: Models, model: str, body: EraseBody) -> Json:
    """Erase the data of one key. Raises what `Erasing` does."""
    predictor = models.predictor(model)
    erased = Erasing(models.versions, models.queue)(model, body.key, predictor.log)
    predictor.refresh()
    return erased


def stop_rollout(models: Models, model: str, where: str = "over HTTP") -> Json:
    """End the rollout that is running; the champion stays. Raises what `Rollouts.stop` does."""
    predictor = models.predictor(model)
    ended = models.rollouts.stop(model, f"stopped {where}")
    predictor.refresh()
    return ended.to_json()


def run_job(models: Models, model: str) -> Json:
    """Queue a job for the labels that are new. Raises what `Updates.plan` does."""
    models.predictor(model)
    found = models.updates.plan(model, models.versions.definition(model).number)
    if isinstance(found, int):
        return {"job": found}
    return {"job": None, "decision": found.to_json()}


def release_source(models: Models, model: str, source: str) -> Json:
    """Believe a source of labels again. Raises what `Updates.release` does."""
    models.predictor(model)
    definition = models.versions.definition(model).number
    found = models.updates.release(model, definition, source)
    if isinstance(found, int):
        return {"job": found}
    return {"job": None, "decision": found.to_json()}


def release_message(models: Models, model: str, number: int) -> Json:
    """Try to log a message of a stream that was set aside. Raises `NotFoundError`."""
    reason = take_again(models.predictor(model).log, models.ids, number)
    if reason is None:
        models.after_labels()
    return {"released": reason is None, "reason": reason}


def answer_review(
    models: Models, model: str, reviewer: str, number: int, value: Json, key: ApiKey | None
) -> Receipt:
    """Log what a reviewer says; under a key that speaks for a source, as from that.

    Raises:
        InputError, NotFoundError, ConflictError: as `Reviewers.answer`.
    """
    source = SOURCE if key is None or key.source is None else key.source
    receipt = models.reviewers(model).answer(reviewer, number, value, source=source)
    models.after_labels()
    return receipt
