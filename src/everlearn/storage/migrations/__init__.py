"""Alembic's scripts, run by `everlearn.storage.revisions` from wherever the package is installed."""
