"""A database of each kind, a blob store, and a model with versions in them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from everlearn.base import Decision, Json, Model, Part, Schema, State, state_digest
from everlearn.registry import aliases, versions
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Increment
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore
from everlearn.storage.stores import open_blobs

POSTGRES = [
    url
    for url in (
        os.environ.get("EVERLEARN_TEST_POSTGRES"),
        "postgresql+psycopg://test@127.0.0.1:5432/test",
        "postgresql+psycopg://postgres@127.0.0.1:5432/test",
    )
    if url
]


def reachable_postgres() -> str | None:
    """The first URL of a PostgreSQL server that answers."""
    for url in POSTGRES:
        engine = sa.create_engine(url, connect_args={"connect_timeout": 2})
        try:
            with engine.connect():
                return url
        except sa.exc.OperationalError:
            continue
        finally:
            engine.dispose()
    return None


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/everlearn.db"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A schema of its own, dropped afterwards."""
    server = reachable_postgres()
    if server is None:
        pytest.skip(f"no PostgreSQL answers at {POSTGRES}")
    name = f"registry_{secrets.token_hex(6)}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    yield f"{server}?options=-csearch_path%3D{name}"
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return str(
        request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    )


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Iterator[Registry]:
    """On SQLite and on PostgreSQL."""
    yield from opened(url, tmp_path)


@pytest.fixture
def local(sqlite_url: str, tmp_path: Path) -> Iterator[Registry]:
    """On SQLite only, for what has nothing to do with the kind of database."""
    yield from opened(sqlite_url, tmp_path)


def opened(url: str, folder: Path) -> Iterator[Registry]:
    database = Database.open(url)
    yield Registry(database, PartStore(open_blobs(folder / "blobs")))
    database.close()


MODEL = Model("delays", schema=Schema(target="late"))


def state_of(seed: int, *, shared: int = 0) -> dict[str, Part]:
    """A state of two parts: one that changes with the seed, one that changes with `shared`."""
    return {
        "learner/weights": Part({"w": np.random.default_rng(seed).normal(size=8)}, {"seed": seed}),
        "memory/rows": Part({"rows": np.full(16, shared)}),
    }


def increment(source: str = "week.csv", start: int = 0, stop: int = 10, **more: Json) -> Increment:
    held = min(1, stop - start)
    values = {
        "rows": stop - start - held,
        "held_out": held,
        "digest": f"{source}@{stop}",
        "slice": {"location": source},
    }
    return Increment(source=source, start=start, stop=stop, **(values | more))


def add_version(
    registry: Registry,
    state: State | None = None,
    *,
    model: str = "delays",
    parent: int | None = None,
    increments: Sequence[Increment] = (),
    metrics: Json = None,
    promote: bool = False,
    action: str = "pass",
) -> int:
    """Define the model if need be, store a state, append a version, promote it if asked."""
    with registry.database.read() as connection:
        known = model in registry.models()
        count = len(versions.list_versions(connection, model)) if known else 0
    registry.define(MODEL.replace(name=model))
    state = state_of(count + 1) if state is None else state
    manifest = registry.parts.save(state)
    with registry.database.write() as connection:
        number = versions.add(
            connection,
            model,
            parent=parent,
            definition=1,
            strategy=None,
            state_digest=state_digest(state),
            manifest=manifest,
            holdouts={},
            metrics=metrics or {},
            decision=Decision(action, "for a test"),
            increments=increments,
        )
        if promote:
            expected = aliases.current(connection, model)
            aliases.move(
                connection, model, "champion", number, expected=expected, reason="for a test"
            )
    return number
