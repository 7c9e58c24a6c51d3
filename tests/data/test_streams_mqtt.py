"""A topic of an MQTT broker of its own, read by processes that are killed."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from everlearn.base import InputError, StorageError
from everlearn.data.streams.address import Address
from everlearn.data.streams.ingest import open_stream
from everlearn.data.streams.intake import Message
from tests.data.streams import (
    UNREADABLE,
    content_of,
    expected,
    finish,
    free_port,
    kill_when,
    listens,
    log_in,
    logged,
    make_events,
    make_workspace,
    start_ingest,
    ten_times,
    wait_until,
)

paho = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")


class Broker:
    """A broker that keeps its sessions on disk."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"mqtt://127.0.0.1:{port}/plant/bills"
        self._port, self._settings = port, folder / "mosquitto.conf"
        folder.mkdir()
        self._settings.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {folder}/\nuser root\n"
        )
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(shutil.which("mosquitto")), "-c", str(self._settings)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: listens(self._port))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def send(self, bodies: list[bytes], topic: str = "plant/bills", **how: Any) -> None:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.max_queued_messages_set(0)
        client.connect("127.0.0.1", self._port)
        client.loop_start()
        for sent in [client.publish(topic, body, qos=1, **how) for body in bodies]:
            sent.wait_for_publish(30)
        client.disconnect()
        client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    started = Broker(tmp_path / "mosquitto", free_port())
    yield started
    started.stop()


def stream_of(broker: Broker, more: str = "") -> Any:
    return closing(open_stream(broker.url + more))


def read(stream: Any, count: int) -> list[Message]:
    found: list[Message] = []
    wait_until(lambda: len(found.extend(stream.poll(100, 0.2)) or found) >= count)
    return found


def bodies_of(messages: list[Message]) -> list[bytes]:
    return [one.body for one in messages]


def test_killed_in_the_middle_each_event_counts_once(broker: Broker, tmp_path: Path) -> None:
    """Each event is sent ten times; three processes are killed: by themselves before and after a
    commit (so that acknowledgements are missing), and from outside wherever they are."""
    bodies = make_events(100)
    workspace = make_workspace(tmp_path)
    finish(start_ingest(workspace, broker.url, "--idle", "0"))  # the broker knows us from here on
    broker.send(ten_times(bodies))
    for crash in ("ingest.logged:2", "ingest.committed:3"):
        killed = start_ingest(workspace, broker.url, "--batch", "50", crash=crash)
        killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL
    with log_in(workspace) as log:
        before = logged(log)
        assert 0 < before < 100
        slow = start_ingest(workspace, broker.url, "--batch", "5")
        kill_when(slow, lambda: logged(log) > before)
        finish(start_ingest(workspace, broker.url, "--idle", "1"))
        assert content_of(log) == expected(tmp_path, bodies)
    again = finish(start_ingest(workspace, broker.url, "--idle", "1"))
    assert again == {"predictions": 0, "labels": 0, "known": 0, "set_aside": 0}
    shown = finish(start_ingest(workspace, broker.url, "--show"))
    assert [one["count"] for one in shown["set_aside"]] == [1] * len(UNREADABLE)  # type: ignore


def test_what_was_not_acknowledged_comes_again(broker: Broker) -> None:
    with stream_of(broker) as stream:
        stream.begin({})
        broker.send([b"1", b"2", b"3"])
        found = read(stream, 3)
        assert [(one.partition, one.offset) for one in found] == [(0, None)] * 3
        stream.done(found[:2])
    broker.send([b"4"])
    with stream_of(broker) as stream:
        stream.begin({})
        found = read(stream, 2)
        assert bodies_of(found) == [b"3", b"4"]
        stream.done(found)
    with stream_of(broker) as stream:
        stream.begin({})
        assert stream.poll(10, 0.3) == []


def test_no_more_is_read_than_is_asked_for(broker: Broker) -> None:
    with stream_of(broker) as stream:
        stream.begin({})
        broker.send([b"%d" % number for number in range(100)])
        found = []
        while len(found) < 100:
            found += stream.poll(7, 0.2)
            assert len(stream._waiting) == 0
        assert bodies_of(found) == [b"%d" % number for number in range(100)]


def test_a_broker_that_starts_again_is_read_on(broker: Broker) -> None:
    with stream_of(broker) as stream:
        stream.begin({})
        broker.send([b"1", b"2"])
        found = read(stream, 2)
        broker.stop()
        assert stream.poll(10, 0.1) == []
        stream.done(found)  # of a connection that is gone
        broker.start()
        broker.send([b"3"])
        again = read(stream, 3)
        assert sorted(bodies_of(again)) == [b"1", b"2", b"3"]
        stream.done(again)
        assert stream.poll(10, 0.3) == []


def test_wildcards_name_several_topics(broker: Broker) -> None:
    broker.url = broker.url.replace("/plant/bills", "/plant/+/%23")
    with stream_of(broker) as stream:
        stream.begin({})
        broker.send([b"1"], "plant/a/b/c")
        broker.send([b"2"], "plant/b")
        broker.send([b"no"], "other/b")
        assert sorted(bodies_of(read(stream, 2))) == [b"1", b"2"]
        assert stream.poll(10, 0.2) == []


def test_two_readers_of_one_session_are_told(broker: Broker) -> None:
    with stream_of(broker) as first, stream_of(broker, "?group=other") as apart:
        first.begin({})
        apart.begin({})
        with stream_of(broker) as second, pytest.raises(StorageError, match="another process"):
            second.begin({})
            wait_until(lambda: bool(first.poll(10, 0.05) or second.poll(10, 0.05)))
        assert apart.poll(10, 0.1) == []


def test_a_broker_that_cannot_be_reached_is_an_error(broker: Broker) -> None:
    broker.stop()
    with stream_of(broker) as stream, pytest.raises(StorageError, match="cannot be reached"):
        stream.begin({})


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mqtt://host:1", "a topic"),
        ("mqtt://host:x/t", "no port"),
        ("mqtt://host:1/t/#", "%23"),
        ("mqtt://host:1/t?nonsense=1", "nonsense"),
    ],
)
def test_a_wrong_address_says_what_would_be_right(url: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        open_stream(url)


def test_a_session_is_of_a_group_and_a_topic() -> None:
    assert Address.of("mqtt://h/a/b?group=g").name == "mqtt://h/a/b?group=g"
