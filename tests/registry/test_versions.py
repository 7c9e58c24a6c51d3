from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from everlearn.base import Decision, InputError, NotFoundError, state_digest
from everlearn.registry import versions
from everlearn.registry.environment import environment
from everlearn.registry.registry import Registry
from everlearn.storage import schema
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore
from everlearn.storage.stores import open_blobs
from tests.registry.conftest import MODEL, add_version, increment, state_of

CONTRACT = [
    "number",
    "parent",
    "aliases",
    "state_digest",
    "strategy",
    "increments",
    "metrics",
    "created_at",
]
INCREMENT = ["source", "start", "stop", "rows", "held_out", "set_aside", "duplicates", "digest"]


def test_a_version_comes_back_as_it_was_added(registry: Registry) -> None:
    state = state_of(1)
    learned = [increment("a.csv", 0, 10), increment("b.csv", 0, 4, set_aside=1, rows=2)]
    add_version(
        registry, state, increments=learned, metrics={"auc": np.float64(0.75)}, promote=True
    )
    version = registry.version("delays", 1)
    assert version == registry.version("delays") == registry.champion("delays")
    assert version.increments == tuple(learned)
    assert (
        version.state_digest
        == state_digest(state)
        == state_digest(registry.state("delays", version))
    )
    assert version.metrics == {"auc": 0.75}
    assert version.environment == environment()
    assert version.decision == Decision("pass", "for a test")
    assert (version.number, version.parent, version.definition) == (1, None, 1)
    assert version.aliases == ("champion",)
    np.testing.assert_array_equal(
        registry.state("delays", version)["learner/weights"].arrays["w"],
        state["learner/weights"].arrays["w"],
    )
    assert registry.holdouts("delays", version) == {}


def test_the_printed_form_has_what_scripts_rely_on(local: Registry) -> None:
    add_version(local, increments=[increment()], metrics={"auc": float("nan")})
    (shown,) = [version.to_json() for version in local.versions("delays")]
    assert set(CONTRACT) <= shown.keys()
    assert set(INCREMENT) <= shown["increments"][0].keys()
    assert "slice" not in shown["increments"][0]
    assert shown["metrics"] == {"auc": None}
    assert shown["created_at"].startswith("20")
    json.dumps(shown, allow_nan=False)


def test_numbers_have_no_gaps_per_model_even_after_a_failed_transaction(registry: Registry) -> None:
    add_version(registry)
    add_version(registry, model="other")
    with pytest.raises(RuntimeError), registry.database.write() as connection:
        add(connection, registry)
        raise RuntimeError("the caller's transaction fails")
    add_version(registry)
    assert [one.number for one in registry.versions("delays")] == [1, 2]
    assert [one.number for one in registry.versions("other")] == [1]


def add(connection: sa.Connection, registry: Registry, **changes: object) -> int:
    values = {
        "parent": None,
        "definition": 1,
        "strategy": None,
        "state_digest": "0" * 64,
        "manifest": {},
        "holdouts": {},
        "metrics": {},
        "decision": Decision("pass", ""),
    }
    return versions.add(connection, "delays", **(values | changes))  # type: ignore[arg-type]


def test_what_a_version_refers_to_must_exist(registry: Registry) -> None:
    registry.define(MODEL)
    for changes, said in [({"parent": 7}, "no version 7"), ({"definition": 7}, "no definition 7")]:
        with pytest.raises(NotFoundError, match=said), registry.database.write() as connection:
            add(connection, registry, **changes)
    for counts in ({"rows": 3}, {"rows": 10, "set_aside": -1}):
        wrong = increment(**counts)
        with pytest.raises(InputError, match="add up"), registry.database.write() as connection:
            add(connection, registry, increments=[wrong])
    assert registry.versions("delays") == []


def test_missing_versions_say_which_there_are(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="no model"):
        registry.versions("delays")
    registry.define(MODEL)
    with pytest.raises(NotFoundError, match="none yet"):
        registry.version("delays", 1)
    with pytest.raises(NotFoundError, match="no champion yet"):
        registry.version("delays")
    assert registry.champion("delays") is None
    add_version(registry)
    with pytest.raises(NotFoundError, match=r"no version 5 \(versions: 1 to 1\)"):
        registry.version("delays", 5)


def test_writers_side_by_side_leave_no_gap(registry: Registry) -> None:
    registry.define(MODEL)

    def one(_: int) -> int:
        with registry.database.write() as connection:
            return add(connection, registry, increments=[increment()])

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(one, range(24)))
    assert sorted(numbers) == list(range(1, 25))


def append(url: str, folder: Path, count: int) -> None:
    registry = Registry(Database.open(url), PartStore(open_blobs(folder)))
    for _ in range(count):
        with registry.database.write() as connection:
            add(connection, registry)


def test_processes_side_by_side_leave_no_gap(registry: Registry, url: str, tmp_path: Path) -> None:
    registry.define(MODEL)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append, args=(url, tmp_path / "blobs", 10)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert [one.number for one in registry.versions("delays")] == list(range(1, 21))


def test_records_are_never_rewritten(local: Registry) -> None:
    add_version(local, increments=[increment()])
    before = local.version("delays", 1)
    add_version(local, parent=1, increments=[increment(start=10, stop=20)])
    assert local.version("delays", 1) == before
    with local.database.read() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(schema.increments))
        assert count.scalar() == 2


def test_the_environment_is_named_and_a_copy() -> None:
    found = environment()
    assert {"python", "numpy", "scikit-learn", "pyarrow", "platform", "threads"} <= found.keys()
    assert found["threads"] >= 1
    found["python"] = "changed"
    assert environment()["python"] != "changed"
