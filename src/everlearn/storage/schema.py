"""The tables of a workspace: one schema for SQLite and PostgreSQL.

Times are int64 microseconds since 1970 UTC. JSON columns hold only JSON. Rows of `versions`,
`definitions`, `increments`, `alias_history` and `predictions` are never changed, those of `labels`
only to give them their position; `aliases` and `jobs` are, in transactions that check a revision
or a fencing token.
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
    # of the last label before it: it holds for what is learned online after that one
    sa.Column("position", sa.BigInteger, nullable=False, server_default="0"),
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
    sa.Column("checkpoint", sa.JSON(none_as_null=True)),  # manifest, position; not yet published
    sa.Column("version", sa.Integer),  # what it ended in
    sa.Column("decision", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("finished_at", sa.BigInteger),
)

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),  # ordered in time
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    sa.Column("external_id", sa.String),  # the caller's own name for it
    sa.Column("version", sa.Integer, nullable=False),  # that answered; 0 before there was one
    sa.Column("arm", sa.String, nullable=False),  # "champion", "candidate", "shadow", "erased"
    sa.Column("key", sa.String),  # the entity: user, machine, …
    sa.Column("features", sa.Text, nullable=False),  # JSON text, as it was asked
    sa.Column("output", sa.Text, nullable=False),  # JSON text, as it was answered
    sa.Column("propensity", sa.Float),  # chance with which this output was chosen, if by chance
    sa.Column("at", sa.BigInteger, nullable=False),  # of the event
    sa.Column("arrived_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("model_id", "external_id"),
)

labels = sa.Table(
    "labels",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    # 1, 2, … per model in the order of commits, without gaps; NULL until the prediction is there
    sa.Column("position", sa.BigInteger),
    sa.Column("prediction_id", sa.BigInteger),
    sa.Column("external_id", sa.String),  # of the prediction, where that is how it was named
    sa.Column("kind", sa.String, nullable=False),  # "explicit", "implicit", "human", "system"
    sa.Column("value", sa.Text),  # JSON text; NULL takes the label back
    sa.Column("weight", sa.Float, nullable=False),
    sa.Column("source", sa.String, nullable=False),  # who says so: a system, a topic, a labeller
    sa.Column("reviewer", sa.String),
    sa.Column("selection", sa.Float),  # chance with which the row was chosen to be labelled
    sa.Column("at", sa.BigInteger, nullable=False),  # when it became known
    sa.Column("arrived_at", sa.BigInteger, nullable=False),
    sa.Column("idempotency_key", sa.String),
    sa.Column("digest", sa.String, nullable=False),  # of what was said, for the same key again
    sa.UniqueConstraint("model_id", "position"),
    sa.UniqueConstraint("model_id", "idempotency_key"),
    sa.Index("ix_labels_judged", "prediction_id", "position"),
)

_of = (labels.c.model_id, labels.c.external_id, labels.c.position)
_waits = labels.c.position.is_(None)
sa.Index("ix_labels_waiting", *_of, sqlite_where=_waits, postgresql_where=_waits)

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("plan", sa.JSON, nullable=False),
    sa.Column("candidate", sa.Integer, nullable=False),  # version
    sa.Column("champion", sa.Integer, nullable=False),  # version it is compared with
    sa.Column("salt", sa.String, nullable=False),  # by which keys are assigned
    sa.Column("state", sa.String, nullable=False),  # "running", "promoted", …
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),  # the stage's first prediction has this id
    sa.Column("position", sa.BigInteger, nullable=False),  # of the last label that was looked at
    sa.Column("seen", sa.JSON, nullable=False),  # in the stage
    sa.Column("revision", sa.BigInteger, nullable=False),  # grows by 1 with every change
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
)

rollout_decisions = sa.Table(
    "rollout_decisions",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("rollout_id", sa.ForeignKey("rollouts.id"), nullable=False, index=True),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("action", sa.String, nullable=False),  # "begin", "hold", "pass", "promote", …
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)

rollout_traffic = sa.Table(
    "rollout_traffic",
    metadata,
    sa.Column("rollout_id", sa.ForeignKey("rollouts.id"), primary_key=True),
    sa.Column("stage", sa.Integer, primary_key=True),
    sa.Column("arm", sa.String, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),  # rows
    sa.Column("errors", sa.BigInteger, nullable=False),  # of these, rows without an answer
    sa.Column("times", sa.BigInteger, nullable=False),  # how often it was timed
    sa.Column("mean", sa.Float, nullable=False),  # of these seconds
    sa.Column("spread", sa.Float, nullable=False),  # sum of squares about their mean
)

rollout_keys = sa.Table(
    "rollout_keys",
    metadata,
    sa.Column("rollout_id", sa.ForeignKey("rollouts.id"), primary_key=True),
    sa.Column("stage", sa.Integer, primary_key=True),
    sa.Column("digest", sa.BigInteger, primary_key=True, autoincrement=False),  # of the key
    sa.Column("arm", sa.String, nullable=False),
)

shadow_answers = sa.Table(
    "shadow_answers",
    metadata,
    sa.Column("prediction_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("rollout_id", sa.ForeignKey("rollouts.id"), nullable=False, index=True),
    sa.Column("output", sa.Text),  # JSON text, as the candidate would have answered
)

trigger_states = sa.Table(
    "trigger_states",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("name", sa.String, primary_key=True),  # of the trigger, in its definition's order
    sa.Column("state", sa.JSON, nullable=False),  # what it remembers from look to look
    sa.Column("updated_at", sa.BigInteger, nullable=False),
)

trigger_decisions = sa.Table(
    "trigger_decisions",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),  # "learn" or "wait"
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("job_id", sa.BigInteger),  # that it led to
    sa.Column("at", sa.BigInteger, nullable=False),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),  # SHA-256 of the secret
    sa.Column("hint", sa.String, nullable=False),  # its first letters, to tell keys apart
    sa.Column("role", sa.String, nullable=False),
    sa.Column("model_id", sa.ForeignKey("models.id")),  # NULL: all models
    sa.Column("source", sa.String),  # that its labels come from; NULL: as they say
    sa.Column("note", sa.String, nullable=False),  # whose it is
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("key_id", sa.BigInteger),  # NULL: without keys, or from the command line
    sa.Column("action", sa.String, nullable=False),  # method and route, or the command
    sa.Column("model", sa.String),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
)

quarantined_sources = sa.Table(
    "quarantined_sources",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("released_at", sa.BigInteger),
)

quarantine_spans = sa.Table(
    "quarantine_spans",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("source", sa.String, primary_key=True),
    # what it says at positions after the first and up to the second is not learned online
    sa.Column("after", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("until", sa.BigInteger),  # NULL: it is not released
)

review_items = sa.Table(
    "review_items",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    sa.Column("prediction_id", sa.BigInteger, nullable=False),
    sa.Column("why", sa.String, nullable=False),  # "uncertain", "disagreement", "random"
    sa.Column("priority", sa.Float, nullable=False),
    sa.Column("selection", sa.Float, nullable=False),  # chance with which it was chosen
    sa.Column("state", sa.String, nullable=False),  # "waiting", "claimed", "done", "skipped"
    sa.Column("wanted", sa.Integer, nullable=False),  # reviewers
    sa.Column("claims", sa.JSON, nullable=False),  # reviewer → until when, or his answer
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("model_id", "prediction_id"),
    sa.Index("ix_review_items_waiting", "model_id", "state", "priority"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("holder", sa.String, nullable=False),  # the process that learns the model online
    sa.Column("token", sa.BigInteger, nullable=False),  # fencing token: grows with every holder
    sa.Column("until", sa.BigInteger, nullable=False),
)

stream_offsets = sa.Table(
    "stream_offsets",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("stream", sa.String, primary_key=True),  # its URL, without secrets
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("next", sa.BigInteger, nullable=False),  # offset of the first message not yet read
    sa.Column("updated_at", sa.BigInteger, nullable=False),
)

stream_set_aside = sa.Table(
    "stream_set_aside",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("partition", sa.Integer, nullable=False),
    sa.Column("offset", sa.BigInteger),  # of the first such message; NULL: the stream has none
    sa.Column("digest", sa.String, nullable=False),  # of the message
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # what is no text in it is escaped
    sa.Column("prediction_id", sa.BigInteger),  # of a label: it is logged once this is there
    sa.Column("count", sa.BigInteger, nullable=False),  # messages with this body
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("model_id", "stream", "digest"),
    sa.Index("ix_stream_set_aside_waiting", "prediction_id"),
)

archives = sa.Table(
    "archives",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    sa.Column("kind", sa.String, nullable=False),  # "predictions" or "labels"
    sa.Column("blob", sa.String),  # a Parquet file of whole rows; NULL: dropped
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("first", sa.BigInteger, nullable=False),  # position of a label, id of a prediction
    sa.Column("last", sa.BigInteger, nullable=False),
    # ids of the predictions that the labels judge
    sa.Column("lowest", sa.BigInteger, nullable=False),
    sa.Column("highest", sa.BigInteger, nullable=False),
    sa.Column("arrived_at", sa.BigInteger, nullable=False),  # its newest row
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("dropped_at", sa.BigInteger),
    # how many of its names are in `archive_names`; NULL: it was made before there were any
    sa.Column("named", sa.BigInteger),
    sa.UniqueConstraint("model_id", "kind", "first"),
)

archive_names = sa.Table(
    "archive_names",  # in which file a row is that a caller names: a prediction or a label's key
    metadata,
    sa.Column("name", sa.BigInteger, primary_key=True, autoincrement=False),  # its hash
    sa.Column("archive_id", sa.ForeignKey("archives.id"), primary_key=True),
    sqlite_with_rowid=False,
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("digest", sa.String, nullable=False),  # SHA-256 of the key, which is not kept
    sa.Column("report", sa.JSON, nullable=False),  # what was erased, and what learned from it
    sa.Column("at", sa.BigInteger, nullable=False),
)

withdrawals = sa.Table(
    "withdrawals",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("condition", sa.JSON, nullable=False),  # what was asked for, and by what grammar
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("author", sa.String),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("places", sa.JSON, nullable=False),  # of the rows: blobs of positions or row numbers
    sa.Column("report", sa.JSON, nullable=False),  # what had learned from them
    sa.Column("job_id", sa.ForeignKey("jobs.id")),  # that folds without them; NULL: nothing to fold
    sa.Column("at", sa.BigInteger, nullable=False),
)

edits = sa.Table(
    "edits",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),  # 1, 2, … per model
    sa.Column("features", sa.Text, nullable=False),  # JSON text
    sa.Column("output", sa.Text, nullable=False),  # JSON text: what is to be answered
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("author", sa.String),
    sa.Column("prediction_id", sa.BigInteger),  # that was wrong, where it is one of the log
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("ended_at", sa.BigInteger),  # NULL: it holds
    sa.Column("ended_why", sa.String),  # "revoked", "expired", "learned", …
    sa.UniqueConstraint("model_id", "number"),
)

bisections = sa.Table(
    "bisections",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("asked", sa.JSON, nullable=False),  # metric, versions, rows to judge on
    sa.Column("fingerprint", sa.String, nullable=False, index=True),  # of what was asked
    sa.Column("state", sa.String, nullable=False),  # "running", "done", "failed"
    sa.Column("probes", sa.JSON, nullable=False),  # what was measured so far, to go on from
    sa.Column("report", sa.JSON(none_as_null=True)),
    sa.Column("revision", sa.BigInteger, nullable=False),  # grows by 1 with every change
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("finished_at", sa.BigInteger),
)
