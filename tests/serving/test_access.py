"""Who may call what: every route, method and role; keys that are revoked; the audit log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from starlette.routing import Mount, Route
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

import everlearn as el
from everlearn.base import InputError, StorageError
from everlearn.registry.keys import ROLES, Keys, Known
from everlearn.serving.access import Checked, needs
from everlearn.serving.limits import Refused
from everlearn.serving.origin import check_host
from everlearn.storage.schema import labels
from tests.serving.local import LocalClient

ALL = set(ROLES)
EXPECTED = {
    ("POST", "/v1/models/{model}/predict"): {"predict"},
    ("POST", "/v1/models/{model}/feedback"): {"feedback"},
    ("GET", "/v1/models"): ALL,
    ("GET", "/v1/models/{model}"): ALL,
    ("GET", "/v1/models/{model}/versions"): {"operate"},
    ("GET", "/v1/models/{model}/versions/{number}/explanation"): {"operate"},
    ("GET", "/v1/models/{model}/history"): {"operate"},
    ("GET", "/v1/models/{model}/jobs"): {"operate"},
    ("POST", "/v1/models/{model}/jobs"): {"operate"},
    ("POST", "/v1/models/{model}/promote"): {"operate"},
    ("POST", "/v1/models/{model}/rollback"): {"operate"},
    ("POST", "/v1/models/{model}/refuse"): {"operate"},
    ("POST", "/v1/models/{model}/erase"): {"admin"},
    ("GET", "/v1/models/{model}/rollouts"): {"operate"},
    ("GET", "/v1/models/{model}/rollouts/{number}"): {"operate"},
    ("POST", "/v1/models/{model}/rollouts/stop"): {"operate"},
    ("GET", "/v1/models/{model}/review"): {"review"},
    ("POST", "/v1/models/{model}/review/claim"): {"review"},
    ("POST", "/v1/models/{model}/review/{number}/claim"): {"review"},
    ("POST", "/v1/models/{model}/review/{number}/answer"): {"review"},
    ("POST", "/v1/models/{model}/review/{number}/skip"): {"review"},
    ("POST", "/v1/models/{model}/review/{number}/release"): {"review"},
    ("GET", "/v1/models/{model}/triggers"): {"operate"},
    ("GET", "/v1/models/{model}/quarantine"): {"operate"},
    ("POST", "/v1/models/{model}/quarantine/release"): {"operate"},
    ("GET", "/v1/models/{model}/set-aside"): {"operate"},
    ("POST", "/v1/models/{model}/set-aside/{number}/release"): {"operate"},
    ("POST", "/v1/models/{model}/patches"): {"operate"},
    ("GET", "/v1/models/{model}/edits"): {"operate"},
    ("POST", "/v1/models/{model}/edits/{number}/revoke"): {"operate"},
    ("POST", "/v1/models/{model}/excisions"): {"operate"},
    ("GET", "/v1/models/{model}/excisions"): {"operate"},
    ("POST", "/v1/models/{model}/bisections"): {"operate"},
    ("GET", "/v1/models/{model}/bisections"): {"operate"},
    ("GET", "/v1/models/{model}/bisections/{number}"): {"operate"},
    ("GET", "/v1/models/{model}/events"): ALL,
    ("GET", "/v1/audit"): {"admin"},
    ("GET", "/readyz"): ALL,
    ("GET", "/metrics"): ALL,
    ("GET", "/openapi.json"): ALL,
    ("GET", "/docs"): ALL,
    ("GET", "/docs/oauth2-redirect"): ALL,
    ("GET", "/redoc"): ALL,
    ("GET", "/console"): ALL,
    ("GET", "/console/models/{model}"): {"operate"},
    ("GET", "/console/models/{model}/{what}"): {"operate"},
    ("GET", "/console/events"): ALL,
    ("GET", "/console/models/{model}/events"): {"operate", "review"},
    ("GET", "/console/models/{model}/review"): {"review"},
    ("POST", "/console/models/{model}/review"): {"review"},
    ("GET", "/console/models/{model}/review/{number}"): {"review"},
    ("POST", "/console/models/{model}/review/{number}/{verb}"): {"review"},
    ("GET", "/console/models/{model}/do/{action}"): {"operate"},
    ("POST", "/console/models/{model}/do/{action}"): {"operate"},
    ("GET", "/console/models/{model}/predictions"): {"operate"},
    ("GET", "/console/models/{model}/correct"): {"operate"},
    ("POST", "/console/models/{model}/correct"): {"operate"},
    ("GET", "/console/models/{model}/edits"): {"operate"},
    ("GET", "/console/models/{model}/withdrawals"): {"operate"},
    ("GET", "/console/models/{model}/excise"): {"operate"},
    ("POST", "/console/models/{model}/excise"): {"operate"},
    ("GET", "/console/models/{model}/bisections"): {"operate"},
    ("POST", "/console/models/{model}/bisections"): {"operate"},
    ("GET", "/console/models/{model}/bisections/{number}"): {"operate"},
    ("GET", "/console/models/{model}/jobs/{number}"): {"operate"},
    ("GET", "/console/models/{model}/versions/{number}"): {"operate"},
    ("GET", "/console/models/{model}/rollouts/{number}"): {"operate"},
}
FOR_ALL = {"/healthz", "/console/login", "/console/logout", "/console/static/{name}"}
"""Paths that ask for no key."""
SAME = {"/v1/models/{model}/rollouts/stop": "/v1/models/{model}/rollouts/{number}"}
"""Paths that another route answers for methods that are not their own."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "X")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as workspace:
        for name in ("m", "n"):
            schema = el.Schema(target="late", numeric=("x",))
            workspace.model(el.Model(name, learner="logistic", schema=schema))
        yield workspace


@pytest.fixture
def app(workspace: el.Workspace) -> FastAPI:
    made: FastAPI = workspace.app(["m", "n"], learn=False)
    return made


@pytest.fixture
def client(app: FastAPI) -> Iterator[LocalClient]:
    with LocalClient(app, "10.1.2.3") as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """(method, path) of every route of the application."""
    found = []
    for route in app.routes:
        assert isinstance(route, Route), f"{route} is walked by no test"
        found += [(method, route.path) for method in sorted(route.methods or ())]
    return found


def test_every_route_method_and_role(
    app: FastAPI, client: LocalClient, workspace: el.Workspace
) -> None:
    everywhere = {role: workspace.keys.create(role)[1] for role in ROLES}
    elsewhere = {role: workspace.keys.create(role, "n")[1] for role in ROLES}
    routes = routes_of(app)
    assert {(method, path) for method, path in routes if method != "HEAD"} >= set(EXPECTED)
    paths = sorted({path for _, path in routes} - FOR_ALL)
    for path in paths:
        url = path.replace("{model}", "m").replace("{number}", "1").replace("{what}", "jobs")
        url = url.replace("{verb}", "skip").replace("{action}", "run")
        url += "?seconds=0" if path.endswith("/events") else ""
        for method in METHODS:
            answer = client.request(method, url)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            for role in ROLES:
                at = ("GET" if method == "HEAD" else method, path)
                if at not in EXPECTED and (method, SAME.get(path)) in routes:
                    at = (method, SAME[path])
                there = (method, at[1]) in routes
                allowed = EXPECTED[at] | {"admin"} if there else ALL
                status = client.request(method, url, headers=bearer(everywhere[role])).status_code
                if role not in allowed:
                    assert status == 403, (method, path, role)
                else:
                    assert status not in (401, 403), (method, path, role)
                    assert there or status == 405, (method, path, role)
                if not there:
                    continue
                scoped = client.request(method, url, headers=bearer(elsewhere[role])).status_code
                if "{model}" in path:
                    assert scoped == 403, (method, path, role)
                else:
                    assert (scoped == 403) == (allowed != ALL), (method, path, role)


def test_wrong_credentials_of_every_form(client: LocalClient, workspace: el.Workspace) -> None:
    key, secret = workspace.keys.create("admin")
    assert client.get("/v1/models", headers=bearer(secret)).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": f"bEARER {secret}"}).is_success
    wrong: list[Any] = [
        bearer(secret[:-1]),
        bearer(secret + "A"),
        bearer(secret.upper()),
        bearer(key.hint),
        bearer(""),
        {"Authorization": secret},
        {"Authorization": f"Basic {secret}"},
        {"Authorization": "Bearer"},
        {"X-Api-Key": secret},
        {"Cookie": f"Authorization=Bearer {secret}"},
        [("Authorization", f"Bearer {secret}"), ("Authorization", "Bearer other")],
        {"Authorization": b"Bearer \xff\xfe\x00"},
    ]
    for headers in wrong:
        assert client.get("/v1/models", headers=headers).status_code == 401, headers
    assert client.get(f"/v1/models?key={secret}").status_code == 401
    assert client.get("/nowhere").status_code == 401
    assert client.get("/nowhere", headers=bearer(secret)).status_code == 404


def test_paths_in_disguise_are_no_way_around(client: LocalClient, workspace: el.Workspace) -> None:
    _, feedback = workspace.keys.create("feedback")
    _, other = workspace.keys.create("operate", "n")
    body = {"version": 1}
    disguised = [
        "/v1/models/m/promote/",
        "//v1/models/m/promote",
        "/v1/models/m//promote",
        "/v1/models/n/../m/promote",
        "/v1/models/n/%2e%2e/m/promote",
        "/v1/models/n%2F..%2Fm/promote",
        "/V1/models/m/promote",
        "/healthz/../v1/models/m/promote",
        "/healthz%2f..%2fv1/models/m/promote",
        "/v1/models/m/promote;x=1",
        "/v1/models/m/promote%00",
        "/v1/models/m/%70romote",
        "/v1/models/n%00/promote",
    ]
    for path in disguised:
        for headers in (bearer(feedback), bearer(other), {}):
            answer = client.post(path, json=body, headers=headers, follow_redirects=False)
            assert answer.status_code in (307, 401, 403, 404, 405), (path, headers)


def test_a_key_of_one_model_sees_only_that(client: LocalClient, workspace: el.Workspace) -> None:
    _, secret = workspace.keys.create("predict", "n")
    seen = client.get("/v1/models", headers=bearer(secret)).json()["models"]
    assert [model["name"] for model in seen] == ["n"]
    body = {"instances": [{"x": 1.0}]}
    url = "/v1/models/{}/predict"
    assert client.post(url.format("n"), json=body, headers=bearer(secret)).status_code == 200
    assert client.post(url.format("m"), json=body, headers=bearer(secret)).status_code == 403


def test_a_route_that_says_nothing_is_refused(
    app: FastAPI, client: LocalClient, workspace: el.Workspace
) -> None:
    async def answer() -> dict[str, str]:
        return {"secret": "told"}

    app.get("/v1/new")(answer)
    app.get("/v1/models/{model}/new")(answer)
    app.mount("/files", FastAPI())
    app.router.routes.append(Mount("/more", FastAPI()))
    inner = FastAPI().router
    inner.get("/y")(answer)
    app.include_router(inner, prefix="/inner")
    paths = ("/v1/new", "/v1/models/m/new", "/files/a", "/more/x", "/inner/y")
    local = LocalClient(app)
    for path in paths:
        assert local.get(path).status_code == 403, path
    secrets = [workspace.keys.create(role)[1] for role in ROLES]
    time.sleep(0.3)
    for path in paths:
        for secret in secrets:
            assert client.get(path, headers=bearer(secret)).status_code == 403, path
        assert client.get(path).status_code == 401, path
    app.get("/v1/declared")(needs("review")(answer))
    allowed = [client.get("/v1/declared", headers=bearer(secret)).status_code for secret in secrets]
    assert dict(zip(ROLES, allowed, strict=True)) == {
        role: 200 if role in ("review", "admin") else 403 for role in ROLES
    }


def test_web_sockets_are_refused(app: FastAPI) -> None:
    @app.websocket("/ws")
    async def ws(websocket: Any) -> None:
        await websocket.accept()

    with (
        pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
        LocalClient(app).websocket_connect("/ws"),
    ):
        pass


def test_roles_that_do_not_exist_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="king"):
        needs("king")


def test_a_revoked_key_is_refused_within_5_seconds(
    client: LocalClient, workspace: el.Workspace
) -> None:
    key, secret = workspace.keys.create("admin")
    _, other = workspace.keys.create("admin")
    assert client.get("/v1/models", headers=bearer(secret)).status_code == 200
    with el.open(str(Path(workspace.database.url.removeprefix("sqlite:///")).parent)) as elsewhere:
        elsewhere.keys.revoke(key.id)
    deadline = time.monotonic() + 5
    while client.get("/v1/models", headers=bearer(secret)).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get("/v1/models", headers=bearer(secret)).status_code == 401
    assert client.get("/v1/models", headers=bearer(other)).status_code == 200


def test_the_last_key_revoked_opens_nothing(app: FastAPI, workspace: el.Workspace) -> None:
    key, _ = workspace.keys.create("admin")
    workspace.keys.revoke(key.id)
    with LocalClient(app) as client:
        assert client.get("/v1/models").status_code == 401


class Slow(Keys):
    """Keys that are counted when they are read, and cannot always be."""

    def __init__(self) -> None:
        self.reads, self.broken = 0, False
        self.answer = Known({}, True)

    def known(self) -> Known:
        self.reads += 1
        if self.broken:
            raise StorageError("gone")
        return self.answer


def test_keys_are_read_once_a_second_and_nobody_is_let_in_on_old_ones() -> None:
    keys, now = Slow(), [100.0]
    checked = Checked(keys, lambda: now[0])

    async def scenario() -> None:
        await asyncio.gather(*(checked.look(None) for _ in range(100)))
        assert keys.reads == 1
        await asyncio.gather(*(checked.look(f"unknown {i}") for i in range(100)))
        assert keys.reads == 1
        now[0] += 0.5
        await asyncio.gather(*(checked.look(f"unknown {i}") for i in range(100)))
        assert keys.reads == 2
        keys.broken = True
        now[0] += 3.9
        assert await checked.look(None) == (True, None)
        now[0] += 0.2
        with pytest.raises(Refused) as caught:
            await checked.look(None)
        assert caught.value.status == 503
        keys.broken = False
        assert await checked.look(None) == (True, None)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("address", "host", "origin", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", None, 200),
        ("127.0.0.1", "localhost", None, 200),
        ("::1", "[::1]:8000", None, 200),
        ("::ffff:127.0.0.1", "127.0.0.1", None, 200),
        ("127.0.0.1", "localhost:8000", "http://localhost:8000", 200),
        ("10.0.0.1", "127.0.0.1", None, 403),
        ("0.0.0.0", "127.0.0.1", None, 403),
        ("::ffff:10.0.0.1", "127.0.0.1", None, 403),
        ("localhost", "127.0.0.1", None, 403),
        ("127.0.0.1", "evil.example", None, 403),  # a name that was made to point here
        ("127.0.0.1", "127.0.0.1.evil.example", None, 403),
        ("127.0.0.1", "", None, 403),
        ("127.0.0.1", "localhost:8000", "http://evil.example", 403),  # a page of another site
        ("127.0.0.1", "localhost:8000", "http://localhost:9000", 403),
        ("127.0.0.1", "localhost:8000", "null", 403),
    ],
)
def test_without_keys_only_this_machine_is_answered(
    app: FastAPI, address: str, host: str, origin: str | None, status: int
) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    with LocalClient(app, address) as client:
        assert client.get("/v1/models", headers=headers).status_code == status
        assert client.get("/healthz", headers=headers).status_code == 200


def test_a_server_for_others_needs_a_key_first(workspace: el.Workspace) -> None:
    for host in ("127.0.0.1", "127.8.9.1", "::1", "localhost"):
        check_host(host, workspace.keys)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        with pytest.raises(InputError, match="everlearn key create"):
            check_host(host, workspace.keys)
    workspace.keys.create("predict")
    check_host("0.0.0.0", workspace.keys)


def test_what_changed_something_is_in_the_audit_log_once_it_is_answered(
    client: LocalClient, workspace: el.Workspace
) -> None:
    operator, secret = workspace.keys.create("operate", note="ops")
    admin, admins = workspace.keys.create("admin")
    url = "/v1/models/m"
    calls: list[tuple[str, Any]] = [
        ("promote", {"version": 7}),
        ("rollback", None),
        ("refuse", None),
        ("rollouts/stop", None),
        ("jobs", None),
        ("promote", {"version": "x"}),
    ]
    statuses = []
    for path, body in calls:
        answer = client.post(f"{url}/{path}", json=body, headers=bearer(secret))
        statuses.append(answer.status_code)
        entries = client.get("/v1/audit", headers=bearer(admins)).json()["audit"]
        newest = entries[0]
        assert newest["action"] == f"POST /v1/models/{{model}}/{path}"
        assert (newest["key"], newest["model"]) == (operator.id, "m")
        assert newest["status"] == answer.status_code
        assert newest["detail"] == {"address": "10.1.2.3", "body": body}
    assert [entry["status"] for entry in reversed(entries)] == [200, 200, *statuses]
    made = entries[-1]
    assert (made["action"], made["detail"]["key"]) == ("key create", operator.id)
    page = client.get("/v1/audit", params={"limit": 2}, headers=bearer(admins)).json()["audit"]
    older = {"limit": 100, "before": page[-1]["id"]}
    rest = client.get("/v1/audit", params=older, headers=bearer(admins)).json()["audit"]
    assert [entry["id"] for entry in page + rest] == [entry["id"] for entry in entries]
    assert secret not in str(entries) and admins not in str(entries)
    workspace.keys.revoke(operator.id)
    assert workspace.audit.listed(1)[0]["action"] == "key revoke"
    assert admin.id != operator.id


def test_refused_attempts_are_counted_in_the_audit_log(
    app: FastAPI, workspace: el.Workspace
) -> None:
    key, secret = workspace.keys.create("feedback")
    with LocalClient(app, "10.9.9.9") as client:
        for _ in range(30):
            client.post("/v1/models/m/promote", json={}, headers=bearer(secret))
        for name in range(200):
            client.get(f"/v1/models/{name}")
            client.get(f"/{name}")
        client.post("/v1/models/m/predict", json={})
    found = [entry for entry in workspace.audit.listed() if entry["status"] in (401, 403)]
    told = {(entry["action"], entry["status"], entry["key"], entry["model"]) for entry in found}
    assert told == {
        ("POST /v1/models/{model}/promote", 403, key.id, "m"),
        ("GET /v1/models/{model}", 401, None, None),
        ("none", 401, None, None),
        ("POST /v1/models/{model}/predict", 401, None, "m"),
    }
    assert {entry["detail"]["address"] for entry in found} == {"10.9.9.9"}
    assert sum(entry["detail"]["times"] for entry in found) == 30 + 400 + 1


def test_a_key_of_one_source_speaks_for_no_other(
    client: LocalClient, workspace: el.Workspace
) -> None:
    key, secret = workspace.keys.create("feedback", source="shop")
    _, admins = workspace.keys.create("admin")
    rows = {"instances": [{"x": 1.0}] * 3}
    made = client.post("/v1/models/m/predict", json=rows, headers=bearer(admins)).json()
    ids = [row["id"] for row in made["predictions"]]

    def say(*labels: dict[str, Any]) -> int:
        body = {"labels": [{"value": 1, **label} for label in labels]}
        url = "/v1/models/m/feedback"
        return client.post(url, json=body, headers=bearer(secret)).status_code

    assert say({"prediction_id": ids[0]}, {"prediction_id": ids[1], "source": "shop"}) == 200
    assert say({"prediction_id": ids[2]}, {"prediction_id": ids[2], "source": "bank"}) == 403
    assert workspace.updates.log("m").head() == 2
    with workspace.database.read() as connection:
        assert set(connection.execute(sa.select(labels.c.source)).scalars()) == {"shop"}
    deadline = time.monotonic() + 10
    while (entry := workspace.audit.listed(1)[0])["status"] != 403:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (entry["key"], entry["model"]) == (key.id, "m")


def test_the_documentation_says_how_keys_are_sent(app: FastAPI) -> None:
    described = LocalClient(app).get("/openapi.json").json()
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert described["security"] == [{"key": []}]
