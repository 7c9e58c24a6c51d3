"""The examples in the docstrings run, and importing the room costs nothing."""

import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import everlearn.learners
from everlearn.learners.native.parameters import Parameters
from tests.learners.natives import group_of

FOLDER = Path(everlearn.learners.__file__).parent
MODULES = [
    pytest.param(
        ".".join(path.relative_to(FOLDER).with_suffix("").parts),
        marks=pytest.mark.xdist_group(group_of(path.stem)),
    )
    for path in sorted(FOLDER.rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = import_module(f"everlearn.learners.{name}")
    result = doctest.testmod(module, extraglobs={"np": import_module("numpy")})
    assert result.attempted > 0
    assert result.failed == 0


def test_every_native_learner_has_an_example():
    for name in everlearn.learners.__all__:
        found = getattr(everlearn.learners, name)
        if isinstance(found, type) and issubclass(found, Parameters):
            assert ">>> " in found.__doc__, name


def test_names_are_found_where_they_live():
    for name in everlearn.learners.__all__:
        assert getattr(everlearn.learners, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        everlearn.learners.Nothing  # noqa: B018


def test_definitions_are_made_without_scikit_learn():
    code = (
        "import sys, everlearn.learners as l; l.Encoder(); l.LogisticRegression(); l.Labels([1]);"
        "sys.exit(any(name.startswith('sklearn') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
