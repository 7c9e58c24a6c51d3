"""The examples in the docstrings run, and importing the room costs nothing."""

import doctest
import subprocess
import sys
from importlib import import_module

import pytest

import everlearn.learners

MODULES = ("adapt", "chain", "encoder", "labels", "moments")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = import_module(f"everlearn.learners.{name}")
    result = doctest.testmod(module, extraglobs={"np": import_module("numpy")})
    assert result.attempted > 0
    assert result.failed == 0


def test_names_are_found_where_they_live():
    for name in everlearn.learners.__all__:
        assert getattr(everlearn.learners, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        everlearn.learners.Nothing  # noqa: B018


def test_definitions_are_made_without_scikit_learn():
    code = (
        "import sys, everlearn.learners as l; l.Encoder(); l.LogisticRegression(); l.Labels([1]);"
        "sys.exit(any(name.startswith(('sklearn', 'scipy')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
