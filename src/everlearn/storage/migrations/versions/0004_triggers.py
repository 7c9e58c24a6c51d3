"""What triggers remember and decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "trigger_states",
        sa.Column("model_id", Key, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_trigger_states_model_id_models"
        ),
        sa.PrimaryKeyConstraint("model_id", "name", name="pk_trigger_states"),
    )
    op.create_table(
        "trigger_decisions",
        sa.Column("id", Key, nullable=False),
        sa.Column("model_id", Key, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_trigger_decisions_model_id_models"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trigger_decisions"),
    )
    op.create_index(
        "ix_trigger_decisions_model_id", "trigger_decisions", ["model_id"], unique=False
    )
