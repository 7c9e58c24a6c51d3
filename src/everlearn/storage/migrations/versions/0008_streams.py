"""How far streams were read, and their messages that were set aside."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "stream_offsets",
        sa.Column("model_id", Key, nullable=False),
        sa.Column("stream", sa.String(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_stream_offsets_model_id_models"
        ),
        sa.PrimaryKeyConstraint("model_id", "stream", "partition", name="pk_stream_offsets"),
    )
    op.create_table(
        "stream_set_aside",
        sa.Column("id", Key, nullable=False),
        sa.Column("model_id", Key, nullable=False),
        sa.Column("stream", sa.String(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("prediction_id", sa.BigInteger(), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_stream_set_aside_model_id_models"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_stream_set_aside"),
        sa.UniqueConstraint(
            "model_id", "stream", "digest", name="uq_stream_set_aside_model_id_stream_digest"
        ),
    )
    op.create_index(
        "ix_stream_set_aside_waiting", "stream_set_aside", ["prediction_id"], unique=False
    )
