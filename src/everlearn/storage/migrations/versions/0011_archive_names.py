"""In which archived file a row is that a caller names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("archives", sa.Column("named", sa.BigInteger(), nullable=True))
    op.create_table(
        "archive_names",
        sa.Column("name", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("archive_id", Key, nullable=False),
        sa.ForeignKeyConstraint(
            ["archive_id"], ["archives.id"], name="fk_archive_names_archive_id_archives"
        ),
        sa.PrimaryKeyConstraint("name", "archive_id", name="pk_archive_names"),
        sqlite_with_rowid=False,
    )
