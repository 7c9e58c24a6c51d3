"""Records, small protocols and errors that every room shares. Standard library and numpy only.

Shapes are written (n, k): n rows, k columns. Times are int64 microseconds since 1970-01-01 UTC;
``NO_TIME`` stands for a missing one. Digests are lower-case hexadecimal SHA-256.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Array = npt.NDArray[Any]

NO_TIME = np.iinfo(np.int64).min
"""A missing time (what numpy calls NaT)."""

MISSING_CATEGORY = np.uint64(0)
"""The hash that stands for a missing category; no value hashes to it."""


# --- errors ------------------------------------------------------------------------------------


class EverlearnError(Exception):
    """Base of every error that everlearn raises on purpose. The message says what to do."""


class InputError(EverlearnError, ValueError):
    """Data or an argument is not of the form that is needed. Nothing was learned from it."""


class SpecError(EverlearnError, ValueError):
    """A model definition is wrong, cannot be rebuilt, or changed so that it needs a new start."""


class ChangedError(InputError):
    """A file is not what it was when it was learned or planned."""


class NotFoundError(EverlearnError, LookupError):
    """There is no such model, version, job or blob."""


class ConflictError(EverlearnError):
    """Somebody else changed the same thing first. Look again and retry."""


class LeaseLostError(ConflictError):
    """The job was taken over by another worker; this one must stop and may not commit."""


class IntegrityError(EverlearnError):
    """Stored bytes do not have the digest by which they are named."""


class StorageError(EverlearnError, OSError):
    """The database or the blob store failed (full, unreachable, newer than this release)."""


class MissingDependencyError(EverlearnError, ImportError):
    """An optional library is needed. The message says how to install it."""


# --- canonical forms and digests ---------------------------------------------------------------

Json = Any
"""What the ``json`` module reads and writes."""


def canonical_json(value: Json) -> bytes:
    """One byte string for one JSON value: sorted keys, no spaces, shortest floats, UTF-8.

    Raises:
        TypeError: the value is not JSON.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def digest_bytes(*pieces: bytes | memoryview) -> str:
    """SHA-256 of the pieces, one after the other."""
    hasher = hashlib.sha256()
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()


def canonical_array(array: Array) -> Array:
    """The same values, C-contiguous and little-endian.

    Raises:
        TypeError: the array holds objects, which have no canonical bytes.
    """
    if array.dtype.hasobject:
        raise TypeError(f"an array of {array.dtype} has no canonical bytes; keep it as JSON")
    little = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, dtype=little)


# --- state -------------------------------------------------------------------------------------


class Part:
    """A named piece of a state: arrays and JSON. Immutable; its digest is over canonical values.

    A part may be lazy: it knows its digest, and loads arrays and meta when they are first read.

    Args:
        arrays: name → array of any numeric, boolean or fixed-width dtype, never of objects.
        meta: a JSON object.
        digest: of both, where it is known beforehand.
    """

    __slots__ = ("_arrays", "_digest", "_load", "_meta")

    def __init__(
        self,
        arrays: Mapping[str, Array] | None = None,
        meta: Json = None,
        *,
        digest: str | None = None,
    ) -> None:
        self._arrays: dict[str, Array] | None = dict(arrays or {})
        self._meta: Json = {} if meta is None else meta
        self._digest: str | None = digest
        self._load: Callable[[], Part] | None = None

    @classmethod
    def lazy(cls, digest: str, load: Callable[[], Part]) -> Part:
        """A part that is loaded, and checked against its digest, when it is first read."""
        part = cls()
        part._arrays, part._meta = None, None
        part._digest, part._load = digest, load
        return part

    @property
    def arrays(self) -> dict[str, Array]:
        self._ensure_loaded()
        assert self._arrays is not None
        return self._arrays

    @property
    def meta(self) -> Json:
        self._ensure_loaded()
        return self._meta

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted arrays (name, dtype, shape, bytes) and the canonical JSON."""
        if self._digest is None:
            hasher = hashlib.sha256()
            for name in sorted(self.arrays):
                array = canonical_array(self.arrays[name])
                head = [name, array.dtype.str, list(array.shape)]
                hasher.update(canonical_json(head) + b"\n")
                hasher.update(array.view(np.uint8).data if array.size else b"")
            hasher.update(canonical_json(self.meta))
            self._digest = hasher.hexdigest()
        return self._digest

    def stored(self, load: Callable[[], Part]) -> None:
        """Say that the part is stored now, and can be loaded: `release` may drop it."""
        self._load = load

    def release(self) -> None:
        """Drop the arrays from memory if they can be loaded again."""
        if self._load is not None:
            _ = self.digest
            self._arrays, self._meta = None, None

    def _ensure_loaded(self) -> None:
        if self._arrays is not None:
            return
        assert self._load is not None
        loaded = self._load()
        if self._digest is not None and loaded.digest != self._digest:
            raise IntegrityError(f"a part has digest {loaded.digest}, expected {self._digest}")
        self._arrays, self._meta = loaded.arrays, loaded.meta


State = Mapping[str, Part]
"""A whole state: part name ("learner/0", "memory/rows/3", …) → part."""


def state_digest(state: State) -> str:
    """SHA-256 over the sorted names and digests of the parts."""
    return digest_bytes(canonical_json({name: part.digest for name, part in state.items()}))


def prefixed(prefix: str, state: State) -> dict[str, Part]:
    """The same parts, under ``prefix/``."""
    return {f"{prefix}/{name}": part for name, part in state.items()}


def under(prefix: str, state: State) -> dict[str, Part]:
    """The parts below ``prefix/``, with the prefix taken off: the inverse of `prefixed`."""
    start = prefix + "/"
    return {name[len(start) :]: part for name, part in state.items() if name.startswith(start)}


def generator_to_json(generator: np.random.Generator) -> Json:
    """The state of a numpy generator as JSON (its integers as strings: they exceed 64 bits)."""

    def plain(value: Any) -> Json:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, np.ndarray):
            return {"array": [str(int(item)) for item in value]}
        return value if isinstance(value, str) else {"int": str(int(value))}

    return plain(generator.bit_generator.state)


def generator_from_json(value: Json) -> np.random.Generator:
    """The inverse of `generator_to_json`; only numpy's own bit generators are accepted."""

    def rich(item: Json) -> Any:
        if isinstance(item, str):
            return item
        if "array" in item:
            return np.array([int(x) for x in item["array"]], dtype=np.uint64)
        if "int" in item:
            return int(item["int"])
        return {key: rich(inner) for key, inner in item.items()}

    state = rich(value)
    kinds = {kind.__name__: kind for kind in (np.random.PCG64, np.random.Philox)}
    if state["bit_generator"] not in kinds:
        raise InputError(f"{state['bit_generator']!r} is not one of {sorted(kinds)}")
    if "buffer_pos" in state and not 0 <= state["buffer_pos"] <= 4:  # numpy would read there
        raise InputError(f"a generator's buffer has 4 numbers, none at {state['buffer_pos']}")
    bits = kinds[state["bit_generator"]]()
    bits.state = state
    return np.random.Generator(bits)


def mersenne_twister(
    key: Array, position: int, has_gauss: int = 0, gauss: float = 0.0
) -> np.random.RandomState:
    """A numpy `RandomState` in a saved state.

    Raises:
        InputError: a position outside of its 624 numbers, where numpy would read without looking.
    """
    if np.shape(key) != (624,) or type(position) is not int or not 0 <= position <= 624:
        raise InputError(
            f"a RandomState is at one of its 624 numbers, not at {position!r} of {np.size(key)}"
        )
    made = np.random.RandomState(0)
    made.set_state(("MT19937", np.asarray(key, np.uint32), position, has_gauss, gauss))
    return made


# --- schema and batches ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Schema:
    """What the user says about the columns. Everything but the target is optional and inferred.

    Args:
        target: column to predict; None for learners that have no target (clusters, components).
        id: column that identifies a row; without it a row is identified by its features and time.
        time: column of event times, when the row could first be predicted for.
        label_time: column of the times at which the label became known.
        key: column of the entity (user, machine) that a row belongs to.
        weight: column of the rows' weights, numbers from 0; a row without one weighs 1.
        numeric: feature columns to read as numbers, whatever they look like.
        categorical: feature columns to read as categories, whatever they look like.
        text: feature columns that are kept as texts, for a learner that reads them; any other text
            becomes a category, of which the learner sees only a hash. In a CSV file a cell that
            says "missing", as NA or null, is missing here too.
        classes: the classes of the target, where they are known beforehand.
        ignore: columns that are no features (known only with the label, say).
    """

    target: str | None = None
    id: str | None = None
    time: str | None = None
    label_time: str | None = None
    key: str | None = None
    weight: str | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    classes: tuple[str | float | bool, ...] = ()
    ignore: tuple[str, ...] = ()
    text: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("numeric", "categorical", "text", "classes", "ignore"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise SpecError(f"Schema({name}=) takes a list of columns, not {value!r}")
            object.__setattr__(self, name, tuple(value or ()))
        kinds = {name: getattr(self, name) for name in ("numeric", "categorical", "text")}
        for (one, these), (other, those) in itertools.combinations(kinds.items(), 2):
            if twice := set(these) & set(those):
                raise SpecError(f"columns {sorted(twice)} are both {one} and {other}")
        if self.target is not None and self.target in self.text:
            raise SpecError(f"the target {self.target!r} is no feature, so it is in no text=")


TargetKind = Literal["number", "integer", "boolean", "text", "none"]


@dataclass(frozen=True, slots=True)
class Columns:
    """A schema resolved against data: the kind and the order of every column. Pinned by version 1.

    Args:
        numbers: feature columns read as float64 (booleans as 0 and 1; NaN is missing).
        categories: feature columns read as 64-bit hashes of their text.
        times: feature columns read as microseconds (the event time is among them).
        target: the target column, if any.
        target_kind: how the target's values were written, for giving them back.
        id, time, label_time, key, weight: as in `Schema`.
        texts: feature columns kept as texts.
    """

    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    target: str | None = None
    target_kind: TargetKind = "none"
    id: str | None = None
    time: str | None = None
    label_time: str | None = None
    key: str | None = None
    weight: str | None = None
    texts: tuple[str, ...] = ()

    def to_json(self) -> Json:
        made = {item.name: getattr(self, item.name) for item in fields(self)}
        if not self.texts:  # as before there were texts, so that digests stay what they were
            del made["texts"]
        return made

    @classmethod
    def from_json(cls, value: Json) -> Columns:
        lists = {"numbers", "categories", "times", "texts"}
        known: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in value.items()}
        return cls(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows compiled for learning. All arrays have n rows; nothing in here may be changed in place.

    Args:
        numbers: (n, p) float64, NaN where missing.
        categories: (n, q) uint64 hashes of texts (`MISSING_CATEGORY` where missing).
        times: (n, r) int64 microseconds (`NO_TIME` where missing).
        y: (n,) target: float64, or objects that are `str` for a text target. Inside the fold, and
            for a learner, int64 class codes 0 … k−1 where the learner is a classifier.
        weight: (n,) float64, or None where every row weighs 1.
        ids: (n,) uint64 hashes of the row ids.
        time: (n,) int64 event times, or None where the schema names none.
        label_time: (n,) int64 times at which labels became known, or None.
        key: (n,) uint64 hashes of the entity, or None.
        texts: (n, t) objects that are `str` ("" where missing), or None where there are no columns
            of texts.
    """

    numbers: Floats
    categories: Hashes
    times: Ints
    y: Array | None = None
    weight: Floats | None = None
    ids: Hashes
    time: Ints | None = None
    label_time: Ints | None = None
    key: Hashes | None = None
    texts: Array | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, index: slice | Array) -> Batch:
        """The rows that a slice (views), a mask or an index array (copies) chooses."""
        chosen: dict[str, Any] = {}
        if not isinstance(index, slice) and index.dtype == bool:
            index = np.flatnonzero(index)
        for name in _BATCH_FIELDS:
            value = getattr(self, name)
            if value is None or isinstance(index, slice):
                chosen[name] = None if value is None else value[index]
            else:  # copies rows of tables several times faster than [index]
                chosen[name] = np.take(value, index, axis=0)
        return Batch(**chosen)

    def with_y(self, y: Array | None) -> Batch:
        return replace(self, y=y)

    @staticmethod
    def concat(batches: Sequence[Batch]) -> Batch:
        """The rows of all batches in order. A column that only some have is filled: weight with 1,
        times with `NO_TIME`, key with 0.

        Raises:
            InputError: no batch, or some have a target or texts and some have none.
        """
        if not batches:
            raise InputError("no batch to concatenate")
        if len(batches) == 1:
            return batches[0]
        fill: dict[str, float | int] = {
            "weight": 1.0,
            "time": NO_TIME,
            "label_time": NO_TIME,
            "key": 0,
        }
        joined: dict[str, Any] = {}
        for name in _BATCH_FIELDS:
            values = [getattr(batch, name) for batch in batches]
            present = [value for value in values if value is not None]
            if not present:
                joined[name] = None
                continue
            if len(present) < len(values):
                if name not in fill:
                    what = "texts" if name == "texts" else "a target"
                    raise InputError(f"some batches have {what} and some have none")
                values = [
                    np.full(len(batch), fill[name], present[0].dtype) if value is None else value
                    for batch, value in zip(batches, values, strict=True)
                ]
            joined[name] = np.concatenate(values)
        return Batch(**joined)

    def split(self, rows: int) -> Iterator[Batch]:
        """Consecutive slices of at most `rows` rows."""
        for start in range(0, len(self), rows):
            yield self.take(slice(start, start + rows))


_BATCH_FIELDS = tuple(item.name for item in fields(Batch))


# --- learners ----------------------------------------------------------------------------------

LearnerKind = Literal["classifier", "regressor", "clusterer", "transformer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a learner answers for n rows.

    Args:
        value: (n,) class codes (int64), regression values (float64) or cluster numbers (int64).
        proba: (n, k) class probabilities, or None where the learner has none.
        margin: (n,) signed distance for two classes, positive for code 1, or None.
    """

    value: Array
    proba: Floats | None = None
    margin: Floats | None = None

    def __len__(self) -> int:
        return len(self.value)

    def take(self, index: slice | Array) -> Prediction:
        return Prediction(
            value=self.value[index],
            proba=None if self.proba is None else self.proba[index],
            margin=None if self.margin is None else self.margin[index],
        )


@runtime_checkable
class Learner(Protocol):
    """What learns. Deterministic given its state; not safe for use by two threads at once.

    A classifier is given class codes; it is told of new ones by `grow` before it sees them.
    Before it has learned anything, `predict` answers with a prior (uniform, or 0), never an error.
    """

    kind: LearnerKind

    def predict(self, batch: Batch) -> Prediction:
        """Predict for every row; changes nothing."""
        ...

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        """Learn the rows in their order; with `score`, also return what was predicted for the
        first `score` rows before they were learned (if learning is per row: each just before it).
        """
        ...

    def grow(self, classes: int) -> bool:
        """Make room for codes 0 … classes−1. False, and no change, if this learner cannot."""
        ...

    def save(self) -> State:
        """Everything that further learning and predicting depend on, generators included."""
        ...

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` on a state of another kind of learner."""
        ...


@runtime_checkable
class LearnerDefinition(Protocol):
    """What stands for a learner in a `Model` where no estimator does."""

    def kind_for(self, columns: Columns, classes: int = 0) -> LearnerKind:
        """What kind of learner `make_learner` makes of the same arguments."""
        ...

    def make_learner(self, columns: Columns, *, classes: int = 0, seed: int = 0) -> Learner:
        """A learner that has learned nothing. Raises `SpecError` for columns that do not do."""
        ...


# --- memory ------------------------------------------------------------------------------------


class Held(Protocol):
    """A memory in use: what it held when the increment began, and what has been offered since."""

    @property
    def ranks_by_loss(self) -> bool:
        """Whether `offer` looks at the loss; where not, zeros may be given."""
        ...

    def draw(self, n: int, generator: np.random.Generator) -> Batch | None:
        """`ratio` × n remembered rows, out of what was held when the increment began."""
        ...

    def offer(self, batch: Batch, loss: Floats, generator: np.random.Generator) -> None:
        """Offer learned rows in their order, with the loss of each before it was learned.
        y is in its own values, not in codes. What is offered is not drawn before `settle`."""
        ...

    def settle(self) -> None:
        """The increment is over: what it offered and the memory kept is now what is held."""
        ...

    def rows(self) -> Iterator[Batch]:
        """All that is held, in order of arrival, in batches of bounded size, with its weights."""
        ...

    def save(self) -> State:
        """Everything, in the middle of an increment too. Unchanged parts are the same objects."""
        ...


@runtime_checkable
class Erasable(Protocol):
    """A memory in use from which rows can be taken out again."""

    def erase(self, ids: Hashes | None = None, keys: Hashes | None = None) -> int:
        """Remove the rows with one of these ids, or of one of these keys; returns how many.
        Only between increments."""
        ...


@runtime_checkable
class Memory(Protocol):
    """The definition of a memory (`Reservoir(20_000)`): frozen, comparable, JSON in its fields."""

    @property
    def ratio(self) -> float: ...

    def open(self, state: State | None = None) -> Held:
        """An empty memory, or the one that was saved."""
        ...


# --- decisions, models -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of a trigger, a gate or a rollout.

    Args:
        action: one word: "pass", "refuse", "learn", "wait", "hold", …
        reason: one sentence for people, with the figures that decided.
        evidence: JSON with every figure that was looked at.
    """

    action: str
    reason: str
    evidence: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        return {"action": self.action, "reason": self.reason, "evidence": self.evidence}

    @classmethod
    def from_json(cls, value: Json) -> Decision:
        return cls(value["action"], value["reason"], value.get("evidence", {}))


@dataclass(frozen=True, slots=True)
class Model:
    """A named thing that is served and kept learning. One Python file defines it.

    Args:
        name: letters, digits, "-", "_" and "."; names the model in the workspace.
        learner: an estimator with `partial_fit`, a `Chain`, or None for the default learner.
        schema: what the columns are; a `Schema`, or None to infer (then there is no target).
        strategy: how it learns; None for an incremental job without memory.
        triggers: when it learns by itself.
        gate: whether a candidate is good enough; None lets every finite one pass.
        rollout: who gets it first; None gives it to everybody.
        holdout: share of rows, by hash of their id, that are kept out of learning for the gate.
        labels: which labels of the feedback log count, a `LabelPolicy`; None for the last ones.
        guards: what of the feedback log is set aside before learning, `Guards`; None for nothing
            but rows that cannot be learned.
        review: which predictions people look at, a `Review`; None for none.

    Raises:
        SpecError: a name or a share that cannot be.
    """

    name: str
    learner: Any = None
    schema: Schema = field(default_factory=Schema)
    strategy: Any = None
    triggers: tuple[Any, ...] = ()
    gate: Any = None
    rollout: Any = None
    holdout: float = 0.05
    labels: Any = None
    guards: Any = None
    review: Any = None

    def __post_init__(self) -> None:
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
        if not self.name or set(self.name) - allowed or self.name.startswith("."):
            raise SpecError(
                f"a model's name has letters, digits, '-', '_' and '.', not {self.name!r}"
            )
        if not 0.0 <= self.holdout < 1.0:
            raise SpecError(f"holdout is a share from 0 to below 1, not {self.holdout!r}")
        object.__setattr__(self, "triggers", tuple(self.triggers))

    def replace(self, **changes: Any) -> Self:
        return replace(self, **changes)


# --- crash points ------------------------------------------------------------------------------

_crash_name, _, _crash_count = os.environ.get("EVERLEARN_CRASH", "").partition(":")
_crash_left = int(_crash_count or 1)


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL here, if ``EVERLEARN_CRASH=name[:count]`` asks for it.

    Stands at every step boundary of a job, so that tests can prove what survives. `count` is the
    number of the passage that kills (1: the first).
    """
    global _crash_left
    if name != _crash_name:
        return
    _crash_left -= 1
    if _crash_left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
