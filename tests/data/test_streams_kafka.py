"""A topic of Kafka, on librdkafka's own mock cluster, read by processes that are killed."""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from everlearn.base import InputError, StorageError
from everlearn.data.streams.address import Address
from tests.data.streams import (
    UNREADABLE,
    content_of,
    expected,
    finish,
    kill_when,
    log_in,
    logged,
    make_events,
    make_workspace,
    start_ingest,
    ten_times,
    wait_until,
)

kafka = pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")


class Cluster:
    """A broker in this process, with a topic of two partitions or more."""

    def __init__(self) -> None:
        settings = {"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0}
        self._producer = kafka.Producer(settings)
        [broker] = self._producer.list_topics(timeout=30).brokers.values()
        self.hosts = f"{broker.host}:{broker.port}"
        self.url = f"kafka://{self.hosts}/bills"

    def send(self, bodies: list[bytes]) -> None:
        for index, body in enumerate(bodies):
            self._producer.produce("bills", body, partition=index % 2)
        assert self._producer.flush(30) == 0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    yield Cluster()


def stream_of(cluster: Cluster) -> Any:
    from everlearn.data.streams.kafka import KafkaStream

    return closing(KafkaStream(Address.of(cluster.url)))


def test_killed_in_the_middle_each_event_counts_once(cluster: Cluster, tmp_path: Path) -> None:
    """Each event is sent ten times; three processes are killed: by themselves before and after a
    commit, and from outside wherever they are."""
    bodies = make_events(150)
    cluster.send(ten_times(bodies))
    workspace = make_workspace(tmp_path)
    for crash in ("ingest.logged:2", "ingest.committed:3"):
        killed = start_ingest(workspace, cluster.url, "--batch", "80", crash=crash)
        killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL
    with log_in(workspace) as log:
        before = logged(log)
        assert 0 < before < 150
        slow = start_ingest(workspace, cluster.url, "--batch", "5")
        kill_when(slow, lambda: logged(log) > before)
        finish(start_ingest(workspace, cluster.url, "--idle", "1"))
        assert content_of(log) == expected(tmp_path, bodies)
    again = finish(start_ingest(workspace, cluster.url, "--idle", "1"))
    assert again == {"predictions": 0, "labels": 0, "known": 0, "set_aside": 0}
    shown = finish(start_ingest(workspace, cluster.url, "--show"))
    assert sum(shown["offsets"].values()) == 10 * len(bodies)  # type: ignore[attr-defined]
    assert [one["count"] for one in shown["set_aside"]] == [10] * len(UNREADABLE)  # type: ignore


def test_it_is_read_from_the_offsets_of_the_workspace(cluster: Cluster) -> None:
    cluster.send([str(index).encode() for index in range(20)])
    with stream_of(cluster) as stream:
        assert stream.begin({0: 7, 1: 10}) == []
        found = []
        while len(found) < 3:
            found += stream.poll(10, 1.0)
    assert [(one.partition, one.offset, one.body) for one in found] == [
        (0, 7, b"14"),
        (0, 8, b"16"),
        (0, 9, b"18"),
    ]


def test_a_topic_that_was_made_anew_is_refused(cluster: Cluster) -> None:
    cluster.send([b"1"])
    with stream_of(cluster) as stream, pytest.raises(InputError, match="made anew"):
        stream.begin({0: 500})


def test_a_cluster_that_cannot_be_reached_is_an_error(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everlearn.data.streams.kafka._ANSWER_SECONDS", 0.2)
    cluster.url = "kafka://127.0.0.1:1/bills?log_level=0"
    with stream_of(cluster) as stream, pytest.raises(StorageError, match="cannot be reached"):
        stream.begin({})


def test_sigterm_ends_it_after_the_batch_at_hand(cluster: Cluster, tmp_path: Path) -> None:
    bodies = make_events(10)
    cluster.send(bodies)
    workspace = make_workspace(tmp_path)
    process = start_ingest(workspace, cluster.url)
    with log_in(workspace) as log:
        wait_until(lambda: logged(log) == 10)
    process.send_signal(signal.SIGTERM)
    counts = finish(process)
    assert (counts["predictions"], counts["set_aside"]) == (10, len(UNREADABLE))


def test_two_processes_read_each_event_once(cluster: Cluster, tmp_path: Path) -> None:
    bodies = make_events(60)
    cluster.send(bodies * 3)
    workspace = make_workspace(tmp_path)
    both = [start_ingest(workspace, cluster.url, "--batch", "20", "--idle", "2") for _ in "ab"]
    counts = [finish(one) for one in both]
    assert sum(one["predictions"] for one in counts) == 60
    assert sum(one["labels"] for one in counts) == 60
    shown = finish(start_ingest(workspace, cluster.url, "--show"))
    assert [one["count"] for one in shown["set_aside"]] == [3] * len(UNREADABLE)  # type: ignore
    with log_in(workspace) as log:
        assert content_of(log) == expected(tmp_path, bodies)


def test_new_partitions_are_found(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.send([b"1", b"2"])
    monkeypatch.setattr("everlearn.data.streams.kafka.LOOK_SECONDS", 0.0)
    with stream_of(cluster) as stream:
        with monkeypatch.context() as earlier:
            earlier.setattr(stream, "_partitions", lambda: [0])
            stream.begin({})
        found: list[Any] = []
        wait_until(lambda: len(found.extend(stream.poll(10, 0.2)) or found) >= 2)
    assert {(one.partition, one.body) for one in found} == {(0, b"1"), (1, b"2")}
