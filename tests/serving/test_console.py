"""The console's pages: on nothing, on much, with names and reasons that hold HTML; and who sees
them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa

import everlearn as el
from everlearn.base import Decision, StorageError
from everlearn.data.slices import Slice
from everlearn.serving.access import COOKIE
from everlearn.serving.console import queries
from everlearn.storage.schema import alias_history, aliases, increments, jobs, models, versions
from everlearn.testing.database import temporary_schema
from tests.serving.local import LocalClient
from tests.serving.test_rollouts import Loop, history, wait_for_shadows

EVIL = "<script>alert('1')</script>\" onload=x"
PAGES = ("", "/models/m", "/models/m/versions", "/models/m/jobs", "/models/m/triggers",
         "/models/m/rollouts", "/models/m/moves", "/models/m/quarantine", "/models/m/set-aside",
         "/models/m/review", "/models/m/do/run")  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as workspace:
        for name in ("m", "n"):
            schema = el.Schema(target="late", numeric=("x",))
            workspace.model(el.Model(name, learner="logistic", schema=schema))
        yield workspace


@pytest.fixture
def client(workspace: el.Workspace) -> Iterator[LocalClient]:
    with LocalClient(workspace.app(["m", "n"], learn=False)) as client:
        yield client


def page(client: LocalClient, path: str, status: int = 200) -> str:
    """The text of a page, which is safe and brings everything with it."""
    answer = client.get(f"/console{path}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    tags = Tags()
    tags.feed(answer.text)
    for name, value in tags.attributes:
        assert not name.startswith("on")
        assert name != "style"
        assert name not in ("src", "href", "action") or re.match(r"/console|data:,$", str(value))
    assert tags.scripts in (0, 1)
    return str(answer.text)


class Tags(HTMLParser):
    """What a browser finds in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.scripts += tag == "script"


@contextmanager
def counted(workspace: el.Workspace) -> Iterator[list[str]]:
    """The statements that reach the database."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        found.append(statement)

    engine = workspace.registry.database._reader
    sa.event.listen(engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(engine, "before_cursor_execute", note)


def test_pages_of_an_empty_workspace(client: LocalClient) -> None:
    for path in PAGES:
        text = page(client, path)
        assert "</html>" in text
    assert "Nothing serves yet" in page(client, "/models/m")
    assert "None yet." in page(client, "/models/m/versions")
    for path in ("/models/no", "/models/m/versions/1", "/models/m/rollouts/1", "/models/no/jobs"):
        assert "404" in page(client, path, 404)
    assert client.get("/console/models/m/other").status_code == 422
    assert client.get("/console/static/console.css").headers["content-type"].startswith("text/css")
    assert client.get("/console/static/page.html").status_code == 422


def test_pages_of_a_loop_with_a_canary(tmp_path: Path) -> None:
    it = Loop(tmp_path, el.Canary([30, 60], margin=0.2, labels=100))
    it.candidate(right=1.0)
    with LocalClient(it.app) as client:
        it.look()
        for _ in range(3):
            it.traffic(client, 400)
        it.look()
        text = page(client, "/models/m")
        for title in ("Quality", "Feedback", "Versions", "Jobs", "Triggers", "Quarantine"):
            assert f"<h2>{title}</h2>" in text
        assert "serves since" in text
        assert "1,200</b> labels" in text
        assert text.count('<svg class="chart"') >= 2
        trial = page(client, "/models/m/rollouts/1")
        stage = client.get("/v1/models/m").json()["rollout"]["stage"]
        assert trial.count('class="now"') == 1
        assert trial.count('class="past"') == stage
        assert "surely not worse" in trial
        it.traffic(client, 100)
        it.look()
        for found in (text, page(client, "/models/m"), trial):
            for drawing in re.findall(r"<svg.*?</svg>", found, re.S):
                ElementTree.fromstring(drawing)
        assert "Too few labelled answers" not in page(client, "/models/m/rollouts/1")
        assert "accuracy" in page(client, "/models/m/versions/2")
        part = client.get("/console/models/m", headers={"X-Fragment": "main"}).text
        assert "<html" not in part
        assert "<h2>Quality</h2>" in part
    it.workspace.close()


def test_a_shadow_is_drawn_too(tmp_path: Path) -> None:
    it = Loop(tmp_path, el.Shadow(margin=0.0001, labels=50_000))
    it.candidate(right=0.98)
    with LocalClient(it.app) as client:
        it.look()
        for _ in range(3):
            it.traffic(client, 200)
            wait_for_shadows(it)
            it.look()
        text = page(client, "/models/m/rollouts/1")
        assert "<b>Shadow</b>" in text
        assert "As it stands" in text
        assert "600 labels" in text
        ElementTree.fromstring(re.findall(r"<svg.*?</svg>", text, re.S)[0])
    it.workspace.close()


def test_names_and_reasons_are_text(tmp_path: Path) -> None:
    with el.open(tmp_path / "workspace") as workspace:
        schema = el.Schema(target="late", numeric=("x",))
        workspace.model(el.Model("m", learner="logistic", schema=schema))
        many(workspace, "m", 30, EVIL)
        with workspace.registry.database.write() as connection:
            connection.execute(aliases.delete())
        found = Decision("quarantine", EVIL, {})
        workspace.updates.quarantine("m").put(EVIL, found, 0)
        with LocalClient(workspace.app(["m"], learn=False)) as client:
            for path in (*PAGES, "/models/m/versions/3"):
                text = page(client, path)
                assert "<script>alert" not in text
                assert '" onload' not in text
            assert "&lt;script&gt;alert" in page(client, "/models/m")
            wrong = page(client, f"/models/{EVIL.replace('/', '')}", 404)
            assert "<script>alert" not in wrong


def many(workspace: el.Workspace, model: str, count: int, reason: str = "better") -> None:
    """So many versions, each with a job and an increment, made champion one after the other."""
    now = time.time_ns() // 1000
    said = {"action": "promote", "reason": reason, "evidence": {}}
    numbers = range(1, count + 1)
    piece = Slice(reason, "csv", "/x.csv", 0, 5, 9, "d", ("x",)).to_json()
    with workspace.registry.database.write() as connection:
        key = connection.execute(sa.select(models.c.id).where(models.c.name == model)).scalar()
        same: dict[str, Any] = {"model_id": key, "created_at": now}
        version = {
            "definition_id": 1, "strategy": {}, "state_digest": "d", "manifest": {}, "holdouts": {},
            "metrics": {"rows": 5, "log_loss": 0.5}, "environment": {}, "decision": said,
        }  # fmt: skip
        connection.execute(versions.insert(), [
            {**same, **version, "id": n, "number": n, "parent": n - 1 or None, "job_id": n}
            for n in numbers
        ])  # fmt: skip
        connection.execute(increments.insert(), [
            {"version_id": n, "ordinal": 0, "source": reason, "start": 0, "stop": 5, "rows": 5,
             "held_out": 0, "set_aside": 0, "duplicates": 0, "digest": "d", "slice": piece,
             "reasons": {}}
            for n in numbers
        ])  # fmt: skip
        connection.execute(jobs.insert(), [
            {**same, "id": n, "state": "done", "plan": {}, "fingerprint": "f", "attempts": 1,
             "max_attempts": 5, "not_before": 0, "token": 1, "version": n, "decision": said,
             "error": reason}
            for n in numbers
        ])  # fmt: skip
        connection.execute(alias_history.insert(), [
            {"model_id": key, "name": "champion", "version_from": n - 1 or None, "version_to": n,
             "action": "promote", "reason": reason, "at": now}
            for n in numbers
        ])  # fmt: skip
        connection.execute(aliases.insert().values(
            model_id=key, name="champion", version=count, revision=count))  # fmt: skip


def test_ten_thousand_versions_cost_what_thirty_do(workspace: el.Workspace) -> None:
    database = workspace.registry.database
    many(workspace, "m", 10_000)
    with counted(workspace) as statements, database.read() as connection:
        (m, n) = queries.overview(connection, ["m", "n"])
        assert (m["versions"], m["move"]["version_to"], n["versions"]) == (10_000, 10_000, 0)
        assert len(statements) <= 7
        seen = []
        before = queries.MOST
        del statements[:]
        for _ in range(3):
            rows = queries.versions(connection, "m", before)
            seen += [row["number"] for row in rows]
            before = rows[-1]["number"]
        assert seen == list(range(10_000, 10_000 - 75, -1))
        assert len(statements) <= 13
        for read in (queries.jobs, queries.moves):
            assert [row["id"] for row in read(connection, "m", 51)] == list(range(50, 25, -1))
        del statements[:]
        assert workspace.updates.unlearned("m") == 0
        assert len(statements) <= 5


def test_lists_are_paged(workspace: el.Workspace) -> None:
    many(workspace, "m", 60)
    with LocalClient(workspace.app(["n"], learn=False)) as client:
        page(client, "/models/m/jobs", 404)  # of a model that is not served here
    with workspace.registry.database.write() as connection:
        connection.execute(aliases.delete())
    with LocalClient(workspace.app(["m"], learn=False)) as client:
        for what in ("versions", "jobs", "moves"):
            path, numbers = f"/models/m/{what}", 0
            for length in (25, 25, 10):
                text = page(client, path)
                assert text.count("<tr>") - 1 == length
                numbers += length
                found = re.search(r'href="/console(/models/m/\w+\?before=\d+)"', text)
                assert (found is not None) == (numbers < 60)
                path = found[1] if found else path
        assert client.get("/console/models/m/jobs?before=x").status_code == 422
        for what, key in (("versions", "number"), ("jobs", "id")):  # and over HTTP
            for query, numbers in (
                ("", range(1, 61)),
                ("?limit=2", [59, 60]),
                ("?limit=3&before=10", [7, 8, 9]),
                ("?before=3", [1, 2]),
            ):
                found = client.get(f"/v1/models/m/{what}{query}").json()[what]
                assert [one[key] for one in found] == list(numbers)


def test_the_same_on_postgresql(tmp_path: Path) -> None:
    try:
        with temporary_schema() as url, el.open(f"{url}&blobs={tmp_path / 'blobs'}") as workspace:
            schema = el.Schema(target="late", numeric=("x",))
            handle = workspace.model(el.Model("m", learner="logistic", schema=schema))
            handle.train(history(tmp_path / "first.csv", 500, seed=0))
            with LocalClient(workspace.app(["m"], learn=False)) as client:
                body = {"instances": [{"x": n / 10} for n in range(-20, 20)]}
                given = client.post("/v1/models/m/predict", json=body).json()["predictions"]
                said = [{"prediction_id": one["id"], "value": 1} for one in given]
                client.post("/v1/models/m/feedback", json={"labels": said})
                for path in (*PAGES, "/models/m/versions/1"):
                    page(client, path)
                page(client, "/models/m/jobs/1")
                page(client, f"/models/m/versions/{2**63 - 1}", 404)
                stream = client.get("/console/models/m/events?seconds=0.1").text
                assert stream.startswith("retry: 1000\nevent: begin")
                assert "40 labelled answers" in page(client, "/models/m")
    except StorageError as error:
        pytest.skip(str(error))


def test_a_browser_signs_in_with_a_key(workspace: el.Workspace) -> None:
    secret = workspace.keys.create("operate")[1]
    app = workspace.app(["m", "n"], learn=False)
    with LocalClient(app, "10.1.2.3", follow_redirects=False) as client:
        text = page(client, "/models/m", 401)
        assert 'action="/console/login"' in text
        assert "not valid" not in text
        given = client.post("/console/login", data={"key": secret})
        assert (given.status_code, given.headers["location"]) == (303, "/console")
        cookie = given.headers["set-cookie"]
        for word in ("HttpOnly", "SameSite=strict", "Path=/console"):
            assert word in cookie
        assert "version" in page(client, "/models/m")
        assert "Sign out" in page(client, "")
        client.post("/console/logout")
        page(client, "/models/m", 401)
        client.post("/console/login", data={"key": "el_" + "x" * 43})
        assert "not valid" in page(client, "", 401)
        assert client.post("/console/login", data={"key": "a b\r\nc"}).status_code == 422


def test_the_cookie_counts_for_reading_pages_only(workspace: el.Workspace) -> None:
    secret = workspace.keys.create("admin")[1]
    headers = {"Cookie": f"{COOKIE}={secret}"}
    app = workspace.app(["m", "n"], learn=False)
    with LocalClient(app, "10.1.2.3") as client:
        assert client.get("/console", headers=headers).status_code == 200
        assert client.get("/console", headers={"Cookie": f"{COOKIE}=a; {COOKIE}={secret}"}
                          ).status_code == 401  # fmt: skip
        bad = headers | {"Authorization": "Bearer el_other"}
        assert client.get("/console", headers=bad).status_code == 401
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/models/m/rollback"),
                             ("POST", "/v1/models/m/jobs"), ("POST", "/console/models/m"),
                             ("GET", "/metrics"), ("GET", "/console/other")):  # fmt: skip
            assert client.request(method, path, headers=headers).status_code == 401, path


def test_a_key_sees_on_the_console_what_it_sees_elsewhere(workspace: el.Workspace) -> None:
    many(workspace, "m", 3, "a secret reason")
    with workspace.registry.database.write() as connection:
        connection.execute(aliases.delete())
    app = workspace.app(["m", "n"], learn=False)
    with LocalClient(app, "10.1.2.3") as client:
        whose = (("operate", None), ("predict", None), ("operate", "n"))
        secrets = {one: workspace.keys.create(*one)[1] for one in whose}
        shown = {}
        for (role, model), secret in secrets.items():
            client.headers["Cookie"] = f"{COOKIE}={secret}"
            shown[role, model] = page(client, "")
        assert "a secret reason" in shown["operate", None]
        assert "a secret reason" not in shown["predict", None]
        assert "/console/models/m" not in shown["operate", "n"]
        assert "403" in page(client, "/models/m", 403)
        page(client, "/models/n")


def test_no_other_site_signs_anybody_in(client: LocalClient) -> None:
    for origin, status in (("http://127.0.0.1:8000", 303), ("http://evil", 403), ("null", 403)):
        for path in ("login", "logout"):
            answer = client.post(
                f"/console/{path}", data={"key": "el_" + "x" * 43}, headers={"Origin": origin},
                follow_redirects=False,
            )  # fmt: skip
            assert answer.status_code == status, (origin, path)
