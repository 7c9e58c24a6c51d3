"""What the README shows is there, and what is there the README shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

import everlearn
from everlearn.cli.app import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TREE = README.split("<!-- tree")[1].split("<!-- end of tree")[0]


def test_every_command_is_shown() -> None:
    table = README.split("## Commands")[1].split("\n## ")[0]
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"`{name} " in table or f"`{name}`" in table, name
        for below in getattr(command, "commands", {}):
            assert below in table, f"{name} {below}"


def test_the_tree_names_every_file() -> None:
    """Run scripts/tree after a file was added, renamed or removed."""
    package = ROOT / "src" / "everlearn"
    there = sorted(path.name for path in package.rglob("*.py") if path.name[0] != "_")
    part = TREE.split("src/everlearn/")[1]
    shown = sorted(re.findall(r"^ +(\w+\.py) ", part, re.MULTILINE))
    assert shown == there


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (ROOT / target).exists(), target


def test_files_that_architecture_names_are_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"\b((?:\w+/)+\w+\.py)\b", text)
    assert len(named) >= 5
    for path in named:
        assert (ROOT / path).exists() or (ROOT / "src" / "everlearn" / path).exists(), path


def test_the_specs_that_are_shown_define_a_model() -> None:
    shown = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    specs = [code for code in shown if "model = " in code]
    assert len(specs) >= 2
    for spec in specs:
        names: dict[str, object] = {"el": everlearn}
        exec(spec, names)
        assert isinstance(names["model"], everlearn.Model)
