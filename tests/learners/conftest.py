"""Which tests share a process: kernels take seconds to compile, and no two processes should compile
the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file, with those of the learners of the same name in other files."""
    for item in items:
        if item.path.parent == FOLDER and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem.removeprefix("test_")))
