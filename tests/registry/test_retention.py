from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from everlearn.base import Decision, InputError, Json, NotFoundError, Part, SpecError
from everlearn.registry import aliases, retention, versions
from everlearn.registry.models import model_id, now
from everlearn.registry.registry import Registry
from everlearn.registry.retention import Retention, collect
from everlearn.storage import schema
from everlearn.storage.parts import PartStore
from tests.registry.conftest import MODEL, add_version, increment, state_of

DAY = 86_400 * 1_000_000


def add_job(connection: sa.Connection, **values: Json) -> int:
    row = {
        "model_id": model_id(connection, "delays"),
        "state": "running",
        "plan": {},
        "fingerprint": "",
        "attempts": 1,
        "max_attempts": 5,
        "not_before": 0,
        "token": 1,
        "created_at": now(),
    }
    result = connection.execute(schema.jobs.insert().values(row | values))
    return int(result.inserted_primary_key[0])


def blobs_of(registry: Registry, number: int) -> set[str]:
    return {entry["blob"] for entry in registry.version("delays", number).manifest.values()}


def stored(registry: Registry) -> set[str]:
    return {info.digest for info in registry.parts.blobs.list()}


def test_the_policy_keeps_the_newest_the_aliased_and_recent_champions(registry: Registry) -> None:
    for number in range(1, 9):
        add_version(registry, promote=number in (2, 3, 5))
    champions = registry.history("delays", "champion")
    with registry.database.write() as connection:
        expired = lambda policy, **at: retention.expired(connection, "delays", policy, **at)  # noqa: E731
        assert expired(Retention(last=100)) == []
        assert expired(Retention(last=2, champion_days=30)) == [1, 4, 6]
        assert expired(Retention(last=0, champion_days=30)) == [1, 4, 6, 7, 8]
        later = champions[-1].at + 30 * DAY + 1
        assert expired(Retention(last=0), at=later) == [1, 2, 3, 4, 6, 7, 8]
        between = champions[1].at + 30 * DAY + 1  # 3 was still champion 30 days before
        assert 3 not in expired(Retention(last=0), at=between)
        aliases.move(connection, "delays", "shadow", 4, expected=None, reason="")
        add_job(connection, base_version=1)
        add_job(connection, base_version=6, finished_at=now())
        assert expired(Retention(last=0, champion_days=0), at=later) == [2, 3, 6, 7, 8]


def test_retain_drops_what_the_policy_does_not_keep(registry: Registry) -> None:
    for number in range(1, 5):
        add_version(registry, promote=number == 1)
    policy = Retention(last=1)
    assert registry.retain("delays", policy, dry_run=True) == [2, 3]
    assert registry.version("delays", 2).dropped_at is None
    assert registry.retain("delays", policy) == [2, 3]
    assert registry.retain("delays", policy) == []


def test_a_dropped_version_stays_on_record_but_cannot_be_loaded(registry: Registry) -> None:
    add_version(registry, increments=[increment()], promote=True)
    add_version(registry, parent=1)
    before = registry.version("delays", 2)
    registry.drop("delays", 2)
    version = registry.version("delays", 2)
    assert version.dropped_at is not None
    assert version.to_json() | {"dropped_at": None} == before.to_json()
    for load in (registry.state, registry.holdouts):
        with pytest.raises(NotFoundError, match=r"version 2 .* removed by the retention .* at 20"):
            load("delays", version)
    with pytest.raises(NotFoundError, match="removed by the retention"):
        registry.promote("delays", 2, expected=1)
    with pytest.raises(NotFoundError, match="removed by the retention"):
        registry.drop("delays", 2)


def test_a_version_that_is_needed_cannot_be_dropped(registry: Registry) -> None:
    for _ in range(3):
        add_version(registry)
    registry.promote("delays", 1, expected=None)
    with registry.database.write() as connection:
        job = add_job(connection, base_version=2, version=3)
    for number, said in [(1, "it is champion"), (2, f"job {job}"), (3, f"job {job}")]:
        with pytest.raises(InputError, match=said):
            registry.drop("delays", number)
    with pytest.raises(NotFoundError, match="no version 4"):
        registry.drop("delays", 4)


def test_rollback_to_a_dropped_champion_says_when_it_was_dropped(registry: Registry) -> None:
    for _ in range(2):
        add_version(registry, promote=True)
    registry.drop("delays", 1)
    with pytest.raises(NotFoundError, match="removed by the retention policy at 20"):
        registry.rollback("delays")


@pytest.mark.parametrize(
    "wrong", [{"last": -1}, {"champion_days": -1.0}, {"champion_days": float("nan")}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="0 or more"):
        Retention(**wrong)  # type: ignore[arg-type]


def test_collection_removes_only_what_nothing_refers_to(registry: Registry) -> None:
    add_version(registry, state_of(1, shared=7), promote=True)
    add_version(registry, state_of(2, shared=7))
    loose = registry.parts.blobs.put(b"nobody's")
    planned, learned, reached = (registry.parts.blobs.put(name) for name in (b"p", b"i", b"c"))
    with registry.database.write() as connection:
        plan = {"slices": [{"pieces": [planned]}]}
        add_job(connection, plan=plan, checkpoint={"lasting": {"rows": {"blob": reached}}})
    add_version(registry, increments=[increment(slice={"spooled": {"blobs": [learned]}})])
    everything = stored(registry)
    dry = registry.collect(grace=0, dry_run=True)
    assert dry.removed == (loose,)
    assert (dry.bytes, dry.dry_run, dry.kept) == (len(b"nobody's"), True, len(everything) - 1)
    assert dry.to_json()["removed"] == 1
    assert stored(registry) == everything
    assert registry.collect(grace=0, exclusive=True).removed == (loose,)
    own = blobs_of(registry, 2) - blobs_of(registry, 1)
    blobs = registry.parts.blobs
    planned_drop = {"delays": [2]}
    dry = collect(registry.database, blobs, grace=0, dry_run=True, as_if_dropped=planned_drop)
    assert set(dry.removed) == own
    for number in (1, 3):
        planned_drop = {"delays": [2, number]}
        more = collect(registry.database, blobs, grace=0, dry_run=True, as_if_dropped=planned_drop)
        assert set(more.removed) >= own
    registry.drop("delays", 2)
    assert set(registry.collect(grace=0, exclusive=True).removed) == own
    assert stored(registry) == everything - {loose} - own
    assert registry.collect(grace=0, exclusive=True).removed == ()


def test_young_blobs_are_kept(local: Registry) -> None:
    young, old = (local.parts.blobs.put(name) for name in (b"young", b"old"))
    age(local, old, days=2)
    found = local.collect()
    assert (found.removed, found.young) == ((old,), 1)
    assert stored(local) == {young}
    for grace, exclusive in [(-1.0, True), (float("nan"), True), (0.0, False), (599.0, False)]:
        with pytest.raises(InputError, match="grace period"):
            local.collect(grace=grace, exclusive=exclusive)


def test_a_blob_written_again_while_collecting_is_kept(
    local: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = local.parts.blobs
    digest = blobs.put(b"about to be used again")
    age(local, digest, days=2)
    reachable = retention.reachable

    def and_meanwhile(connection: sa.Connection, *rest: None) -> set[str]:
        found = reachable(connection, *rest)
        blobs.put(b"about to be used again")
        return found

    monkeypatch.setattr(retention, "reachable", and_meanwhile)
    found = local.collect()
    assert (found.removed, found.young) == ((), 1)
    assert blobs.has(digest)


def test_other_things_can_be_kept(local: Registry) -> None:
    digest = local.parts.blobs.put(b"mine")
    assert (
        collect(
            local.database, local.parts.blobs, grace=0, exclusive=True, also_keep=[digest]
        ).removed
        == ()
    )
    assert collect(local.database, local.parts.blobs, grace=0, exclusive=True).removed == (digest,)


def age(registry: Registry, digest: str, days: float) -> None:
    path = Path(registry.parts.blobs.url) / digest[:2] / digest[2:]
    moment = time.time() - days * 86_400
    os.utime(path, (moment, moment))


class History:
    """A random history of a workspace, and by bookkeeping of its own what must stay loadable."""

    def __init__(self, registry: Registry, seed: int) -> None:
        parts = PartStore(registry.parts.blobs)
        self.registry, self.random = Registry(registry.database, parts), random.Random(seed)
        self.states: dict[int, dict[str, Part]] = {}
        self.dropped: set[int] = set()
        self.referred: set[str] = set()

    def run(self) -> None:
        with self.registry.database.write() as connection:
            for table in reversed(schema.metadata.sorted_tables):
                if table.name not in ("models", "definitions"):
                    connection.execute(table.delete())
            for _ in range(self.random.randint(1, 10)):
                step = self.random.choice([self.add, self.add, self.drop, self.move, self.job])
                step(connection)
        if self.random.random() < 0.5:
            self.registry.parts.blobs.put(self.random.randbytes(2))
        self.registry.collect(grace=0, exclusive=True)

    def add(self, connection: sa.Connection) -> None:
        part = lambda: Part(meta={"content": self.random.randrange(6)})  # noqa: E731
        state = {f"part/{i}": part() for i in range(self.random.randint(1, 3))}
        held = {"rows": part()}
        spooled = self.registry.parts.blobs.put(b"%d" % self.random.randrange(4))
        number = versions.add(
            connection,
            "delays",
            parent=self.random.choice([None, *self.states]),
            definition=1,
            strategy=None,
            state_digest="",
            manifest=self.registry.parts.save(state),
            holdouts=self.registry.parts.save(held),
            metrics={},
            decision=Decision("pass", ""),
            increments=[increment(slice={"blob": spooled})],
        )
        self.states[number] = state | {"held": held["rows"]}
        self.referred.add(spooled)

    def drop(self, connection: sa.Connection) -> None:
        number = self.random.choice([*self.states, 99])
        try:
            retention.drop(connection, "delays", number)
        except (InputError, NotFoundError):
            return
        self.dropped.add(number)

    def move(self, connection: sa.Connection) -> None:
        whole = [number for number in self.states if number not in self.dropped]
        if whole:
            before = aliases.current(connection, "delays")
            to = self.random.choice(whole)
            aliases.move(connection, "delays", "champion", to, expected=before, reason="")

    def job(self, connection: sa.Connection) -> None:
        put = self.registry.parts.blobs.put
        planned, reached = (put(b"%d" % self.random.randrange(4, 9)) for _ in range(2))
        add_job(
            connection,
            plan={"slices": [{"blob": planned}]},
            checkpoint={"lasting": {"a": {"blob": reached}}},
            base_version=self.random.choice([None, *self.states]),
            finished_at=self.random.choice([None, 1]),
        )
        self.referred |= {planned, reached}

    def check(self) -> None:
        for digest in self.referred:
            assert self.registry.parts.blobs.has(digest)
        for version in self.registry.versions("delays"):
            number, state = version.number, self.states[version.number]
            assert (version.dropped_at is not None) == (number in self.dropped)
            if number in self.dropped:
                continue
            loaded = self.registry.state("delays", version)
            loaded |= {"held": self.registry.holdouts("delays", version)["rows"]}
            assert {name: part.meta for name, part in loaded.items()} == {
                name: part.meta for name, part in state.items()
            }


def test_no_blob_that_is_needed_is_removed_over_a_thousand_histories(
    local: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # tens of thousands of tiny blobs
    local.define(MODEL)
    for seed in range(1000):
        history = History(local, seed)
        history.run()
        history.check()
    assert local.collect(grace=0, exclusive=True).removed == ()
