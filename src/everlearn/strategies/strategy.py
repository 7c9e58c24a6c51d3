"""How a model learns: four questions, each answered by an independent part."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from everlearn.base import Learner, Memory, Part, SpecError, State


@runtime_checkable
class Retention(Protocol):
    """What is held on to while new rows are learned (a penalty, distillation, an anchor)."""

    def wrap(self, learner: Learner) -> Learner:
        """A learner that holds on to what `learner` knew. Its `save` covers both, and `load` undoes
        it; it may raise `SpecError` for a learner that it cannot work with."""
        ...


@runtime_checkable
class Adaptation(Protocol):
    """What may move: the head, an adapter of low rank, new modules."""

    def wrap(self, learner: Learner) -> Learner:
        """A learner of which only that part moves. Its `save` covers both, and `load` undoes it;
        it may raise `SpecError` for a learner that it cannot work with."""
        ...


@runtime_checkable
class Shuffled(Protocol):
    """An order that shuffles: `Shuffle(buffer, seed)`."""

    @property
    def buffer(self) -> int: ...
    @property
    def seed(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Start from a version that was exported to a file.

    Args:
        path: of the file that `everlearn export` wrote.

    Raises:
        SpecError: no path.
    """

    path: str

    def __post_init__(self) -> None:
        path = str(self.path) if self.path else ""
        if not path:
            raise SpecError(f"Pretrained(path=) is the file of an exported version: {self.path!r}")
        object.__setattr__(self, "path", path)


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a model learns from an increment.

    >>> Strategy().describe()
    'from the champion, on new rows only, in chunks of 1,000 rows'

    Args:
        start: "champion" (the version that serves), "scratch" (a fresh learner, into which all that
            the memory holds is folded first), a `Pretrained` file, or a state in memory.
        memory: what is seen again beside new rows (`Reservoir(20_000)`), or None.
        retention: what is held on to; a `Retention`, or None for nothing.
        adaptation: what may move; an `Adaptation`, or None for everything.
        chunk: rows that are learned at once.
        passes: times that an increment is learned.
        order: "stream" (as it comes), "time" (by event time), or `Shuffle(buffer, seed)`.
        seed: of all randomness of a fold that starts from scratch.

    Raises:
        SpecError: a part that is not of its kind, saying what it lacks.
    """

    start: Literal["champion", "scratch"] | Pretrained | State = "champion"
    memory: Memory | None = None
    retention: Retention | None = None
    adaptation: Adaptation | None = None
    chunk: int = 1000
    passes: int = 1
    order: Literal["stream", "time"] | Shuffled = "stream"
    seed: int = 0

    def __post_init__(self) -> None:
        check_start(self.start)
        check_order(self.order)
        check_part("memory", self.memory, ("ratio", "open"), "Reservoir(20_000)")
        check_part("retention", self.retention, ("wrap",), "None")
        check_part("adaptation", self.adaptation, ("wrap",), "None")
        if getattr(self.memory, "alone", False) and self.start == "champion":
            raise SpecError(f"{self.memory!r} is learned from scratch: Strategy(start='scratch')")
        object.__setattr__(self, "chunk", whole("Strategy(chunk=)", self.chunk))
        object.__setattr__(self, "passes", whole("Strategy(passes=)", self.passes))
        object.__setattr__(self, "seed", whole("Strategy(seed=)", self.seed, least=0))

    def wrap(self, learner: Learner) -> Learner:
        """The learner as this strategy lets it learn: with its adaptation, then its retention."""
        if self.adaptation is not None:
            learner = self.adaptation.wrap(learner)
        return learner if self.retention is None else self.retention.wrap(learner)

    def describe(self) -> str:
        """The strategy in words (a part's own, where it has a `describe`)."""
        words = [_describe_start(self.start)]
        if self.memory is None:
            words.append("on new rows only")
        elif self.memory.ratio:
            kept = _describe(self.memory)
            words.append(f"on new rows and {self.memory.ratio:g} remembered for each out of {kept}")
        else:
            words.append(f"on new rows, remembering {_describe(self.memory)} without replay")
        if self.retention is not None:
            words.append(f"holding on by {_describe(self.retention)}")
        if self.adaptation is not None:
            words.append(f"adapting {_describe(self.adaptation)}")
        words.append(f"in chunks of {self.chunk:,} rows")
        if self.passes > 1:
            words.append(f"{self.passes} times over")
        if self.order == "time":
            words.append("in the order of event times")
        elif isinstance(self.order, Shuffled):
            words.append(f"shuffled within {self.order.buffer:,} rows")
        return ", ".join(words)


def whole(name: str, value: Any, least: int = 1) -> int:
    """The value as an int.

    Raises:
        SpecError: it is not a whole number of at least `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise SpecError(f"{name} is a whole number of at least {least}, not {value!r}")
    return number


def share(name: str, value: Any) -> float:
    """The value as a float.

    Raises:
        SpecError: it is not a finite number of at least 0.
    """
    number = float(value) if isinstance(value, (int, float)) else math.nan
    if isinstance(value, bool) or not 0.0 <= number < math.inf:
        raise SpecError(f"{name} is a number of at least 0, not {value!r}")
    return number


def check_start(start: Any) -> None:
    """Raises `SpecError` where a fold cannot start from this."""
    if isinstance(start, Pretrained) or (isinstance(start, str) and start in _STARTS):
        return
    if isinstance(start, Mapping) and start and all(isinstance(p, Part) for p in start.values()):
        return
    raise SpecError(
        "Strategy(start=) is 'champion', 'scratch', Pretrained(path) or a saved state, "
        f"not {start!r}"
    )


def check_order(order: Any) -> None:
    """Raises `SpecError` where rows cannot be put in this order."""
    if isinstance(order, str):
        if order in ("stream", "time"):
            return
    elif isinstance(order, Shuffled):
        whole("Shuffle(buffer=)", order.buffer)
        return
    raise SpecError(f"Strategy(order=) is 'stream', 'time' or Shuffle(buffer, seed), not {order!r}")


def check_part(name: str, part: Any, needs: tuple[str, ...], example: str) -> None:
    """Raises `SpecError` where a part of a strategy lacks what its protocol needs."""
    if part is None:
        return
    lacks = [need for need in needs if not hasattr(part, need)]
    if isinstance(part, type):
        raise SpecError(f"Strategy({name}=) takes an object, not the class {part.__name__}")
    if lacks:
        raise SpecError(
            f"Strategy({name}={part!r}) lacks {' and '.join(map(repr, lacks))}; "
            f"give None or an object that has it (such as {example})"
        )


_STARTS = {"champion": "from the champion", "scratch": "from scratch"}


def _describe(part: Any) -> str:
    """A part in its own words, if it has them."""
    words = getattr(part, "describe", None)
    return str(words()) if callable(words) else repr(part)


def _describe_start(start: Any) -> str:
    if isinstance(start, Pretrained):
        return f"from the exported version {start.path}"
    return _STARTS[start] if isinstance(start, str) else "from a given state"
