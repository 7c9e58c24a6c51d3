"""Callers that mean harm, on a real server: paths that climb, heads and bodies without an end, many
connections that never ask."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.routing import Route

import everlearn as el
from everlearn.serving.heads import BoundedHeads
from tests.serving.local import LocalClient
from tests.serving.server import Server

SPEC = """
import everlearn as el

model = el.Model("m", learner="logistic", schema=el.Schema(target="late", numeric=("x",)))
"""
MEGABYTE = 1 << 20
SECRET = "what is in a file beside the workspace"

CLIMBING = [
    "..",
    ".",
    "../secret",
    "../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2fsecret",
    "%252e%252e%252fsecret",
    "..%c0%af..%c0%afetc%c0%afpasswd",
    "..%5c..%5csecret",
    "..\\..\\secret",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "file:%2f%2f%2fetc%2fpasswd",
    "C:%5cWindows%5cwin.ini",
    "%5c%5chost%5cshare",
    "m%00.css",
    "m%00/../../secret",
    "console.css%2f..%2f..%2froutes.py",
    "console.css/../../routes.py",
    "....//....//secret",
    "~root",
    "%0d%0aSet-Cookie:%20a=b",
    "m%3b..%2fsecret",
    "workspace%2feverlearn.db",
    "CON",
    "%F0%9F%92%A9" * 50,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secret").write_text(SECRET)
    (folder / "spec.py").write_text(SPEC)
    with Server(folder / "workspace", folder / "spec.py") as server:
        yield server


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    with el.open(tmp_path_factory.mktemp("app") / "workspace") as workspace:
        schema = el.Schema(target="late", numeric=("x",))
        workspace.model(el.Model("m", learner="logistic", schema=schema))
        yield workspace.app(["m"], learn=False)


def resident(server: Server) -> int:
    """Bytes of memory of the process."""
    return int(psutil.Process(server.process.pid).memory_info().rss)


def opened(port: int, text: str = "") -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), timeout=60)
    link.sendall(text.encode("latin-1"))
    return link


def answer(port: int, method: str, path: str) -> tuple[int, bytes]:
    """Status and all of an answer to a request whose path nobody tidies up on the way."""
    body = "Content-Type: application/json\r\nContent-Length: 2\r\n" if method != "GET" else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{body}Connection: close\r\n\r\n"
    with opened(port, head + ("{}" if body else "")) as link:
        found = b""
        while part := link.recv(65_536):
            found += part
    return int(found.split()[1]), found


def test_no_path_climbs_out(server: Server, app: FastAPI) -> None:
    routes = [
        (method, route.path)
        for route in app.routes
        if isinstance(route, Route) and "{" in route.path
        for method in set(route.methods or ()) - {"HEAD"}
    ]
    assert len({path for _, path in routes}) >= 20
    for method, path in routes:
        for wrong in CLIMBING:
            for name in re.findall(r"{\w+}", path):
                here = path.replace(name, wrong)
                here = here.replace("{model}", "m").replace("{number}", "1")
                status, found = answer(server.port, method, re.sub(r"{\w+}", "jobs", here))
                assert status in (400, 404, 405, 422), (method, here, found[:300])
                assert b"root:" not in found and SECRET.encode() not in found, (method, here)
                assert b"\r\nset-cookie" not in found.lower(), (method, here)
                assert b"@needs" not in found, (method, here)


def test_what_is_open_to_everybody_answers_only_what_it_says(app: FastAPI) -> None:
    declared = {
        "/healthz": {"GET"},
        "/console/login": {"POST"},
        "/console/logout": {"POST"},
        "/console/static/console.css": {"GET"},
    }
    with LocalClient(app, "10.1.2.3") as client:
        for path, methods in declared.items():
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
                status = client.request(method, path, follow_redirects=False).status_code
                if method in methods:
                    assert status in (200, 303, 422), (method, path)
                else:
                    assert status in (401, 403, 405), (method, path)


def test_heads_without_an_end_are_cut_off_with_bounded_memory(server: Server) -> None:
    before = resident(server)
    many, one = b"X-More: " + b"a" * 30_000 + b"\r\n", b"a" * 30_000
    begin = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for first, more in (
        (begin, many),
        (begin + "X-One: ", one),
        ("GET /", one),
        (begin, b"a:\r\n"),
    ):
        with opened(server.port, first) as link, pytest.raises(OSError):
            for _ in range(32 * MEGABYTE // len(more)):
                link.sendall(more)
    assert resident(server) - before < 16 * MEGABYTE
    assert server.answers()


def test_large_bodies_take_bounded_memory(server: Server) -> None:
    """Of 40 that send 12 MB each and never end, about 256 MB are held, and then no more."""
    before, size, links = resident(server), 12 * MEGABYTE, []
    path = "/v1/models/m/feedback"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    part, most = b" " * MEGABYTE, 0
    for _ in range(40):
        links.append(opened(server.port, f"{head}Content-Length: {size + 1}\r\n\r\n"))
        try:
            for _ in range(size // len(part)):
                links[-1].sendall(part)
        except OSError:  # refused
            pass
        most = max(most, resident(server) - before)
    assert most < 400 * MEGABYTE
    assert server.answers()
    for link in links:
        link.close()
    given = server.post("/v1/models/m/predict", {"instances": [{"x": 1.0}]})
    assert len(given["predictions"]) == 1


def test_a_row_of_very_many_columns_is_answered_or_refused(server: Server) -> None:
    before = resident(server)
    row = ",".join(f'"c{n}":1' for n in range(300_000))
    content = b'{"instances":[{' + row.encode() + b"}]}"
    headers = {"Content-Type": "application/json"}
    url = "/v1/models/m/predict"
    assert server.client.post(url, content=content, headers=headers).status_code in (200, 413, 422)
    assert resident(server) - before < 600 * MEGABYTE


class Quick(BoundedHeads):
    """As the server's, but less patient."""

    seconds = 1.0


def test_connections_that_never_ask_are_closed_and_others_answered(app: FastAPI) -> None:
    config = uvicorn.Config(app, port=0, log_level="error", http=Quick)
    quick = uvicorn.Server(config)
    thread = threading.Thread(target=quick.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not quick.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    port = quick.servers[0].sockets[0].getsockname()[1]
    half = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
    again = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    links = [opened(port, text) for text in ("", "G", half, again + half) for _ in range(50)]
    assert answer(port, "GET", "/healthz")[0] == 200
    for link in links:
        with link:
            while link.recv(65_536):  # times out, if it is never closed
                pass
    quick.should_exit = True
    thread.join()


def test_a_caller_who_is_refused_at_once_is_told_so(server: Server, tmp_path: Path) -> None:
    """A body that nobody waits for is no head: it is read past, and the answer is heard."""
    body = b" " * (2 * MEGABYTE)
    for _ in range(3):
        given = server.client.put("/v1/models/m/predict", content=body)
        assert given.status_code == 405
