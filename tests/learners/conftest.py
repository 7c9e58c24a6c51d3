"""Which tests share a process: kernels take seconds to compile, and no two processes should compile
the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.learners.natives import group_of

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file, with those of the learners of the same name in other files; trees are
    together."""
    for item in items:
        if item.path.parent == FOLDER and item.get_closest_marker("xdist_group") is None:
            group = group_of(item.path.stem.removeprefix("test_"))
            item.add_marker(pytest.mark.xdist_group(group))
