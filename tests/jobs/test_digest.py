"""`state_digest` says what was learned, and nothing else: not where, when, or beside what."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

import everlearn as el
from tests.jobs.checks import COMPARED
from tests.jobs.driver import Driver
from tests.jobs.scenarios import models, table, write

ROWS = 300
DATA = table(ROWS, seed=7)
MODELS = list(models())


def digests(workspace: Path, model: str, *data: Any, **options: Any) -> list[str]:
    """The digest of each version after one job for each item of `data`."""
    with el.open(workspace) as ws:
        handle = ws.model(models()[model])
        for item in data:
            assert handle.train(item, **options).version is not None
        return [version["state_digest"] for version in handle.versions()]


@pytest.mark.parametrize("model", MODELS)
def test_neither_path_nor_format_matters(model: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    here = write(tmp_path / "rows.parquet", DATA)
    there = write(tmp_path / "elsewhere" / "other name.csv", DATA)
    moved = shutil.copy(here, tmp_path / "elsewhere" / "moved.parquet")
    first = digests(tmp_path / "1", model, str(here))
    assert digests(tmp_path / "2", model, str(there)) == first
    assert digests(tmp_path / "3", model, moved) == first
    assert digests(tmp_path / "4", model, DATA) == first
    assert digests(tmp_path / "5", model, DATA.to_pandas()) == first
    assert digests(tmp_path / "6", model, DATA.to_pylist()) == first


@pytest.mark.parametrize("model", ["reservoir", "shuffle", "time", "chain"])
def test_how_rows_are_split_over_the_files_of_a_job_does_not_matter(
    model: str, tmp_path: Path
) -> None:
    whole = write(tmp_path / "whole.parquet", DATA)
    cuts = [0, 7, 120, 121, ROWS]
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        write(tmp_path / f"part-{number}.csv", DATA.slice(start, stop - start))
    split = digests(tmp_path / "1", model, str(tmp_path / "part-*.csv"))
    assert split == digests(tmp_path / "2", model, str(whole))


def test_what_else_happens_in_a_workspace_does_not_matter(
    driver: Driver, files: list[str], tmp_path: Path
) -> None:
    """Other models, input that is refused, kills, jobs that are skipped, a rollback."""
    quiet = digests(tmp_path / "quiet", "reservoir", *files)
    busy = tmp_path / "busy"
    digests(busy, "gate", files[1], files[0])
    run = {"workspace": str(busy), "model": "reservoir", "files": files}
    with el.open(busy) as ws:
        handle = ws.model(models()["reservoir"])
        skipped = handle.plan(files[1])
        ws.skip(skipped)
        bad = write(tmp_path / "bad.csv", DATA.drop_columns(["late"]))
        with pytest.raises(el.InputError, match="late"):
            handle.train(str(bad))
        assert driver.run(**run, crash="checkpoint.committed:2").killed
        assert handle.train(files[0]).resumed_from > 0
        aside = handle.train(DATA).version
        handle.rollback()
        assert handle.train(files[1]).version == 3
        found = [version["state_digest"] for version in handle.versions()]
    assert aside == 2
    assert [found[0], found[2]] == quiet


def test_other_chunks_rows_or_seeds_are_another_state(tmp_path: Path) -> None:
    known = {
        digests(tmp_path / "a", "reservoir", DATA)[0],
        digests(tmp_path / "b", "reservoir", DATA, chunk=50)[0],
        digests(tmp_path / "c", "reservoir", DATA.slice(0, ROWS - 1))[0],
        digests(tmp_path / "d", "reservoir", DATA.slice(0, 150), DATA.slice(150))[1],
    }
    assert len(known) == 4


@pytest.mark.parametrize("model", MODELS)
def test_the_function_and_the_job_are_one_fold(model: str, tmp_path: Path) -> None:
    made = models()[model].replace(holdout=0.0, gate=None)
    halves = [DATA.slice(0, 180), DATA.slice(180)]
    learned: Any = made
    with el.open(tmp_path / "workspace") as ws:
        handle = ws.model(made)
        for half in halves:
            learned = el.learn(learned, half)
            version = handle.train(half).version
            assert version is not None
            assert handle.versions()[-1]["state_digest"] == learned.state_digest
            assert handle.versions()[-1]["metrics"]["rows"] == learned.metrics["rows"]


def test_an_increment_is_told_the_same_for_the_same_rows(tmp_path: Path) -> None:
    told = []
    for suffix in (".csv", ".parquet"):
        path = write(tmp_path / f"rows{suffix}", DATA)
        with el.open(tmp_path / suffix) as ws:
            [increment] = ws.model(models()["ids"]).train(str(path)).increments
        told.append({key: increment[key] for key in COMPARED if key not in ("source", "digest")})
        told[-1]["row_digest"] = increment["reasons"]["row_digest"]
    assert told[0] == told[1]
    assert told[0]["duplicates"] > 0


def test_text_of_a_csv_and_of_arrow_are_the_same_rows(tmp_path: Path) -> None:
    """Integers, floats and dates, as text in one file and typed in the other."""
    data = pa.table({"a": [1, 2, 3] * 20, "b": [0.5, -0.0, 3e10] * 20, "late": [0, 1, 1] * 20})
    path = tmp_path / "quoted.csv"
    options = pyarrow.csv.WriteOptions(quoting_style="all_valid")
    pyarrow.csv.write_csv(data, path, options)
    model = el.Model("m", schema=el.Schema(target="late"))
    found = []
    for number, item in enumerate((data, str(path))):
        with el.open(tmp_path / str(number)) as ws:
            handle = ws.model(model)
            handle.train(item)
            found.append(handle.versions()[0]["state_digest"])
    assert found[0] == found[1]
