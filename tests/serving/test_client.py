"""The client against a real server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import uvicorn

import everlearn as el
from everlearn.base import EverlearnError, InputError, StorageError
from everlearn.serving.app import make_app
from everlearn.serving.limits import Limits
from everlearn.serving.models import Models


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as workspace:
        schema = el.Schema(target="late", numeric=("x",))
        workspace.model(el.Model("m", learner="logistic", schema=schema))
        yield workspace


@contextmanager
def served(workspace: el.Workspace, limits: Limits | None = None) -> Iterator[str]:
    """The address of a server."""
    of = workspace
    models = Models(["m"], of.registry, of.queue, of.updates, of.rollouts)
    config = uvicorn.Config(make_app(models, limits=limits), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(60.0)
    assert not thread.is_alive(), "the server does not end"


def test_the_loop_through_the_client(workspace: el.Workspace) -> None:
    secret = workspace.keys.create("admin")[1]
    with served(workspace) as url:
        client = el.Client(url, secret)
        rows = client.predict("m", [{"x": 1.0}, {"x": None}], keys=["a", None], ids=["o-1", "o-2"])
        assert [row["version"] for row in rows] == [0, 0]
        labels = [
            {"prediction_id": rows[0]["id"], "value": 1},
            {"external_id": "o-2", "value": 0, "idempotency_key": "k"},
        ]
        receipts = client.feedback("m", labels)
        assert [item["position"] for item in receipts] == [1, 2]
        assert client.feedback("m", labels[1:])[0]["state"] == "known"
        assert client.model("m")["labels"] == 2
        assert client.versions("m") == []
        (chosen,) = client.predict("m", [{"x": 1.0}], propensities=[0.5])
        assert client.predict("m", [{"x": 1.0}], log=False)[0]["id"] is None
        client.feedback("m", [{"prediction_id": chosen["id"], "value": 1, "selection": 0.2}])
        judged = list(workspace.updates.log("m").read(2))
        assert [(one.prediction.propensity, one.selection) for one in judged] == [(0.5, 0.2)]


def test_errors_are_those_of_the_package(workspace: el.Workspace) -> None:
    secret = workspace.keys.create("admin")[1]
    with served(workspace) as url:
        client = el.Client(url, secret)
        with pytest.raises(el.NotFoundError, match="there is no model 'x ü'"):
            client.model("x ü")
        with pytest.raises(el.NotFoundError, match="404"):
            client.model("../audit?limit=1#")
        with pytest.raises(el.InputError, match="422"):
            client.predict("m", [{"x": [1]}])
        with pytest.raises(el.InputError, match="NaN"):
            client.predict("m", [{"x": float("nan")}])
        with pytest.raises(el.ConflictError):
            client.feedback("m", [{"external_id": "a", "value": 1, "idempotency_key": "k"}])
            client.feedback("m", [{"external_id": "a", "value": 0, "idempotency_key": "k"}])
        with pytest.raises(EverlearnError, match="401") as caught:
            el.Client(url, "el_wrong").model("m")
        assert "el_wrong" not in str(caught.value)
    with pytest.raises(el.InputError):
        el.Client("file:///etc/passwd")


def test_labels_are_sent_again_and_counted_once(workspace: el.Workspace) -> None:
    with served(workspace, Limits(rate=2.0, burst=1)) as url:
        client = el.Client(url)
        (row,) = client.predict("m", [{"x": 1.0}])
        assert client.feedback("m", [{"prediction_id": row["id"], "value": 1}])[0]["position"] == 1
        with pytest.raises(EverlearnError, match="429"):
            for _ in range(3):
                client.predict("m", [{"x": 1.0}])
    assert workspace.updates.log("m").head() == 1


def test_a_server_that_is_not_there_or_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StorageError, match="does not answer"):
            el.Client(url, timeout=0.2, retries=1).feedback("m", [])
    with pytest.raises(StorageError, match="does not answer"):
        el.Client(url, retries=1).model("m")


def test_a_proxy_that_says_when_by_a_date_is_asked_again() -> None:
    class Away(BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self) -> None:
            Away.asked += 1
            self.send_response(200 if Away.asked > 1 else 503)
            self.send_header("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")
            self.end_headers()
            self.wfile.write(b'{"name": "m"}')

        def log_message(self, *said: object) -> None:
            """Nothing is written."""

    with HTTPServer(("127.0.0.1", 0), Away) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            found = el.Client(f"http://127.0.0.1:{server.server_port}").model("m")
        finally:
            server.shutdown()
            thread.join()
    assert found == {"name": "m"}


def test_repairs_through_the_client(workspace: el.Workspace) -> None:
    rows = [
        {"x": (k - 50) / 10, "who": "bot" if k % 3 else "web", "late": k > 50} for k in range(100)
    ]
    schema = el.Schema(target="late", numeric=("x",), ignore=("who",))
    handle = workspace.model(el.Model("m", learner="logistic", schema=schema))
    handle.train(rows, source="first")
    handle.train([row | {"x": row["x"] + 0.01} for row in rows], source="second")
    with served(workspace) as url:
        client = el.Client(url)
        edit = {"features": {"x": 4.0}, "output": False, "reason": "ticket 7"}
        assert client.patch("m", [edit])["version"] == 3
        assert client.predict("m", [{"x": 4.0}])[0]["output"] is False
        assert [one["state"] for one in client.edits("m")] == ["standing"]
        assert client.revoke_edit("m", 1)["version"] == 4
        assert client.predict("m", [{"x": 4.0}])[0]["output"] is True
        with pytest.raises(InputError, match="one of where, rows, key and induced_by"):
            client.excise("m")
        found = client.excise("m", where="who = 'bot' and source = 'second'", dry_run=True)
        assert (found["base"], found["marked"]) == (1, [2, 3, 4])
        asked = client.bisect("m", good=1, bad=2, metric="log_loss")
        assert client.bisection("m", asked["number"])["number"] == asked["number"]
