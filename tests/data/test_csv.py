"""CSV: where records end, what is a row, and what is set aside."""

import csv
import io
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import ChangedError, InputError, Schema
from everlearn.data import csv as csv_module
from everlearn.data import files
from everlearn.data.columns import resolve
from everlearn.data.increment import Reader
from everlearn.data.records import RowCounter, last_line_end
from everlearn.data.slices import Consumed
from everlearn.data.source import open_sources

cells = st.text(alphabet='ab",\n\r é', max_size=4)


@given(
    rows=st.lists(st.tuples(cells, cells), max_size=12),
    end=st.sampled_from(["\n", "\r\n"]),
    step=st.integers(1, 9),
    open_end=st.booleans(),
)
def test_records_are_counted_however_the_bytes_are_cut(rows, end, step, open_end):
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    data = text.getvalue().encode()
    data = data[: -len(end)] if open_end and rows else data
    counter = RowCounter(",")
    for start in range(0, len(data), step):
        counter.feed(data[start : start + step])
    assert counter.rows == len(rows)


@given(lines=st.lists(st.sampled_from(["", "a", "1,2", "\r"]), max_size=20), step=st.integers(1, 5))
def test_blank_lines_are_no_rows(lines, step):
    data = "\n".join(lines).encode()
    counter = RowCounter(",")
    for start in range(0, len(data), step):
        counter.feed(data[start : start + step])
    assert counter.rows == sum(line not in ("", "\r") for line in lines)


def test_the_last_line_end_is_outside_quotes():
    assert last_line_end(b"a,b\nc", ",") == 4
    assert last_line_end(b'a,"x\ny', ",") == 0
    assert last_line_end(b'a,"x\ny"\nb,"\n', ",") == 8
    assert last_line_end(b'"a ""\n"" b"\n"', ",") == 12
    assert last_line_end(b'a,7" b\n8","c\n', ",") == 7
    assert last_line_end(b'"a"b"\n,"c\n', ",") == 6


texts = st.text(alphabet='aaé""",\n', max_size=30)


def parsed(text):
    """The rows that Python's parser finds, and one past the line end of the last one that ended."""
    lines = text.splitlines(keepends=True)
    rows, ends = [], [0]
    reader = csv.reader(lines)
    for row in reader:
        rows.append(row)
        ends.append(len("".join(lines[: reader.line_num]).encode()))
    goes_on = text[-1:] != "\n" or len(list(csv.reader([*lines, "z"]))) == len(rows)
    return [row for row in rows if row], ends[-2 if goes_on and rows else -1]


@settings(max_examples=500)
@given(text=texts, step=st.integers(1, 9))
def test_quotes_mean_what_they_mean_to_other_parsers(text, step):
    rows, end = parsed(text)
    data = text.encode()
    assert last_line_end(data, ",") == end
    counter = RowCounter(",")
    for start in range(0, len(data), step):
        counter.feed(data[start : start + step])
    assert counter.rows == len(rows)


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(texts, max_size=6),
    block=st.integers(1, 20),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_any_text_is_read_like_by_other_parsers_from_any_place(tmp_path_factory, parts, block, end):
    text = "a,a\n" + "\n".join(parts)
    path = tmp_path_factory.getbasetemp() / "quotes.csv"
    path.write_bytes(("x,y\n" + text).replace("\n", end).encode())
    expected = [
        tuple(cell.replace("\n", end) or None for cell in row) if len(row) == 2 else (None, None)
        for row in parsed(text)[0]
    ]
    columns = resolve(Schema(target="y"), pa.table({"x": ["a"], "y": ["a"]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block * 2)
        patch.setattr(csv_module, "PIECE", block)
        (source,) = open_sources(str(path))
        part = source.slice()
        assert part.stop == len(expected)
        with closing(csv_module.CsvReader(part, columns)) as reader:
            places = [piece.place for piece in reader.pieces()]
        for place in [None, *places]:
            with closing(csv_module.CsvReader(part, columns)) as reader:
                tables = [piece.table for piece in reader.pieces(place)]
            found = [(row["x"], row["y"]) for table in tables for row in table.to_pylist()]
            assert found == expected[place.row if place else 0 :]


def test_an_inch_sign_is_text_and_a_quote_left_open_sets_its_row_aside(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('size 1",size 2",y\n7" pipe,1,0\n' + '5",2,1\n' * 60 + '6",3,"1\n4,5,0\n')
    chunks, tally, columns = read(path)
    assert columns.categories == ('size 1"',) and columns.numbers == ('size 2"',)
    assert values(chunks) == [1.0] + [2.0] * 60 and tally.stop == 62
    assert tally.reasons["set_aside"] == {"target 'y': not a number": 1}


def read(path, schema=None, **options):
    (source,) = open_sources(str(path))
    columns = resolve(schema or Schema(target="y"), source)
    with Reader([source.slice()], columns, **options) as reader:
        return list(reader), reader.tallies[0], columns


def values(chunks, column=0):
    return [x for chunk in chunks for x in chunk.batch.numbers[:, column].tolist()]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_dialects(tmp_path, end, delimiter, mark):
    lines = ["x,name,y", '1,"a, ""b""",0', "", '2,"c\nd",1', "3,é,NA", "4,,1"]
    lines = [line.replace(",", delimiter) for line in lines]
    path = tmp_path / "rows.csv"
    path.write_bytes(mark + end.join(lines).encode())
    chunks, tally, columns = read(path)
    assert columns.numbers == ("x",) and columns.categories == ("name",)
    assert values(chunks) == [1.0, 2.0, 4.0]
    assert tally.set_aside == 1 and tally.stop == 4
    assert chunks[0].batch.categories[:, 0].tolist().count(0) == 1


def test_bad_rows_are_set_aside_with_their_place_and_the_file_goes_on(tmp_path):
    path = tmp_path / "rows.csv"
    good = [f"{k},word,{k % 2},2020-01-01T00:00:{k % 60:02}" for k in range(300)]
    good[200] = "200,word"
    good[210] = "1,2,3,4,5"
    good[220] = "many,word,0,2020-01-01"
    good[230] = "inf,word,0,2020-01-01"
    good[240] = "240,word,perhaps,2020-01-01"
    good[250] = "250,word,1,yesterday"
    good[260] = "260,word,,2020-01-01"
    good[270] = "-1e400,word,0,2020-01-01"
    path.write_text("x,name,y,at\n" + "\n".join(good) + "\n")
    chunks, tally, _ = read(path, Schema(target="y", time="at"), chunk=50)
    assert tally.reasons["set_aside"] == {
        "ragged line": 2,
        "column 'x': not a number": 1,
        "column 'x': infinite": 2,
        "target 'y': not a number": 1,
        "column 'at': not a time": 1,
        "target missing": 1,
    }
    rows = [example["row"] for example in tally.reasons["examples"]]
    assert rows == [200, 210, 220, 230, 240, 250, 260, 270]
    assert tally.reasons["examples"][0]["reason"] == "ragged line: 2 cells instead of 4"
    assert tally.rows == 292 == len(values(chunks)) and tally.stop == 300


def test_a_type_that_changes_in_a_later_block_sets_only_its_rows_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_module, "PIECE", 4096)
    path = tmp_path / "rows.csv"
    lines = [f"{k},{k % 2},{'true' if k % 3 else 'false'}" for k in range(4000)]
    lines[3000:] = [
        f"{k}.5,{k % 2},{k % 2}" if k % 2 else f"n{k},1,maybe" for k in range(3000, 4000)
    ]
    path.write_text("x,y,flag\n" + "\n".join(lines))
    chunks, tally, _ = read(path)
    assert tally.rows == 3500 and tally.set_aside == 500
    assert values(chunks)[:3001] == [*map(float, range(3000)), 3001.5]
    assert [chunk.batch.numbers[:, 1].max() for chunk in chunks] == [1.0] * len(chunks)


def test_text_that_is_not_utf_8_sets_its_row_aside(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"{k},w{k % 3},0".encode() for k in range(400_000)]
    lines[399_990] = b"1,gr\xf6n,0"
    path.write_bytes(b"x,name,y\n" + b"\n".join(lines))
    _, tally, _ = read(path)
    assert tally.reasons["set_aside"] == {"column 'name': not UTF-8": 1}
    assert tally.reasons["examples"][0]["row"] == 399_990


def test_an_open_quote_is_an_error_and_not_a_row_of_megabytes(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n1,2\n" + '"3,4\n' + "5,6\n" * 10)
    (source,) = open_sources(str(path))
    part = source.slice()
    assert part.stop == 2
    columns = resolve(Schema(target="y", numeric=["x"]), pa.table({"x": [1], "y": [2]}))
    with Reader([part], columns) as reader:
        chunks = list(reader)
    assert sum(map(len, chunks)) == 1 and reader.tallies[0].set_aside == 1


@settings(max_examples=20, deadline=None)
@given(block=st.integers(64, 700), chunk=st.integers(1, 60), share=st.sampled_from([0.0, 0.3]))
def test_the_size_of_blocks_changes_nothing(tmp_path_factory, block, chunk, share):
    path = tmp_path_factory.getbasetemp() / "blocks.csv"
    if not path.exists():
        lines = [f'{k % 7}.25,"a\nb{k % 5}",{k % 2}' for k in range(150)]
        lines[77] = "x"
        path.write_text("x,name,y\n" + "\n".join(lines))
    expected = _signature(path, chunk, share)
    old = files.BLOCK, csv_module.PIECE
    try:
        files.BLOCK, csv_module.PIECE = block * 3, block
        assert _signature(path, chunk, share) == expected
    finally:
        files.BLOCK, csv_module.PIECE = old


def _signature(path: Path, chunk: int, share: float):
    (source,) = open_sources(str(path))
    columns = resolve(Schema(target="y"), pa.table({"x": [1.5], "name": ["a"], "y": [1]}))
    with Reader([source.slice()], columns, chunk=chunk, holdout=share) as reader:
        found = [
            (part.batch.ids.tobytes(), None if part.held is None else part.held.ids.tobytes())
            for part in reader
        ]
        tally = reader.tallies[0]
    return found, tally.reasons, tally.rows, tally.stop


def test_a_header_alone_is_a_file_without_rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n")
    (source,) = open_sources(str(path))
    assert source.slice() is None
    with pytest.raises(InputError, match="no rows"):
        resolve(Schema(target="y"), source)


def test_a_last_line_without_its_end_may_get_it_later(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n1,0\n2,1")
    (source,) = open_sources(str(path))
    known = [Consumed.of(source.slice())]
    path.write_text("x,y\n1,0\n2,1\n3,0\n")
    tail = open_sources(str(path))[0].slice(known)
    assert (tail.start, tail.stop) == (2, 3)
    columns = resolve(Schema(target="y"), source)
    with Reader([tail], columns) as reader:
        assert values(reader) == [3.0]
    path.write_text("x,y\n1,0\n2,17\n")
    with pytest.raises(ChangedError):
        open_sources(str(path))[0].slice(known)


def test_a_grown_copy_under_another_name_gives_its_tail(tmp_path):
    (tmp_path / "monday.csv").write_text("x,y\n1,0\n2,1\n")
    known = [Consumed.of(open_sources(str(tmp_path / "monday.csv"))[0].slice())]
    (tmp_path / "tuesday.csv").write_text("x,y\n1,0\n2,1\n3,0\n4,1\n")
    tail = open_sources(str(tmp_path / "tuesday.csv"))[0].slice(known)
    assert (tail.start, tail.stop) == (2, 4)
    assert tail.rows == 2


def test_decimal_commas_are_read_where_they_do_not_separate(tmp_path):
    path = tmp_path / "comma.csv"
    lines = [f"{i},5;{i};{'x,y' if i % 2 else 'z'};{i},0" for i in range(200)]
    path.write_text("a;b;c;y\n" + "\n".join(lines) + "\nwhat;1;z;2,0\n1,25;1;z;2,0\n")
    chunks, tally, columns = read(path)
    assert (columns.numbers, columns.categories) == (("a", "b"), ("c",))
    a = values(chunks)
    assert a[:2] == [0.5, 1.5]
    assert a[-1] == 1.25  # in a block with a cell that is no number
    assert tally.set_aside == 1


def test_what_is_no_csv_is_said_to_be_none(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,y\r1,0\r2,1\r")
    with pytest.raises(InputError, match="alone; convert them"):
        open_sources(str(path))
    path.write_text("# made by hand\na,y\n1,0\n2,1\n")
    with pytest.raises(InputError, match="has 1 cells, and no line after it has as many"):
        read(path)
