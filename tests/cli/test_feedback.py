"""`import-feedback`, `label show` and `increment list|show`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import everlearn as el
from everlearn.cli import ERROR
from everlearn.data.feedback import Label, LoggedPrediction
from tests.cli.conftest import Shell, write_rows

FATES = ("rows", "held_out", "set_aside", "duplicates")


def served(shell: Shell, count: int, **said: Any) -> list[str]:
    """Predictions of the trained model."""
    with el.open(shell.workspace) as workspace:
        handle = workspace.model("bills")
        if not said:
            rows = [{"a": float(n), "b": 1.0} for n in range(count)]
            return [str(answer.id) for answer in handle.predict(rows)]
        numbers = workspace.ids.take(count)
        rows_ = [
            LoggedPrediction(
                number, {"a": float(n), "b": 1.0}, {"value": 1}, external_id=f"{said['name']}{n}"
            )
            for n, number in enumerate(numbers)
        ]
        handle.log.append_predictions(rows_)
        return [f"{number:016x}" for number in numbers]


def update(shell: Shell) -> Any:
    with el.open(shell.workspace) as workspace:
        return workspace.model("bills").update()


def labels_of(shell: Shell) -> list[Any]:
    with el.open(shell.workspace) as workspace:
        return list(workspace.model("bills").log.read())


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_labels_of_a_file_are_logged_once(trained: Shell, kind: str) -> None:
    ids = served(trained, 3)
    at = "2024-03-01T10:00:00"
    records = [
        {"prediction_id": name, "value": n % 2, "source": "a\u2028bank", "at": at}
        for n, name in enumerate(ids)
    ]
    path = trained.folder / f"labels.{kind}"
    if kind == "jsonl":
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        path.write_text("".join(lines), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps({"labels": records}))
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, records[0])
            writer.writeheader()
            writer.writerows(records)
    else:
        pq.write_table(pa.Table.from_pylist(records), path)
    found = trained.json("import-feedback", path)
    assert found == {"logged": 3, "waiting": 0, "known": 0}
    said = labels_of(trained)
    assert [row.value for row in said] == [0, 1, 0] and {row.source for row in said} == {
        "a\u2028bank"
    }
    assert {row.at for row in said} == {1_709_287_200_000_000}
    assert "3 were known" in trained("import-feedback", path)
    assert len(labels_of(trained)) == 3


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"value": 1}, "one id"),
        ({"external_id": "a"}, "no value"),
        ({"external_id": "a", "value": [1]}, "value"),
        ({"external_id": "a", "value": 1, "colour": 2}, "colour"),
        ({"external_id": 7, "value": 1}, "external_id"),
        ({"external_id": "a", "value": 1, "kind": "rumour"}, "rumour"),
        ({"external_id": "a", "value": 1, "at": "soon"}, "soon"),
        ({"external_id": "a", "value": 1, "weight": -1}, "weight"),
        ({"prediction_id": "xyz", "value": 1}, "xyz"),
        ([1], "object"),
    ],
)
def test_a_file_with_something_wrong_is_refused_whole(
    trained: Shell, record: Any, words: str
) -> None:
    path = trained.folder / "labels.jsonl"
    good = json.dumps({"prediction_id": served(trained, 1)[0], "value": 1})
    path.write_text(f"{good}\n{json.dumps(record)}\n")
    trained("import-feedback", path, code=ERROR)
    assert words in trained.error and "record 2" in trained.error
    assert labels_of(trained) == []


def test_which_model_a_label_is_for(trained: Shell) -> None:
    other = trained.folder / "other.py"
    other.write_text(trained.spec.read_text().replace('"bills"', '"other"'))
    with el.open(trained.workspace) as workspace:
        workspace.model(str(other))
    path = trained.folder / "labels.jsonl"
    path.write_text(json.dumps({"external_id": "later", "value": 1}))
    trained("import-feedback", path, code=ERROR)
    assert "names no model" in trained.error
    assert trained.json("import-feedback", path, "--model", "bills")["waiting"] == 1
    path.write_text(json.dumps({"prediction_id": served(trained, 1)[0], "value": 1}))
    assert trained.json("import-feedback", path)["logged"] == 1
    trained("import-feedback", trained.folder / "none.jsonl", code=ERROR)


def test_why_a_label_is_not_learned_yet(trained: Shell) -> None:
    with el.open(trained.workspace) as workspace:
        workspace.model("bills").log.append_labels([Label(1, external_id="later")])
    assert only(trained, "later") == ("waiting", None)
    ids = served(trained, 2, name="bill ")
    assert trained.json("label", "show", ids[0])["labels"] == []
    assert "nobody" in trained("label", "show", ids[0])
    with el.open(trained.workspace) as workspace:
        handle = workspace.model("bills")
        handle.log.append_labels([Label(1, ids[0]), Label("?", ids[1], reviewer="bo")])
    assert only(trained, ids[0]) == only(trained, "bill 0") == ("new", None)
    with el.open(trained.workspace) as workspace:
        workspace.updates.plan("bills", workspace.model("bills").definition)
    assert only(trained, ids[0]) == ("queued", None)
    trained("worker", "--once")
    assert only(trained, ids[0])[0] in ("learned", "held out")
    state, version = only(trained, "bill 1")
    assert (state, version) == ("set aside", 3)
    shown = trained("label", "show", ids[1])
    assert "set it aside" in shown and "bo" in shown
    found = trained.json("label", "show", 3)  # by its number
    assert found["labels"][0]["value"] == "?" and found["prediction"]["external_id"] == "bill 1"
    trained("rollback", "bills")
    assert "not champion" in trained("label", "show", ids[1])
    trained("label", "show", "nothing", code=ERROR)
    assert "'nothing'" in trained.error


def test_archived_labels_are_explained_and_known_as_before(trained: Shell) -> None:
    other = trained.folder / "other.py"
    other.write_text(trained.spec.read_text().replace('"bills"', '"other"'))
    with el.open(trained.workspace) as workspace:
        workspace.model(str(other))
    ids = served(trained, 6, name="bill ")
    path = trained.folder / "labels.jsonl"
    said = [{"prediction_id": one, "value": n % 2} for n, one in enumerate(ids[:4])]
    path.write_text("".join(json.dumps(one) + "\n" for one in said))
    trained("import-feedback", path)
    update(trained)
    asked = (ids[0], "bill 1", 3)
    before = [trained.json("label", "show", one) for one in asked]
    moved = trained.json("compact", "--older-than", "0s")["bills"]
    assert (moved["predictions"], moved["labels"]) == (6, 3), "the newest label stays"
    assert [trained.json("label", "show", one) for one in asked] == before
    assert trained.json("label", "show", ids[5])["labels"] == []
    late = {"prediction_id": ids[5], "value": 1, "idempotency_key": "late"}
    path.write_text("".join(json.dumps(one) + "\n" for one in [*said, late]))
    assert trained.json("import-feedback", path) == {"logged": 1, "waiting": 0, "known": 4}
    assert trained.json("import-feedback", path) == {"logged": 0, "waiting": 0, "known": 5}
    assert only(trained, "bill 5") == ("new", None)


def only(shell: Shell, name: str) -> tuple[str, int | None]:
    """State and version of the one label of a prediction."""
    (found,) = shell.json("label", "show", name)["labels"]
    return found["state"], found.get("version")


def test_an_increment_has_the_ids_of_all_its_rows(trained: Shell) -> None:
    ids = served(trained, 60, name="bill ")
    with el.open(trained.workspace) as workspace:
        handle = workspace.model("bills")
        said = [Label(n % 2 if n % 10 else "?", name) for n, name in enumerate(ids)]
        handle.log.append_labels([*said, Label(0, ids[1])])
    result = update(trained)
    assert result.version == 3
    listed = trained.json("increment", "list")
    assert [item["version"] for item in listed] == [1, 2, 3]
    found = trained.json("increment", "show", listed[-1]["id"])
    assert found["exact"] and found["digest"] and found["source"] == "feedback"
    assert {fate: len(found["ids"][fate]) for fate in FATES} == {f: found[f] for f in FATES}
    wrong = {f"bill {n}" for n in range(0, 60, 10)}
    assert set(found["ids"]["set_aside"]) == wrong | {"bill 1"}  # of two labels, the first
    good = found["ids"]["rows"] + found["ids"]["held_out"]
    assert sorted(good) == sorted({f"bill {n}" for n in range(60)} - wrong)
    first = trained.json("increment", "show", listed[0]["id"])
    assert sorted(first["ids"]["rows"] + first["ids"]["held_out"]) == list(range(400))
    assert first["ids"]["held_out"] and first["exact"]
    shown = trained("increment", "show", listed[-1]["id"])
    assert "bill 0" in shown and "set aside: 7" in shown
    assert "feedback" in trained("increment", "list", "--model", "bills")
    trained("increment", "show", 99, code=ERROR)
    assert "99" in trained.error


def test_rows_that_were_learned_before_are_named(shell: Shell) -> None:
    spec = shell.spec.read_text().replace('target="late"', 'target="late", id="id"')
    shell.spec.write_text(spec)
    rows = write_rows(shell.folder / "plain.csv", 30).read_text().splitlines()
    for name, first, last in (("one", 0, 20), ("two", 15, 30)):
        lines = [f"n{n},{rows[n + 1]}" for n in range(first, last)]
        (shell.folder / f"{name}.csv").write_text("\n".join([f"id,{rows[0]}", *lines]) + "\n")
        shell.train(shell.folder / f"{name}.csv")
    number = shell.json("increment", "list")[-1]["id"]
    found = shell.json("increment", "show", number)
    assert found["ids"]["duplicates"] == [f"n{n}" for n in range(15, 20)] and found["exact"]
    rest = found["ids"]["rows"] + found["ids"]["held_out"]
    assert sorted(rest) == [f"n{n}" for n in range(20, 30)]


def test_an_empty_workspace(shell: Shell, tmp_path: Path) -> None:
    with el.open(shell.workspace):
        pass
    assert shell.json("increment", "list") == []
    assert "nothing was learned" in shell("increment", "list")
