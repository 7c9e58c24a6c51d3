"""The objects that a graph of nodes describes; `objects` says what its forms are.

A class is made empty and given its attributes. What may stand in a graph is looked up there, never
by what the graph says of itself.
"""

from __future__ import annotations

import base64
import binascii
import collections
import functools
import json
import random
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from everlearn.base import Array, InputError, Json, Part, mersenne_twister
from everlearn.learners.objects import (
    BUILTIN,
    CALLED,
    DICTS,
    DRAWS,
    FUNCTIONS,
    Given,
    Library,
    class_name,
    slots,
)

LARGEST = 10**8
"""Numbers with which a compiled object is made: a window of more would end the process where memory
is short."""


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
        *(OverflowError, MemoryError, binascii.Error),
    ) as error:
        raise InputError(f"the state of {kind.__name__} is broken: {error!r}") from error
    if type(made) is not kind:
        raise InputError(f"the state is of {class_name(type(made))}, not of {class_name(kind)}")
    return made


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
        if "__dict__" in dir(kind) or (arguments and not self._library.has(kind.__module__)):
            raise InputError(f"the state has {kind.__name__} as if it were compiled")
        if any(type(item) is int and abs(item) > LARGEST for item in arguments):
            raise InputError(f"the state has a {kind.__name__} of {arguments}, which is too large")
        with _panics_told(kind):
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
        return mersenne_twister(self._arrays[node["numpy random"]], *node["rest"])

    def _fill(self, made: Any, node: Json) -> None:
        kind = type(made)
        members = slots(kind)
        for name, item in node.get("slots", {}).items():
            members[name].__set__(made, self.value(item))
        if "attributes" in node:
            made.__dict__.update((str(name), self.value(item)) for name, item in node["attributes"])
        if node.get("state") is not None:
            state = self.value(node["state"])
            with _panics_told(kind):
                made.__setstate__(state)

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


@contextmanager
def _panics_told(kind: type) -> Iterator[None]:
    """What a compiled object makes of what it is given: a panic of Rust is no `Exception`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise InputError(f"the state of a {kind.__name__} is broken: {error}") from error
