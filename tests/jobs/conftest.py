"""A driver that forks runs, and the workspaces that uninterrupted runs end in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.checks import summary
from tests.jobs.driver import Driver, Ended
from tests.jobs.scenarios import write_files


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process has the driver, and what uninterrupted runs end in: both take long to make."""
    for item in items:
        if "driver" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("driver"))


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    with Driver() as running:
        yield running


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two files, of 700 and 350 rows."""
    return write_files(tmp_path_factory.mktemp("data"))


Uninterrupted = Callable[[str], tuple[list[dict[str, Any]], Ended]]


@pytest.fixture(scope="session")
def uninterrupted(
    driver: Driver, files: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Uninterrupted:
    """Model → (summary of the workspace, how the run ended) of a run that nothing disturbed."""
    known: dict[str, tuple[list[dict[str, Any]], Ended]] = {}

    def of(model: str) -> tuple[list[dict[str, Any]], Ended]:
        if model not in known:
            workspace: Path = tmp_path_factory.mktemp(model) / "workspace"
            ended = driver.run(workspace=str(workspace), model=model, files=files, count_calls=True)
            assert ended.error is None and not ended.killed, ended.error
            known[model] = summary(workspace, model), ended
        return known[model]

    return of
