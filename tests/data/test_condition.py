"""Conditions on rows: read, written, and evaluated as SQL would."""

import math
import re
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from everlearn.base import InputError
from everlearn.data.condition import DEEPEST, LONGEST, Condition
from everlearn.data.predicates import SIGNS, Among, And, Compare, Like, Missing, Not, Or

TEXTS = st.text(alphabet="ab'%_\"\\.é\n ", max_size=4)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
LITERALS = TEXTS | NUMBERS | st.booleans()
NAMES = st.sampled_from(["a", "Größe", "in", "two words", 'quo"ted', "x1"])


def _leaves(names, literals, patterns):
    return st.one_of(
        st.builds(Compare, names, st.sampled_from(SIGNS), literals),
        st.builds(Among, names, st.lists(literals, min_size=1, max_size=3).map(tuple)),
        st.builds(Like, names, patterns),
        st.builds(Missing, names),
    )


def _trees(leaves):
    def grown(children):
        some = st.lists(children, min_size=2, max_size=3).map(tuple)
        return st.one_of(st.builds(Not, children), st.builds(And, some), st.builds(Or, some))

    return st.recursive(leaves, grown, max_leaves=8)


@settings(max_examples=200, deadline=None)
@given(_trees(_leaves(NAMES, LITERALS, TEXTS)))
def test_the_canonical_text_is_read_as_the_same_condition(tree):
    condition = Condition(tree)
    assert Condition.parse(str(condition)) == condition
    assert str(Condition.parse(str(condition))) == str(condition)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("source='bot-7'", "source = 'bot-7'"),
        ("key IN ('a' , 'b')", "key in ('a', 'b')"),
        (
            "time >= '2024-03-01' and (reviewer = 'x' or not source like 'bot-%')",
            "time >= '2024-03-01' and (reviewer = 'x' or source not like 'bot-%')",
        ),
        ("a <> 1 OR b != -2.5 AND c IS NOT NULL", "a != 1 or (b != -2.5 and c is not null)"),
        ('"two words" = true', '"two words" = true'),
        ("name = 'O''Neil'", "name = 'O''Neil'"),
        ("NOT NOT (a is null)", "not a is not null"),
        ("((a < 1e3))", "a < 1000.0"),
    ],
)
def test_conditions_as_people_write_them(text, canonical):
    assert str(Condition.parse(text)) == canonical


def test_the_columns_that_it_looks_at():
    condition = Condition.parse("b = 1 or (a = 2 and not b = 3) or \"c d\" like 'x'")
    assert condition.columns == ("b", "a", "c d")


@pytest.mark.parametrize(
    ("text", "letter", "message"),
    [
        ("", 1, "expected a column, 'not' or '(', but it ends"),
        ("source = and key = 1", 10, "expected a value, but there is and"),
        ("source = bot", 10, "a text stands in single quotes"),
        ("source = null", 10, "'is null'"),
        ("source 'x'", 8, "expected =, !=, <, <=, >, >=, in, like, not or is"),
        ("source not 'x'", 12, "expected 'in' or 'like'"),
        ("a = 1 b = 2", 7, "expected 'and', 'or' or the end"),
        ("(a = 1", 7, "expected ')', but it ends"),
        ("a in ()", 7, "expected a value"),
        ("a like 5", 8, "a pattern in single quotes"),
        ("a = 'x", 5, "the quote ' is never closed"),
        ('"a = 1', 1, 'the quote " is never closed'),
        ("a = 1; drop table labels", 6, "'; drop tab' means nothing"),
        ("a = 12x", 5, "'12x' means nothing"),
        ("a == 1", 4, "expected a value, but there is ="),
        ("a = 1e999", 5, "a number that is finite"),
        ("a = " + "9" * 50, 5, "a number of at most 40 digits"),
        ('"" = 1', 1, "expected a column"),
    ],
)
def test_what_cannot_be_read_is_pointed_at(text, letter, message):
    with pytest.raises(InputError) as caught:
        Condition.parse(text)
    told, shown, caret = str(caught.value).split("\n")
    assert f"at letter {letter}:" in told
    assert message in told
    assert len(shown) - 2 == len(text)
    assert caret == " " * (letter + 1) + "^"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "a = 1" + ")" * 5000,
        "not " * 5000 + "a = 1",
        "'" * 9999,
        '"' + "a" * 50_000,
        "a = 1" + " or a = 1" * 20_000,
        "a like '" + "%a" * 2000 + "'",
        "1" * 90_000,
        "a in (" + "((((((" * 1000,
        "\x00\ud800",
    ],
)
def test_hostile_texts_are_refused_with_a_short_message(text):
    with pytest.raises(InputError) as caught:
        Condition.parse(text)
    assert len(str(caught.value)) < 500


def test_what_is_within_the_bounds_is_read_and_evaluated():
    deep = "not " * (DEEPEST - 1) + "a = 'x'"
    long = " or ".join(["a = 'y'"] * (LONGEST // 11))
    table = pa.table({"a": ["x", "y"]})
    assert Condition.parse(deep).mask(table).tolist() == [DEEPEST % 2 == 1, DEEPEST % 2 == 0]
    assert Condition.parse(long).mask(table).tolist() == [False, True]
    slow = Condition.parse("a like '" + "%a" * 450 + "%b'")
    assert not slow.mask(pa.table({"a": ["a" * 20_000]})).any()


@given(st.text(max_size=60))
@example("a in ('")
def test_any_text_is_read_or_refused(text):
    try:
        condition = Condition.parse(text)
    except InputError:
        return
    assert Condition.parse(str(condition)) == condition


# --- evaluation -----------------------------------------------------------------------------------

MOMENTS = [datetime(2024, 3, day, 12, tzinfo=UTC) for day in (1, 2, 3)]
COLUMNS = {
    "t": (pa.string(), TEXTS),
    "d": (pa.dictionary(pa.int32(), pa.string()), TEXTS),
    "i": (pa.int64(), st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)),
    "u": (pa.uint64(), st.integers(0, 2**64 - 1) | st.integers(0, 3)),
    "f": (pa.float64(), st.sampled_from([-1.5, 0.0, 2.0, math.inf, math.nan])),
    "b": (pa.bool_(), st.booleans()),
    "m": (pa.timestamp("us", "UTC"), st.sampled_from(MOMENTS)),
    "day": (pa.date32(), st.sampled_from([date(2024, 3, 1), date(2024, 3, 2)])),
    "none": (pa.null(), st.none()),
}
_LITERALS = {
    "number": st.integers(-4, 4) | st.integers(-(2**65), 2**65) | st.sampled_from([0.5, 2.0]),
    "time": st.sampled_from(
        ["2024-03-02", "2024-03-01T12:00:00", "2024-03-02T13:00:00+01:00", "2024-03-03 12:00"]
    ),
}
_KINDS = dict.fromkeys("iufb", "number") | dict.fromkeys(("m", "day"), "time")


def _leaf(name):
    names, kind = st.just(name), _KINDS.get(name, "text")
    literals = _LITERALS.get(kind, TEXTS)
    made = [
        st.builds(Compare, names, st.sampled_from(SIGNS), literals),
        st.builds(Among, names, st.lists(literals, min_size=1, max_size=3).map(tuple)),
        st.builds(Missing, names),
    ]
    return st.one_of(*made, st.builds(Like, names, TEXTS)) if kind == "text" else st.one_of(*made)


def _plain(value):
    """A cell or a literal as Python compares it; None where it is missing."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    return value


def _literal(value, name):
    return _plain(_utc(value)) if _KINDS.get(name) == "time" else value


def _utc(text):
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _naive(node, row):
    """True, False or None."""
    if isinstance(node, Not):
        found = _naive(node.part, row)
        return None if found is None else not found
    if isinstance(node, (And, Or)):
        found = [_naive(part, row) for part in node.parts]
        decides = isinstance(node, Or)
        return decides if decides in found else (None if None in found else not decides)
    value = _plain(row[node.column])
    if isinstance(node, Missing):
        return value is None
    if value is None:
        return None
    if isinstance(node, Like):
        parts = {"%": ".*", "_": "."}
        regex = "".join(parts.get(letter, re.escape(letter)) for letter in node.pattern)
        return re.fullmatch(regex, value, re.DOTALL) is not None
    if isinstance(node, Among):
        return any(value == _literal(one, node.column) for one in node.values)
    other = _literal(node.value, node.column)
    return {
        "=": value == other, "!=": value != other, "<": value < other,
        "<=": value <= other, ">": value > other, ">=": value >= other,
    }[node.sign]  # fmt: skip


ROWS = st.lists(st.fixed_dictionaries({k: st.none() | v for k, (_, v) in COLUMNS.items()}))


@settings(max_examples=200, deadline=None)
@given(ROWS, _trees(st.one_of(*map(_leaf, COLUMNS))))
def test_a_mask_is_what_row_by_row_evaluation_gives(rows, tree):
    table = pa.Table.from_pylist(rows, pa.schema([(k, t) for k, (t, _) in COLUMNS.items()]))
    mask = Condition(tree).mask(table)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [_naive(tree, row) is True for row in rows]


@settings(max_examples=100, deadline=None)
@given(ROWS, _trees(st.one_of(*map(_leaf, COLUMNS))), st.sets(st.sampled_from(list(COLUMNS))))
def test_what_holds_is_possible_by_whichever_columns_are_known(rows, tree, known):
    table = pa.Table.from_pylist(rows, pa.schema([(k, t) for k, (t, _) in COLUMNS.items()]))
    condition = Condition(tree)
    possible = condition.possible(table.select(sorted(known | {"none"})))
    assert (possible | ~condition.mask(table)).all()


def test_rows_are_ruled_out_by_what_is_known_of_them():
    table = pa.table({"position": [1, 2]})
    for text, found in (
        ("position > 1 and source = 'bot'", [False, True]),
        ("not (position < 2 or source = 'bot')", [False, True]),
        ("position > 1 or source is null", [True, True]),
        ("position > 5 and not source is null", [False, False]),
    ):
        assert Condition.parse(text).possible(table).tolist() == found


def test_unknown_is_not_true_and_neither_is_its_contrary():
    table = pa.table({"a": ["x", None]})
    assert Condition.parse("a = 'x'").mask(table).tolist() == [True, False]
    assert Condition.parse("not a = 'x'").mask(table).tolist() == [False, False]
    assert Condition.parse("a not in ('x')").mask(table).tolist() == [False, False]
    assert Condition.parse("a not in ('x') or a is null").mask(table).tolist() == [False, True]
    assert not Condition.parse("a = 'x'").mask(table.slice(0, 0)).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sorce = 'x'", "no column 'sorce': did you mean 'source'?"),
        ("source = 5", "'source' holds texts.* write it in quotes: '5'"),
        ("weight = '5'", "'weight' holds numbers.* without quotes"),
        ("time > 5", "'time' holds times.* such as '2024-03-01T12:00:00'"),
        ("time > 'yesterday'", "'time' holds times, and 'yesterday' is none"),
        ("time > ''", "'time' holds times, and '' is none"),
        ("weight like '1%'", "like compares texts, and column 'weight' holds numbers"),
        ("tags = 'x'", "'tags' has the type list<.*>, which no condition can compare"),
    ],
)
def test_what_cannot_be_compared_is_explained(text, message):
    columns = {"source": ["a"], "weight": [1.0], "time": [MOMENTS[0]], "tags": [["x"]]}
    with pytest.raises(InputError, match=message):
        Condition.parse(text).mask(pa.table(columns))
