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
import binascii
import collections
import copy
import functools
import json
import random
import statistics
import sys
import types
from collections.abc import Callable, Iterable, Mapping
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


def restore(part: Part, kind: type, library: Library, given: Given) -> Any:
    """The object that `dump` saw.

    Args:
        part: possibly from a file that cannot be trusted.
        kind: its class.
        given: of what the definition makes now.

    Raises:
        InputError: it is of another class, names what may not stand in it, or is broken.
    """
    try:
        nodes = json.loads(part.arrays["graph"].astype(np.uint8).tobytes())
        reader = _Reader(nodes, part.arrays, library, given)
        made = reader.all()
    except InputError:
        raise
    except (
        *(KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError),
        *(OverflowError, binascii.Error),
    ) as error:
        raise InputError(f"the state of {kind.__name__} is broken: {error!r}") from error
    if type(made) is not kind:
        raise InputError(f"the state is of {class_name(type(made))}, not of {class_name(kind)}")
    return made


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


class _Reader:
    """Makes every object empty, then fills it in: first what others may be looked up by."""

    def __init__(
        self, nodes: list[Json], arrays: Mapping[str, Array], library: Library, given: Given
    ) -> None:
        self._nodes, self._arrays = nodes, arrays
        self._library, self._given = library, given
        self._made: dict[int, Any] = {}
        self._making: set[int] = set()

    def all(self) -> Any:
        """The first object, and with it all others."""
        for number in range(len(self._nodes)):
            self._get(number)
        for number, node in enumerate(self._nodes):
            if "object" in node:
                self._fill(self._made[number], node)
        for number, node in enumerate(self._nodes):
            if "list" in node or "deque" in node:
                items = node["list"] if "list" in node else node["deque"]
                if not isinstance(self._made[number], tuple):
                    self._made[number].extend(self.value(item) for item in items)
        for number, node in enumerate(self._nodes):
            if "dict" in node:
                made = self._made[number]
                for key, item in node["dict"]:
                    put = type(made) if type(made) in DICTS else dict
                    put.__setitem__(made, self.value(key), self.value(item))
            elif "set" in node:
                self._made[number].update(self.value(item) for item in node["set"])
        return self._made[0]

    def value(self, value: Json) -> Any:
        if not isinstance(value, list):
            if isinstance(value, dict):
                raise InputError(f"the state has an unknown form: {str(value)[:60]}")
            return value
        tag, *rest = value
        if tag == "ref":
            return self._get(rest[0])
        if tag == "float":
            return float(rest[0])
        if tag == "scalar":
            dtype = self._dtype(rest[0])
            return np.array([self.value(rest[1])], dtype)[0]
        if tag == "class":
            return self._class(rest[0])
        if tag == "function":
            found = CALLED.get(rest[0]) or self._library.find(rest[0])
            if not isinstance(found, FUNCTIONS):
                raise InputError(f"the state calls {rest[0]!r} a function")
            return found
        if tag == "method":
            return self._method(self._get(rest[0]), rest[1])
        if tag == "given":
            return self._given.at[rest[0]]
        if tag == "idle":
            return random.Random(0)
        raise InputError(f"the state has the unknown tag {tag!r}")

    def _get(self, number: int) -> Any:
        if type(number) is not int or not 0 <= number < len(self._nodes):
            raise InputError(f"the state refers to {number!r}, of {len(self._nodes)} objects")
        if number not in self._made:
            if number in self._making:
                raise InputError("an object in the state is made of itself")
            self._making.add(number)
            self._made[number] = self._empty(self._nodes[number])
        return self._made[number]

    def _empty(self, node: Json) -> Any:
        """The object itself, without what can be filled in later."""
        if "object" in node:
            return self._new(node)
        if "dict" in node:
            return self._new_dict(node)
        if "tuple" in node or "frozenset" in node:
            kind = "tuple" if "tuple" in node else "frozenset"
            return BUILTIN[f"builtins:{kind}"](self.value(item) for item in node[kind])
        if "list" in node:
            return []
        if "set" in node:
            return set()
        if "deque" in node:
            return collections.deque(maxlen=node["most"])
        if "bytes" in node:
            return base64.b64decode(node["bytes"], validate=True)
        if "array" in node or "view" in node:
            return self._array(node)
        if "random" in node or "numpy random" in node:
            return self._random(node)
        if "partial" in node:
            function, arguments, named = node["partial"]
            return functools.partial(
                self.value(function), *self._whole(arguments), **self._whole(named)
            )
        raise InputError(f"the state has an unknown form: {str(node)[:60]}")

    def _array(self, node: Json) -> Array:
        if "array" in node:
            self._dtype(self._arrays[node["array"]].dtype.str)
            return np.array(self._arrays[node["array"]], order="F" if node["order"] == "F" else "C")
        owner = self._get(node["view"])
        if not isinstance(owner, np.ndarray):
            raise InputError("the state has a view of what is no array")
        shape, strides = tuple(node["shape"]), tuple(node["strides"])
        memory = owner.ravel(order="K").view(np.uint8)
        if not np.shares_memory(memory, owner):
            raise InputError("the state has a view of an array in pieces")
        dtype = self._dtype(node["dtype"])
        return np.ndarray(shape, dtype, memory.data, node["offset"], strides)

    def _new(self, node: Json) -> Any:
        kind = self._class(node["object"])
        if "made" not in node:
            if isinstance(kind, type) and issubclass(kind, tuple):
                return tuple.__new__(kind, [self.value(item) for item in node["list"]])
            if issubclass(kind, dict):
                return dict.__new__(kind)
            if issubclass(kind, list):
                return list.__new__(kind)
            return object.__new__(kind)
        arguments = [self._whole(item) for item in node["made"]]
        if class_name(kind) in self._library.called:
            return kind(*arguments)
        if "__dict__" in dir(kind):
            raise InputError(f"the state has {kind.__name__} as if it were compiled")
        return kind.__new__(kind, *arguments)

    def _whole(self, value: Json) -> Any:
        """A value that is wanted whole before lists and dicts are filled in."""
        node = self._nodes[value[1]] if isinstance(value, list) and value[0] == "ref" else {}
        if "dict" in node and "object" not in node:
            return {self.value(key): self.value(item) for key, item in node["dict"]}
        if "list" in node and "object" not in node:
            return [self.value(item) for item in node["list"]]
        return self.value(value)

    def _new_dict(self, node: Json) -> Any:
        if "class" not in node:
            return {}
        kind = BUILTIN[node["class"]]
        if kind not in DICTS:
            raise InputError(f"the state has a dict of {node['class']}")
        if kind is not collections.defaultdict:
            return kind()
        factory = self.value(node["factory"])
        if factory is not None and not callable(factory):
            raise InputError(f"the state has {factory!r} as the factory of a dict")
        return collections.defaultdict(factory)

    def _random(self, node: Json) -> Any:
        if "random" in node:
            key = self._arrays[node["random"]].astype(np.uint32).tolist()
            made = random.Random(0)
            made.setstate((node["version"], tuple(key), self.value(node["gauss"])))
            return made
        generator = np.random.RandomState(0)
        position, has_gauss, gauss = node["rest"]
        key = np.array(self._arrays[node["numpy random"]], np.uint32)
        generator.set_state(("MT19937", key, position, has_gauss, gauss))
        return generator

    def _fill(self, made: Any, node: Json) -> None:
        kind = type(made)
        members = slots(kind)
        for name, item in node.get("slots", {}).items():
            members[name].__set__(made, self.value(item))
        if "attributes" in node:
            made.__dict__.update((str(name), self.value(item)) for name, item in node["attributes"])
        if node.get("state") is not None:
            _given_back(made, self.value(node["state"]))

    def _class(self, name: str) -> Any:
        found = BUILTIN.get(name) or self._given.classes.get(name) or self._library.find(name)
        if not isinstance(found, type):
            raise InputError(f"the state calls {name!r} a class")
        return found

    def _method(self, owner: Any, name: str) -> Callable[..., Any]:
        kind = type(owner)
        if kind is random.Random and name in DRAWS:
            return getattr(owner, name)  # type: ignore[no-any-return]
        function = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
        ours = self._library.has(kind.__module__) or class_name(kind) in self._given.classes
        if not ours or not isinstance(function, types.FunctionType):
            raise InputError(f"the state names {name!r}, which is no method of {kind.__name__}")
        return types.MethodType(function, owner)

    def _dtype(self, name: str) -> np.dtype[Any]:
        dtype = np.dtype(name)
        if dtype.kind not in "biuf":
            raise InputError(f"the state has numbers of {dtype}")
        return dtype.newbyteorder("=")


def _given_back(made: Any, state: Any) -> None:
    """Give a compiled object what it gave out; a panic of Rust is no `Exception`."""
    try:
        made.__setstate__(state)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise InputError(f"the state of a {type(made).__name__} is broken: {error}") from error
