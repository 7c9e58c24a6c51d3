"""docs/reliability.md names tests and tables that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "reliability.md").read_text()


def test_what_it_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 50
    for path, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), (path, name)
    for place in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / place).exists(), place


def test_every_goal_is_there() -> None:
    goals = [int(number) for number in re.findall(r"^\*\*(\d+)\. ", TEXT, re.M)]
    assert goals == list(range(11, 35))
