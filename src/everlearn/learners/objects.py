"""A graph of Python objects ↔ numbered nodes of JSON, and arrays. No pickle: a class is made empty
and given its attributes, and only classes of one library and of the definition may stand in it.

A value is plain JSON where JSON has it, and a list of a tag and what belongs to it where not:

    ["ref", n]                  node n; two references to one object stay two references to one
    ["float", "nan"]            a float that JSON lacks
    ["scalar", dtype, value]    a numpy scalar
    ["class" | "function", "module:name"]     a class or function of the library
    ["method", n, name]         a method of the object at node n
    ["given", path]             what the definition has at this place: a user's function or class
    ["idle"]                    a generator that nothing is drawn from

A node is an object with its kind: list, tuple, dict (in order), set, deque, bytes, array, random
generator, partial function, or an object with the name of its class, its attributes and, for one
whose state is compiled, what it gives out and takes back by itself.
"""

from __future__ import annotations

import base64
import collections
import copy
import functools
import json
import random
import statistics
import sys
import types
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from everlearn.base import Array, InputError, Json, Part, SpecError, canonical_array

BUILTIN: dict[str, type] = {
    f"{kind.__module__}:{kind.__name__}": kind
    for kind in (
        *(bool, int, float, str, bytes, list, tuple, dict, set, frozenset, object),
        *(collections.Counter, collections.OrderedDict, collections.defaultdict),
        *(collections.deque, statistics.NormalDist),
    )
}
"""Classes that may stand in a graph beside those of the library."""

CALLED = {"copy:deepcopy": copy.deepcopy}
"""Functions that may stand in a graph beside those of the library."""

DRAWS = ("random", "uniform", "gauss", "normalvariate", "expovariate", "randint", "choice")
"""Methods of a random generator that may stand in a graph."""

HEAP = 1 << 9
"""Flag of a type that was made while Python ran, as those of `class` are."""

FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
DICTS = (collections.OrderedDict, collections.Counter, collections.defaultdict)
PLAIN = (bool, int, str)


class Library:
    """Whose classes may stand in a graph.

    Args:
        root: name of its package.
        without: modules of it that have no place in a state.
        called: classes, as "module:name", that are made by a call with the arguments that they
            name themselves.
        idle: modules of it whose objects have generators that learning does not draw from. Those
            that were begun by no seed would be others in every run; they are not saved.
    """

    def __init__(
        self,
        root: str,
        without: Iterable[str] = (),
        called: Iterable[str] = (),
        idle: Iterable[str] = (),
    ) -> None:
        self.root, self._without = root, tuple(f"{root}.{name}" for name in without)
        self.called, self._idle = frozenset(called), tuple(f"{root}.{name}." for name in idle)

    def is_idle(self, value: Any) -> bool:
        """Whether the generators of an object are left out."""
        module = type(value).__module__ + "."
        return module.startswith(self._idle) and getattr(value, "seed", 0) is None

    def has(self, module: str) -> bool:
        """Whether a module is the library's."""
        return (module == self.root or module.startswith(self.root + ".")) and not any(
            module == name or module.startswith(name + ".") for name in self._without
        )

    def find(self, name: str) -> Any:
        """The class or function "module:name", which is defined there."""
        path, _, qualname = name.partition(":")
        if not self.has(path):
            raise InputError(f"the state names {name!r}, which may not stand in it")
        try:
            found: Any = import_module(path)
            for piece in qualname.split("."):
                found = vars(found)[piece]
        except (ImportError, KeyError, TypeError) as error:
            raise InputError(f"the state names {name!r}, which {path!r} has not") from error
        found = getattr(found, "__func__", found)  # a static method of a class
        if getattr(found, "__module__", None) != path:
            raise InputError(f"the state names {name!r}, which is defined elsewhere")
        bases = [base.__module__ for base in getattr(found, "__mro__", ())]
        if any(base.split(".")[0] == self.root and not self.has(base) for base in bases):
            raise InputError(f"the state names {name!r}, which is made of what may not stand in it")
        return found


class Given:
    """What a definition brings that no name says: functions and classes of its author, by place.

    Args:
        fresh: what was made of the definition and has learned nothing.
    """

    def __init__(self, fresh: Any, library: Library) -> None:
        self.at: dict[str, Any] = {}
        self.places: dict[int, str] = {}
        self.classes: dict[str, type] = {}
        waiting: list[tuple[Any, str]] = [(fresh, "")]
        seen: set[int] = set()
        while waiting:
            value, path = waiting.pop()
            if id(value) in seen or value is None or type(value) in (*PLAIN, float):
                continue
            seen.add(id(value))
            if isinstance(value, (*FUNCTIONS, type)):
                self.at[path] = value
                self.places.setdefault(id(value), path)
                continue
            kind = type(value)
            if isinstance(value, Mapping):
                waiting += [(item, f"{path}[{key!r}]") for key, item in value.items()]
            elif isinstance(value, list | tuple):
                waiting += [(item, f"{path}[{place}]") for place, item in enumerate(value)]
            elif isinstance(value, functools.partial):
                waiting.append((value.func, f"{path}.func"))
            if hasattr(value, "__dict__") and not isinstance(value, types.ModuleType):
                if not library.has(kind.__module__) and _is_plain(kind):
                    self.classes[class_name(kind)] = kind
                waiting += [(item, f"{path}.{name}") for name, item in vars(value).items()]


def _is_plain(kind: type) -> bool:
    """Whether a class is written in Python, by somebody who is not its makers."""
    written = all(base.__flags__ & HEAP for base in kind.__mro__[:-1])
    return written and kind.__module__.partition(".")[0] not in sys.stdlib_module_names


def class_name(kind: Any) -> str:
    """ "module:name" of a class or function."""
    return f"{kind.__module__}:{kind.__qualname__}"


def dump(root: Any, library: Library, given: Given) -> Part:
    """All that an object consists of.

    Returns:
        A part with copies: "graph", the JSON of the nodes, of which the first is `root`, and arrays
        by the number of their node.

    Raises:
        SpecError: something in it cannot be saved without pickle; the message says where.
    """
    writer = _Writer(library, given)
    writer.value(root, type(root).__name__)
    nodes = writer.all()
    text = json.dumps(nodes, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Part({"graph": np.frombuffer(text.encode(), np.uint8), **writer.arrays})


def slots(kind: type) -> dict[str, Any]:
    """The slots of a class and of those that it inherits from, by name."""
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType) and "__slots__" in vars(base):
                found.setdefault(name, member)
    return found


class _Writer:
    """Numbers objects as they are met, and describes each once."""

    def __init__(self, library: Library, given: Given) -> None:
        self._library, self._given = library, given
        self.arrays: dict[str, Array] = {}
        self._number: dict[int, int] = {}
        self._objects: list[tuple[Any, str]] = []

    def all(self) -> list[Json]:
        """A node for each object that was met, and for what is met in them."""
        nodes: list[Json] = []
        for value, path in self._objects:  # which grows meanwhile
            nodes.append(self._node(value, path, len(nodes)))
        return nodes

    def value(self, value: Any, path: str) -> Json:
        if value is None or type(value) in PLAIN:
            return value
        if type(value) is float:
            return value if np.isfinite(value) else ["float", repr(value)]
        if isinstance(value, np.generic):
            return self._scalar(value, path)
        if type(getattr(value, "__self__", None)) is random.Random and value.__name__ in DRAWS:
            return ["method", self._met(value.__self__, path), value.__name__]
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            return self._named(value, path)
        if isinstance(value, types.MethodType):
            name = value.__name__
            if getattr(type(value.__self__), name, None) is not value.__func__:
                raise self._refused(value, path)
            return ["method", self._met(value.__self__, path), name]
        return ["ref", self._met(value, path)]

    def _met(self, value: Any, path: str) -> int:
        if id(value) not in self._number:
            self._number[id(value)] = len(self._objects)
            self._objects.append((value, path))  # alive, so that no other one gets its id
        return self._number[id(value)]

    def _node(self, value: Any, path: str, number: int) -> Json:
        kind = type(value)
        if kind in (list, tuple, collections.deque):
            node = {kind.__name__: self._items(value, path)}
            return node | {"most": value.maxlen} if kind is collections.deque else node
        if kind in (set, frozenset):
            items = [self.value(item, path) for item in value]
            return {kind.__name__: sorted(items, key=json.dumps)}
        if kind is dict or kind in DICTS:
            return self._dict(value, path)
        if kind is bytes:
            return {"bytes": base64.b64encode(value).decode()}
        if kind is np.ndarray:
            return self._array(value, path, number)
        if kind in (random.Random, np.random.RandomState):
            return self._random(value, path, number)
        if kind is functools.partial:
            inside = (value.func, list(value.args), dict(value.keywords))
            return {"partial": [self.value(item, path) for item in inside]}
        return self._object(value, path)

    def _items(self, value: Iterable[Any], path: str) -> list[Json]:
        return [self.value(item, f"{path}[{place}]") for place, item in enumerate(value)]

    def _pairs(self, value: Mapping[Any, Any], path: str) -> list[Json]:
        return [
            [self.value(key, path), self.value(item, f"{path}[{key!r}]")]
            for key, item in value.items()
        ]

    def _dict(self, value: Any, path: str) -> Json:
        kind = type(value)
        node: dict[str, Json] = {"dict": self._pairs(value, path)}
        if kind in DICTS:
            node["class"] = class_name(kind)
        if kind is collections.defaultdict:
            node["factory"] = self.value(value.default_factory, path)
        return node

    def _scalar(self, value: np.generic, path: str) -> Json:
        if value.dtype.kind not in "biuf":
            raise self._refused(value, path)
        return ["scalar", value.dtype.newbyteorder("<").str, self.value(value.item(), path)]

    def _array(self, value: Array, path: str, number: int) -> Json:
        owner: Any = value
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if value.dtype.kind not in "biuf" or type(owner) is not np.ndarray:
            raise self._refused(value, path)
        if owner is not value:
            start = value.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
            told = {"offset": start, "strides": list(value.strides), "shape": list(value.shape)}
            return {"view": self._met(owner, path), "dtype": value.dtype.str, **told}
        self.arrays[f"array/{number}"] = np.array(canonical_array(value)).reshape(value.shape)
        column_major = value.flags.f_contiguous and not value.flags.c_contiguous
        return {"array": f"array/{number}", "order": "F" if column_major else "C"}

    def _random(self, value: Any, path: str, number: int) -> Json:
        name = f"array/{number}"
        if type(value) is random.Random:
            version, inside, gauss = value.getstate()
            self.arrays[name] = np.array(inside, np.uint32)
            return {"random": name, "version": version, "gauss": self.value(gauss, path)}
        state: Any = value.get_state(legacy=False)
        if state["bit_generator"] != "MT19937":
            raise self._refused(value, path)
        self.arrays[name] = np.array(state["state"]["key"], np.uint32)
        told = [int(state["state"]["pos"]), int(state["has_gauss"]), float(state["gauss"])]
        return {"numpy random": name, "rest": told}

    def _object(self, value: Any, path: str) -> Json:
        kind = type(value)
        name = class_name(kind)
        if not (self._library.has(kind.__module__) or name in {**BUILTIN, **self._given.classes}):
            raise self._refused(value, path)
        node: dict[str, Json] = {"object": name}
        inside = {
            slot: self.value(member.__get__(value), f"{path}.{slot}")
            for slot, member in slots(kind).items()
            if hasattr(value, slot)
        }
        if inside:
            node["slots"] = inside
        if isinstance(value, dict):
            node["dict"] = self._pairs(value, path)
        elif isinstance(value, list | tuple):
            node["list"] = self._items(value, path)
        if hasattr(value, "__dict__"):
            idle = self._library.is_idle(value)
            node["attributes"] = [
                [
                    name,
                    ["idle"]
                    if idle and type(item) is random.Random
                    else self.value(item, f"{path}.{name}"),
                ]
                for name, item in vars(value).items()
            ]
        elif not inside and "__slots__" not in vars(kind):
            node |= self._compiled(value, path)
        return node

    def _compiled(self, value: Any, path: str) -> Json:
        """What a compiled object gives out itself: what it is made with, and what it is then
        given."""
        kind = type(value)
        try:
            how, made, *rest = value.__reduce_ex__(2)
        except TypeError as error:
            raise self._refused(value, path) from error
        state = rest[0] if rest else None
        if how is kind and class_name(kind) in self._library.called:
            arguments = list(made)
        elif getattr(how, "__name__", "") == "__newobj__" and made[0] is kind:
            arguments = list(made[1:])
        else:
            raise self._refused(value, path)
        return {"made": self._items(arguments, path), "state": self.value(state, path)}

    def _named(self, value: Any, path: str) -> Json:
        name = f"{value.__module__}:{value.__qualname__}"
        kind = "class" if isinstance(value, type) else "function"
        if name in (BUILTIN if kind == "class" else CALLED):
            return [kind, name]
        if self._library.has(str(value.__module__)) and "<" not in name:
            try:
                if self._library.find(name) is value:
                    return [kind, name]
            except InputError:
                pass
        if id(value) in self._given.places and not _closes_over(value):
            return ["given", self._given.places[id(value)]]
        raise self._refused(value, path)

    def _refused(self, value: Any, path: str) -> SpecError:
        named = value if isinstance(value, (*FUNCTIONS, type)) else type(value)
        return SpecError(
            f"it cannot be saved without pickle: {path} is {named.__module__}.{named.__qualname__}"
        )


def _closes_over(value: Any) -> bool:
    """Whether a function looks at objects around it, which would not be those of the state."""
    cells = getattr(value, "__closure__", None) or ()
    return any(
        not isinstance(cell.cell_contents, (*FUNCTIONS, type, *PLAIN, float)) for cell in cells
    )
