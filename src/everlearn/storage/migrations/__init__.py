"""Alembic's scripts, run by `everlearn.storage.revisions` from wherever they are installed."""
