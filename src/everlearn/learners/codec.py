"""What an estimator has learned ↔ arrays and JSON. No pickle, and no class but those allowed.

An attribute becomes plain JSON where JSON has it, and an object with exactly one tag where not:

    {"array": name}  {"array": name, "order": "F"}   an array of the part, by name
    {"same": name, "shape": […]}                     shares the memory of an array named before
    {"scalar": [dtype, value]}                       a numpy scalar
    {"float": "nan"}                                 a float that JSON lacks
    {"list": […]}  {"tuple": […]}  {"dict": [[key, value], …]}
    {"random": name, …}                              a RandomState, its key an array of the part
    {"object": class, "attributes": {…}}             an object of an allowed class
    {"ref": path}                                    an object that stands at an earlier path

Aliases matter: averaged SGD updates `_average_coef` and predicts with its view `coef_`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from everlearn.base import (
    Array,
    InputError,
    Json,
    Part,
    SpecError,
    canonical_array,
    mersenne_twister,
)

PASSING = {
    "BaseSGD": {"_loss_function_", "_expanded_class_weight"},
    "BaseMultilayerPerceptron": {
        "_best_coefs",
        "_best_intercepts",
        "validation_scores_",
        "best_validation_score_",
    },
    "MiniBatchKMeans": {"labels_", "inertia_", "_n_threads", "_transform_output"},
}
"""Attributes, by base class, that neither further learning nor predicting depends on."""

HELPERS = {
    "sklearn.AdamOptimizer": "sklearn.neural_network._stochastic_optimizers",
    "sklearn.SGDOptimizer": "sklearn.neural_network._stochastic_optimizers",
    "sklearn.LabelBinarizer": "sklearn.preprocessing",
    "sklearn.StandardScaler": "sklearn.preprocessing",
}
"""Classes of objects inside scikit-learn's estimators, and the modules that have them."""

DTYPES = "biuf"
"""Kinds of arrays that are saved."""


def class_name(kind: type) -> str:
    """How a class is named in a state: its name, and whether it is scikit-learn's."""
    root = kind.__module__.partition(".")[0]
    return f"sklearn.{kind.__qualname__}" if root == "sklearn" else f"user.{kind.__qualname__}"


def dump(estimator: Any) -> Part:
    """All that an estimator has learned: its attributes but for its parameters, and its generators.

    Args:
        estimator: what has `get_params`, or any object, whose attributes are then all saved.

    Returns:
        A part with copies; it does not change when the estimator learns on.

    Raises:
        SpecError: an attribute is of a type that is not saved without pickle.
    """
    writer = _Writer(class_name(type(estimator)))
    attributes = {}
    fixed = _parameters(estimator)
    for name in sorted(vars(estimator)):
        value = vars(estimator)[name]
        learned = name not in fixed or isinstance(value, np.random.RandomState)
        if learned and name not in _passing(type(estimator)):
            attributes[name] = writer.write(_trimmed(name, value), name)
    for name, generator in _inner_generators(estimator):
        attributes[name] = writer.write(generator, name)
    return Part(writer.arrays, {"class": writer.owner, "attributes": attributes})


def restore(estimator: Any, part: Part, allowed: Iterable[type] = ()) -> None:
    """Give a fresh estimator what `dump` saw.

    Args:
        estimator: made from the same definition.
        part: what `dump` returned, possibly from a file that cannot be trusted.
        allowed: classes of the definition, beside those that scikit-learn uses inside.

    Raises:
        InputError: the part is of another class, names a class that is not allowed, or is broken.
    """
    kind = type(estimator)
    found = part.meta.get("class") if isinstance(part.meta, dict) else None
    if found != class_name(kind):
        raise InputError(f"the state is of {found!r}, not of {class_name(kind)!r}")
    reader = _Reader(part.arrays, {class_name(item): item for item in (*allowed, kind)})
    inner = dict(_inner_generators(estimator))
    try:
        for name, value in part.meta["attributes"].items():
            if hasattr(kind, name) and not _is_plain(getattr(kind, name)):
                raise InputError(f"the state sets {name!r}, which is code of {kind.__name__}")
            if name in inner:
                estimator.set_params(**{name: reader.read(value, name)})
            else:
                setattr(estimator, name, reader.read(value, name))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the state of {kind.__name__} is broken: {error}") from error
    if kind.__name__ == "MiniBatchKMeans" and hasattr(estimator, "cluster_centers_"):
        from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

        estimator._n_threads = _openmp_effective_n_threads()


def compact(estimator: Any) -> None:
    """Make arrays that are slices of larger ones contiguous, as they are after `restore`: a matrix
    product over another layout may round another way."""
    for name, value in list(vars(estimator).items()):
        if isinstance(value, np.ndarray) and not (
            value.flags.c_contiguous or value.flags.f_contiguous
        ):
            setattr(estimator, name, np.ascontiguousarray(value))


class _Writer:
    """Collects arrays by the path at which they stand, and remembers what it has seen."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.arrays: dict[str, Array] = {}
        self._at: dict[int, str] = {}
        self._memory: dict[tuple[int, int], str] = {}
        self._alive: list[Any] = []

    def write(self, value: Any, path: str) -> Json:
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if np.isfinite(value) else {"float": repr(value)}
        if isinstance(value, np.generic):
            return self._scalar(value, path)
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if id(value) in self._at:
            return {"ref": self._at[id(value)]}
        self._at[id(value)] = path
        self._alive.append(value)
        if isinstance(value, list | tuple):
            items = [self.write(item, f"{path}.{i}") for i, item in enumerate(value)]
            return {type(value).__name__: items} if type(value) in (list, tuple) else items
        if type(value) is dict:
            pairs = enumerate(value.items())
            return {
                "dict": [[self._key(k, path), self.write(v, f"{path}.{i}")] for i, (k, v) in pairs]
            }
        if isinstance(value, np.random.RandomState):
            return self._random(value, path)
        return self._object(value, path)

    def _scalar(self, value: np.generic, path: str) -> Json:
        if value.dtype.kind not in DTYPES:
            raise self._refuse(value, path)
        return {"scalar": [value.dtype.newbyteorder("<").str, self.write(value.item(), path)]}

    def _array(self, value: Array, path: str) -> Json:
        if value.dtype.kind not in DTYPES:
            if value.dtype.kind in "OU" and all(isinstance(item, str) for item in value.flat):
                return {"texts": value.tolist()}
            raise self._refuse(value, path)
        if value.ndim == 0:
            number: Any = value[()]
            return {"zero": self._scalar(number, path)}
        memory = (value.__array_interface__["data"][0], value.nbytes)
        if value.nbytes and memory in self._memory and value.flags.c_contiguous:
            return {"same": self._memory[memory], "shape": list(value.shape)}
        self._memory[memory] = path
        self._alive.append(value)
        self.arrays[path] = np.array(canonical_array(value), order="C")
        column_major = value.flags.f_contiguous and not value.flags.c_contiguous
        return {"array": path, "order": "F"} if column_major else {"array": path}

    def _random(self, value: np.random.RandomState, path: str) -> Json:
        state: Any = value.get_state(legacy=False)
        if state["bit_generator"] != "MT19937":
            raise self._refuse(value, path)
        self.arrays[f"{path}.key"] = np.array(state["state"]["key"], np.uint32)
        return {
            "random": f"{path}.key",
            "position": int(state["state"]["pos"]),
            "gauss": [int(state["has_gauss"]), float(state["gauss"])],
        }

    def _object(self, value: Any, path: str) -> Json:
        kind = type(value)
        estimator = hasattr(value, "get_params") and not isinstance(value, type)
        if not (estimator or class_name(kind) in HELPERS) or not hasattr(value, "__dict__"):
            raise self._refuse(value, path)
        attributes = {}
        for name in sorted(vars(value)):
            if name not in _passing(kind):
                attributes[name] = self.write(vars(value)[name], f"{path}.{name}")
        return {"object": class_name(kind), "attributes": attributes}

    def _key(self, key: Any, path: str) -> Json:
        if isinstance(key, np.generic):
            key = key.item()
        if type(key) not in (str, int, float, bool):
            raise self._refuse(key, path)
        return key

    def _refuse(self, value: Any, path: str) -> SpecError:
        return SpecError(
            f"{self.owner} cannot be saved without pickle: its attribute {path} is a"
            f" {type(value).__module__}.{type(value).__qualname__}"
        )


class _Reader:
    """Builds values; every array is a fresh copy, so that learning on does not touch the part."""

    def __init__(self, arrays: Mapping[str, Array], allowed: Mapping[str, type]) -> None:
        self._arrays = arrays
        self._allowed = allowed
        self._made: dict[str, Any] = {}

    def read(self, value: Json, path: str) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        tag = next((name for name in _BUILD if name in value), None)
        if tag is None:
            raise InputError(f"the state has an unknown form at {path}: {str(value)[:60]}")
        return _BUILD[tag](self, value, path)

    def _array(self, value: Json, path: str) -> Array:
        array = np.array(self._arrays[value["array"]], order=value.get("order", "C"))
        if array.dtype.kind not in DTYPES:
            raise InputError(f"the state has an array of {array.dtype} at {path}")
        self._made[value["array"]] = array
        return array

    def _same(self, value: Json, path: str) -> Array:
        array: Array = self._made[value["same"]]
        return array.reshape(value["shape"])

    def _scalar(self, value: Json, path: str) -> Any:
        dtype = np.dtype(value["scalar"][0])
        if dtype.kind not in DTYPES:
            raise InputError(f"the state has a scalar of {dtype} at {path}")
        return np.array([self.read(value["scalar"][1], path)], dtype.newbyteorder("="))[0]

    def _zero(self, value: Json, path: str) -> Array:
        return np.array(self._scalar(value["zero"], path))

    def _texts(self, value: Json, path: str) -> Array:
        return np.array(value["texts"], dtype=object)

    def _float(self, value: Json, path: str) -> float:
        return float(value["float"])

    def _list(self, value: Json, path: str) -> list[Any]:
        made: list[Any] = []
        self._made[path] = made
        made.extend(self.read(item, f"{path}.{i}") for i, item in enumerate(value["list"]))
        return made

    def _tuple(self, value: Json, path: str) -> tuple[Any, ...]:
        made = tuple(self.read(item, f"{path}.{i}") for i, item in enumerate(value["tuple"]))
        self._made[path] = made
        return made

    def _dict(self, value: Json, path: str) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        self._made[path] = made
        for index, (key, item) in enumerate(value["dict"]):
            made[key] = self.read(item, f"{path}.{index}")
        return made

    def _random(self, value: Json, path: str) -> np.random.RandomState:
        key = np.array(self._arrays[value["random"]], np.uint32)
        made = mersenne_twister(key, value["position"], *value["gauss"])
        self._made[path] = made
        return made

    def _object(self, value: Json, path: str) -> Any:
        name = value["object"]
        if name in HELPERS:
            kind = getattr(import_module(HELPERS[name]), name.partition(".")[2])
        elif name in self._allowed:
            kind = self._allowed[name]
        else:
            raise InputError(f"the state names the class {name!r}, which may not stand in it")
        made = kind.__new__(kind)
        self._made[path] = made
        for attribute, item in value["attributes"].items():
            if hasattr(kind, attribute) and not _is_plain(getattr(kind, attribute)):
                raise InputError(f"the state sets {attribute!r}, which is code of {name}")
            setattr(made, attribute, self.read(item, f"{path}.{attribute}"))
        return made

    def _ref(self, value: Json, path: str) -> Any:
        return self._made[value["ref"]]


_BUILD: dict[str, Any] = {
    "array": _Reader._array,
    "same": _Reader._same,
    "scalar": _Reader._scalar,
    "zero": _Reader._zero,
    "texts": _Reader._texts,
    "float": _Reader._float,
    "list": _Reader._list,
    "tuple": _Reader._tuple,
    "dict": _Reader._dict,
    "random": _Reader._random,
    "object": _Reader._object,
    "ref": _Reader._ref,
}


def _parameters(estimator: Any) -> set[str]:
    if not hasattr(estimator, "get_params"):
        return set()
    return set(estimator.get_params(deep=False))


def _inner_generators(estimator: Any) -> list[tuple[str, np.random.RandomState]]:
    """Generators among the parameters of the estimators that are parameters themselves."""
    if not hasattr(estimator, "get_params"):
        return []
    found = sorted(estimator.get_params(deep=True).items(), key=lambda item: item[0])
    return [(k, v) for k, v in found if "__" in k and isinstance(v, np.random.RandomState)]


def _passing(kind: type) -> set[str]:
    names = {base.__name__ for base in kind.__mro__}
    return set().union(*(PASSING[name] for name in names & PASSING.keys()))


def _trimmed(name: str, value: Any) -> Any:
    """A curve over all chunks would grow for ever; only its end decides what comes next."""
    return value[-1:] if name == "loss_curve_" and isinstance(value, list) else value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple | list | dict)
