"""The console's charts: what they are drawn from, and what is marked in them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import everlearn as el
from everlearn.serving.console.answers import Answer, blocks, sequence
from everlearn.serving.console.charts import Chart, Line, Mark, Node, bars, graph
from tests.serving.local import LocalClient
from tests.serving.test_console import EVIL, page
from tests.serving.test_rollouts import Loop


def test_drift_is_marked_with_its_evidence_beside_the_first_version(tmp_path: Path) -> None:
    it = Loop(tmp_path, None, triggers=[el.Drift(window=50)])
    with LocalClient(it.app) as client:
        for _ in range(2):
            it.traffic(client, 60)
            assert it.handle.trigger().action == "wait"
        assert "mark drift" not in page(client, "/models/m")
        it.traffic(client, 60, shift=2.0)
        said = it.handle.trigger()
        assert said.action == "learn", said
        it.workspace.work(once=True)
        it.look()
        it.traffic(client, 60, shift=2.0)
        text = page(client, "/models/m")
        chart = ElementTree.fromstring(re.findall(r'<svg class="chart".*?</svg>', text, re.S)[0])
        (mark,) = [one for one in chart.iter("a") if one.get("href", "").endswith("/jobs/2")]
        assert said.reason in str(mark.findtext("title"))
        assert "drift" in [one.text for one in mark.iter("text")]
        below = re.findall(r'<ul class="marks">.*?</ul>', text, re.S)[0]
        assert said.reason in below
        assert "moved · 1" in below
        names = [one.text for one in chart.iter("text")]
        assert "v1" in names
        assert "v2" in names
        frozen = [one for one in chart.iter("path") if one.get("class") == "line frozen"]
        assert frozen[0].get("d", "").count("L") >= 8  # where the first version served, and after
        assert "version 1 throughout" in text
    it.workspace.close()


def test_blocks_are_means_of_answers_that_follow_each_other() -> None:
    answers = [
        Answer(n, 1 if n < 50 else 2, "candidate" if n % 4 == 0 else "champion", float(n), 1.0, n)
        for n in range(100)
    ]
    made = blocks(answers)
    assert [one.stop for one in made] == [20, 40, 60, 80, 100]
    assert [one.version for one in made] == [1, 1, 2, 2, 2]
    champion = [n for n in range(80, 100) if n % 4]
    assert made[-1].champion == pytest.approx(np.mean(champion))
    assert made[-1].candidate == pytest.approx(np.mean([80, 84, 88, 92, 96]))
    assert made[-1].naive == 1.0
    assert blocks([]) == []


def test_a_sequence_ends_where_the_rollout_stands() -> None:
    random = np.random.default_rng(0)
    answers = [
        Answer(n, 1, "candidate" if n % 2 else "champion", float(random.random()), None, n)
        for n in range(2000)
    ]
    path = sequence(answers[1000:], alpha=0.05, zero_one=False)
    assert path[-1][0] == 500
    apart = [np.mean([one.loss for one in answers[1000:] if one.arm == arm])
             for arm in ("candidate", "champion")]  # fmt: skip
    assert path[-1][1] == pytest.approx(apart[0] - apart[1])
    assert path[-1][2] < path[-1][1] < path[-1][3]


def test_drawings_hold_what_they_are_given() -> None:
    line = Line("champion", [(0.0, 1.0), (1.0, None), (2.0, 3.0)], [EVIL] * 3)
    marks = [Mark(1.0, EVIL, EVIL), Mark(2.0, EVIL, EVIL, "drift", f"/{EVIL}")]
    chart = Chart(EVIL, [line], marks, levels=[(2.0, EVIL)], x_ends=(EVIL, EVIL))
    node = Node(2, 1, "champion", EVIL, f"/{EVIL}")
    for drawing in (chart.draw(), bars(EVIL, [0, 5], [EVIL, EVIL]), graph([node])):
        root = ElementTree.fromstring(drawing)
        assert not list(root.iter("script"))
        assert "alert" in drawing
    assert chart.draw().count("<circle") == 2
    branches = [Node(1, None, "other", "", ""), Node(2, 1, "other", "", ""),
                Node(3, 1, "other", "", "")]  # fmt: skip
    places = re.findall(r'<circle[^>]*cy="(\d+)"', graph(branches))
    assert places[0] == places[1] != places[2]
