"""What an excision says that versions learned: neither duplicates, nor what was set aside; and what
only versions that do not serve have learned may be gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import ConflictError, InputError, Json
from everlearn.data.selection import Selection
from everlearn.jobs.excise.matches import Finder
from everlearn.workspace import ModelHandle
from tests.jobs.test_excise_again import model, refuse, rows, write
from tests.jobs.test_withdrawn import SAID, Made

__all__ = ["refuse"]


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[ModelHandle]:
    with el.open(tmp_path / "workspace") as workspace:
        yield workspace.model(model())


def excise(handle: ModelHandle, **selection: Any) -> Json:
    return handle.repair.excise(**selection, dry_run=True).report


def counts(report: Json) -> list[tuple[int, int, int]]:
    return [(one["version"], one["rows"], one["held_out"]) for one in report["learned_from_it"]]


def everything(handle: ModelHandle, where: str) -> list[tuple[int, int, int]]:
    """The same of a condition that leaves nothing to fold again."""
    workspace = handle.workspace
    finder = Finder(workspace.registry, "m", handle.log)
    found = finder(Selection.where(where), workspace.registry.versions("m"))
    return [(one.version, *one.fate) for one in found.matches]


def account(handle: ModelHandle, *numbers: int) -> list[tuple[int, int, int]]:
    """What the versions' own accounts say of all their rows."""
    found = []
    for number in numbers:
        for one in handle.workspace.registry.version("m", number).increments:
            found.append((number, one.rows, one.held_out))
    return found


def damaged(folder: Path, name: str, first: int, twice: range) -> str:
    """A file of which two rows have no class, and that has some rows twice."""
    data = rows(60, first + 1, first)
    data += [dict(data[at]) for at in twice]
    path = Path(write(folder, name, data))
    lines = path.read_text().splitlines()
    for at in (7, 30):
        lines[at] = lines[at].rpartition(",")[0] + ","
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_of_a_file_neither_duplicates_nor_what_was_set_aside(
    handle: ModelHandle, tmp_path: Path
) -> None:
    first = damaged(tmp_path, "a", 0, range(10, 15))
    again = damaged(tmp_path, "b", 40, range(0))  # of which 20 rows were in the first
    for path in (first, again):
        handle.train(path)
    increments = [handle.workspace.registry.version("m", n).increments[0] for n in (1, 2)]
    assert all(one.duplicates and one.set_aside and one.held_out for one in increments)
    assert everything(handle, "x > -100") == account(handle, 1, 2)
    (one,) = excise(handle, rows=[f"{first}:60-64", f"{again}:50-50"])["learned_from_it"]
    assert (one["version"], one["rows"] + one["held_out"]) == (2, 1)


def test_a_file_that_is_gone_is_named_though_rows_of_another_are_asked_for(
    handle: ModelHandle, tmp_path: Path
) -> None:
    for name, first in (("a", 0), ("b", 40)):  # rows of the second were in the first
        damaged(tmp_path, name, first, range(0))
    handle.train(str(tmp_path / "*.csv"))
    (tmp_path / "b.csv").unlink()
    with pytest.raises(InputError, match=r"rows 0 to 59 of '[^']*b\.csv' cannot be read any more"):
        excise(handle, where="source like '%a.csv'")
    with pytest.raises(InputError, match=r"rows 0 to 59 of '[^']*b\.csv' cannot be read any more"):
        excise(handle, where="source like '%b.csv' and x > 0")


def test_a_row_that_was_only_a_duplicate_marks_nothing(handle: ModelHandle, tmp_path: Path) -> None:
    first = damaged(tmp_path, "a", 0, range(10, 15))
    handle.train(first)
    found = handle.repair.excise(rows=[f"{first}:60-64"]).report
    assert (found["rows"], found["learned_from_it"], found["marked"]) == (5, [], [])
    assert (found["folded"], found["job"]) == ([], None)


def test_without_ids_the_account_is_the_same(tmp_path: Path) -> None:
    schema = el.Schema(target="y", ignore=("who", "number"))
    with el.open(tmp_path / "workspace") as workspace:
        handle = workspace.model(model(schema))
        handle.train(damaged(tmp_path, "a", 0, range(10, 15)))
        handle.train(write(tmp_path, "b", rows(40, 2, 90)))
        assert everything(handle, "x > -100") == account(handle, 1, 2)


def test_a_version_that_was_folded_again_has_the_same_account(
    handle: ModelHandle, tmp_path: Path
) -> None:
    paths = [damaged(tmp_path, name, first, range(9)) for name, first in (("a", 0), ("b", 40))]
    for path in paths:
        handle.train(path)
    made = handle.repair.excise(rows=[f"{paths[0]}:3-5"]).result
    assert made is not None and made.version == 3
    found = everything(handle, "x > -100")
    assert [one for one in found if one[0] == 3] == account(handle, 3)


def test_of_labels_neither_what_was_outvoted_nor_what_was_held_out(tmp_path: Path) -> None:
    made = Made(tmp_path / "a")
    for start, stop in ((0, 30), (30, 60)):
        made.hear(SAID[start:stop], first=start)
        made.handle.update()
    assert everything(made.handle, "position >= 1") == account(made.handle, 2, 3)
    made.workspace.close()


def test_what_a_version_that_does_not_serve_learned_may_be_gone(
    handle: ModelHandle, tmp_path: Path, refuse: Any
) -> None:
    kept, gone = (write(tmp_path, name, rows(60, at, 60 * at)) for at, name in enumerate("ab"))
    handle.train(kept)
    refuse(True)
    assert handle.train(gone).decision.action == "refuse"
    refuse(False)
    Path(gone).unlink()
    found = handle.repair.excise(where="x > 1")
    report = found.report
    (one,) = report["not_read"]
    assert one["version"] == 2 and "b.csv" in one["reason"]
    assert report["marked"] == [1, 2] and [row[0] for row in counts(report)] == [1]
    assert found.result is not None and handle.champion() == found.result.version
    with pytest.raises(ConflictError, match="withdrawn"):
        handle.promote(2)
