"""From which label on a definition holds online, and which labels of a source are held there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column(
        "definitions",
        sa.Column("position", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.create_table(
        "quarantine_spans",
        sa.Column("model_id", Key, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("after", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_quarantine_spans_model_id_models"
        ),
        sa.PrimaryKeyConstraint("model_id", "source", "after", name="pk_quarantine_spans"),
    )
    op.execute(  # what is in quarantine stays there, from here on
        "INSERT INTO quarantine_spans (model_id, source, after) "
        "SELECT model_id, source, "
        "(SELECT coalesce(max(position), 0) FROM labels"
        " WHERE labels.model_id = quarantined_sources.model_id) "
        "FROM quarantined_sources WHERE released_at IS NULL"
    )
