"""After an erasure: what was learned of the erased rows is folded again without them."""

from __future__ import annotations

from dataclasses import replace

from everlearn.base import EverlearnError, Json
from everlearn.data.feedback import ERASED_DATA
from everlearn.data.log import FeedbackLog
from everlearn.data.slices import Slice
from everlearn.data.withdrawals import Withdrawals
from everlearn.jobs.excise import held
from everlearn.jobs.excise.matches import Found, without
from everlearn.jobs.queue import Queue
from everlearn.jobs.refold import plan_refold
from everlearn.jobs.standing import ChangedMeanwhileError, standing_of
from everlearn.registry import audit
from everlearn.registry.marks import marked
from everlearn.registry.models import model_id
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version


def fold_again(registry: Registry, queue: Queue, name: str, log: FeedbackLog) -> Json:
    """Queue a job that folds again what the champion learned from the first erased row on: the rows
    are in its increments no more, and those that were withdrawn before are taken out as well. Asked
    again when that is done, nothing is left to do.

    Returns:
        JSON: from which "base" which versions are "folded" again, how many "rows_folded" that are,
        and the number of the "job"; None with the "reason" where there is nothing to fold, or where
        it cannot be: the data is erased all the same.

    Raises:
        ConflictError: a job or a rollout has not ended, or the model was changed meanwhile.
    """
    with registry.database.read() as connection:
        standing = standing_of(connection, name, "fold again")
        champion = standing[0]
    path = [] if champion is None else registry.lineage(name, champion)
    touched = {number for number in path if _learned_erased(registry.version(name, number))}
    with registry.database.read() as connection:
        touched |= marked(connection, name).keys() if touched else set()
    told: Json = {"base": None, "folded": [], "rows_folded": 0, "job": None}
    try:
        plan = plan_refold(registry, name, path, touched, without(registry, name, log, Found()))
    except EverlearnError as error:
        return told | {"reason": str(error)}
    if plan is None:
        return told | {"reason": "the champion has learned nothing of it"}
    withdrawals = Withdrawals(registry.database, log.model, registry.parts.blobs)
    with registry.database.read() as connection:
        gone = held.withdrawn_since(connection, name, path[-1], withdrawals)
    known = registry.version(name, path[-1]).holdouts
    plan = replace(plan, holdouts=held.without(registry.parts, known, gone))
    with registry.database.write() as connection:
        key = model_id(connection, name, lock=True)
        if standing_of(connection, name, "fold again") != standing:
            raise ChangedMeanwhileError(f"{name!r} was changed meanwhile; fold again")
        job = queue.add(connection, key, plan.to_json(), plan.fingerprint, champion)
        audit.note(connection, "fold again", name, {"base": plan.base, "job": job})
    folded = [number for number in path if number > (plan.base or 0)]
    return told | {"base": plan.base, "folded": folded, "rows_folded": plan.rows, "job": job}


def _learned_erased(version: Version) -> bool:
    """Whether rows of which the data was erased since are among those that a version learned."""
    for increment in version.increments:
        gone = Slice.from_json(increment.slice).options.get("erased", 0)
        if gone > increment.reasons.get("set_aside", {}).get(ERASED_DATA, 0):
            return True
    return False
