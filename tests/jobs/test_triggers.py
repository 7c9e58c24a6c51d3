"""Triggers that need no log: times, amounts, and combinations."""

import datetime as dt

import pytest

import everlearn as el
from everlearn.base import Decision, SpecError
from everlearn.jobs.triggers import Facts, Volume
from everlearn.registry.config import equal_when_rebuilt

HOUR = 3_600_000_000


def micros(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp()) * 1_000_000


def ask(trigger: object, state: dict, at: str | int, labels: int = 5, **facts: object) -> Decision:
    now = micros(at) if isinstance(at, str) else at
    return trigger.decide(Facts(now=now, labels=labels, state=state, **facts))


class Once:
    """Says "learn" when it is told to, once."""

    said = False

    def decide(self, facts: Facts) -> Decision:
        said, self.said = self.said, False
        return Decision("learn", "it happened") if said else Decision("wait", "nothing happened")


def test_a_schedule_fires_once_for_each_moment() -> None:
    nightly, state = el.Schedule("0 3 * * *"), {}
    actions = [
        ask(nightly, state, f"2024-05-0{day}T{hour:02}:30:00Z").action
        for day in (1, 2, 3)
        for hour in (1, 2, 3, 4, 23)
    ]
    assert [n for n, action in enumerate(actions) if action == "learn"] == [2, 7, 12]


def test_a_schedule_does_not_fire_for_moments_before_it_was_asked() -> None:
    assert ask(el.Schedule("0 3 * * *"), {}, "2024-05-01T03:00:00Z").action == "wait"


def test_after_being_down_a_schedule_fires_once() -> None:
    nightly, state = el.Schedule("0 3 * * *"), {}
    ask(nightly, state, "2024-05-01T12:00:00Z")
    fired = ask(nightly, state, "2024-05-09T12:00:00Z")
    assert fired.action == "learn" and "2024-05-09T03:00:00" in fired.reason
    assert ask(nightly, state, "2024-05-09T13:00:00Z").action == "wait"


def test_a_moment_at_which_nothing_is_new_passes() -> None:
    nightly, state = el.Schedule("0 3 * * *"), {}
    ask(nightly, state, "2024-05-01T12:00:00Z")
    assert "nothing was new" in ask(nightly, state, "2024-05-02T03:00:00Z", labels=0).reason
    assert ask(nightly, state, "2024-05-02T04:00:00Z", labels=9).action == "wait"
    assert ask(nightly, state, "2024-05-03T03:00:00Z", labels=9).action == "learn"


@pytest.mark.parametrize("day", ["2024-10-27", "2024-03-31", "2024-06-01"])
def test_when_summer_time_begins_and_ends_a_moment_counts_once(day: str) -> None:
    nightly, state = el.Schedule("30 2 * * *", tz="Europe/Berlin"), {}
    start = micros(f"{day}T00:00:00Z") - 4 * HOUR
    fired = [ask(nightly, state, start + n * HOUR // 4).action for n in range(4 * 14)]
    assert fired.count("learn") == 1


def test_a_schedule_keeps_to_its_time_zone() -> None:
    nightly, state = el.Schedule("0 3 * * *", tz="Asia/Tokyo"), {}
    ask(nightly, state, "2024-05-01T12:00:00Z")
    assert ask(nightly, state, "2024-05-01T17:59:59Z").action == "wait"
    assert ask(nightly, state, "2024-05-01T18:00:00Z").action == "learn"


@pytest.mark.parametrize(
    ("cron", "tz"),
    [("x", "UTC"), ("30 25 * * *", "UTC"), ("0 3 31 2 *", "UTC"), ("0 3 * * *", "Mars/Base")],
)
def test_no_schedule(cron: str, tz: str) -> None:
    with pytest.raises(SpecError):
        el.Schedule(cron, tz=tz)


def test_every_counts_from_the_newest_version() -> None:
    often = el.Every(6)
    assert ask(often, {}, 100 * HOUR, made_at=95 * HOUR).action == "wait"
    state: dict = {}
    assert ask(often, state, 101 * HOUR, made_at=95 * HOUR).action == "learn"
    assert ask(often, state, 101 * HOUR + 1, made_at=95 * HOUR).action == "wait"
    assert ask(often, {}, 200 * HOUR, labels=0, made_at=95 * HOUR).action == "wait"


def test_all_waits_for_each_and_keeps_what_happened() -> None:
    once, state = Once(), {}
    both = el.All([once, Volume(10)])
    assert ask(both, state, 0, labels=20, version=1).action == "wait"
    once.said = True
    assert ask(both, state, 0, labels=5, version=1).action == "wait"
    assert ask(both, state, 0, labels=10, version=1).action == "learn"
    assert ask(both, state, 0, labels=20, version=1).action == "wait"


def test_what_happened_before_another_version_was_made_does_not_count() -> None:
    once, state = Once(), {}
    both = el.All([once, Volume(10)])
    once.said = True
    assert ask(both, state, 0, labels=5, version=1).action == "wait"
    assert ask(both, state, 0, labels=50, version=2).action == "wait"


def test_an_amount_has_to_be_there_at_the_end() -> None:
    once, state = Once(), {}
    both = el.All([Volume(10), once])
    ask(both, state, 0, labels=20, version=1)
    once.said = True
    assert ask(both, state, 0, labels=1, version=1).action == "wait"


def test_any_of_asks_all() -> None:
    first, second = Once(), Once()
    first.said = second.said = True
    any_of, state = el.AnyOf([first, Volume(100), second]), {}
    assert ask(any_of, state, 0).reason == "it happened and it happened"
    assert not second.said and ask(any_of, state, 0).action == "wait"


def test_a_cooldown_holds_back_and_does_not_forget() -> None:
    once, state = Once(), {}
    calm = el.Cooldown(once, hours=2)
    once.said = True
    assert ask(calm, state, 10 * HOUR, version=1).action == "learn"
    assert ask(calm, state, 11 * HOUR, version=1).action == "wait"
    once.said = True
    held = ask(calm, state, 11 * HOUR, version=2)
    assert held.action == "wait" and "2 hours have not passed" in held.reason
    assert ask(calm, state, 12 * HOUR, version=2).action == "learn"
    assert ask(calm, state, 99 * HOUR, version=2).action == "wait"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Volume(0),
        lambda: el.Every(0),
        lambda: el.All([]),
        lambda: el.All([5]),
        lambda: el.AnyOf("Volume"),
        lambda: el.Cooldown(Volume(3), hours=0),
        lambda: el.Cooldown(3, hours=1),
        lambda: el.Performance("roc_auc"),
        lambda: el.Performance(window=3),
        lambda: el.Performance(worse_by=float("nan")),
        lambda: el.Drift(alpha=1.0),
        lambda: el.Drift(window=10),
        lambda: el.Drift(columns="x"),
        lambda: el.CostAware(1.0),
        lambda: el.CostAware(1.0, label_hour=-1.0),
        lambda: el.CostAware(1.0, error=1.0, metric="nothing"),
    ],
)
def test_what_cannot_be_is_refused(make: object) -> None:
    with pytest.raises(SpecError):
        make()


@pytest.mark.parametrize(
    "trigger",
    [
        el.Schedule("0 3 * * *", tz="Europe/Berlin"),
        el.All([Volume(5), el.Cooldown(el.Drift(columns=["a"]), hours=3)]),
        el.AnyOf((el.Performance("log_loss", worse_by=0.1), el.Every(3))),
        el.CostAware(2.0, label_hour=0.1),
    ],
)
def test_definitions_keep_triggers(trigger: object) -> None:
    assert equal_when_rebuilt(trigger)
