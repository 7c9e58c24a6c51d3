"""The examples in the docstrings of this room are true."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "name",
    ["balanced", "decay", "everything", "prioritized", "reservoir", "span", "strategy", "window"],
)
def test_examples(name: str) -> None:
    result = doctest.testmod(import_module(f"everlearn.strategies.{name}"))
    assert result.attempted and not result.failed
