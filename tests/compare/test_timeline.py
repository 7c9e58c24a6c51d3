"""What is known when: nothing is known before its label is, whatever the history."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import NO_TIME, InputError
from everlearn.compare.periods import Groups, choose_probes
from everlearn.compare.timeline import NEVER, Span, choose_every, make_timeline
from tests.compare.histories import DAY, HOUR, START, drifting


@pytest.mark.parametrize(
    ("text", "length", "unit"),
    [
        ("7d", 7 * DAY, "time"),
        ("2h", 2 * HOUR, "time"),
        ("90min", 3 * HOUR // 2, "time"),
        ("1s", 1_000_000, "time"),
        ("5000rows", 5000, "rows"),
        (" 1 row ", 1, "rows"),
    ],
)
def test_spans_are_read_as_people_write_them(text: str, length: int, unit: str) -> None:
    assert Span.parse(text) == Span(length, unit)
    assert Span.parse(Span(length, unit)) == Span(length, unit)


@pytest.mark.parametrize("text", ["", "7", "7 parsecs", "0d", "-1h", "0rows", "1.5rows"])
def test_what_is_no_span_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(InputError, match="no span"):
        Span.parse(text)


def test_a_span_is_written_in_its_longest_unit() -> None:
    assert [str(Span.parse(text)) for text in ("48h", "90min", "1000rows")] == [
        "2d",
        "90min",
        "1,000 rows",
    ]


moments = st.lists(st.tuples(st.integers(0, 60), st.integers(-1, 80)), min_size=6, max_size=60).map(
    lambda pairs: sorted(pairs)
)


@given(moments, st.integers(1, 30), st.integers(1, 10), st.integers(0, 70))
@settings(max_examples=200, deadline=None)
def test_known_at_t_are_labels_up_to_t_of_events_before_t(
    pairs: list[tuple[int, int]], every: int, tick: int, moment: int
) -> None:
    time = np.array([a for a, _ in pairs], np.int64) * HOUR
    label = np.array([NO_TIME if b < 0 else b * HOUR for _, b in pairs], np.int64)
    try:
        line = make_timeline(
            time, label, rows=len(time), every=Span(every * HOUR), tick=Span(tick * HOUR)
        )
    except InputError:
        return
    at = moment * HOUR
    known = set(line.arrival[: line.known_at(at)].tolist())
    truth = {i for i in range(len(time)) if label[i] != NO_TIME and label[i] <= at and time[i] < at}
    assert known == truth
    assert (np.diff(line.available) >= 0).all()
    assert line.before(at) == int((time < at).sum())


@given(moments, st.integers(1, 30), st.integers(1, 10))
@settings(max_examples=100, deadline=None)
def test_ticks_are_where_something_new_is_known(
    pairs: list[tuple[int, int]], every: int, tick: int
) -> None:
    time = np.array([a for a, _ in pairs], np.int64) * HOUR
    try:
        line = make_timeline(
            time, None, rows=len(time), every=Span(every * HOUR), tick=Span(tick * HOUR)
        )
    except InputError:
        return
    before = line.start
    for at in line.ticks().tolist():
        assert at > line.start
        assert (at - int(line.edges[0])) % line.tick.length == 0
        assert line.known_at(at) > line.known_at(before)
        before = at


def test_a_label_time_before_its_event_waits_for_the_event() -> None:
    time = np.arange(10) * DAY + START
    line = make_timeline(time, time - DAY, rows=10, every=Span(2 * DAY))
    assert (line.known == time + 1).all()


def test_a_delay_is_added_and_zero_means_right_after() -> None:
    time = np.arange(10) * DAY + START
    late = make_timeline(time, None, rows=10, every=Span(2 * DAY), label_delay=Span(HOUR))
    assert (late.known == time + HOUR).all()
    now = make_timeline(time, None, rows=10, every=Span(2 * DAY), label_delay=Span(0))
    assert (now.known == time + 1).all()


def test_warm_up_lasts_until_labels_are_known() -> None:
    time = np.arange(400) * (DAY // 10) + START
    prompt = make_timeline(time, None, rows=400, every=Span(2 * DAY))
    late = make_timeline(time, None, rows=400, every=Span(2 * DAY), label_delay=Span(9 * DAY))
    assert prompt.warmup == 1
    assert late.warmup == 5  # at 10 d the labels of 1 day are known: half of a period
    assert late.known_at(late.start) == 11


def test_labels_that_come_after_everything_are_refused() -> None:
    time = np.arange(40) * DAY + START
    with pytest.raises(InputError, match="too late"):
        make_timeline(time, None, rows=40, every=Span(5 * DAY), label_delay=Span(90 * DAY))


def test_rows_without_time_are_in_their_order() -> None:
    line = make_timeline(None, None, rows=100, every=Span(10, "rows"), tick=Span(2, "rows"))
    assert line.unit == "rows"
    assert line.edges.tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert line.known_at(10) == 10
    assert line.edges_to_learn().tolist() == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert line.ticks()[:3].tolist() == [12, 14, 16]


def test_periods_of_rows_do_not_split_one_moment() -> None:
    time = np.repeat(np.arange(10), 10) * DAY + START
    line = make_timeline(time, None, rows=100, every=Span(15, "rows"))
    assert (np.isin(line.edges[:-1], time)).all()
    assert line.before(int(line.edges[1])) == 10


@pytest.mark.parametrize(
    ("span", "expected"), [(365 * DAY, "7d"), (50 * HOUR, "1h"), (50 * DAY, "1d")]
)
def test_a_period_is_chosen_so_that_there_are_about_fifty(span: int, expected: str) -> None:
    time = np.linspace(START, START + span, 5_000).astype(np.int64)
    assert str(choose_every(time, "time")) == expected
    assert str(choose_every(time[[0, -1]], "time")) != expected  # too few rows for fifty
    assert choose_every(np.arange(5_000), "rows") == Span(100, "rows")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"every": Span(100 * DAY)}, "make every shorter"),
        ({"every": Span(1)}, "make every longer"),
        ({"label_delay": Span(5, "rows")}, "length of time"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Span], words: str) -> None:
    time = np.arange(40) * DAY + START
    with pytest.raises(InputError, match=words):
        make_timeline(time, None, **({"rows": 40, "every": Span(5 * DAY)} | change))


def test_time_spans_need_a_time_column() -> None:
    for change in ({"every": Span(DAY)}, {"tick": Span(DAY)}, {"label_delay": Span(DAY)}):
        with pytest.raises(InputError, match="row"):
            make_timeline(None, None, **({"rows": 40, "every": Span(5, "rows")} | change))


def test_events_out_of_order_and_too_short_a_history_are_refused() -> None:
    with pytest.raises(InputError, match="in order"):
        make_timeline(np.array([3, 1, 2]), None, rows=3)
    with pytest.raises(InputError, match="1 rows"):
        make_timeline(np.array([3]), None, rows=1)


def test_a_tick_is_no_longer_than_a_period() -> None:
    time = np.arange(400) * (HOUR // 10) + START
    line = make_timeline(time, None, rows=400, every=Span(HOUR // 2), tick=Span(HOUR))
    assert line.tick == line.every


def test_probes_are_few_spread_over_all_groups_and_never_known() -> None:
    data = drifting(4_000)
    ids = np.arange(1, 4_001, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    line = make_timeline(data["time"], data["known"], rows=4_000, every=Span(2 * DAY))
    probes = choose_probes(line, ids)
    groups = Groups.of(line)
    assert len(groups) == 8
    assert 0 < len(probes) <= 0.05 * 4_000
    assert set(groups.group_of(line.time[probes]).tolist()) == set(range(8))
    again = make_timeline(
        data["time"], data["known"], rows=4_000, every=Span(2 * DAY), probes=probes
    )
    assert (again.known[probes] == NEVER).all()
    assert not set(again.arrival[: again.known_at(2**62)].tolist()) & set(probes.tolist())


def test_two_periods_are_too_few_for_groups() -> None:
    time = np.arange(40) * DAY + START
    line = make_timeline(time, None, rows=40, every=Span(20 * DAY))
    assert len(choose_probes(line, np.arange(1, 41, dtype=np.uint64))) == 0
