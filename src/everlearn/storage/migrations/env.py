"""Run by Alembic, inside the transaction that `everlearn.storage.revisions` opened."""

from alembic import context

from everlearn.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
