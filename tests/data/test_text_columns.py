"""Columns that are kept as texts: through files, chunks, sorting, memory, hold-outs and the log."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import everlearn as el
from everlearn.base import (
    Array,
    Batch,
    ChangedError,
    Columns,
    InputError,
    Part,
    Prediction,
    Schema,
    SpecError,
)
from everlearn.compare.history import History
from everlearn.data import timesort
from everlearn.data.columns import resolve
from everlearn.data.compiler import Compiler, compile_rows, empty_batch
from everlearn.data.increment import Reader
from everlearn.data.slices import Consumed
from everlearn.data.source import open_sources
from everlearn.data.texts import texts_from_arrays, texts_to_arrays
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.learners import as_learner
from everlearn.strategies.block import decode, encode
from everlearn.strategies.rows import Rows
from everlearn.workspace.answers import Answer

COLUMNS = Columns(texts=("message",), target="y", target_kind="integer", time="at", times=("at",))
WORDS = [
    "",
    "5",
    "5.0",
    "True",
    "true",
    "né\u0301e",
    "a\x00b",
    "🙂" * 300,
    "x\r\ny\t\u2028",
    "null",
]

TEXTS = st.lists(
    st.tuples(st.text(max_size=20), st.text(st.characters(codec="utf-8"), max_size=3)), max_size=8
)


def compiled(texts: Any, columns: Columns = COLUMNS) -> Batch:
    n = len(texts)
    table = {"message": pa.array(texts), "y": pa.array(range(n)), "at": pa.array(range(n))}
    return Compiler(columns).compile(pa.RecordBatch.from_pydict(table)).batch


def said(batch: Batch | None) -> list[Any]:
    assert batch is not None and batch.texts is not None
    return list(batch.texts[:, 0].tolist())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(TEXTS)
def test_texts_come_back_from_arrays(rows: list[tuple[str, str]]) -> None:
    texts = np.empty((len(rows), 2), object)
    texts[:] = np.array(rows, object).reshape(-1, 2) if rows else texts
    back = texts_from_arrays(texts_to_arrays(texts))
    assert back is not None and back.shape == texts.shape and (back == texts).all()


def test_arrays_that_hold_no_texts_are_refused() -> None:
    made = texts_to_arrays(np.array([["né", "b"]], object))
    for wrong in (
        {**made, "texts.ends": made["texts.ends"] + 1},
        {**made, "texts.ends": np.array([[2, 4]])},
        {"texts.ends": made["texts.ends"]},
    ):
        with pytest.raises(InputError, match="do not hold texts"):
            texts_from_arrays(wrong)
    with pytest.raises(InputError, match="something else"):
        texts_to_arrays(np.array([[5]], object))
    with pytest.raises(InputError, match="no Unicode"):
        texts_to_arrays(np.array([["\ud800"]], object))


def test_a_text_is_kept_as_it_is_and_names_its_row() -> None:
    batch = compiled([*WORDS, None])
    assert said(batch) == [*WORDS, ""]
    exact = Columns(texts=("message",))
    ids = compile_rows([{"message": word} for word in [*WORDS, None]], exact).ids
    assert len(set(ids.tolist())) == len(WORDS)  # "" and None are one; "5" and "5.0" are not
    assert said(compile_rows({"message": None}, exact)) == [""]
    assert empty_batch(COLUMNS).texts is not None


def test_other_types_become_texts_and_what_has_none_is_refused() -> None:
    assert said(compiled([1, None, 3])) == ["1", "", "3"]
    assert said(compiled([1.0, float("nan"), 2.5])) == ["1", "", "2.5"]
    coded = pa.array(["a", None, "b"]).dictionary_encode()
    assert said(compiled(coded)) == ["a", "", "b"]
    with pytest.raises(InputError, match="message"):
        compiled([[1], [2]])
    with pytest.raises(InputError, match="no Unicode"):
        compile_rows({"message": "\ud800"}, Columns(texts=("message",)))


def test_bytes_that_are_no_utf8_are_refused_by_row() -> None:
    raw = pa.array([b"fine", b"\xff\xfe", None], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, raw.buffers(), null_count=1)
    table = pa.RecordBatch.from_arrays([column, pa.array([0, 1, 2]), pa.array([1, 2, 3])],
                                       names=["message", "y", "at"])  # fmt: skip
    found = Compiler(COLUMNS).compile(table)
    assert found.refused == {1: "column 'message': not UTF-8"}
    assert said(found.batch)[::2] == ["fine", ""]


def test_what_has_no_texts_is_as_it_was() -> None:
    plain = Columns(numbers=("a",), categories=("c",), target="y", target_kind="number")
    assert "texts" not in plain.to_json()
    assert Columns.from_json(plain.to_json()) == plain
    assert Columns.from_json(json.loads(json.dumps(COLUMNS.to_json()))) == COLUMNS
    table = {"a": [1.0, 2.0], "c": ["True", "x"], "y": [0.0, 1.0]}
    made = Compiler(plain).compile(pa.RecordBatch.from_pydict(table))
    assert made.batch.texts is None
    assert [f"{value:016x}" for value in made.content] == ["9a94711b135e215c", "e6c48c2b064696f8"]
    assert [f"{value:016x}" for value in made.ids] == ["c951dfa585e0450e", "89624d720bff0d26"]
    assert Part(meta=plain.to_json()).digest.startswith("4a804fd8aeff5956")


def test_a_schema_names_texts() -> None:
    table = pa.table({"message": ["a", "b"], "kind": ["x", "y"], "y": [0, 1]})
    found = resolve(Schema(target="y", text=["message"]), table)  # type: ignore[arg-type]
    assert (found.texts, found.categories) == (("message",), ("kind",))
    with pytest.raises(InputError, match=r"massage.*text.*message"):
        resolve(Schema(target="y", text=("massage",)), table)
    with pytest.raises(SpecError, match="both categorical and text"):
        Schema(text=("a",), categorical=("a",))
    with pytest.raises(SpecError, match="takes a list"):
        Schema(text="message")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="target"):
        Schema(target="a", text=("a",))


def test_a_learner_that_reads_no_texts_is_refused() -> None:
    from sklearn.linear_model import SGDClassifier

    for learner in (SGDClassifier(), "logistic", None):
        with pytest.raises(SpecError, match=r"does not read texts.*\['message'\]"):
            as_learner(learner, COLUMNS, classes=2)


def test_batches_are_taken_joined_and_split() -> None:
    batch = compiled(WORDS)
    again = Batch.concat(list(batch.split(3)))
    assert said(again) == WORDS
    assert said(batch.take(np.array([2, 0]))) == [WORDS[2], WORDS[0]]
    assert said(batch.take(np.arange(len(WORDS)) % 2 == 1)) == WORDS[1::2]
    plain = Compiler(Columns(times=("at",), target="y", target_kind="integer", time="at"))
    other = plain.compile(pa.RecordBatch.from_pydict({"at": [1], "y": [1]})).batch
    with pytest.raises(InputError, match="some batches have texts"):
        Batch.concat([batch, other])


def csv_of(folder: Path, table: pa.Table) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [table.column_names, *zip(*table.to_pydict().values(), strict=True)]
        )
    return path


def parquet_of(folder: Path, table: pa.Table) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize("write", [csv_of, parquet_of])
@pytest.mark.parametrize("order", ["stream", "time", el.Shuffle(64)])
@pytest.mark.parametrize("spilled", [False, True])
def test_a_reader_gives_texts_and_resumes(
    write: Callable[[Path, pa.Table], Path],
    order: Any,
    spilled: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if spilled:
        monkeypatch.setattr(timesort, "RUN_BYTES", 2_000)
    n = 300
    words = [f'{WORDS[i % 9]} "{i}",\n' for i in range(n)]
    at = [(7 * i) % n for i in range(n)]
    table = pa.table({"message": words, "y": [i % 2 for i in range(n)], "at": at})
    part = open_sources(str(write(tmp_path, table)))[0].slice()
    assert part is not None
    chunks = list(Reader([part], COLUMNS, chunk=70, order=order, holdout=0.1, read_ahead=False))
    found = [text for chunk in chunks for text in said(chunk.batch)]
    held = [text for chunk in chunks if chunk.held for text in said(chunk.held)]
    assert sorted(found + held) == sorted(words) and held
    for chunk in chunks:
        texts, y = said(chunk.batch), chunk.batch.y
        assert y is not None
        assert [int(text.rsplit('"', 2)[1]) % 2 for text in texts] == y.tolist()
    if order == "time":
        places = [at[int(text.rsplit('"', 2)[1])] for text in found]
        assert places == sorted(places)
    after = Reader([part], COLUMNS, chunk=70, order=order, holdout=0.1, after=chunks[1].mark)
    assert [t for chunk in after for t in said(chunk.batch)] == [
        t for chunk in chunks[2:] for t in said(chunk.batch)
    ]


def test_a_longer_file_whose_text_changed_is_refused(tmp_path: Path) -> None:
    def source(words: list[str]) -> Any:
        n = len(words)
        table = pa.table({"message": words, "y": [0] * n, "at": range(n)})
        return open_sources(str(csv_of(tmp_path, table)))[0]

    part = source(["a", "b", "True"]).slice()
    reader = Reader([part], COLUMNS, read_ahead=False)
    assert len(list(reader)) == 1
    known = [Consumed.of(part, reader.tallies[0].reasons["row_digest"])]
    more = source(["a", "b", "True", "c"]).slice(known, COLUMNS)
    assert (more.start, more.stop) == (3, 4)
    with pytest.raises(ChangedError):
        source(["a", "b", "true", "c"]).slice(known, COLUMNS)


def test_a_block_and_a_memory_hold_texts() -> None:
    batch = compiled(WORDS)
    part = encode(batch, {})
    assert not any(array.dtype.hasobject for array in part.arrays.values())
    again, _ = decode(Part(part.arrays, json.loads(json.dumps(part.meta))))
    assert said(again) == WORDS and encode(again, {}).digest == part.digest
    rows = Rows()
    for piece in batch.split(4):
        rows.append(piece)
        rows.seal()
    meta, arrays, parts = rows.save()
    back = Rows.load(json.loads(json.dumps(meta)), arrays, parts)
    assert said(back.gather(np.arange(len(WORDS))[::-1].copy())) == WORDS[::-1]
    assert back.erase(ids=batch.ids[[7]]) == 1
    left = b"".join(bytes(p.arrays["texts.bytes"]) for p in back.save()[2].values())
    assert "🙂" not in left.decode()


def test_hold_outs_keep_texts() -> None:
    held = HoldOuts(rows=6)
    batch = compiled(WORDS)
    held.add(batch.take(slice(0, 5)))
    held.settle()
    held.add(batch.take(slice(5, None)))
    again = HoldOuts.load(held.save())
    assert [said(period.batch) for period in again.periods] == [WORDS[:5], WORDS[5:]]
    again.settle()
    assert len(again) <= 6
    with pytest.raises(InputError, match="texts"):
        again.add(Batch(**{**{k: getattr(batch, k) for k in Batch.__slots__}, "texts": None}))


def test_a_comparison_maps_texts(tmp_path: Path) -> None:
    from everlearn.compare.loader import load_history

    n = 60
    day = 86_400_000_000
    table = pa.table(
        {"message": [f"é{i}" for i in range(n)], "y": [i % 2 for i in range(n)],
         "at": [(i * day) // 2 + 10**15 for i in range(n)]}
    )  # fmt: skip
    schema = Schema(target="y", time="at", text=("message",))
    history = load_history(str(parquet_of(tmp_path, table)), schema, every="5d")
    history.save(tmp_path)
    again = History.load(tmp_path)
    assert said(again.batch) == said(history.batch)
    assert again.columns.texts == ("message",)


class Lengths:
    """A learner of texts: it counts signs, and answers whether a text is long."""

    kind = "classifier"

    def __init__(self) -> None:
        self.signs = np.zeros(2)

    def predict(self, batch: Batch) -> Prediction:
        assert batch.texts is not None
        mean = self.signs[0] / max(self.signs[1], 1)
        code = np.array([len(text) > mean for text in batch.texts[:, 0]], np.int64)
        return Prediction(value=code, proba=np.eye(2)[code] * 0.8 + 0.1)

    def learn(self, batch: Batch, score: int = 0) -> Any:
        assert batch.texts is not None
        answer = self.predict(batch.take(slice(score))) if score else None
        self.signs += [sum(map(len, batch.texts[:, 0])), len(batch)]
        return answer

    def grow(self, classes: int) -> bool:
        return classes <= 2

    def save(self) -> dict[str, Part]:
        return {"signs": Part({"signs": self.signs.copy()})}

    def load(self, state: Any) -> None:
        self.signs = np.array(state["signs"].arrays["signs"])


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    signs: Array = np.random.default_rng(7).integers(1, 60, 2_000)
    return [
        {"message": "é" * int(signs[i]) + str(i), "long": int(signs[i] > 30)}
        for i in range(start, stop)
    ]


def test_a_model_of_texts_is_served_and_goes_on_from_feedback(tmp_path: Path) -> None:
    schema = el.Schema(target="long", text=("message",), classes=(0, 1))
    model = el.Model("texts", Lengths(), schema, el.Strategy(memory=el.Reservoir(100), chunk=50))
    with el.open(tmp_path / "ws") as workspace:
        handle = workspace.model(model)
        assert handle.train(rows(0, 300)).decision.action == "promote"
        asked = [row["message"] for row in rows(300, 400)]
        answers = [handle.predict({"message": text}) for text in asked]
        for answer, row in zip(answers, rows(300, 400), strict=True):
            assert isinstance(answer, Answer) and answer.value in (0, 1)
            handle.feedback(answer.id, row["long"])
        result = handle.update()
        assert result.decision.action == "promote", result.decision.reason
        fold = handle.load()
        learned = fold.learner.signs[1]  # type: ignore[attr-defined]
        assert learned > 440  # about 380 that were not held out, and remembered ones among them
        state = handle.load(1).save()
        assert Columns.from_json(state["columns"].meta).texts == ("message",)
        with pytest.raises(InputError):
            handle.predict({"message": "\ud800"})
