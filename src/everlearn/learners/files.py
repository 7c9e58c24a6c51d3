"""Estimators of this package as files: parameters and state, without a workspace."""

from __future__ import annotations

import math
import os
import secrets
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.base import InputError, Json, NotFoundError, Part, State, StorageError
from everlearn.learners.default import NAMES
from everlearn.learners.native.parameters import Parameters
from everlearn.storage.parts import decode_part, encode_part

FORMAT = "everlearn learner"
REVISION = 1


def save_file(learner: Any, path: str | os.PathLike[str]) -> None:
    """Write a native learner to one file: a safetensors file with JSON in its header, no pickle.

    A model in a workspace needs none of this: its versions are kept there, and `export` writes one
    with its whole history.

    Args:
        learner: an estimator of `everlearn.learners` with parameters that JSON can hold.
        path: of the file; one that is there is replaced at once, when the new one is complete.

    Raises:
        InputError: it is no such estimator, or a parameter cannot be written.
        StorageError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from everlearn.learners import RunningMean, load_file, save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file(RunningMean().fit([[0.0], [0.0]], [1.0, 2.0]), f"{folder}/mean")
        ...     learner = load_file(f"{folder}/mean")
        >>> learner.partial_fit([[0.0]], [6.0]).predict([[0.0]])
        array([3.])
    """
    if not isinstance(learner, Parameters):
        raise InputError(f"{learner!r} is no learner of everlearn.learners")
    head = {"format": FORMAT, "revision": REVISION, "definition": _to_json(learner)}
    state: State = learner.save()  # type: ignore[attr-defined]
    arrays = {
        f"{name}/{key}": array for name, part in state.items() for key, array in part.arrays.items()
    }
    parts = {name: {"meta": part.meta, "arrays": list(part.arrays)} for name, part in state.items()}
    _write(Path(path), encode_part(Part(arrays, head | {"parts": parts})))


def load_file(path: str | os.PathLike[str]) -> Any:
    """The estimator in a file that `save_file` wrote, by this release or an earlier one.

    No code but that of `everlearn.learners` is run, whatever the file says.

    Raises:
        NotFoundError: there is no such file.
        InputError: it is no file of a learner, or was written by a newer release.
        IntegrityError: it is damaged.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {str(file)!r}") from None
    except OSError as error:
        raise StorageError(error.errno, f"{file} cannot be read: {error.strerror}") from error
    whole = decode_part(data, str(file))
    head = whole.meta if isinstance(whole.meta, dict) else {}
    if head.get("format") != FORMAT:
        raise InputError(f"{file} is no file of a learner")
    if head.get("revision") != REVISION:
        raise InputError(
            f"{file} has revision {head.get('revision')!r} of the format, and this release knows"
            f" {REVISION}; upgrade everlearn to load it"
        )
    try:
        state = {
            name: Part({key: whole.arrays[f"{name}/{key}"] for key in said["arrays"]}, said["meta"])
            for name, said in head["parts"].items()
        }
        return _from_json(head["definition"]).load(state)
    except InputError:
        raise
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{file} is no file of a learner: {error!r}") from error


def _to_json(value: Any) -> Json:
    """A parameter as JSON, with one tag where JSON lacks its type."""
    if isinstance(value, Parameters):
        name = type(value).__name__
        if getattr(import_module("everlearn.learners"), name, None) is not type(value):
            raise InputError(f"{name} is no learner of everlearn.learners")
        return {"learner": name, "params": _params(value)}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_to_json(item) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    raise InputError(f"{value!r} cannot be written to a file; save() gives the state alone")


def _params(learner: Parameters) -> Json:
    params = learner.get_params(deep=False)
    _check_names(params)
    return {name: _to_json(item) for name, item in params.items()}


def _check_names(params: dict[str, Any]) -> None:
    """Raises `InputError` for a learner by an import path, which is code that the file chooses."""
    named = params.get("learners")
    for name in named if isinstance(named, list | tuple) else [named]:
        if isinstance(name, str) and name not in NAMES:
            raise InputError(f"a file of a learner names no other than {NAMES}, not {name!r}")


def _from_json(value: Json) -> Any:
    """The inverse of `_to_json`."""
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "learner" in value:
        package = import_module("everlearn.learners")
        kind = getattr(package, value["learner"]) if value["learner"] in package.__all__ else None
        if not (isinstance(kind, type) and issubclass(kind, Parameters)):
            raise InputError(f"{value['learner']!r} is no learner of this release")
        params = {name: _from_json(item) for name, item in value["params"].items()}
        _check_names(params)
        return kind(**params)
    if "tuple" in value:
        return tuple(_from_json(item) for item in value["tuple"])
    return float(value["float"])


def _write(file: Path, data: bytes) -> None:
    """Complete and durable, or not at all."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(error.errno, f"{file} cannot be written: {error.strerror}") from error
