"""What people do in the console: review, and the actions of operators; who may, and from where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI

import everlearn as el
from everlearn.base import Decision, NotFoundError
from everlearn.data.compaction import Bounds, compact
from everlearn.data.feedback import Label, LoggedPrediction, id_text
from everlearn.data.streams.aside import listed
from everlearn.data.streams.ingest import intake_of, take_again
from everlearn.data.streams.intake import Message
from everlearn.registry.audit import Audit
from everlearn.serving.access import COOKIE
from everlearn.serving.console.answers import Answers
from everlearn.serving.console.desk import _typed
from everlearn.serving.console.frozen import Frozen
from everlearn.serving.console.live import Live, changed
from everlearn.serving.console.words import evidence
from everlearn.storage.schema import predictions
from tests.serving.local import LocalClient
from tests.serving.test_rollouts import Loop, history

PAGE = "/console/models/m"
HERE = {"Origin": "http://127.0.0.1:8000"}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as workspace:
        schema = el.Schema(target="late", numeric=("x",))
        review = el.Review(share=1.0, random=1.0)
        handle = workspace.model(
            el.Model("m", learner="logistic", schema=schema, review=review, holdout=0.0)
        )
        handle.train(history(tmp_path / "first.csv", 200, seed=0))
        yield workspace


@pytest.fixture
def app(workspace: el.Workspace) -> FastAPI:
    made: FastAPI = workspace.app(["m"], learn=False)
    return made


@pytest.fixture
def client(app: FastAPI) -> Iterator[LocalClient]:
    with LocalClient(app, follow_redirects=False) as client:
        yield client


def predicted(client: LocalClient, count: int, **more: Any) -> list[str]:
    body = {"instances": [{"x": float(place)} for place in range(count)]}
    given = client.post("/v1/models/m/predict", json=body, **more).json()["predictions"]
    return [one["id"] for one in given]


def went(answer: Any) -> str:
    """Where a form leads."""
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def form(client: LocalClient, path: str) -> tuple[str, dict[str, str]]:
    """The action and the hidden fields of the form of a page."""
    text = client.get(path).text
    found = re.search(r'<form method="post" action="([^"]*/do/[^"]*)"', text)
    assert found is not None, text
    return found[1], dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text))


# --- review ------------------------------------------------------------------------------------


def test_review_by_forms(client: LocalClient, workspace: el.Workspace) -> None:
    predicted(client, 3)
    queue = client.get(f"{PAGE}/review").text
    assert "<b>3</b> waiting" in queue and "Take the next" in queue
    first = went(client.post(f"{PAGE}/review"))
    text = client.get(first).text
    assert re.search(r'name="choice" value="0" data-key="1"', text)
    assert re.search(r'name="choice" value="1" data-key="2"', text)
    assert "Probability of selection: <b>1</b>" in text and "random" in text
    assert 'data-until="' in text
    second = went(client.post(f"{first}/answer", data={"choice": "1"}))
    assert second != first and second.endswith(f"?seen={first.rpartition('/')[2]}")
    third = went(client.post(f"{second.partition('?')[0]}/skip", data={"seen": "7"}))
    number = second.partition("?")[0].rpartition("/")[2]
    assert third.endswith(f"?seen=7.{number}")
    assert f'href="{PAGE}/review/{number}?seen=7"' in client.get(third).text
    again = client.get(first).text
    assert "You answered it" in again
    client.post(f"{first}/answer", data={"value": " 0 "})
    rows = workspace.model("m").log.read()
    assert [(row.value, row.kind, row.source) for row in rows] == [
        (1, "human", "review"), (0, "human", "review")]  # fmt: skip
    end = went(client.post(f"{third.partition('?')[0]}/release"))
    assert end == f"{PAGE}/review"
    assert "<b>1</b> waiting" in client.get(end).text
    third = went(
        client.post(f"{PAGE}/review", data={"item": third.partition("?")[0].split("/")[-1]})
    )
    assert went(client.post(f"{third}/answer", data={"choice": "0"})) == f"{PAGE}/review"
    assert "Nothing waits for you" in client.get(f"{PAGE}/review").text


def test_a_page_takes_nothing_and_says_who_has_it(client: LocalClient, app: FastAPI) -> None:
    predicted(client, 2)
    (one, two) = client.get("/v1/models/m/review").json()["items"]
    place = f"{PAGE}/review/{one['id']}"
    assert "It is not yours yet" in client.get(place).text
    assert client.get("/v1/models/m/review").json()["counts"]["claimed"] == 0
    app.state.models.reviewers("m").claim("somebody", one["id"])
    for path in ("answer", "skip"):
        refused = client.post(f"{place}/{path}", data={"choice": "1"})
        assert refused.status_code == 409 and "with another reviewer" in refused.text
    assert client.post(f"{place}/release").status_code == 409
    assert went(client.post(f"{PAGE}/review")) == f"{PAGE}/review/{two['id']}"
    wrong = client.post(f"{PAGE}/review/{two['id']}/answer", data={"value": "late"})
    assert wrong.status_code == 422 and "the target is a number" in wrong.text
    assert client.post(f"{PAGE}/review/{two['id']}/answer", data={}).status_code == 422
    assert client.get(f"{PAGE}/review/99").status_code == 404
    assert client.get(f"{place}?seen=<b>").status_code == 422
    skipped = client.post(f"{PAGE}/review/{two['id']}/skip", data={"seen": "a.²..7"})
    assert skipped.status_code == 303, "what a form says of former items is read as far as it goes"


def test_next_passes_by_what_was_taken(client: LocalClient) -> None:
    predicted(client, 3)
    places = [went(client.post(f"{PAGE}/review"))]
    for _ in range(3):
        number = places[-1].partition("?")[0].rpartition("/")[2]
        places.append(went(client.post(f"{PAGE}/review", data={"after": number})))
    numbers = [place.partition("?")[0] for place in places]
    assert len(set(numbers[:3])) == 3 and numbers[3] == numbers[0]
    assert client.get("/v1/models/m/review").json()["counts"]["claimed"] == 3


def test_a_claim_that_is_given_back_is_free(client: LocalClient, app: FastAPI) -> None:
    predicted(client, 1)
    item = client.post("/v1/models/m/review/claim", json={"reviewer": "bo"}).json()["item"]
    at = f"/v1/models/m/review/{item['id']}"
    assert client.post(f"{at}/release", json={"reviewer": "al"}).status_code == 409
    freed = client.post(f"{at}/release", json={"reviewer": "bo"}).json()["item"]
    assert (freed["state"], freed["claims"]) == ("waiting", {})
    taken = client.post("/v1/models/m/review/claim", json={"reviewer": "al"}).json()["item"]
    assert taken["id"] == item["id"]


def test_answers_are_values_of_the_target() -> None:
    assert _typed("1", "integer") == 1
    assert isinstance(_typed("2", "number"), float)
    assert _typed("007", "text") == "007"
    assert _typed("TRUE", "boolean") is True
    for text, kind in (("x", "integer"), ("nan", "number"), ("1e400", "number"), ("1", "boolean")):
        with pytest.raises(el.base.InputError):
            _typed(text, kind)
    assert _typed("nan", "") == "nan"


# --- operators ---------------------------------------------------------------------------------


def test_promote_and_roll_back(
    client: LocalClient, workspace: el.Workspace, tmp_path: Path
) -> None:
    workspace.model("m").train(history(tmp_path / "next.csv", 300, seed=1))
    workspace.registry.rollback("m", 1)
    assert f'href="{PAGE}/do/promote?of=2"' in client.get(f"{PAGE}/versions/2").text
    assert "/do/promote" not in client.get(f"{PAGE}/versions/1").text
    action, fields = form(client, f"{PAGE}/do/promote?of=2")
    assert fields == {"version": "2", "expected": "1"}
    stale = client.post(action, data=fields | {"expected": "2"})
    assert stale.status_code == 409 and workspace.model("m").champion() == 1
    assert client.post(action, data={"version": "x"}).status_code == 422
    assert went(client.post(action, data=fields)) == PAGE
    assert client.get("/v1/models/m").json()["serving"]["version"] == 2
    assert "promoted in the console" in client.get(PAGE).text
    action, back = form(client, f"{PAGE}/do/roll-back")
    assert back == {"to": "1", "expected": "2"}
    went(client.post(action, data=back))
    assert client.get("/v1/models/m").json()["serving"]["version"] == 1
    assert client.post(action, data=back).status_code == 409
    assert client.get(f"{PAGE}/do/promote?of=9").status_code == 404
    assert client.get(f"{PAGE}/do/promote?of=x").status_code == 422
    assert client.get(f"{PAGE}/do/other").status_code == 422
    entries = Audit(workspace.registry.database).listed()
    entries = [one for one in entries if "address" in one["detail"]]  # not of what was set up here
    done = [(one["status"], one["detail"]["body"]) for one in reversed(entries)]
    assert done == [(409, {"version": "2", "expected": "2"}), (422, {"version": "x"}),
                    (200, fields), (200, back), (409, back)]  # fmt: skip
    assert {one["action"] for one in entries} == {"POST /console/models/{model}/do/{action}"}
    assert {one["model"] for one in entries} == {"m"}


def test_a_job_is_run_and_shown(client: LocalClient, workspace: el.Workspace) -> None:
    none = client.post(f"{PAGE}/do/run")
    assert none.status_code == 200 and "No job was queued" in none.text
    said = [{"prediction_id": one, "value": 1} for one in predicted(client, 30)]
    client.post("/v1/models/m/feedback", json={"labels": said})
    action, fields = form(client, f"{PAGE}/do/run")
    place = went(client.post(action, data=fields))
    text = client.get(place).text
    assert "queued" in text and "asked for by hand" in text and "feedback" in text
    workspace.run(int(place.rpartition("/")[2]))
    text = client.get(place).text
    assert "done" in text and "What the gate looked at" in text
    assert client.get(f"{PAGE}/jobs/99").status_code == 404


def test_a_rollout_is_stopped_once(tmp_path: Path) -> None:
    it = Loop(tmp_path, el.Canary([30, 60], margin=0.2, labels=100))
    it.candidate(right=1.0)
    with LocalClient(it.app, follow_redirects=False) as client:
        it.look()
        assert f'href="{PAGE}/do/stop"' in client.get(f"{PAGE}/rollouts/1").text
        action, fields = form(client, f"{PAGE}/do/stop")
        assert client.post(action, data={"rollout": "7"}).status_code == 409
        assert went(client.post(action, data=fields)) == f"{PAGE}/rollouts/1"
        assert "stopped in the console" in client.get(f"{PAGE}/rollouts/1").text
        assert client.post(action, data=fields).status_code == 409
        assert client.get(f"{PAGE}/do/stop").status_code == 422
    it.workspace.close()


def test_a_source_is_believed_again(client: LocalClient, workspace: el.Workspace) -> None:
    name = "a & <b>"
    held = Decision("quarantine", "it lies", {"rows": 9, "after": 0})
    workspace.updates.quarantine("m").put(name, held, 0)
    text = client.get(f"{PAGE}/quarantine").text
    assert "a &amp; &lt;b&gt;" in text and "it lies" in text
    link = re.search(r'href="([^"]*/do/release[^"]*)"', text)
    assert link is not None
    action, _ = form(client, link[1].replace("&amp;", "&"))
    assert went(client.post(action, data={"source": name})) == f"{PAGE}/quarantine"
    assert workspace.updates.quarantine("m").active() == set()
    assert client.post(action, data={"source": name}).status_code == 409
    assert client.post(action, data={"source": "other"}).status_code == 404
    assert client.get(f"{PAGE}/do/release?of=a%00b").status_code == 422  # no text of PostgreSQL's


def test_answers_of_a_stage_are_whole_or_none(workspace: el.Workspace) -> None:
    log, numbers = workspace.updates.log("m"), workspace.ids.take(6)
    said = {"value": 1, "probabilities": {"1": 0.5}}
    log.append_predictions([LoggedPrediction(number, {"x": 1.0}, said) for number in numbers])
    log.append_labels([Label(1, id_text(number)) for number in numbers])
    frozen = Frozen(workspace.registry, "m")
    whole = Answers(workspace.database, log, frozen).since(numbers[0])
    assert [one.prediction for one in whole] == numbers
    moment = workspace.database.clock() + 1
    with workspace.database.write() as connection:  # the last two are younger
        young = sa.update(predictions).where(predictions.c.id >= numbers[4])
        connection.execute(young.values(arrived_at=moment))
    assert compact(log, workspace.blobs, Bounds(moment, upto=6)).labels == 4
    left = Answers(workspace.database, log, frozen)
    assert left.since(numbers[0]) == [] and len(left.read()) == 2


def test_messages_are_taken_again(client: LocalClient, workspace: el.Workspace) -> None:
    log, number = workspace.updates.log("m"), 77 << 21
    intake = intake_of("kafka://broker/bills", log, workspace.ids)
    label = b'{"type": "label", "external_id": "later", "value": 1, "weight": 1}'
    waiting = f'{{"type": "label", "prediction_id": "{id_text(number)}", "value": 1}}'.encode()
    intake.take([Message(0, 5, b"<b>"), Message(0, 6, waiting), Message(0, 7, label)])
    rows = client.get("/v1/models/m/set-aside").json()["set_aside"]
    assert [(row["id"], row["offset"], row["body"]) for row in rows] == [
        (2, 6, waiting.decode()), (1, 5, "<b>")]  # fmt: skip
    assert client.get("/v1/models/m/set-aside?before=2&limit=1").json()["set_aside"] == rows[1:]
    text = client.get(f"{PAGE}/set-aside").text
    assert "&lt;b&gt;" in text and "no JSON" in text
    assert "2</b> messages set aside" in client.get(PAGE).text
    action, fields = form(client, f"{PAGE}/do/take-again?of=2")
    stays = client.post(action, data=fields)
    assert "It stays set aside" in stays.text and id_text(number) in stays.text
    assert listed(log, 9) == rows  # as it was
    found = predicted(client, 1)[0]
    with log.database.write() as connection:  # as if the prediction had come by another way
        connection.exec_driver_sql(
            "UPDATE stream_set_aside SET body = replace(body, ?, ?) WHERE id = 2",
            (id_text(number), found),
        )
    assert went(client.post(action, data=fields)) == f"{PAGE}/set-aside"
    assert [row.source for row in log.read()] == ["kafka:bills"]
    answer = client.post("/v1/models/m/set-aside/1/release").json()
    assert answer["released"] is False and "no JSON" in answer["reason"]
    assert client.post("/v1/models/m/set-aside/2/release").status_code == 404
    assert client.post(action, data=fields).status_code == 404
    with pytest.raises(NotFoundError):
        take_again(log, workspace.ids, 2)


# --- who, and from where -----------------------------------------------------------------------


def test_forms_are_sent_from_pages_of_this_server(workspace: el.Workspace, app: FastAPI) -> None:
    secrets = {role: workspace.keys.create(role)[1] for role in ("operate", "review", "admin")}
    with LocalClient(app, "10.1.2.3", follow_redirects=False) as client:
        bearer = {"Authorization": f"Bearer {secrets['admin']}"}
        predicted(client, 1, headers=bearer)

        def post(path: str, role: str, origin: str | None = HERE["Origin"]) -> int:
            headers = {"Cookie": f"{COOKIE}={secrets[role]}"}
            headers |= {} if origin is None else {"Origin": origin}
            return int(client.post(PAGE + path, headers=headers).status_code)

        for path, role in (("/do/run", "operate"), ("/review", "review")):
            for origin in (None, "null", "http://evil", "http://127.0.0.1:8001"):
                assert post(path, role, origin) == 403, origin
            assert post(path, role) in (200, 303)
        assert (post("/do/run", "review"), post("/review", "operate")) == (403, 403)
        assert post("/do/run", "admin") == 200
        assert client.post(f"{PAGE}/do/run").status_code == 401
        assert client.post(f"{PAGE}/do/run", headers=bearer).status_code == 200
        cookie = {"Cookie": f"{COOKIE}={secrets['operate']}", **HERE}
        assert client.post("/v1/models/m/jobs", headers=cookie).status_code == 401
        both = cookie | {"Authorization": "Bearer nothing"}
        assert client.post(f"{PAGE}/do/run", headers=both).status_code == 401
        assert (
            "no-referrer" not in client.get("/console", headers=cookie).headers["referrer-policy"]
        )


def test_without_keys_other_sites_do_nothing(client: LocalClient) -> None:
    for origin in ("null", "http://evil"):
        assert client.post(f"{PAGE}/do/run", headers={"Origin": origin}).status_code == 403
    assert client.post(f"{PAGE}/do/run", headers=HERE).status_code == 200


def test_a_reviewer_sees_the_queue_and_no_more(workspace: el.Workspace, app: FastAPI) -> None:
    secret, admin = (workspace.keys.create(role, note="bo")[1] for role in ("review", "admin"))
    headers = {"Cookie": f"{COOKIE}={secret}"}
    with LocalClient(app, "10.1.2.3") as client:
        text = client.get("/console", headers=headers).text
        assert f'href="{PAGE}/review"' in text and f'href="{PAGE}"' not in text
        assert client.get(PAGE, headers=headers).status_code == 403
        assert "You answer as <b>bo</b>" not in client.get(f"{PAGE}/review", headers=headers).text
        predicted(client, 1, headers={"Authorization": f"Bearer {admin}"})
        assert "You answer as <b>bo</b>" in client.get(f"{PAGE}/review", headers=headers).text


# --- live --------------------------------------------------------------------------------------


def test_the_stream_says_what_changed(app: FastAPI, client: LocalClient) -> None:
    live = Live(app.state.models.console())
    (key,) = live.keys(["m"])

    def after(act: Any) -> list[str]:
        before = live.look([key])
        act()
        return changed(before, live.look([key]))

    ids: list[str] = []
    assert after(lambda: None) == []
    assert after(lambda: ids.extend(predicted(client, 30))) == ["review"]
    said = {"labels": [{"prediction_id": one, "value": 1} for one in ids]}
    assert after(lambda: client.post("/v1/models/m/feedback", json=said)) == ["labels"]
    assert after(lambda: client.post("/v1/models/m/review/claim")) == ["review"]
    assert after(lambda: client.post("/v1/models/m/jobs")) == ["jobs"]
    text = client.get("/console/events?seconds=0").text
    assert text.startswith("retry: 1000\nevent: begin")
    assert client.get("/console/models/other/events").status_code == 404


def test_evidence_is_flat_and_short() -> None:
    found = evidence({"checks": [{"on": "a_b", "ok": True}], "none": [], "x": {"y": {"z": 1}}})
    assert found == [("checks · 1", "on a_b, ok True"), ("none", "none"),
                     ("x · y · z", "1")]  # fmt: skip
    assert len(evidence({str(n): n for n in range(500)})) == 60
