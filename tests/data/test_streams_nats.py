"""A stream of NATS JetStream, on a server of its own, read by processes that are killed."""

import asyncio
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
from everlearn.data.streams.intake import Lost, Message
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

nats = pytest.importorskip("nats", reason="nats-py is not installed")


class Server:
    """A server with one stream, "events", of the subjects "bills" and "others"."""

    def __init__(self, folder: Path, port: int) -> None:
        self.hosts = f"127.0.0.1:{port}"
        self.url = f"nats://{self.hosts}/events/bills"
        self._folder, self._port = folder, port
        self.start()

    def start(self) -> None:
        words = ["nats-server", "-js", "-a", "127.0.0.1", "-p", str(self._port)]
        self._process = subprocess.Popen(
            [*words, "-sd", str(self._folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: listens(self._port))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def make(self, **how: Any) -> None:
        async def make(context: Any) -> None:
            await context.add_stream(name="events", **({"subjects": ["bills", "others"]} | how))

        self.ask(make)

    def send(self, bodies: list[bytes], subject: str = "bills") -> None:
        async def send(context: Any) -> None:
            for start in range(0, len(bodies), 100):
                part = bodies[start : start + 100]
                await asyncio.gather(*(context.publish(subject, body) for body in part))

        self.ask(send)

    def ask(self, work: Any) -> Any:
        async def ask() -> Any:
            client = await nats.connect(f"nats://{self.hosts}")
            try:
                return await work(client.jetstream(timeout=30))
            finally:
                await client.close()

        return asyncio.run(ask())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if shutil.which("nats-server") is None:
        pytest.skip("nats-server is not installed")
    started = Server(tmp_path / "jetstream", free_port())
    yield started
    started.stop()


def stream_of(server: Server) -> Any:
    from everlearn.data.streams.nats import NatsStream

    return closing(NatsStream(Address.of(server.url)))


def read(stream: Any, count: int) -> list[Message]:
    found: list[Message] = []
    wait_until(lambda: len(found.extend(stream.poll(100, 0.2)) or found) >= count)
    return found


@pytest.mark.parametrize("retention", ["limits", "workqueue"])
def test_killed_in_the_middle_each_event_counts_once(
    server: Server, tmp_path: Path, retention: str
) -> None:
    """Each event is sent ten times; three processes are killed: by themselves before and after a
    commit (so that acknowledgements are missing), and from outside wherever they are."""
    bodies = make_events(100)
    server.make(retention=retention)
    server.send([b'{"type": "label", "external_id": "of others", "value": 1}'], "others")
    server.send(ten_times(bodies))
    workspace = make_workspace(tmp_path)
    for crash in ("ingest.logged:2", "ingest.committed:3"):
        killed = start_ingest(workspace, server.url, "--batch", "50", crash=crash)
        killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL
    with log_in(workspace) as log:
        before = logged(log)
        assert 0 < before < 100
        slow = start_ingest(workspace, server.url, "--batch", "5")
        kill_when(slow, lambda: logged(log) > before)
        finish(start_ingest(workspace, server.url, "--idle", "1"))
        assert content_of(log) == expected(tmp_path, bodies)
    again = finish(start_ingest(workspace, server.url, "--idle", "1"))
    assert again == {"predictions": 0, "labels": 0, "known": 0, "set_aside": 0}
    shown = finish(start_ingest(workspace, server.url, "--show"))
    assert shown["offsets"] == {"0": 10 * len(bodies) + 2}
    assert [one["count"] for one in shown["set_aside"]] == [10] * len(UNREADABLE)  # type: ignore

    async def left(context: Any) -> int:
        return int((await context.stream_info("events")).state.messages)

    assert server.ask(left) == (1 if retention == "workqueue" else 10 * len(bodies) + 1)


def test_it_is_read_from_the_sequence_number_of_the_workspace(server: Server) -> None:
    server.make()
    server.send([b"%d" % number for number in range(1, 11)])
    with stream_of(server) as stream:
        assert stream.begin({0: 8}) == []
        assert [(one.offset, one.body) for one in read(stream, 3)] == [
            (8, b"8"),
            (9, b"9"),
            (10, b"10"),
        ]


def test_what_is_not_acknowledged_is_not_overtaken(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that ends after reading, and a consumer that the server forgets."""
    monkeypatch.setattr("everlearn.data.streams.nats.LOOK_SECONDS", 0.1)
    server.make()
    server.send([b"%d" % number for number in range(1, 11)])
    with stream_of(server) as first:
        first.begin({})
        assert len(first.poll(4, 1.0)) == 4
    with stream_of(server) as second:
        second.begin({})
        found = second.poll(4, 1.0)
        second.done(found)

        async def forget(context: Any) -> None:
            for consumer in await context.consumers_info("events"):
                await context.delete_consumer("events", consumer.name)

        server.ask(forget)
        found += read(second, 6)
        assert [one.offset for one in found] == list(range(1, 11))


def test_a_delivery_that_went_astray_is_delivered_again(server: Server) -> None:
    server.make()
    server.send([b"%d" % number for number in range(1, 11)])
    with stream_of(server) as stream:
        stream.begin({})

        async def lose() -> None:
            await stream._pull.fetch(3, timeout=1.0)

        stream._run(lose())
        assert [one.offset for one in read(stream, 10)] == list(range(1, 11))


def test_a_server_that_starts_again_is_read_on(server: Server) -> None:
    server.make()
    server.send([b"%d" % number for number in range(1, 6)])
    with stream_of(server) as stream:
        stream.begin({})
        found = read(stream, 5)
        stream.done(found)
        server.stop()
        assert stream.poll(10, 0.2) == []
        server.start()
        server.send([b"6", b"7"])
        assert [one.offset for one in read(stream, 2)] == [6, 7]


def test_messages_that_were_removed_are_reported(server: Server) -> None:
    server.make(subjects=["bills"], max_msgs=5)
    server.send([b"%d" % number for number in range(1, 11)])
    with stream_of(server) as stream:
        assert stream.begin({0: 3}) == [Lost(0, 3, 6)]
        assert [one.offset for one in read(stream, 5)] == [6, 7, 8, 9, 10]


def test_a_stream_that_cannot_be_read_exactly_once_is_refused(server: Server) -> None:
    with stream_of(server) as stream, pytest.raises(InputError, match="no such stream"):
        stream.begin({})
    server.make(retention="interest")
    with stream_of(server) as stream, pytest.raises(InputError, match="interest"):
        stream.begin({})

    async def remove(context: Any) -> None:
        await context.delete_stream("events")

    server.ask(remove)
    server.make()
    with stream_of(server) as stream, pytest.raises(InputError, match="made anew"):
        stream.begin({0: 500})


def test_a_server_that_cannot_be_reached_is_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everlearn.data.streams.nats._ANSWER_SECONDS", 0.5)
    server.stop()
    with stream_of(server) as stream, pytest.raises(StorageError, match="cannot be reached"):
        stream.begin({})
