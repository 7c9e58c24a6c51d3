"""The tables of a workspace: one schema for SQLite and PostgreSQL.

Times are int64 microseconds since 1970 UTC. JSON columns hold only JSON. Rows of `versions`,
`definitions`, `increments` and `alias_history` are never changed; `aliases` and `jobs` are, in
transactions that check a revision or a fencing token.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""An identity column; SQLite only numbers columns of the type INTEGER."""

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

definitions = sa.Table(
    "definitions",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),  # 1, 2, … per model
    sa.Column("digest", sa.String, nullable=False),  # of the canonical config
    sa.Column("config", sa.JSON, nullable=False),  # learner, schema, strategy, gate, … as JSON
    sa.Column("source", sa.Text),  # text of the file that defined it, if any
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("model_id", "number"),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),  # 1, 2, … per model, without gaps
    sa.Column("parent", sa.Integer),  # number of the version it was folded from
    sa.Column("definition_id", sa.ForeignKey("definitions.id"), nullable=False),
    sa.Column("job_id", sa.BigInteger),  # the job that made it; NULL for an imported one
    sa.Column("strategy", sa.JSON, nullable=False),
    sa.Column("state_digest", sa.String, nullable=False),
    sa.Column("manifest", sa.JSON, nullable=False),  # {part: {"digest", "blob", "size"}}
    sa.Column("holdouts", sa.JSON, nullable=False),  # the same, of the rows kept out of learning
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("environment", sa.JSON, nullable=False),
    sa.Column("decision", sa.JSON, nullable=False),  # of the gate
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("dropped_at", sa.BigInteger),  # its state was removed by the retention policy
    sa.UniqueConstraint("model_id", "number"),
)

increments = sa.Table(
    "increments",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("version_id", sa.ForeignKey("versions.id"), nullable=False, index=True),
    sa.Column("ordinal", sa.Integer, nullable=False),  # order within the version
    sa.Column("source", sa.String, nullable=False),
    sa.Column("start", sa.BigInteger, nullable=False),  # first row of the source
    sa.Column("stop", sa.BigInteger, nullable=False),  # one past its last row
    sa.Column("rows", sa.BigInteger, nullable=False),  # learned
    sa.Column("held_out", sa.BigInteger, nullable=False),
    sa.Column("set_aside", sa.BigInteger, nullable=False),
    sa.Column("duplicates", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String, nullable=False, index=True),  # of the source, from 0 to stop
    sa.Column("slice", sa.JSON, nullable=False),  # how to read it again
    sa.Column("reasons", sa.JSON, nullable=False),  # why rows were set aside, with examples
)

aliases = sa.Table(
    "aliases",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),  # grows by 1 with every move
)

alias_history = sa.Table(
    "alias_history",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("version_from", sa.Integer),
    sa.Column("version_to", sa.Integer),  # NULL: the alias was removed
    sa.Column("action", sa.String, nullable=False),  # "promote", "rollback", "refuse", …
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("state", sa.String, nullable=False, index=True),
    sa.Column("plan", sa.JSON, nullable=False),  # frozen input: base, definition, strategy, slices
    sa.Column("fingerprint", sa.String, nullable=False, index=True),  # of base, increment, strategy
    sa.Column("base_version", sa.Integer),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("not_before", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.String),
    sa.Column("token", sa.BigInteger, nullable=False),  # fencing token: grows with every claim
    sa.Column("lease_until", sa.BigInteger),
    sa.Column(
        "checkpoint", sa.JSON(none_as_null=True)
    ),  # manifest and position of a version not yet published
    sa.Column("version", sa.Integer),  # what it ended in
    sa.Column("decision", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("finished_at", sa.BigInteger),
)
