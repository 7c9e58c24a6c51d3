"""What the console shows of what was learned and forgotten."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa

import everlearn as el
from everlearn.learners import LogisticRegression
from everlearn.serving.console.charts import Cell, heat_map
from everlearn.serving.console.drawings import transfer_map
from tests.serving.local import LocalClient

EVIL = "<script>alert('1')</script>\" onload=x"


def rows(seed: int, angle: float) -> pa.Table:
    x = np.random.default_rng(seed).normal(size=(500, 2))
    score = np.cos(angle) * x[:, 0] + np.sin(angle) * x[:, 1]
    return pa.table({"a": x[:, 0], "b": x[:, 1], "y": score > 0})


def shown(workspace: el.Workspace, turns: int) -> tuple[str, str]:
    """The pages of the model and of its last version."""
    schema, strategy = el.Schema(target="y"), el.Strategy(chunk=50)
    model = el.Model("m", LogisticRegression(), schema, strategy, holdout=0.2)
    handle = workspace.model(model)
    for turn in range(turns):
        handle.train(rows(turn, turn * np.pi / 2))
    with LocalClient(workspace.app(["m"], learn=False)) as client:
        pages = [client.get(f"/console/models/m{path}") for path in ("", f"/versions/{turns}")]
    assert [page.status_code for page in pages] == [200, 200]
    return pages[0].text, pages[1].text


def test_pages_show_what_was_forgotten(tmp_path: Path) -> None:
    with el.open(tmp_path / "workspace") as workspace:
        model, version = shown(workspace, 3)
        table = workspace.model("m").transfer()
    for text in (model, version):
        assert "What it knows, and what it forgot" in text
        assert f"<b>{table['figures']['forgetting']:,.4g}</b> forgotten of older periods" in text
        assert "stability gap" in text
        assert len(re.findall(r'<rect class="cell', text)) == 8  # 6 of R, 2 above its diagonal
    assert len(re.findall(r'class="cell own"', version)) == 1
    for period in table["periods"][:2]:
        assert f'<b class="bad">{period["forgotten"]:,.4g}</b>' in version
    assert "Most was forgotten of increment 1" in model


def test_a_first_version_has_nothing_to_forget(tmp_path: Path) -> None:
    with el.open(tmp_path / "workspace") as workspace:
        model, version = shown(workspace, 1)
    assert "what it forgot" not in model
    assert "what it forgot" in version
    assert "<svg" not in version.split('id="s-transfer"')[1].split("</section>")[0]


def test_maps_are_whole_and_harmless() -> None:
    cells = [[Cell(0.5, EVIL, EVIL), Cell(None)], [Cell(0.0, "a", "b", own=True), Cell(1.0)]]
    drawing = heat_map(EVIL, ["v1", EVIL], [EVIL, "2"], cells)
    root = ElementTree.fromstring(drawing)
    assert not list(root.iter("script"))
    shades = [float(one.get("fill-opacity", "")) for one in root.iter() if one.tag.endswith("rect")]
    assert len(shades) == 3
    assert shades == [shades[0], min(shades), max(shades)]
    wide = heat_map("R", [f"v{n}" for n in range(32)], [f"{n}–{n}" for n in range(32)],
                    [[Cell(0.5, "0.5")] * 32] * 32)  # fmt: skip
    texts = list(ElementTree.fromstring(wide).itertext())
    assert "0.5" not in texts  # no room
    assert "v31" in texts and 10 < len(texts) < 70


def test_a_map_is_fuller_where_losses_are_lower() -> None:
    period = {"first": 1, "last": 1, "new": False}
    table = {"metric": "mse", "greater_is_better": False, "periods": [period],
             "matrix": {"versions": [1, 2], "scores": [[1.0], [3.0]]}}  # fmt: skip
    shades = re.findall(r'fill-opacity="([\d.]+)"', transfer_map(table))
    assert float(shades[0]) >= float(shades[1])
    table["matrix"] = {"versions": [1], "scores": [[1.0]]}
    assert transfer_map(table) == ""
