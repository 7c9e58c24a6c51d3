"""What is compared: the seven built-in retraining strategies, and any `Strategy` of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from everlearn.base import InputError
from everlearn.compare import named
from everlearn.compare.timeline import Span
from everlearn.strategies.everything import Everything
from everlearn.strategies.reservoir import Reservoir
from everlearn.strategies.strategy import Strategy
from everlearn.strategies.window import Window

When = Literal["once", "period", "tick", "both"]
Rows = Literal["new", "all", "window"]

WINDOW_PERIODS = 4
REPLAY_ROWS = 20_000
SHUFFLED_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """A strategy over time: when the serving model is updated, and from which rows.

    Args:
        name: under which its results stand.
        strategy: start, memory, chunk, passes and order of each update.
        when: "once" (after warm-up), "period" (at the end of each), "tick" (as labels become
            known), or "both" (as labels become known, and anew at the end of each period). What
            learns row by row takes each label at once, other learners take them in ticks.
        rows: which rows an update at the end of a period learns: those whose labels became known
            since the last update ("new"), all that are known ("all"), or the last ones ("window").
        window: periods in a window.
        words: what it does, for people.
    """

    name: str
    strategy: Strategy
    when: When
    rows: Rows
    window: int = WINDOW_PERIODS
    words: str = ""

    @property
    def is_job(self) -> bool:
        """Whether it can be run as jobs on a schedule, with no service that learns all the time."""
        return self.when in ("once", "period")

    def learns_by_row(self, learner: Any) -> bool:
        """Whether labels are learned one by one as they become known, by a learner that can; where
        rows are drawn from a memory, seen twice or put into another order, chunks are needed."""
        strategy = self.strategy
        return (
            self.when in ("tick", "both")
            and bool(getattr(learner, "per_row", False))
            and strategy.memory is None
            and strategy.start == "champion"
            and (self.when == "both" or (strategy.passes == 1 and strategy.order == "stream"))
        )

    @property
    def anew(self) -> bool:
        """Whether an update at the end of a period trains a fresh model."""
        return self.rows != "new"


OWN = "own"
"""Name of the strategy that a spec file's model has."""

BUILT_IN = ("never", "batch", "window", "incremental", "replay", "online", "hybrid")
"""Names of the built-in strategies."""


def built_in(name: str, seed: int = 0) -> Plan:
    """One of the built-in strategies.

    Args:
        seed: of all its randomness.

    Raises:
        InputError: there is none of this name.
    """
    made = {
        "never": Plan("never", Strategy(), "once", "new", words="trained once, never again"),
        "batch": Plan(
            "batch",
            Strategy(start="scratch", order=_shuffle()),
            "period",
            "all",
            words="a full retraining on all history, shuffled, at the end of each period",
        ),
        "window": Plan(
            "window",
            Strategy(start="scratch", order=_shuffle()),
            "period",
            "window",
            words=f"a full retraining on the last {WINDOW_PERIODS} periods, shuffled, every period",
        ),
        "incremental": Plan(
            "incremental",
            Strategy(),
            "period",
            "new",
            words="at the end of each period, the present model learns the new rows only",
        ),
        "replay": Plan(
            "replay",
            Strategy(memory=Reservoir(REPLAY_ROWS)),
            "period",
            "new",
            words=f"incremental, with as many rows again from a memory of {REPLAY_ROWS:,}",
        ),
        "online": Plan(
            "online",
            Strategy(),
            "tick",
            "new",
            words="the present model learns each label as soon as it is known",
        ),
        "hybrid": Plan(
            "hybrid",
            Strategy(order=_shuffle()),
            "both",
            "all",
            words="online, and replaced by a full retraining at the end of each period",
        ),
    }
    if name not in made:
        raise InputError(
            f"there is no strategy {name!r}; use some of {', '.join(BUILT_IN)}, or parts such as "
            "EWC(100)+Reservoir(2000)"
        )
    plan = made[name]
    return replace(plan, strategy=replace(plan.strategy, seed=seed))


def _shuffle() -> Any:
    """A full retraining sees its rows in random order, as `fit` of scikit-learn's does."""
    from everlearn.data.order import Shuffle

    return Shuffle(SHUFFLED_ROWS)


def make_plans(strategies: Any = None, seed: int = 0, own: Strategy | None = None) -> list[Plan]:
    """The plans that a user named.

    Args:
        strategies: None for all built-in ones; or names ("never,batch" or a list), parts of a
            strategy ("EWC(100)", "LwF+Reservoir(2000)"), `Strategy` and `Plan` objects, or a
            mapping of names to any of these.
        seed: of the built-in ones; a `Strategy` has its own.
        own: of a spec file's model: also compared, under the name "own", where nothing is named or
            that is; the strategies that are named by text have its chunk and passes.

    Raises:
        InputError: an unknown or repeated name, nothing named, or another kind of object.
    """
    if strategies is None:
        strategies = BUILT_IN if own is None else (*BUILT_IN, OWN)
    if isinstance(strategies, str):
        strategies = named.split(strategies)
    if isinstance(strategies, Mapping):
        plans = [
            replace(_plan(item, seed, own), name=str(name)) for name, item in strategies.items()
        ]
    elif isinstance(strategies, Sequence):
        plans = [_plan(item, seed, own) for item in strategies]
    else:
        plans = [_plan(strategies, seed, own)]
    names = [plan.name for plan in plans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{', '.join(twice)}: named twice; give strategies of your own different names, "
            "as strategies={'name': Strategy(…)}"
        )
    if not plans:
        raise InputError(f"no strategy is named; use some of {', '.join(BUILT_IN)}")
    return plans


def as_jobs(plan: Plan, every: Span) -> Strategy | None:
    """The `Strategy` with which a model's jobs do what a plan does, or None where jobs cannot.

    A full retraining as a job learns what the memory holds, so that it needs the memory of
    everything, or of the window.

    Args:
        every: the period between jobs.
    """
    if not plan.is_job:
        return None
    if plan.rows == "all":
        return replace(plan.strategy, start="scratch", memory=Everything())
    if plan.rows == "window":
        length = every.length * plan.window
        span = Span(length, every.unit)
        memory = Window(rows=length) if every.unit == "rows" else Window(time=str(span))
        return replace(plan.strategy, start="scratch", memory=memory)
    return plan.strategy


def as_code(value: Any) -> str:
    """Python that makes an equal strategy or memory: only what is not at its default is said.

    >>> as_code(Strategy(memory=Reservoir(20_000)))
    'Strategy(memory=Reservoir(20_000))'
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:_}"
    if not is_dataclass(value) or isinstance(value, type):
        return repr(value)
    said = []
    for item in fields(value):
        given = getattr(value, item.name)
        if item.default is MISSING:
            said.append(as_code(given))
        elif given != item.default:
            said.append(f"{item.name}={as_code(given)}")
    return f"{type(value).__name__}({', '.join(said)})"


def _plan(item: Any, seed: int, own: Strategy | None) -> Plan:
    if isinstance(item, Plan):
        return item
    if isinstance(item, Strategy):
        return Plan(_name(item), item, "period", "new", words=item.describe())
    if not isinstance(item, str):
        raise InputError(f"a strategy is a name or a Strategy, not {item!r}")
    if own is not None and item == OWN:
        return Plan(OWN, own, "period", "new", words=own.describe())
    if item not in BUILT_IN and named.is_parts(item):
        given = Strategy(seed=seed) if own is None else _pace(Strategy(seed=seed), own)
        made = named.parse(item, given)
        return Plan(item.replace(" ", ""), made, "period", "new", words=made.describe())
    plan = built_in(item, seed)
    return plan if own is None else replace(plan, strategy=_pace(plan.strategy, own))


def _pace(strategy: Strategy, own: Strategy) -> Strategy:
    """A strategy with the chunk and the passes of another."""
    return replace(strategy, chunk=own.chunk, passes=own.passes)


def _name(strategy: Strategy) -> str:
    """A short name: "champion", "champion-reservoir", "scratch-everything", …"""
    start = strategy.start if isinstance(strategy.start, str) else "given"
    parts = [strategy.memory, strategy.retention, strategy.adaptation]
    return "-".join([start, *(type(part).__name__.lower() for part in parts if part is not None)])
