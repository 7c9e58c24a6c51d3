"""Keys that a rollout met, by arm."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "rollout_keys",
        sa.Column("rollout_id", Key, nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("digest", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("arm", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.id"], name="fk_rollout_keys_rollout_id_rollouts"
        ),
        sa.PrimaryKeyConstraint("rollout_id", "stage", "digest", name="pk_rollout_keys"),
    )
