"""Indexes of labels that cost less with each label: of those that wait only, and with the position
beside the prediction, so that whether it was judged before is seen in the index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_labels_prediction_id", "labels")
    op.drop_index("ix_labels_waiting", "labels")
    op.create_index("ix_labels_judged", "labels", ["prediction_id", "position"], unique=False)
    waits = sa.text("position IS NULL")
    op.create_index(
        "ix_labels_waiting",
        "labels",
        ["model_id", "external_id", "position"],
        unique=False,
        sqlite_where=waits,
        postgresql_where=waits,
    )
