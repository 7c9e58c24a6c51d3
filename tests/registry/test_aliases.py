from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everlearn.base import ConflictError, InputError, NotFoundError
from everlearn.registry import aliases
from everlearn.registry.registry import Registry
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore
from everlearn.storage.stores import open_blobs
from tests.registry.conftest import MODEL, add_version


def promote(registry: Registry, number: int) -> None:
    champion = registry.champion("delays")
    registry.promote("delays", number, expected=champion.number if champion else None)


def champion(registry: Registry) -> int:
    return registry.version("delays").number


def test_an_alias_moves_only_from_where_it_is_expected(registry: Registry) -> None:
    for _ in range(3):
        add_version(registry)
    registry.promote("delays", 1, expected=None)
    for expected in (None, 2, 3):
        with pytest.raises(ConflictError, match=r"points at version 1"):
            registry.promote("delays", 2, expected=expected)
    registry.promote("delays", 2, expected=1)
    assert champion(registry) == 2
    moves = registry.history("delays")
    assert [(m.version_from, m.version_to, m.action) for m in moves] == [
        (None, 1, "promote"),
        (1, 2, "promote"),
    ]
    assert moves[0].to_json()["at"] < moves[1].to_json()["at"]
    assert registry.version("delays", 2).aliases == ("champion",)


def test_an_alias_points_only_at_versions_that_exist(registry: Registry) -> None:
    add_version(registry)
    with pytest.raises(NotFoundError, match="no version 2"):
        registry.promote("delays", 2, expected=None)
    with pytest.raises(ConflictError, match="is not set, but was expected to point at version 1"):
        registry.promote("delays", 1, expected=1)
    assert registry.history("delays") == []


def test_aliases_can_be_removed_and_noted(registry: Registry) -> None:
    add_version(registry)
    with registry.database.write() as connection:
        aliases.move(
            connection, "delays", "shadow", 1, expected=None, action="shadow", reason="try"
        )
        aliases.note(connection, "delays", "shadow", action="hold", reason="too little traffic")
        with pytest.raises(ConflictError):
            aliases.remove(connection, "delays", "shadow", expected=2, reason="no")
        aliases.remove(connection, "delays", "shadow", expected=1, reason="done")
        assert aliases.all_aliases(connection, "delays") == {}
    found = [(m.version_from, m.version_to, m.action) for m in registry.history("delays", "shadow")]
    assert found == [(None, 1, "shadow"), (1, 1, "hold"), (1, None, "remove")]


def test_history_says_what_served_at_a_time(registry: Registry) -> None:
    for number in (1, 2, 3):
        add_version(registry)
        promote(registry, number)
    registry.rollback("delays", 1)
    moves = registry.history("delays", "champion")
    assert registry.served_at("delays", moves[0].at - 1) is None
    for move in moves:
        assert registry.served_at("delays", move.at) == move.version_to
    assert registry.served_at("delays", moves[-1].at + 10**9) == 1


def test_times_of_moves_never_go_back(local: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        add_version(local)
        monkeypatch.setattr(aliases, "now", lambda number=number: 10_000 - number)
        promote(local, number)
    assert [move.at for move in local.history("delays")] == [9_999, 9_999]
    assert local.served_at("delays", 9_999) == 2


def test_rollback_goes_back_champion_by_champion(registry: Registry) -> None:
    for number in range(1, 6):
        add_version(registry, parent=number - 1 or None)
        if number != 4:
            promote(registry, number)  # 4 was refused: 1, 2, 3, 5 were champions
    assert registry.rollback("delays").version_to == 3
    assert registry.rollback("delays").version_to == 2
    assert registry.rollback("delays", 5).version_to == 5
    assert registry.rollback("delays").version_to == 2
    assert registry.rollback("delays").version_to == 1
    with pytest.raises(InputError, match="first champion"):
        registry.rollback("delays")
    assert champion(registry) == 1
    assert registry.history("delays")[-1].reason == "rolled back from version 2 to version 1"


def test_rollback_refuses_what_makes_no_sense(registry: Registry) -> None:
    registry.define(MODEL)
    with pytest.raises(InputError, match="no champion to roll back"):
        registry.rollback("delays")
    for _ in range(2):
        add_version(registry)
    promote(registry, 1)
    for to, error, said in [
        (1, InputError, "champion of 'delays' already"),
        (2, InputError, "never champion"),
        (9, NotFoundError, "no version 9"),
    ]:
        with pytest.raises(error, match=said):
            registry.rollback("delays", to)
    assert champion(registry) == 1


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(0, 5), max_size=12))
def test_history_explains_the_alias_after_any_moves(local: Registry, steps: list[int]) -> None:
    """0 rolls back, 1 … 5 promote; the alias is always where the last move left it."""
    if "delays" not in local.models():
        for _ in range(5):
            add_version(local)
    for step in steps:
        before = local.champion("delays")
        if step:
            promote(local, step)
            assert champion(local) == step
        elif before is not None:
            with local.database.read() as connection:
                former = aliases.former_champions(connection, "delays")
            if former:
                assert local.rollback("delays").version_to == former[-1] != before.number
    moves = local.history("delays")
    for earlier, later in pairwise(moves):
        assert later.version_from == earlier.version_to
    if moves:
        assert moves[-1].version_to == champion(local)


def test_of_fifty_concurrent_promotions_one_wins(registry: Registry) -> None:
    for _ in range(51):
        add_version(registry)
    promote(registry, 51)

    def attempt(number: int) -> bool:
        try:
            registry.promote("delays", number, expected=51)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(50) as pool:
        wins = list(pool.map(attempt, range(1, 51)))
    assert sum(wins) == 1
    assert champion(registry) == 1 + wins.index(True)
    assert len(registry.history("delays")) == 2


def promote_some(url: str, folder: Path, numbers: range, barrier: Any, wins: Any) -> None:
    registry = Registry(Database.open(url), PartStore(open_blobs(folder)))

    def attempt(number: int) -> None:
        barrier.wait()
        try:
            registry.promote("delays", number, expected=51)
        except ConflictError:
            return
        wins.put(number)

    with ThreadPoolExecutor(len(numbers)) as pool:
        list(pool.map(attempt, numbers))


def test_of_fifty_promotions_in_processes_one_wins(
    registry: Registry, url: str, tmp_path: Path
) -> None:
    for _ in range(51):
        add_version(registry)
    promote(registry, 51)
    context = multiprocessing.get_context("spawn")
    barrier, wins = context.Barrier(50), context.Queue()
    shares = [range(start, start + 25) for start in (1, 26)]
    workers = [
        context.Process(target=promote_some, args=(url, tmp_path / "blobs", share, barrier, wins))
        for share in shares
    ]
    for worker in workers:
        worker.start()
    winner = wins.get(timeout=60)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert wins.empty()
    assert champion(registry) == winner
