"""What a request may cost, and bodies that are wrong in every way."""

from __future__ import annotations

import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

import everlearn as el
from everlearn.base import InputError
from everlearn.registry.keys import Role
from everlearn.serving.app import make_app
from everlearn.serving.limits import Buckets, Limits
from everlearn.serving.models import Models
from tests.serving.local import LocalClient
from tests.serving.server import Server

PREDICT, FEEDBACK, PROMOTE = (f"/v1/models/m/{what}" for what in ("predict", "feedback", "promote"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[el.Workspace]:
    folder = tmp_path_factory.mktemp("limits")
    x = np.random.default_rng(0).normal(size=300)
    lines = ["x,c,late", *(f"{value:.4f},{'ab'[int(value > 1)]},{int(value > 0)}" for value in x)]
    (folder / "first.csv").write_text("\n".join(lines) + "\n")
    with el.open(folder / "workspace") as workspace:
        model = el.Model("m", learner="logistic", schema=el.Schema(target="late"))
        workspace.model(model).train(str(folder / "first.csv"))
        yield workspace


def app_of(workspace: el.Workspace, limits: Limits | None = None) -> FastAPI:
    """The API over m, with limits."""
    of = workspace
    models = Models(["m"], of.registry, of.queue, of.updates, of.rollouts)
    return make_app(models, limits=limits)


@pytest.fixture(scope="module")
def client(workspace: el.Workspace) -> Iterator[LocalClient]:
    with LocalClient(app_of(workspace), raise_server_exceptions=True) as client:
        yield client


def row(value: str) -> bytes:
    """A question about one row whose x is this text of JSON."""
    return b'{"instances": [{"x": %s}]}' % value.encode()


DEEP = 100_000
MALFORMED = [
    b"",
    b" ",
    b"{",
    b"}",
    b"[]",
    b"null",
    b"1",
    b'"text"',
    b"{}x",
    b"\xff\xfe",
    b"\x00",
    "{}".encode("utf-16"),
    b"\xef\xbb\xbf{}",
    b'{"instances": null}',
    b'{"instances": {}}',
    b'{"instances": [1]}',
    b'{"instances": [[]]}',
    b'{"instances": [null]}',
    b'{"instances": [{"x": 1}], "unknown": 1}',
    b'{"instances": [{"x": 1}], "keys": [1]}',
    b'{"instances": [{"x": 1}], "keys": ["a", "b"]}',
    b'{"instances": [{"x": 1}], "keys": ["\\u0000"]}',
    b'{"instances": [{"x": 1}], "ids": ["%s"]}' % (b"a" * 2000),
    b'{"instances": [{"x": 1}], "\xed\xa0\x80": 1}',
    b'{"instances": [{"\\ud800": 1}]}',
    b'{"instances": [{"x": "\\ud800"}]}',
    b'{"instances": [{"x": 1,}]}',
    b"{'instances': []}",
    b'{"instances": [{"x": 1}]} // more',
    b"[" * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    row("[" * 150 + "]" * 150),
    row("[" * DEEP + "]" * DEEP),
    row('{"a":' * 150 + "1" + "}" * 150),
    *map(
        row,
        (
            "NaN",
            "nan",
            "Infinity",
            "-Infinity",
            "1e999",
            "-1e999",
            "1" * 400,
            "1" * 5000,
            str(2**63),
            str(-(2**63)),
            "0x10",
            "01",
            "1.",
            ".5",
            "+1",
            "[1]",
            "{}",
            '"text"',
            '"\x01"',
            "undefined",
            "true1",
        ),
    ),
    b'{"labels": [{"prediction_id": "zz", "value": 1}]}',
    b'{"labels": [{"external_id": "a", "value": NaN}]}',
    b'{"labels": [{"external_id": "a", "value": 1e999}]}',
    b'{"labels": [{"external_id": "a", "value": %s}]}' % (b"1" * 400),
    b'{"labels": [{"external_id": "a", "value": [1]}]}',
    b'{"labels": [{"external_id": "a", "value": 1, "weight": NaN}]}',
    b'{"labels": [{"external_id": "a", "value": 1, "weight": 1e999}]}',
    b'{"labels": [{"external_id": "a", "value": 1, "weight": -1}]}',
    b'{"labels": [{"external_id": "a", "value": 1, "kind": "other"}]}',
    b'{"labels": [{"external_id": "a\\u0000", "value": 1}]}',
    b'{"labels": [{"external_id": "a", "value": 1, "source": ""}]}',
    b'{"labels": [{"external_id": "a", "value": 1, "unknown": 1}]}',
    b'{"labels": [{"external_id": "a", "value": 1, "at": "0001-01-01T00:00:00+23:59"}]}',
    b'{"labels": [{"external_id": "a", "value": 1, "at": "9999-12-31T23:59:59-23:59"}]}',
    b'{"labels": [{"external_id": "a", "value": 1, "at": ""}]}',
    b'{"labels": [{"value": 1}]}',
    b'{"version": NaN}',
    b'{"version": 1.5}',
    b'{"version": -1}',
    b'{"version": %s}' % (b"1" * 30),
    b'{"version": "1\\u0000"}',
]


@pytest.mark.parametrize("path", [PREDICT, FEEDBACK, PROMOTE])
@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_bodies_are_refused_and_break_nothing(
    client: LocalClient, path: str, body: bytes
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    known = (path == FEEDBACK and b'"9999-' in body) or b'"0001-' in body  # far away, but times
    deep = body.count(b"[") + body.count(b"{") > Limits().depth
    allowed = {422} | ({200} if known else set()) | ({413} if deep else set())
    assert answer.status_code in allowed, answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]
        assert len(answer.content) < 20_000


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/vnd.bentoml+pickle"},
        {"Content-Type": "\xff"},
        {"Content-Type": ";;;"},
    ],
)
def test_other_types_than_json_are_not_read(client: LocalClient, headers: dict[str, str]) -> None:
    made = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = client.post(PREDICT, content=row("1.0"), headers=made)
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "GZIP", "identity, gzip", "x"])
def test_compressed_bodies_are_refused(client: LocalClient, coding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    assert client.post(PREDICT, content=row("1.0"), headers=headers).status_code == 415
    headers["Content-Encoding"] = "identity"
    assert client.post(PREDICT, content=row("1.0"), headers=headers).status_code == 200


def test_numbers_at_the_limits_are_taken(client: LocalClient) -> None:
    texts = ("", "NaN")  # missing, as in a CSV file
    for value in (*texts, 2**63 - 1, -(2**63) + 1, 1e300, -1e300, 5e-324, None, True):
        answer = client.post(PREDICT, json={"instances": [{"x": value}]})
        assert answer.status_code == 200, (value, answer.text)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, {"instances": [{}] * 10_001}),
        (FEEDBACK, {"labels": [{"external_id": "a", "value": 1}] * 10_001}),
    ],
)
def test_more_rows_than_a_request_may_have_are_too_large(
    client: LocalClient, path: str, body: Any
) -> None:
    assert client.post(path, json=body).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/models/m/rollouts/{10**30}",
        "/v1/models/m/rollouts/NaN",
        "/v1/models/%00/versions",
        "/v1/models/%ff%fe/versions",
        f"/v1/models/{'a' * 5000}/versions",
        "/v1/audit?limit=-1",
        f"/v1/audit?before={10**30}",
        "/v1/audit?limit=x%00%ff",
    ],
)
def test_odd_paths_are_refused(client: LocalClient, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    now = [0.0]
    buckets = Buckets(10.0, 5, most=3, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(5)] == [0.0] * 5
    assert buckets.take("a") == pytest.approx(0.1)
    assert buckets.take("b") == 0.0
    now[0] += 0.1
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0.0
    now[0] += 100.0
    assert [buckets.take("a") > 0 for _ in range(6)] == [False] * 5 + [True]
    for who in range(1000):
        buckets.take(who)
    assert len(buckets) == 3


def test_each_key_has_its_own_rate(workspace: el.Workspace, tmp_path: Path) -> None:
    with el.open(tmp_path / "other") as other:
        schema = el.Schema(target="late", numeric=("x",))
        other.model(el.Model("m", learner="logistic", schema=schema))
        roles: tuple[Role, Role] = ("predict", "predict")
        one, two = ({"Authorization": f"Bearer {other.keys.create(r)[1]}"} for r in roles)
        limits = Limits(rate=0.001, burst=5)
        with LocalClient(app_of(other, limits), "10.0.0.1") as client:
            statuses = [client.get("/v1/models", headers=one).status_code for _ in range(8)]
            assert statuses == [200] * 5 + [429] * 3
            refused = client.get("/v1/models", headers=one)
            assert int(refused.headers["retry-after"]) > 0
            assert client.get("/v1/models", headers=two).status_code == 200
            assert client.get("/healthz").status_code == 200


def test_depth_counts_lists_and_objects_and_no_brackets_in_texts(workspace: el.Workspace) -> None:
    with LocalClient(app_of(workspace, Limits(depth=4))) as client:
        headers = {"Content-Type": "application/json"}

        def status(value: str) -> int:
            content = f'{{"instances": [{{"x": {value}}}]}}'
            return int(client.post(PREDICT, content=content, headers=headers).status_code)

        assert status('"[[[[[[[["') == 422  # a text where a number belongs, and no depth
        assert [status("[" * n + "]" * n) for n in (1, 2, 190, 300)] == [422, 413, 413, 422]
        assert client.post(PREDICT, content="[" * 5 + "]" * 5, headers=headers).status_code == 413


def test_limits_that_cannot_be_are_refused() -> None:
    for wrong in (
        {"rows": 0},
        {"seconds": float("nan")},
        {"rate": -1.0},
        {"body": 10, "bodies": 5},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Limits(**wrong)  # type: ignore[arg-type]


def test_the_command_takes_limits(tmp_path: Path) -> None:
    """On a real server, each by its option."""
    spec = tmp_path / "spec.py"
    spec.write_text(
        "import everlearn as el\n"
        'model = el.Model("m", learner="logistic",'
        ' schema=el.Schema(target="late", numeric=("x",)))\n'
    )
    figures = {"body": 0.01, "rows": 3, "depth": 5, "head": 4000}
    options = ["--no-learn", "--rate", "0.01", "--burst", "9", "--patience", "0.5"]
    options += [word for name, most in figures.items() for word in (f"--max-{name}", str(most))]
    with Server(tmp_path / "workspace", spec, options=options) as server:

        def status(content: str, **headers: str) -> int:
            given = {"Content-Type": "application/json"} | headers
            return int(server.client.post(PREDICT, content=content, headers=given).status_code)

        rows = json.dumps({"instances": [{"x": 1.0}] * 3})
        assert status(rows) == 200
        assert status(json.dumps({"instances": [{}] * 4})) == 413
        assert status('{"instances": [{"x": [[[1]]]}]}') == 413
        assert status(rows + " " * 11_000) == 413
        assert status(rows, more="a" * 5000) == 400
        assert status_of(opened(server.port, "Content-Length: 1000")) == 408
        statuses = [status(rows) for _ in range(8)]
        assert (statuses[0], statuses[-1]) == (200, 429)


# --- on a real server, byte by byte ---


@pytest.fixture(scope="module")
def port(workspace: el.Workspace) -> Iterator[int]:
    limits = Limits(body=100_000, bodies=250_000, seconds=1.0)
    config = uvicorn.Config(app_of(workspace, limits), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def opened(port: int, *headers: str) -> socket.socket:
    """A connection on which the head of a question was sent."""
    link = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = [f"POST {PREDICT} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    link.sendall("\r\n".join([*head, *headers, "", ""]).encode())
    return link


def status_of(link: socket.socket) -> int:
    """The status of the answer, or 0 where the connection was closed."""
    try:
        head = link.recv(65_536)
    except ConnectionError:
        return 0
    finally:
        link.close()
    return int(head.split()[1]) if head else 0


def test_a_body_that_says_it_is_too_large_is_not_waited_for(port: int) -> None:
    assert status_of(opened(port, "Content-Length: 100001")) == 413
    assert status_of(opened(port, f"Content-Length: {10**17}")) == 413


def test_a_body_in_chunks_without_a_length_is_cut_off_with_bounded_memory(port: int) -> None:
    link = opened(port, "Transfer-Encoding: chunked")
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    tracemalloc.start()
    try:
        for _ in range(1000):  # 32 MB
            link.sendall(chunk)
    except OSError:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert status_of(link) in (413, 0)
    assert peak < 5_000_000


def test_a_body_in_chunks_is_read(port: int) -> None:
    link = opened(port, "Transfer-Encoding: chunked", "Connection: close")
    for byte in row("1.5"):
        link.sendall(b"1\r\n%c\r\n" % byte)
    link.sendall(b"0\r\n\r\n")
    assert status_of(link) == 200


def test_a_body_that_does_not_arrive_is_not_waited_for_forever(port: int) -> None:
    links = [opened(port, "Content-Length: 1000") for _ in range(20)]
    for link in links:
        link.sendall(b"{")
    assert [status_of(link) for link in links] == [408] * 20


def test_bodies_that_are_held_at_once_are_bounded_and_given_back(port: int) -> None:
    links = [opened(port, "Content-Length: 90001") for _ in range(5)]
    for link in links:
        link.sendall(b" " * 90_000)
    assert sorted(status_of(link) for link in links) == [408, 408, 429, 429, 429]
    for _ in range(10):
        link = opened(port, "Content-Length: 90000")
        link.sendall(json.dumps({"instances": [{"x": 1.0}]}).encode().ljust(90_000))
        assert status_of(link) == 200
