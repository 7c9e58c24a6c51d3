"""Hold-outs on which candidates are judged, without the rows that were withdrawn since."""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa

from everlearn.base import Hashes
from everlearn.data.withdrawals import Withdrawals
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.registry import lineage
from everlearn.registry.models import model_id
from everlearn.storage import schema
from everlearn.storage.parts import Manifest, PartStore


def withdrawn_since(
    connection: sa.Connection, name: str, number: int, withdrawals: Withdrawals
) -> Hashes:
    """(m,) ids of the rows that were withdrawn after the job was planned from which a version has
    its hold-outs: its own job or, of one that was patched or cut online, that of the nearest of
    those that it came from."""
    path = set(lineage.lineage(connection, name, number))
    versions, jobs = schema.versions.c, schema.jobs.c
    query = (
        sa.select(versions.number, jobs.created_at)
        .join(schema.jobs, jobs.id == versions.job_id)
        .where(versions.model_id == model_id(connection, name), versions.number <= number)
        .order_by(versions.number.desc())
    )
    planned = (row.created_at for row in connection.execute(query) if row.number in path)
    return withdrawals.ids(connection, after=next(planned, 0))


def without(parts: PartStore, held: Manifest, ids: Hashes) -> Manifest:
    """Hold-outs without the rows with these ids; themselves where there are none."""
    if not len(ids):
        return dict(held)
    kept = HoldOuts.load(parts.load(held))
    kept.drop(np.unique(ids))
    return parts.save(kept.save(), known=held)
