"""Repairs in the console: an answer is corrected, rows are withdrawn, a bisection is read."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import Json
from everlearn.jobs.bisect.bisector import Bisector, Question
from everlearn.registry.audit import Audit
from everlearn.registry.models import model_id
from everlearn.serving.access import COOKIE
from everlearn.serving.console.live import Stamp, changed, stamp
from tests.jobs.poisoned import BAD, GOOD, POISONED, poisoned
from tests.serving.local import LocalClient
from tests.serving.test_repairing import rows

PAGE = "/console/models/m"
ASKED = {"a": 1.5, "b": 1.0}
EVIL = "<script>alert('x')</script>"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path) as made:
        schema = el.Schema(target="y", ignore=("who",))
        handle = made.model(el.Model("m", learner=el.learners.LogisticRegression(), schema=schema))
        handle.train(rows(0, "web"), source="first")
        turned = [row | {"y": 1 - row["y"]} for row in rows(1, "bot")]
        handle.train(rows(2, "web") + turned, source="second")
        yield made


@pytest.fixture
def client(workspace: el.Workspace) -> Iterator[LocalClient]:
    with LocalClient(workspace.app(["m"], learn=False), follow_redirects=False) as made:
        yield made


def asked(client: LocalClient, features: Json = ASKED, **more: Any) -> tuple[str, Any]:
    """The id of a prediction, and what was answered."""
    headers = more.pop("headers", None)
    body = {"instances": [features], **more}
    given = client.post("/v1/models/m/predict", json=body, headers=headers).json()
    (one,) = given["predictions"]
    return one.get("id", ""), one["output"]


def went(answer: Any) -> str:
    """Where a form leads."""
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def hidden(text: str) -> dict[str, str]:
    """The hidden fields of a page's form."""
    found = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text)
    return {name: html.unescape(value) for name, value in found}


def seen(text: str) -> str:
    """What is read of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


# --- corrections -------------------------------------------------------------------------------


def test_a_wrong_answer_is_seen_and_corrected(client: LocalClient, workspace: el.Workspace) -> None:
    number, before = asked(client)
    for shift in range(30):
        asked(client, {"a": 0.1 * shift, "b": -0.1 * shift})
    wanted = 1 - before
    label = {"prediction_id": number, "value": wanted}
    client.post("/v1/models/m/feedback", json={"labels": [label]})
    text = client.get(f"{PAGE}/predictions").text
    assert text.count("Correct this…") == 25 and "wrong" not in seen(text)
    older = re.search(r'href="([^"]*before=[^"]*)"', text)
    assert older is not None
    text = client.get(older[1]).text
    assert text.count("Correct this…") == 6
    assert f"{wanted} wrong" in seen(text)
    assert f'href="{PAGE}/correct?of={number}"' in text

    text = client.get(f"{PAGE}/correct?of={number}").text
    assert f"Version 2 answered {before} . Its label says {wanted} ." in seen(text)
    assert f"<option selected>{wanted}</option>" in text
    fields = {"of": number, "wanted": str(wanted), "reason": f"called {EVIL}", "way": "memory"}
    text = client.post(f"{PAGE}/correct", data=fields | {"step": "preview"}).text
    words = seen(text)
    assert "becomes right" in words and "an exception for inputs within" in words
    assert "reference rows would be answered otherwise" in words
    assert "Of the last 31 predictions" in words and "1 of this very input" in words
    assert "From right to wrong" in words and EVIL not in text
    assert asked(client, log=False)[1] == before, "nothing is changed before it is confirmed"

    place = went(client.post(f"{PAGE}/correct", data=hidden(text) | {"step": "confirm"}))
    assert place == f"{PAGE}/edits?made=3"
    words = seen(client.get(place).text)
    assert "Corrected: version 3 answers now" in words
    assert f"called {EVIL}" in words and "standing" in words
    assert asked(client, log=False)[1] == wanted
    done = [one for one in Audit(workspace.registry.database).listed() if one["action"][0] != "G"]
    assert any((one["detail"] or {}).get("did") == "patch" for one in done)


def test_what_would_flip_is_shown_with_its_label(client: LocalClient) -> None:
    number, before = asked(client)
    near, _ = asked(client, {"a": 1.5001, "b": 1.0001})
    label = {"prediction_id": near, "value": before}
    client.post("/v1/models/m/feedback", json={"labels": [label]})
    fields = {"of": number, "wanted": str(1 - before), "reason": "x", "step": "preview"}
    words = seen(client.post(f"{PAGE}/correct", data=fields | {"way": "memory"}).text)
    assert "1 other would be answered otherwise" in words
    assert "1 from right to wrong" in words and "wrong then" in words
    assert "This is no single mistake." in words and "let an incremental job learn" in words


def test_what_is_wrong_is_said_and_the_form_is_kept(client: LocalClient) -> None:
    number, before = asked(client)
    fields = {"of": number, "wanted": str(1 - before), "reason": "they called", "way": "memory"}
    for change, status, words in (
        ({"wanted": str(before)}, 422, "answered as wanted already"),
        ({"wanted": ""}, 422, "say which answer is wanted"),
        ({"wanted": "7"}, 422, "no class that the model knows"),
        ({"reason": " "}, 422, "say why"),
        ({"reason": "x" * 1001}, 422, "at most 1000"),
        ({"way": "magic"}, 422, "way"),
        ({"step": "confirm"}, 422, "look at what would change"),
        ({"step": "confirm", "expected": "1"}, 409, "not version 1"),
    ):
        sent = {**fields, "step": "preview", **change}
        answer = client.post(f"{PAGE}/correct", data=sent)
        assert answer.status_code == status, change
        assert words in seen(answer.text), change
        assert "What should it have answered?" in answer.text
        if sent["reason"] == "they called":
            assert ">they called</textarea>" in answer.text
    assert client.post(f"{PAGE}/correct", data=fields | {"step": "back"}).status_code == 200
    for of, status in (("", 422), ("0" * 16, 404), (number[:-1], 422)):
        assert client.get(f"{PAGE}/correct?of={of}").status_code == status
        assert client.post(f"{PAGE}/correct", data={"of": of}).status_code == status
    assert client.get(f"{PAGE}/correct?of=<b>").status_code == 422
    assert client.get("/v1/models/m").json()["champion"] == 2


def test_a_champion_that_moved_in_between_is_noticed(client: LocalClient) -> None:
    number, before = asked(client)
    fields = {"of": number, "wanted": str(1 - before), "reason": "x", "way": "memory"}
    text = client.post(f"{PAGE}/correct", data=fields | {"step": "preview"}).text
    client.post("/v1/models/m/rollback", json={})
    answer = client.post(f"{PAGE}/correct", data=hidden(text) | {"step": "confirm"})
    assert answer.status_code == 409
    assert "version 1 is champion of 'm' by now, not version 2" in seen(answer.text)
    assert "What should it have answered?" in answer.text
    assert client.get("/v1/models/m/edits").json()["edits"] == []


def test_a_contradiction_is_said(client: LocalClient) -> None:
    number, before = asked(client)
    fields = {"of": number, "wanted": str(1 - before), "reason": "x", "way": "memory"}
    text = client.post(f"{PAGE}/correct", data=fields | {"step": "preview"}).text
    went(client.post(f"{PAGE}/correct", data=hidden(text) | {"step": "confirm"}))
    again = {"of": number, "wanted": str(before), "reason": "y", "step": "preview"}
    answer = client.post(f"{PAGE}/correct", data=again)
    assert answer.status_code == 422 and "wants another answer" in seen(answer.text)


def test_what_the_gate_would_refuse_cannot_be_confirmed(
    client: LocalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everlearn.jobs.patch.report.BUDGET", -1.0)  # no flip is few enough
    number, before = asked(client)
    fields = {"of": number, "wanted": str(1 - before), "reason": "x", "step": "preview"}
    text = client.post(f"{PAGE}/correct", data=fields).text
    assert "would turn from right to wrong" in seen(text)
    assert "It would not be let through" in seen(text) and 'value="confirm"' not in text
    assert 'value="back"' in text


def test_an_edit_is_revoked_once_it_is_confirmed(client: LocalClient) -> None:
    number, before = asked(client)
    fields = {"of": number, "wanted": str(1 - before), "reason": "x", "way": "memory"}
    text = client.post(f"{PAGE}/correct", data=fields | {"step": "preview"}).text
    went(client.post(f"{PAGE}/correct", data=hidden(text) | {"step": "confirm"}))
    assert f'href="{PAGE}/do/revoke?of=1"' in client.get(f"{PAGE}/edits").text
    text = client.get(f"{PAGE}/do/revoke?of=1").text
    assert "Revoke edit 1 of m?" in text and "a 1.5, b 1" in seen(text)
    stale = client.post(f"{PAGE}/do/revoke", data=hidden(text) | {"expected": "2"})
    assert stale.status_code == 409
    place = went(client.post(f"{PAGE}/do/revoke", data=hidden(text)))
    words = seen(client.get(place).text)
    assert "revoked" in words and "Revoke…" not in words
    assert asked(client, log=False)[1] == before
    assert client.get(f"{PAGE}/do/revoke?of=1").status_code == 422
    assert client.get(f"{PAGE}/do/revoke?of=9").status_code == 404


def test_what_was_erased_cannot_be_corrected(client: LocalClient, workspace: el.Workspace) -> None:
    number, _ = asked(client, keys=["ann"])
    client.post("/v1/models/m/erase", json={"key": "ann"})
    text = client.get(f"{PAGE}/predictions").text
    assert "erased" in seen(text) and "Correct this…" not in text
    answer = client.get(f"{PAGE}/correct?of={number}")
    assert answer.status_code == 422 and "was erased" in seen(answer.text)


def test_a_value_is_corrected(tmp_path: Path) -> None:
    with el.open(tmp_path / "values") as workspace:
        data = [{"a": n / 50, "y": 2.0 * n / 50} for n in range(200)]
        learner = el.learners.LinearRegression()
        handle = workspace.model(el.Model("m", learner=learner, schema=el.Schema(target="y")))
        handle.train(data, source="first")
        with LocalClient(workspace.app(["m"], learn=False), follow_redirects=False) as client:
            number, _ = asked(client, {"a": 1.0, "new": "x"})
            text = client.get(f"{PAGE}/correct?of={number}").text
            assert "does not know new" in text and '<input id="wanted"' in text
            fields = {"of": number, "wanted": "7.5", "reason": "measured", "step": "preview"}
            answer = client.post(f"{PAGE}/correct", data=fields)
            assert answer.status_code == 200, seen(answer.text)
            place = went(
                client.post(f"{PAGE}/correct", data=hidden(answer.text) | {"step": "confirm"})
            )
            assert client.get(place).status_code == 200
            (edit,) = client.get("/v1/models/m/edits").json()["edits"]
            assert (edit["features"], edit["output"]) == ({"a": 1.0}, 7.5)
            assert edit["prediction_id"] == number
            wrong = client.post(f"{PAGE}/correct", data=fields | {"wanted": "many"})
            assert wrong.status_code == 422 and 'value="many"' in wrong.text


def test_without_a_champion_there_is_nothing_to_correct(tmp_path: Path) -> None:
    with el.open(tmp_path / "empty") as workspace:
        schema = el.Schema(target="y", numeric=("a",))
        workspace.model(el.Model("m", learner="logistic", schema=schema))
        with LocalClient(workspace.app(["m"], learn=False)) as client:
            assert "Nothing was asked lately." in client.get(f"{PAGE}/predictions").text
            number, _ = asked(client, {"a": 1.0})
            assert number in client.get(f"{PAGE}/predictions").text
            answer = client.get(f"{PAGE}/correct?of={number}")
            assert answer.status_code == 404 and "nothing serves" in seen(answer.text)
            for page in ("edits", "withdrawals", "bisections", "excise"):
                assert client.get(f"{PAGE}/{page}").status_code == 200
            none = client.post(
                f"{PAGE}/excise",
                data={"by": "key", "what": "x", "reason": "y"} | {"step": "preview"},
            )
            assert none.status_code == 422


def test_predictions_of_a_model_are_looked_for_among_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with el.open(tmp_path / "two") as workspace:
        for name in ("m", "n"):
            workspace.model(el.Model(name, schema=el.Schema(target="y", numeric=("a",))))
        with LocalClient(workspace.app(["m", "n"], learn=False)) as client:
            mine, _ = asked(client, {"a": 1.0})
            body = {"instances": [{"a": float(n)} for n in range(10)]}
            theirs = client.post("/v1/models/n/predict", json=body).json()["predictions"]
            assert mine in client.get(f"{PAGE}/predictions").text
            assert theirs[0]["id"] not in client.get(f"{PAGE}/predictions").text
            assert client.get(f"{PAGE}/correct?of={theirs[0]['id']}").status_code == 404
            monkeypatch.setattr("everlearn.serving.console.predictions.LOOKED_AT", 10)
            assert mine not in client.get(f"{PAGE}/predictions").text


def test_pages_are_told_of_repairs(client: LocalClient, workspace: el.Workspace) -> None:
    def now() -> Stamp:
        with workspace.registry.database.read() as connection:
            return stamp(connection, [model_id(connection, "m")])

    stamps = [now()]
    edit = {"features": ASKED, "output": 1 - asked(client)[1], "reason": "x"}
    client.post("/v1/models/m/patches", json={"edits": [edit], "way": "memory"})
    stamps.append(now())
    client.post("/v1/models/m/edits/1/revoke")
    stamps.append(now())
    client.post("/v1/models/m/excisions", json={"where": "who = 'bot'"})
    stamps.append(now())
    names = [changed(one, other) for one, other in pairwise(stamps)]
    assert names == [["edits", "moves"], ["edits", "moves"], ["jobs", "withdrawals"]]


def test_only_operators_repair(client: LocalClient, workspace: el.Workspace) -> None:
    secrets = [workspace.keys.create(role)[1] for role in ("predict", "review")]
    secrets.append(workspace.keys.create("operate", note="Ada")[1])
    bearer = {"Authorization": f"Bearer {secrets[0]}"}
    number, before = asked(client, headers=bearer)
    theirs, own = (
        {"Cookie": f"{COOKIE}={secret}", "Origin": "http://127.0.0.1:8000"}
        for secret in secrets[1:]
    )
    fields = {"of": number, "wanted": str(1 - before), "reason": "x"}
    for path in ("predictions", f"correct?of={number}", "edits", "excise", "bisections"):
        assert client.get(f"{PAGE}/{path}", headers=theirs).status_code == 403
    answer = client.post(f"{PAGE}/correct", data=fields | {"step": "preview"}, headers=theirs)
    assert answer.status_code == 403
    elsewhere = own | {"Origin": "http://evil.example"}
    preview = fields | {"step": "preview"}
    assert client.post(f"{PAGE}/correct", data=preview, headers=elsewhere).status_code == 403
    text = client.post(f"{PAGE}/correct", data=preview, headers=own).text
    went(client.post(f"{PAGE}/correct", data=hidden(text) | {"step": "confirm"}, headers=own))
    assert "Ada" in client.get(f"{PAGE}/edits", headers=own).text


# --- withdrawals -------------------------------------------------------------------------------


def test_rows_are_withdrawn_once_it_was_seen_what_that_means(
    client: LocalClient, workspace: el.Workspace
) -> None:
    fields = {"by": "where", "what": "who = 'bot'", "reason": "poisoned"}
    text = client.post(f"{PAGE}/excise", data=fields | {"step": "preview"}).text
    words = seen(text)
    assert "Withdraw 300 rows?" in words and "folded again without them" in words
    assert client.get("/v1/models/m/excisions").json()["excisions"] == []
    assert "who = 'bot'</textarea>" in html.unescape(
        client.post(f"{PAGE}/excise", data=hidden(text) | {"step": "back"}).text
    )
    place = went(client.post(f"{PAGE}/excise", data=hidden(text) | {"step": "confirm"}))
    words = seen(client.get(place).text)
    assert "300 rows are withdrawn" in words and "who = 'bot'" in words and "poisoned" in words
    assert "withdrawn rows" not in seen(client.get(f"{PAGE}/versions/1").text)
    assert seen(client.get(f"{PAGE}/versions").text).count("withdrawn rows") == 1
    job = re.search(r"/jobs/([0-9]+)", client.get(place).text)
    assert job is not None and workspace.run(int(job[1])).decision.action == "promote"
    refused = client.post(f"{PAGE}/do/promote", data={"version": "2", "expected": "3"})
    assert refused.status_code == 409 and "withdrawn" in refused.text
    assert "<b>1</b> withdrawal" in client.get(PAGE).text


def test_withdrawals_that_cannot_be_are_explained_on_the_form(client: LocalClient) -> None:
    fields = {"by": "where", "what": "who = 'bot'", "reason": "x", "step": "preview"}
    for change, words in (
        ({"what": "who ="}, "who ="),
        ({"what": "who = 'nobody'"}, "no such row"),
        ({"what": ""}, "say which rows"),
        ({"by": "else"}, "say which rows"),
        ({"reason": ""}, "say why"),
        ({"by": "induced_by", "what": "two"}, "integer"),
        ({"by": "rows", "what": "first"}, "SOURCE:FROM-TO"),
    ):
        answer = client.post(f"{PAGE}/excise", data=fields | change)
        assert answer.status_code == 422, change
        assert words in seen(answer.text) and "<form" in answer.text, change
    assert client.get("/v1/models/m/excisions").json()["excisions"] == []
    found = client.post(f"{PAGE}/excise", data=fields | {"by": "rows", "what": "first:0-3 first:9"})
    assert "Withdraw 5 rows?" in seen(found.text)


# --- bisections --------------------------------------------------------------------------------


def test_a_bisection_leads_to_the_rows_to_withdraw(tmp_path: Path) -> None:
    with poisoned(tmp_path) as workspace:
        Bisector(workspace.registry, "m", Question(GOOD, BAD, "log_loss"))()
        with LocalClient(workspace.app(["m"], learn=False), follow_redirects=False) as client:
            asked_again = {"good": str(GOOD), "bad": str(BAD), "metric": "log_loss"}
            place = went(client.post(f"{PAGE}/bisections", data=asked_again))
            assert place == f"{PAGE}/bisections/1"
            text = client.get(place).text
            words = seen(text)
            assert f"Version {POISONED} made it worse" in words and "did it" in words
            link = re.search(r'href="([^"]*/excise\?where=[^"]*)"', text)
            assert link is not None
            form = html.unescape(client.get(html.unescape(link[1])).text)
            assert ">source = 'bot-7'</textarea>" in form
            assert f"version {POISONED} made it worse" in seen(
                client.get(f"{PAGE}/bisections").text
            )
            for change, status, words in (
                ({"good": "six"}, 422, "the good version is a number"),
                ({"good": str(BAD), "bad": str(GOOD)}, 422, "swap them"),
                ({"bad": "99"}, 404, "99"),
                ({"metric": "mae"}, 422, "cannot judge"),
            ):
                answer = client.post(f"{PAGE}/bisections", data=asked_again | change)
                assert answer.status_code == status, change
                assert words in seen(answer.text) and "<form" in answer.text
            assert client.get(f"{PAGE}/bisections/9").status_code == 404


def test_a_bisection_that_was_left_can_go_on(tmp_path: Path) -> None:
    with poisoned(tmp_path, versions=3) as workspace:
        Bisector(workspace.registry, "m", Question(1, 3, "accuracy")).open()
        with LocalClient(workspace.app(["m"], learn=False)) as client:
            text = client.get(f"{PAGE}/bisections/1").text
            assert "It was left after 0 measurements" in seen(text) and "Go on" in text
            assert hidden(text) == {"good": "1", "bad": "3", "metric": "accuracy"}
            assert "it can go on" in client.get(f"{PAGE}/bisections").text
