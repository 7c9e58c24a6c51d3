"""The explanation of a version over HTTP and in the console."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

import everlearn as el
from everlearn.serving.console.charts import facing_bars
from tests.serving.local import LocalClient

EVIL = "<script>alert('1')</script>\" onload=x"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[el.Workspace]:
    """Two versions: what is late turns round, for one origin of an evil name; and who promoted."""
    with el.open(tmp_path_factory.mktemp("explained") / "workspace") as workspace:
        schema = el.Schema(target="late", categorical=(EVIL,))
        model = el.Model("m", el.learners.LogisticRegression(), schema, holdout=0.3)
        handle = workspace.model(model)
        for seed in range(2):
            rng = np.random.default_rng(seed)
            x, origin = rng.normal(size=800), rng.choice(["JFK", EVIL], 800)
            late = np.where((x > 0) ^ (bool(seed) & (origin == EVIL)), "late" + EVIL, "no")
            handle.train(pa.table({"x": x, EVIL: origin, "late": late}), source=f"{seed}{EVIL}")
        yield workspace


@pytest.fixture
def client(workspace: el.Workspace) -> Iterator[LocalClient]:
    with LocalClient(workspace.app(["m"], learn=False)) as client:
        yield client


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_http_and_python_say_the_same(workspace: el.Workspace, client: LocalClient) -> None:
    answer = client.get("/v1/models/m/versions/2/explanation")
    assert answer.status_code == 200
    assert answer.json() == plain(workspace.model("m").show(2))


@pytest.mark.parametrize(("number", "status"), [("9", 404), ("0", 422), ("x", 422)])
def test_versions_that_are_not_there(client: LocalClient, number: str, status: int) -> None:
    assert client.get(f"/v1/models/m/versions/{number}/explanation").status_code == status


def test_the_page_shows_what_changed_and_is_harmless(
    workspace: el.Workspace, client: LocalClient
) -> None:
    page = client.get("/console/models/m/versions/2")
    assert page.status_code == 200
    changed = workspace.model("m").show(2)["predictions"]
    assert f"<b>{changed['changed']}</b> of {changed['rows']} held-out rows" in page.text
    assert f"{len(changed['samples'])} rows that flipped" in page.text
    assert changed["slices"]
    assert page.text.count("<script>alert") == 0
    assert "&lt;script&gt;alert" in page.text
    for title in ("What changed in its answers", "from whom", "Why it was let through"):
        assert title in page.text


def test_the_page_of_a_first_version_says_what_is_not_there(client: LocalClient) -> None:
    page = client.get("/console/models/m/versions/1")
    assert page.status_code == 200
    assert "there is none to compare it with" in page.text


def test_nothing_is_computed_for_the_list(
    client: LocalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everlearn.rollout.explain.Explanation", lambda *given: 1 / 0)
    for path in ("/v1/models/m/versions", "/console/models/m/versions", "/console/models/m"):
        assert client.get(path).status_code == 200


def test_bars_face_each_other_to_one_scale() -> None:
    names, words = [EVIL, "2"], (EVIL, "worse")
    root = ElementTree.fromstring(facing_bars(EVIL, names, [4, 0], [2, 8], words))
    assert not list(root.iter("script"))
    bars = [one for one in root.iter() if one.tag.endswith("rect")]
    kinds = [one.get("class", "").split()[-1] for one in bars]
    assert kinds == ["won", "lost", "won", "lost"]
    tall = [float(one.get("height", "")) for one in bars]
    assert [round(one / tall[3], 2) for one in tall] == [0.5, 0.25, 0.0, 1.0]
    first, second = (float(bars[place].get("y", "")) for place in (0, 1))
    assert first + tall[0] == pytest.approx(second, abs=0.2)
