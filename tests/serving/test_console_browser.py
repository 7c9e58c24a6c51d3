"""The console in headless Chromium: review by keyboard, live pages, screens of every size."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx2
import numpy as np
import pytest
import uvicorn

import everlearn as el
from everlearn.registry.audit import Audit
from tests.serving.browser import Browser, find_chromium

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium is installed here (apt-get install chromium)"
)

MODEL = el.Model(
    "mail",
    learner="logistic",
    schema=el.Schema(target="team"),
    holdout=0.1,
    review=el.Review(share=1.0, random=1.0),
)
TEAMS = ("billing", "delivery", "technical")
LONG = "a-very-long-word-without-any-place-to-break-" * 5


class Server:
    """A workspace behind a port of this machine, in a thread.

    Args:
        learn: whether it learns, too.
    """

    def __init__(self, workspace: el.Workspace, learn: bool) -> None:
        app = workspace.app(["mail"], learn=learn)
        config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        app.state.ending = lambda: self._server.should_exit
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30.0)
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self.client.close()

    def stop(self) -> None:
        """End it; nobody answers at the port."""
        self._server.should_exit = True
        self._thread.join()

    def post(self, path: str, body: Any) -> Any:
        """The answer's JSON."""
        answer = self.client.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("console")
    table = folder / "mail.csv"
    x = np.random.default_rng(0).normal(size=300)
    rows = [f"{value:.3f},mail,{TEAMS[int(np.clip(value + 1.5, 0, 2.9))]}" for value in x]
    table.write_text("\n".join(["x,channel,team", *rows]) + "\n")
    with el.open(folder / "workspace") as workspace:
        workspace.model(MODEL).train(str(table))
        with Server(workspace, learn=True) as started:
            yield started


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(opened: Browser) -> Iterator[Browser]:
    opened.wrong.clear()
    opened.size(1280, 900)
    yield opened
    assert opened.wrong == []


def asked(server: Server, count: int) -> list[str]:
    rows = [{"x": n / 3 - 1.0, "channel": LONG if n == 0 else "mail"} for n in range(count)]
    answer = server.post("/v1/models/mail/predict", {"instances": rows})
    return [one["id"] for one in answer["predictions"]]


def at(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}/console{path}"


def labels(server: Server) -> int:
    return int(server.client.get("/v1/models/mail").json()["labels"])


def test_three_items_are_reviewed_by_keyboard(server: Server, browser: Browser) -> None:
    asked(server, 5)
    browser.open(at(server, "/models/mail/review"))
    browser.wait("document.getElementById('live').textContent === 'live'")
    browser.press("Enter")
    places = []
    for key in ("1", "3", "u"):
        place = browser.wait("location.pathname.match(/review.[0-9]+$/) && location.pathname")
        places.append(place)
        names = browser.run("[...document.querySelectorAll('[name=choice]')].map((b) => b.value)")
        assert tuple(names) == TEAMS
        assert "Probability of selection: 1" in browser.run("document.body.innerText")
        browser.press(key)
        browser.wait(f"location.pathname !== {place!r}")
    assert len(set(places)) == 3
    assert browser.run("document.querySelectorAll('[data-key=p]').length") == 1
    browser.press("p")
    browser.wait("document.body.innerText.includes('You skipped it')")
    browser.press("p")
    browser.wait("document.body.innerText.includes('You answered it')")
    browser.press("2")
    browser.wait("!!document.querySelector('[data-key=u]')")
    here = browser.run("location.pathname")
    browser.press("n")
    browser.wait(f"location.pathname !== {here!r} && !!document.querySelector('[data-key=u]')")
    browser.press("Enter")
    browser.wait("location.pathname.endsWith('/review')")
    queue = server.client.get("/v1/models/mail/review").json()["counts"]
    assert (queue["done"], queue["skipped"]) == (2, 1)
    assert labels(server) == 3  # the second answer was corrected


def test_a_page_follows_what_happens(server: Server, browser: Browser) -> None:
    browser.open(at(server, "/models/mail"))
    browser.wait("document.getElementById('live').textContent === 'live'")
    browser.run("void (window.same = true, document.getElementById('s-triggers').same = true)")
    before = labels(server)
    said = [{"prediction_id": one, "value": TEAMS[0]} for one in asked(server, 4)]
    server.post("/v1/models/mail/feedback", {"labels": said})
    browser.wait(f"document.getElementById('s-now').innerText.includes('{before + 4} labels')")
    assert browser.run("window.same === true")  # without a reload, and only what changed
    assert browser.run("document.getElementById('s-triggers').same === true")


def test_what_an_operator_does_is_asked_first(server: Server, browser: Browser) -> None:
    said = [{"prediction_id": one, "value": TEAMS[0]} for one in asked(server, 2)]
    server.post("/v1/models/mail/feedback", {"labels": said})
    browser.open(at(server, "/models/mail"))
    browser.run("document.querySelector('#s-jobs a[href$=\"/do/run\"]').click()")
    browser.wait("!!document.querySelector('main form button')")
    assert server.client.get("/v1/models/mail/jobs").json()["jobs"][-1]["state"] == "done"
    browser.run("document.querySelector('main form button').click()")
    browser.wait("location.pathname.match(/jobs.[0-9]+$/)")
    browser.wait("document.querySelector('h1').innerText.match(/done/)")  # by its stream


@pytest.mark.parametrize("dark", [False, True])
def test_no_page_is_wider_than_a_phone(server: Server, browser: Browser, dark: bool) -> None:
    last = asked(server, 2)[0]
    item = server.client.get("/v1/models/mail/review").json()["items"][0]["id"]
    server.client.post(f"/v1/models/mail/review/{item}/claim")
    browser.size(390, 844, dark=dark, touch=True)
    for path in ("", "/models/mail", "/models/mail/versions", "/models/mail/versions/1",
                 "/models/mail/jobs", "/models/mail/jobs/1", "/models/mail/moves",
                 "/models/mail/triggers", "/models/mail/quarantine", "/models/mail/set-aside",
                 "/models/mail/do/run", "/models/mail/review",
                 f"/models/mail/review/{item}", "/models/mail/predictions",
                 f"/models/mail/correct?of={last}", "/models/mail/edits",
                 "/models/mail/withdrawals", "/models/mail/excise",
                 "/models/mail/bisections"):  # fmt: skip
        browser.open(at(server, path))
        assert browser.run("document.documentElement.scrollWidth") <= 390, path
        shades = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
        assert (int(shades[0]) < 60) == dark, path


def test_without_scripts_forms_do_it(server: Server, browser: Browser) -> None:
    asked(server, 1)
    done = server.client.get("/v1/models/mail/review").json()["counts"]["done"]
    browser.scripts(on=False)
    try:
        browser.open(at(server, "/models/mail/review"))
        browser.wait("document.activeElement.matches('button')")
        browser.press("Enter")
        browser.wait("document.querySelector('[name=choice]') !== null")
        browser.run("document.querySelector('[name=choice]').focus()")
        browser.press("Enter")
        browser.until(
            lambda: server.client.get("/v1/models/mail/review").json()["counts"]["done"] > done,
            "the answer did not arrive",
        )
    finally:
        browser.scripts(on=True)


def test_a_wrong_answer_is_corrected_by_keyboard(server: Server, browser: Browser) -> None:
    features = {"x": 0.123, "channel": "phone"}
    body = {"instances": [features]}
    (given,) = server.post("/v1/models/mail/predict", body)["predictions"]
    wanted = next(name for name in TEAMS if name != given["output"])
    browser.open(at(server, "/models/mail/predictions"))
    link = f"a[href$='correct?of={given['id']}']"
    browser.run(f"document.querySelector({link!r}).focus()")
    browser.press("Enter")
    browser.wait("document.activeElement && document.activeElement.id === 'wanted'")
    browser.press(wanted[0])  # as one chooses in a list
    assert browser.run("document.getElementById('wanted').value") == wanted
    browser.run("void (document.getElementById('reason').value = 'they called')")
    browser.run("void (document.getElementById('way').value = 'memory')")
    browser.run("document.querySelector('[value=preview]').focus()")
    browser.press("Enter")
    browser.wait("document.body.innerText.includes('would be answered otherwise')")
    assert server.post("/v1/models/mail/predict", body)["predictions"][0]["output"] != wanted
    browser.wait("document.activeElement && document.activeElement.value === 'confirm'")
    browser.press("Enter")
    browser.wait("location.pathname.endsWith('/edits')")
    browser.wait("document.getElementById('s-made').innerText.includes('answers now')")
    assert server.post("/v1/models/mail/predict", body)["predictions"][0]["output"] == wanted
    browser.run("document.querySelector('[href$=\"/do/revoke?of=1\"]').click()")
    browser.wait("document.activeElement && !!document.querySelector('main form button')")
    browser.run("document.querySelector('main form button').click()")
    browser.wait("location.pathname.endsWith('/edits') && !document.querySelector('td .act')")
    again = server.post("/v1/models/mail/predict", body)["predictions"][0]["output"]
    assert again == given["output"]


def test_a_browser_signs_in_and_sees_that_its_server_is_gone(
    tmp_path: Path, browser: Browser
) -> None:
    place = tmp_path / "workspace"
    with el.open(place) as workspace:
        workspace.model(MODEL)
        secret = workspace.keys.create("operate")[1]
    with el.open(place) as workspace, Server(workspace, learn=False) as server:
        browser.open(at(server, "/models/mail/do/run"))
        browser.run(f"void (document.getElementById('key').value = {secret!r})")
        browser.run("document.querySelector('main button').click()")
        browser.wait("document.body.innerText.includes('Sign out')")
        browser.open(at(server, "/models/mail/do/run"))
        browser.run("document.querySelector('main form button').click()")
        browser.wait("document.querySelector('h1').innerText === 'No job was queued'")
        (entry,) = [one for one in Audit(workspace.registry.database).listed() if one["key"]]
        assert (entry["action"], entry["status"]) == (
            "POST /console/models/{model}/do/{action}",
            200,
        )
        browser.open(at(server, "/models/mail"))
        browser.wait("document.getElementById('live').textContent === 'live'")
        server.stop()
        browser.wait("document.getElementById('live').textContent === 'not connected'")
    browser.open("about:blank")
    browser.wrong.clear()  # Chromium notes the page that was refused, and who did not answer
