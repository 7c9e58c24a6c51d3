"""Events of streams: how they are read, and how batches become part of the log."""

import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everlearn.base import InputError, MissingDependencyError, StorageError
from everlearn.cli import main
from everlearn.data.feedback import Label, LoggedPrediction, PredictionIds, id_text
from everlearn.data.log import FeedbackLog
from everlearn.data.streams.address import Address
from everlearn.data.streams.events import read_event
from everlearn.data.streams.ingest import ingest, open_stream
from everlearn.data.streams.intake import Counts, Intake, Lost, Message
from everlearn.storage.database import Database
from everlearn.storage.schema import labels
from everlearn.testing.database import temporary_schema
from tests.data.streams import (
    UNREADABLE,
    content_of,
    expected,
    log_in,
    make_events,
    make_workspace,
    new_log,
    ten_times,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeedbackLog]:
    if request.param == "sqlite":
        with closing(Database.open(f"sqlite:///{tmp_path}/workspace.db")) as opened:
            yield new_log(opened)
        return
    try:
        with temporary_schema() as url, closing(Database.open(url)) as opened:
            yield new_log(opened)
    except StorageError as error:
        pytest.skip(str(error))


def intake_of(log: FeedbackLog) -> Intake:
    return Intake(log, PredictionIds(), "kafka://here/bills?group=g", "kafka:bills")


def numbered(bodies: Sequence[bytes], partitions: int = 1) -> list[Message]:
    """As a topic would deliver them."""
    return [
        Message(index % partitions, index // partitions, body) for index, body in enumerate(bodies)
    ]


def body(**event: object) -> bytes:
    return json.dumps(event).encode()


# --- one event ---------------------------------------------------------------------------------


def test_a_prediction_is_read_with_all_its_fields() -> None:
    read = read_event(
        b'{"type": "prediction", "id": "00000000000000ff", "external_id": "b 7", "key": "ann",'
        b' "features": {"a": 1.5, "b": null, "c": "x", "d": true},'
        b' "output": {"value": 1, "probabilities": {"0": 0.25, "1": 0.75}},'
        b' "version": 3, "arm": "shadow", "propensity": 0.25, "at": "1970-01-01T01:00:01+01:00"}',
        "here",
    )
    features = {"a": 1.5, "b": None, "c": "x", "d": True}
    output = {"value": 1, "probabilities": {"0": 0.25, "1": 0.75}}
    assert read == LoggedPrediction(
        255, features, output, 3, "shadow", "ann", "b 7", 0.25, 1_000_000
    )


def test_a_label_is_read_with_all_its_fields() -> None:
    read = read_event(
        b'{"type": "label", "external_id": "b 7", "value": null, "kind": "human", "source": "desk",'
        b' "reviewer": "bo", "weight": 2, "selection": 0.5, "at": "1970-01-01",'
        b' "idempotency_key": "k"}',
        "here",
    )
    assert read == Label(None, None, "b 7", "human", "desk", "bo", 2.0, 0.5, 0, "k")
    for said in ({}, {"output": None}, {"output": {"value": None}}):
        bare = read_event(body(type="prediction", external_id="b", features={}, **said), "here")
        assert isinstance(bare, LoggedPrediction)
        assert bare.output == {"value": None, "probabilities": None}
    plain = read_event(body(type="label", prediction_id="00000000000000ff", value=True), "here")
    assert plain == Label(True, "00000000000000ff", source="here")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'"text"', "no JSON object"),
        (b"{}", '"type"'),
        (b'{"type": "prediction", "features": {}}', "needs"),
        (b'{"type": "prediction", "external_id": "x"}', '"features"'),
        (b'{"type": "prediction", "id": "7", "features": {}}', "16 hexadecimal"),
        (b'{"type": "prediction", "external_id": "x", "features": {"a": [1]}}', "features"),
        (b'{"type": "prediction", "external_id": "x", "features": {"a": NaN}}', "NaN"),
        (b'{"type": "prediction", "external_id": "x", "features": {"a": 1e999}}', "features"),
        (b'{"type": "prediction", "external_id": "x", "features": {}, "output": 1e999}', "output"),
        (b'{"type": "prediction", "external_id": "x", "features": {}, "output": {}}', "output"),
        (b'{"type": "prediction", "external_id": "x", "features": {}, "output": {"value": 1,'
         b' "probabilities": {"1": 2}}}', "output"),
        (b'{"type": "prediction", "external_id": "x\\u0000", "features": {}}', "external_id"),
        (b'{"type": "prediction", "external_id": "\\ud800", "features": {}}', "no JSON"),
        (b'{"type": "label", "external_id": "x", "value": "\\ud800"}', "no JSON"),
        (b'{"type": ' + b"[" * 900 + b"]" * 900 + b"}", '"type"|no JSON'),
        (b'{"type": "prediction", "external_id": "x", "features": {}, "version": -1}', "version"),
        (b'{"type": "prediction", "external_id": "x", "features": {}, "arm": []}', "arm"),
        (b'{"type": "label", "external_id": "x"}', '"value"'),
        (b'{"type": "label", "value": 1}', "by one id"),
        (b'{"type": "label", "external_id": "x", "prediction_id": "00000000000000ff",'
         b' "value": 1}', "by one id"),
        (b'{"type": "label", "extrenal_id": "x", "value": 1}', "no field"),
        (b'{"type": "label", "external_id": "x", "value": [1]}', "value"),
        (b'{"type": "label", "external_id": "x", "value": 1, "kind": "loud"}', "kind"),
        (b'{"type": "label", "external_id": "x", "value": 1, "weight": -1}', "weight"),
        (b'{"type": "label", "external_id": "x", "value": 1, "weight": true}', "weight"),
        (b'{"type": "label", "external_id": "x", "value": 1, "selection": 0}', "selection"),
        (b'{"type": "label", "external_id": "x", "value": 1, "at": "soon"}', "ISO 8601"),
        (b'{"type": "label", "external_id": 7, "value": 1}', "external_id"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_why(message: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_event(message, "here")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
near = st.fixed_dictionaries(
    {"type": st.sampled_from(["prediction", "label"])},
    optional={
        "id": st.sampled_from(["00000000000000ff", "0000000000000100"]) | anything,
        "external_id": st.sampled_from(["a", "b"]) | anything,
        "prediction_id": st.sampled_from(["00000000000000ff", "0000000000000aff"]) | anything,
        "features": st.dictionaries(st.text(max_size=3), anything, max_size=2),
        "output": st.fixed_dictionaries({"value": anything}) | anything,
        "value": anything,
        "at": st.datetimes().map(str) | anything,
        **dict.fromkeys(
            ("key", "kind", "weight", "selection", "reviewer", "source", "propensity"), anything
        ),
    },
)


@given(st.lists(near.map(lambda event: json.dumps(event).encode()) | st.binary(), max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_message_blocks_a_stream(tmp_path_factory: Any, bodies: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("log")
    with closing(Database.open(f"sqlite:///{folder}/workspace.db")) as database:
        intake = intake_of(new_log(database))
        counts = intake.take(numbered(bodies))
        assert sum(counts.to_json().values()) >= len(bodies)
        assert intake.positions() == ({0: len(bodies)} if bodies else {})


# --- batches -----------------------------------------------------------------------------------


def test_ten_deliveries_in_any_order_and_batches_are_one(log: FeedbackLog, tmp_path: Path) -> None:
    """With offsets anew for each delivery, as a producer makes them that sends ten times."""
    bodies = make_events(60)
    intake, rng = intake_of(log), random.Random(2)
    messages, counts = numbered(ten_times(bodies), partitions=3), Counts()
    while messages:
        size = rng.randint(1, 90)
        counts.add(intake.take(messages[:size]))
        messages = messages[size:]
    assert content_of(log) == expected(tmp_path, bodies)
    assert (counts.predictions, counts.labels) == (60, 60)
    aside = intake.aside()
    assert sorted((one.count, one.partition in range(3)) for one in aside) == [(10, True)] * 4
    assert {one.reason[:11] for one in aside} == {"the message", "a label nee", '"type" is "'}
    assert sum(intake.positions().values()) == 10 * len(bodies)


def test_offsets_that_were_read_before_are_passed_over(log: FeedbackLog, tmp_path: Path) -> None:
    """The same offsets again, in no order, also of labels that have no key of their own."""
    plain = [body(type="label", external_id=f"late {k}", value=1, source=f"s{k}") for k in range(9)]
    bodies = make_events(20) + plain
    intake, messages = intake_of(log), numbered(bodies, partitions=2)
    first = intake.take(messages)
    assert first.set_aside == len(UNREADABLE)
    before = intake.aside()
    for turn in range(10):
        again = list(messages)
        random.Random(turn).shuffle(again)
        assert intake.take(again).to_json() == Counts(known=len(bodies)).to_json()
    assert intake.aside() == before
    with log.database.read() as connection:
        waiting = sa.select(sa.func.count()).where(labels.c.position.is_(None))
        assert connection.execute(waiting).scalar_one() == len(plain)


def test_events_and_offsets_are_one_transaction(
    log: FeedbackLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake, messages = intake_of(log), numbered(make_events(5))

    def fail(name: str) -> None:
        if name == "ingest.logged":
            raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("everlearn.data.streams.intake.crash_point", fail)
        with pytest.raises(StorageError):
            intake.take(messages)
    assert (content_of(log), intake.positions(), intake.aside()) == (set(), {}, [])
    assert intake.take(messages).predictions == 5
    assert intake.positions() == {0: len(messages)}


def test_a_label_waits_for_the_prediction_that_it_names_by_its_id(log: FeedbackLog) -> None:
    intake, name = intake_of(log), id_text(77 << 21)
    label = body(type="label", prediction_id=name, value=1)
    counts = intake.take([Message(0, 0, label)])
    assert (counts.set_aside, counts.labels) == (1, 0)
    [one] = intake.aside()
    assert (one.offset, one.body) == (0, label.decode()) and name in one.reason
    asked = body(type="prediction", id=name, features={"a": 1}, output=1)
    counts = intake.take([Message(1, 0, asked)])
    assert (counts.predictions, counts.labels, intake.aside()) == (1, 1, [])
    [row] = log.read()
    assert (id_text(row.prediction.id), row.value, row.source) == (name, 1, "kafka:bills")


def test_what_contradicts_the_log_is_set_aside_and_nothing_else(log: FeedbackLog) -> None:
    intake = intake_of(log)
    good = [
        body(type="prediction", external_id=f"b{k}", features={"a": k}, output=k) for k in range(9)
    ]
    said = [
        body(type="label", external_id=f"b{k}", value=k, idempotency_key=f"k{k}") for k in range(9)
    ]
    liar = body(type="prediction", external_id="b3", features={"a": 99}, output=3)
    double = body(type="label", external_id="b3", value=99, idempotency_key="k3")
    counts = intake.take(numbered([*good, liar, *said[:5], double, *said[5:]]))
    assert (counts.predictions, counts.labels, counts.set_aside) == (9, 9, 2)
    assert [row.value for row in log.read()] == list(range(9))
    assert [one.offset for one in intake.aside()] == [9, 15]
    other = new_log(log.database, "other")
    nameless = body(type="prediction", external_id="b3", features={})
    assert intake_of(other).take(numbered([nameless])).predictions == 1
    taken = body(type="prediction", id=id_text(next(log.read()).prediction.id), features={})
    assert intake_of(other).take([Message(0, 1, taken)]).set_aside == 1


def test_without_offsets_the_same_bytes_are_one_event(log: FeedbackLog) -> None:
    intake = intake_of(log)
    bodies = [
        body(type="prediction", external_id="b", features={}, output=1),
        *(body(type="label", external_id="b", value=1, at=f"2026-01-0{day}") for day in (1, 2)),
        body(type="label", external_id="later", value=1),
        UNREADABLE[0],
    ]
    for turn in range(10):
        random.Random(turn).shuffle(bodies)
        intake.take([Message(0, None, one) for one in bodies])
    with log.database.read() as connection:
        assert connection.execute(sa.select(sa.func.count(labels.c.id))).scalar_one() == 3
    assert [(one.offset, one.count) for one in intake.aside()] == [(None, 1)]
    assert intake.positions() == {}


# --- reading on --------------------------------------------------------------------------------


class Recorded:
    """A stream that delivers a list, and loses its first messages."""

    name, source = "kafka://here/list?group=g", "kafka:list"

    def __init__(self, bodies: Sequence[bytes], first: int = 0) -> None:
        self._messages, self._first = numbered(bodies), first
        self.acknowledged: list[int] = []
        self.sizes: list[int] = []
        self.closed = False

    def begin(self, positions: Mapping[int, int]) -> list[Lost]:
        start = positions.get(0, 0)
        self._messages = self._messages[max(start, self._first) :]
        return [Lost(0, start, self._first)] if start < self._first else []

    def poll(self, most: int, seconds: float) -> list[Message]:
        found, self._messages = self._messages[:most], self._messages[most:]
        self.sizes.append(len(found))
        return found

    def done(self, messages: Sequence[Message]) -> None:
        self.acknowledged += [message.offset or 0 for message in messages]

    def close(self) -> None:
        self.closed = True


def test_a_stream_is_read_in_batches_and_on_from_where_it_was(log: FeedbackLog) -> None:
    bodies, ids = make_events(50), PredictionIds()
    first = Recorded(bodies[:60])
    done = ingest(first, log, ids, batch=25, idle=0.0)
    assert first.sizes == [25, 25, 10, 0] and first.closed
    assert first.acknowledged == list(range(60))
    second = Recorded(bodies)
    done.add(ingest(second, log, ids, batch=25, idle=0.0))
    assert second.acknowledged == list(range(60, len(bodies)))
    assert (done.predictions, done.labels) == (50, 50)
    third = Recorded(bodies * 2)
    ingest(third, log, ids, stopped=lambda: bool(third.sizes), batch=7)
    assert third.sizes == [7]


def test_messages_that_the_stream_removed_are_reported(log: FeedbackLog) -> None:
    bodies = make_events(20)
    stream = Recorded(bodies, first=8)
    ingest(stream, log, PredictionIds(), idle=0.0)
    intake = Intake(log, PredictionIds(), stream.name, stream.source)
    assert "up to 7 before they were read" in intake.aside()[0].reason
    assert intake.positions() == {0: len(bodies)}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("topic", "no address"),
        ("kafka:///topic", "no address"),
        ("ftp://host/topic", "no streams of the kind"),
        ("kafka://host:1", "its topic"),
        ("kafka://host:1/a/b", "its topic"),
        ("kafka://host:1/a?nonsense=1", "nonsense"),
    ],
)
def test_a_wrong_address_says_what_would_be_right(url: str, reason: str) -> None:
    if url.startswith("kafka"):
        pytest.importorskip("confluent_kafka")
    with pytest.raises(InputError, match=reason):
        open_stream(url)


def test_the_name_of_a_stream_has_no_secrets() -> None:
    address = Address.of("kafka://ann:p%40ss@a:1,b:2/my%20topic?group=g&security.protocol=SASL_SSL")
    assert (address.user, address.password) == ("ann", "p@ss")
    assert address.hosts == "a:1,b:2" and address.path("topic") == ("my topic",)
    assert address.options == {"security.protocol": "SASL_SSL"}
    assert address.name == "kafka://a:1,b:2/my topic?group=g"


@pytest.mark.parametrize(
    ("scheme", "library", "extra"),
    [
        ("kafka", "confluent_kafka", "kafka"),
        ("nats", "nats", "nats"),
        ("mqtt", "paho.mqtt", "mqtt"),
    ],
)
def test_a_library_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, library: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(library)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    hint = rf"pip install everlearn\[{extra}\]"
    with pytest.raises(MissingDependencyError, match=hint):
        open_stream(f"{scheme}://host:1/a/b" if scheme == "nats" else f"{scheme}://host:1/a")


def test_the_command_shows_what_was_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "mqtt://ann:secret@host:1/plant/bills"
    workspace = make_workspace(tmp_path)
    words = ["--workspace", str(workspace), "ingest", "bills", url]
    assert main([*words, "--show"]) == 0
    assert "nothing is set aside" in capsys.readouterr().out
    with log_in(workspace) as log:
        name = Address.of(url).name
        Intake(log, PredictionIds(), name, "x").take([Message(0, 1_233, b'["b"]')])
    assert main([*words, "--show"]) == 0
    shown = capsys.readouterr().out
    assert "0: 1,234" in shown and "no JSON object" in shown and '["b"]' in shown
    assert main(["--workspace", str(workspace), "ingest", "nobody", url]) == 1
    assert main(["--workspace", str(workspace), "ingest", "bills", "ftp://host/x"]) == 1
    assert "use kafka://" in capsys.readouterr().err
    secret = "nats://ann:secret@127.0.0.1:1/s/x?token=secret&more=1"
    for wrong in (secret, secret.replace("nats", "ftp"), secret.replace("s/x", "s/x#")):
        assert main(["--workspace", str(workspace), "ingest", "bills", wrong]) == 1
        assert "secret" not in capsys.readouterr().err
