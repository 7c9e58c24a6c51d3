"""Definitions as JSON: what an object was made from, so that an equal one can be made again.

A value becomes plain JSON where JSON has it, and an object with exactly one tag where not:

    {"class": "sklearn.linear_model:SGDClassifier", "params": {…}, "args": […]}   an instance
    {"ref": "module:name"}                                          a function or a class itself
    {"spec": "learner.module"}             what a spec file's model has there, and no name says
    {"tuple" | "set" | "frozenset": […]}   {"dict": [[key, value], …]}   {"float": "nan"}
    {"array": …}   {"random_state": …}   {"generator": …}
    {"timedelta": microseconds}   {"datetime": ISO text}   {"path": text}

An instance is described by its constructor's parameters: the fields of a dataclass, `get_params`
of an estimator, or, by the convention of scikit-learn, attributes with the parameters' names.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import inspect
import math
import pathlib
import reprlib
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from everlearn.base import (
    Json,
    SpecError,
    canonical_json,
    generator_from_json,
    generator_to_json,
    mersenne_twister,
)
from everlearn.registry.spec import SPEC, at_place, is_spec_module, spec_module

MAX_ARRAY = 100_000
"""Elements of the largest array that a definition may hold (2 MB of JSON)."""

MAX_DEPTH = 60


def to_config(value: Any, source: str | None = None, where: str = "") -> Json:
    """The JSON from which `from_config` makes an equal object.

    Args:
        value: a `Model`, or anything that may stand in one: frozen dataclasses, scikit-learn's
            estimators, classes of the spec file, numbers, text, lists, tuples, dicts, arrays.
        source: text of the spec file that made this very model. What cannot be described (a
            lambda, a PyTorch module) is then described by its place in it.
        where: place of the value in that model ("learner"), where it is a part of it only.

    Raises:
        SpecError: something in it cannot be rebuilt: a lambda, a class that is local to a
            function or to ``__main__``, an estimator that is already fitted, a large array.

    >>> to_config({"alpha": 0.1, "sizes": (10, 5)})
    {'dict': [['alpha', 0.1], ['sizes', {'tuple': [10, 5]}]]}
    """
    return _encode(value, where, 0, source)


def from_config(config: Json, source: str | None = None) -> Any:
    """The object that `to_config` described.

    Args:
        config: what `to_config` returned, possibly read from JSON text.
        source: text of the spec file, which is executed if a class is defined in it.

    Raises:
        SpecError: a class cannot be found (the message names its module), is none that may stand
            in a definition, or does not take these parameters.
    """
    return _decode(config, source, 0)


def equal_when_rebuilt(value: Any, source: str | None = None) -> Json:
    """`to_config`, after making sure that what is rebuilt from it is equal to the original.

    Raises:
        SpecError: it cannot be rebuilt, or is another after it.
    """
    config = to_config(value, source)
    rebuilt = from_config(config, source)
    if canonical_json(to_config(rebuilt, source)) != canonical_json(config):
        raise SpecError(
            f"{value!r} is not the same after it is rebuilt from its parameters; its constructor"
            " must keep every parameter as it is, in an attribute of the same name"
        )
    return config


# --- to JSON -----------------------------------------------------------------------------------


class _Undescribed(SpecError):
    """Only its place can say what it is."""


def _encode(value: Any, where: str, depth: int, source: str | None = None) -> Json:
    """The value, which stands at `where` in the whole, as JSON."""
    try:
        return _described(value, where, depth, source)
    except _Undescribed as error:
        if source is not None and where and type(at_place(source, where)) is type(value):
            return {SPEC: where}
        raise SpecError(str(error)) from None


def _described(value: Any, where: str, depth: int, source: str | None) -> Json:
    if depth > MAX_DEPTH:
        raise SpecError(f"{where[:80]}…: nested deeper than {MAX_DEPTH} levels, or holds itself")
    if value is None or type(value) in (bool, str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
        return _encode(value, where, depth + 1, source)
    if type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    container = _encode_container(value, where, depth, source)
    if container is not None:
        return container
    leaf = _encode_leaf(value, where)
    if leaf is not None:
        return leaf
    return _encode_instance(value, where, depth, source)


def _encode_container(value: Any, where: str, depth: int, source: str | None) -> Json:
    if type(value) in (list, tuple):
        items = [_encode(item, f"{where}[{i}]", depth + 1, source) for i, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    if type(value) in (set, frozenset):
        items = [_encode(item, where, depth + 1, source) for item in value]
        return {type(value).__name__: sorted(items, key=canonical_json)}
    if type(value) in (dict, types.MappingProxyType):
        return {
            "dict": [
                [
                    _encode(key, where, depth + 1, source),
                    _encode(item, f"{where}[{key!r}]", depth + 1, source),
                ]
                for key, item in value.items()
            ]
        }
    return None


def _encode_leaf(value: Any, where: str) -> Json:
    if isinstance(value, np.ndarray):
        if value.size > MAX_ARRAY or value.dtype.kind not in "biufU":
            raise _Undescribed(
                f"{_at(where)}an array of {value.size} {value.dtype} is too much for a definition"
                f" (at most {MAX_ARRAY} numbers or texts)"
            )
        flat = [_encode(item, where, 0) for item in value.ravel().tolist()]
        return {"array": {"dtype": value.dtype.str, "shape": list(value.shape), "values": flat}}
    if isinstance(value, np.random.RandomState):
        name, keys, position, has_gauss, gauss = value.get_state(legacy=True)
        return {"random_state": [name, [int(key) for key in keys], position, has_gauss, gauss]}
    if isinstance(value, np.random.Generator):
        return {"generator": generator_to_json(value)}
    if isinstance(value, dt.timedelta):
        return {"timedelta": value // dt.timedelta(microseconds=1)}
    if isinstance(value, dt.datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, pathlib.PurePath):
        return {"path": str(value)}
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | np.ufunc):
        return {"ref": public_name(value, where)}
    return None


def _encode_instance(value: Any, where: str, depth: int, source: str | None) -> Json:
    kind = type(value)
    name = public_name(kind, where)
    if not _is_definable(kind) or _has_weights(value):
        raise _Undescribed(
            f"{_at(where)}{reprlib.repr(value)} ({name}) cannot stand in a definition outside of a"
            " spec file; there, give a class or function that makes it"
        )
    params, args = _parameters(value, where)
    node: dict[str, Json] = {
        "class": name,
        "params": {
            key: _encode(item, f"{where}.{key}".lstrip("."), depth + 1, source)
            for key, item in params.items()
        },
    }
    if args:
        node["args"] = [
            _encode(item, f"{where}[{i}]", depth + 1, source) for i, item in enumerate(args)
        ]
    return node


def _parameters(value: Any, where: str) -> tuple[dict[str, Any], list[Any]]:
    """What the constructor was given: by name, and in order where it takes ``*args``."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        names = [item.name for item in dataclasses.fields(kind) if item.init]
        return {name: getattr(value, name) for name in names}, []
    if hasattr(value, "get_params"):
        _refuse_fitted(value, where)
        return dict(value.get_params(deep=False)), []
    params: dict[str, Any] = {}
    args: list[Any] = []
    constructor = kind.__init__
    if constructor is object.__init__:
        return params, args
    for name, parameter in list(inspect.signature(constructor).parameters.items())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD or not hasattr(value, name):
            raise SpecError(
                f"{_at(where)}{kind.__qualname__} cannot be rebuilt: its constructor takes"
                f" {name!r} but does not keep it in an attribute of that name"
            )
        if parameter.kind is parameter.VAR_POSITIONAL:
            given = getattr(value, name)
            args = list(given.items() if isinstance(given, Mapping) else given)
            args = sorted(args, key=repr) if isinstance(given, set) else args
        else:
            params[name] = getattr(value, name)
    if args and any(True for _ in params) and _has_positional(constructor):
        raise SpecError(f"{_at(where)}{kind.__qualname__} takes both named and starred parameters")
    return params, args


def _has_positional(constructor: Any) -> bool:
    kinds = [p.kind for p in inspect.signature(constructor).parameters.values()][1:]
    return inspect.Parameter.POSITIONAL_OR_KEYWORD in kinds


def _refuse_fitted(value: Any, where: str) -> None:
    fitted = [key for key in getattr(value, "__dict__", {}) if key[:1] != "_" and key[-1:] == "_"]
    if fitted:
        raise SpecError(
            f"{_at(where)}{type(value).__name__} is already fitted (it has {fitted[0]!r}), and a"
            " definition keeps only its parameters; give sklearn.base.clone(…) of it"
        )


def public_name(value: Any, where: str = "") -> str:
    """ "module:name" under which a class or function can be imported, by its most public module.

    Raises:
        SpecError: it has no such name: a lambda, or defined in a function or in ``__main__``.
    """
    qualname = str(getattr(value, "__qualname__", None) or value.__name__)
    module = getattr(value, "__module__", None) or "numpy"
    if "<" in qualname:
        raise _Undescribed(
            f"{_at(where)}{qualname} cannot be rebuilt, as it is defined inside of a function or is"
            " a lambda; define it with a name at the top of the spec file or of a module"
        )
    if is_spec_module(module):
        return f"{SPEC}:{qualname}"
    if module == "__main__":
        raise SpecError(
            f"{_at(where)}{qualname} is defined in __main__, where later processes cannot find it;"
            " move it to a module that can be imported, or train from a spec file"
        )
    pieces = module.split(".")
    for length in range(1, len(pieces) + 1):
        public = ".".join(pieces[:length])
        loaded = sys.modules.get(public)
        if loaded is not None and getattr(loaded, qualname, None) is value:
            return f"{public}:{qualname}"
    if _walk(sys.modules.get(module), qualname) is value:
        return f"{module}:{qualname}"
    raise SpecError(f"{_at(where)}{module}.{qualname} is not found under its own name")


def _at(where: str) -> str:
    return f"{where}: " if where else ""


# --- from JSON ---------------------------------------------------------------------------------


def _decode(config: Json, source: str | None, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise SpecError(f"a definition is nested deeper than {MAX_DEPTH} levels")
    if config is None or isinstance(config, bool | int | float | str):
        return config
    if isinstance(config, list):
        return [_decode(item, source, depth + 1) for item in config]
    if isinstance(config, dict):
        if isinstance(config.get("class"), str):
            return _decode_instance(config, source, depth)
        if len(config) == 1:
            ((tag, body),) = config.items()
            if tag == SPEC and isinstance(body, str):
                return _placed(body, source)
            if tag in ("tuple", "set", "frozenset"):
                items = [_decode(item, source, depth + 1) for item in body]
                return {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](items)
            if tag == "dict":
                return {
                    _decode(key, source, depth + 1): _decode(item, source, depth + 1)
                    for key, item in body
                }
            return _decode_leaf(tag, body, source)
    raise SpecError(f"a definition holds {str(config)[:80]!r}, which this release does not know")


def _decode_leaf(tag: str, body: Json, source: str | None) -> Any:
    if tag == "float":
        return float(body)
    if tag == "ref":
        return find(body, source)
    if tag == "array":
        values = [_decode(item, None, 0) for item in body["values"]]
        return np.array(values, dtype=np.dtype(body["dtype"])).reshape(body["shape"])
    if tag == "random_state":
        return mersenne_twister(np.array(body[1], dtype=np.uint32), *body[2:])
    if tag == "generator":
        return generator_from_json(body)
    if tag == "timedelta":
        return dt.timedelta(microseconds=body)
    if tag == "datetime":
        return dt.datetime.fromisoformat(body)
    if tag == "path":
        return pathlib.Path(body)
    raise SpecError(f"a definition has the unknown tag {tag!r}; it was made by a newer release")


def _decode_instance(config: Mapping[str, Json], source: str | None, depth: int) -> Any:
    name = config["class"]
    kind = find(name, source)
    if not isinstance(kind, type) or not _is_definable(kind):
        raise SpecError(f"{name!r} is not a class that may stand in a definition")
    args = [_decode(item, source, depth + 1) for item in config.get("args", [])]
    params = {key: _decode(v, source, depth + 1) for key, v in config["params"].items()}
    try:
        return kind(*args, **params)
    except SpecError:
        raise
    except Exception as error:
        raise SpecError(
            f"{name} cannot be rebuilt with {', '.join(params) or 'no parameters'}:"
            f" {type(error).__name__}: {error}"
        ) from error


def _placed(where: str, source: str | None) -> Any:
    found = None if source is None else at_place(source, where)
    if found is None:
        raise SpecError(f"{where} is defined in a spec file, whose text was not kept")
    return found


def find(name: str, source: str | None) -> Any:
    """The class or function "module:name"."""
    path, _, qualname = name.partition(":")
    if path == SPEC:
        if source is None:
            raise SpecError(f"{qualname} is defined in a spec file, whose text was not kept")
        module: Any = spec_module(source)
    else:
        try:
            module = importlib.import_module(path)
        except ImportError as error:
            raise SpecError(
                f"the definition needs {qualname} of the module {path!r}, which cannot be imported"
                f" here ({error}); install it, or put its folder on PYTHONPATH"
            ) from error
    found = _walk(module, qualname)
    if found is None:
        raise SpecError(f"the definition needs {qualname}, which {path!r} does not define")
    return found


def _walk(module: Any, qualname: str) -> Any:
    """Attributes of attributes, but only through classes: never out of the module."""
    found = module
    for piece in qualname.split("."):
        if found is not module and not isinstance(found, type):
            return None
        found = getattr(found, piece, None)
    return None if isinstance(found, types.ModuleType) else found


def _has_weights(value: Any) -> bool:
    """Whether it is a PyTorch module or a Keras model, which is more than its constructor was
    given."""
    kinds = [getattr(sys.modules.get("keras"), "Model", ())]
    kinds.append(getattr(getattr(sys.modules.get("torch"), "nn", None), "Module", ()))
    return any(isinstance(value, kind) for kind in kinds)


def _is_definable(kind: type) -> bool:
    """Whether a class may stand in definitions: not subprocess.Popen, nor what opens files here."""
    if dataclasses.is_dataclass(kind) or hasattr(kind, "get_params"):
        return True
    if hasattr(kind, "_get_params"):  # as estimators of River have it
        return True
    if kind.__module__.startswith("everlearn.learners.") or is_spec_module(kind.__module__):
        return True
    return any(hasattr(kind, method) for method in ("partial_fit", "learn"))
