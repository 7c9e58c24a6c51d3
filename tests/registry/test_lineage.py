from __future__ import annotations

import pytest

from everlearn.base import Decision, NotFoundError
from everlearn.registry import lineage, versions
from everlearn.registry.registry import Registry
from tests.registry.conftest import MODEL, add_version, increment


@pytest.fixture
def forked(registry: Registry) -> Registry:
    """1 ← 2 ← 3, 1 ← 4 ← 5; champions 1, 2, 4; 3 and 5 were refused; 6 was imported."""
    for number, parent in [(1, None), (2, 1), (3, 2), (4, 1), (5, 4), (6, None)]:
        source = f"{number}.csv"
        add_version(
            registry,
            parent=parent,
            increments=[increment(source), increment("log", number * 10, number * 10 + 10)],
            promote=number in (1, 2, 4),
        )
    return registry


def sources(items: list[lineage.Learned]) -> list[tuple[int, str]]:
    return [(number, one.source) for number, one in items if one.source != "log"]


def test_the_lineage_leads_from_the_first_version_to_the_asked_one(forked: Registry) -> None:
    assert forked.lineage("delays", 1) == [1]
    assert forked.lineage("delays", 3) == [1, 2, 3]
    assert forked.lineage("delays", 5) == [1, 4, 5]
    assert forked.lineage("delays", 6) == [6]
    with pytest.raises(NotFoundError, match="no version 7"):
        forked.lineage("delays", 7)


def test_learned_is_all_of_the_lineages_increments_in_order(forked: Registry) -> None:
    found = forked.learned("delays", 5)
    assert sources(found) == [(1, "1.csv"), (4, "4.csv"), (5, "5.csv")]
    assert [one.start for _, one in found if one.source == "log"] == [10, 40, 50]


def test_what_is_not_in_the_champions_lineage_is_on_hold(forked: Registry) -> None:
    assert sources(forked.on_hold("delays")) == [
        (2, "2.csv"),
        (3, "3.csv"),
        (5, "5.csv"),
        (6, "6.csv"),
    ]
    forked.rollback("delays", 2)
    assert sources(forked.on_hold("delays")) == [
        (3, "3.csv"),
        (4, "4.csv"),
        (5, "5.csv"),
        (6, "6.csv"),
    ]


def test_what_was_learned_elsewhere_too_is_not_on_hold(registry: Registry) -> None:
    add_version(registry, increments=[increment("a")], promote=True)
    add_version(registry, parent=1, increments=[increment("b")])
    assert sources(registry.on_hold("delays")) == [(2, "b")]
    add_version(registry, parent=1, increments=[increment("b")], promote=True)
    assert registry.on_hold("delays") == []


def test_without_a_champion_everything_is_on_hold(registry: Registry) -> None:
    registry.define(MODEL)
    assert registry.on_hold("delays") == []
    add_version(registry, increments=[increment("a")])
    assert sources(registry.on_hold("delays")) == [(1, "a")]


def test_an_increment_is_found_by_its_digest(forked: Registry) -> None:
    with forked.database.read() as connection:
        ((number, found),) = lineage.find_increment(connection, "delays", "4.csv@10")
        assert (number, found) == (4, increment("4.csv"))
        assert lineage.find_increment(connection, "delays", "nothing") == []


def test_children_and_common_ancestors(forked: Registry) -> None:
    with forked.database.read() as connection:
        assert lineage.children(connection, "delays", 1) == [2, 4]
        assert lineage.children(connection, "delays", 6) == []
        pairs = {(3, 5): 1, (3, 2): 2, (2, 3): 2, (5, 5): 5, (6, 1): None}
        for (a, b), ancestor in pairs.items():
            assert lineage.common_ancestor(connection, "delays", a, b) == ancestor


def test_between_gives_each_sides_own_increments(forked: Registry) -> None:
    with forked.database.read() as connection:
        fork, of_a, of_b = lineage.between(connection, "delays", 3, 4)
    assert fork == 1
    assert sources(of_a) == [(2, "2.csv"), (3, "3.csv")]
    assert sources(of_b) == [(4, "4.csv")]


def test_long_lineages_are_walked(local: Registry) -> None:
    local.define(MODEL)
    with local.database.write() as connection:
        for number in range(1, 601):
            versions.add(
                connection,
                "delays",
                parent=number - 1 or None,
                definition=1,
                strategy=None,
                state_digest="",
                manifest={},
                holdouts={},
                metrics={},
                decision=Decision("pass", ""),
                increments=[increment(f"{number}")],
            )
    assert local.lineage("delays", 600) == list(range(1, 601))
    assert len(local.learned("delays", 600)) == 600
