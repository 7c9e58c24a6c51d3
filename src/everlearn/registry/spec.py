"""Spec files: one Python file that says what the model is, by ``model = everlearn.Model(…)``.

The text of the file is executed as a module of its own, and kept with the definition. Classes
that are defined in it are rebuilt, in whatever process, by executing the kept text again.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from everlearn.base import Model, SpecError, digest_bytes

SPEC = "spec"
"""Stands for the module of the spec file in the names of classes ("spec:MyLearner")."""

_PREFIX = "everlearn_spec_"


def is_spec_module(name: str) -> bool:
    """Whether a module was made from a spec file's text."""
    return name.startswith(_PREFIX)


def load_spec(path: str | os.PathLike[str]) -> tuple[Model, str]:
    """Execute a spec file.

    Args:
        path: a Python file that assigns an `everlearn.Model` to ``model``. It can import what is
            installed or on PYTHONPATH; its own folder is not searched, because only its text is
            kept for later processes.

    Returns:
        The model, and the text of the file.

    Raises:
        SpecError: there is no such file, it raises (the message has file, line and exception), or
            it does not define ``model``.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SpecError(f"there is no spec file {str(file)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the spec file {str(file)!r} cannot be read: {error}") from error
    module = _execute(text, str(file))
    if not hasattr(module, "model"):
        raise SpecError(
            f"{file}: no 'model' is defined; a spec file has to say"
            ' model = everlearn.Model("name", …)'
        )
    model = module.model
    if not isinstance(model, Model):
        raise SpecError(f"{file}: 'model' is a {type(model).__name__}, not an everlearn.Model")
    return model, text


def spec_module(text: str) -> types.ModuleType:
    """The module that a spec file's text makes; executed once per process.

    Raises:
        SpecError: it raises.
    """
    name = _module_name(text)
    found = sys.modules.get(name)
    return found if found is not None else _execute(text, f"<{name}.py>")


_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d+)\]|\['([^'\\]*)'\]")
"""One step on the way to a place: an attribute, a position, or a key that is text."""


def at_place(source: str, where: str) -> Any:
    """What the model of a spec file has at a place such as "learner.module"; None if nothing."""
    found: Any = getattr(spec_module(source), "model", None)
    at = 0
    while at < len(where):
        step = _STEP.match(where, at)
        if step is None:
            return None
        name, index, key = step.groups()
        try:
            if name is not None:
                found = getattr(found, name)
            else:
                found = found[int(index) if index is not None else key]
        except (AttributeError, LookupError, TypeError):
            return None
        at = step.end()
    return found


def _module_name(text: str) -> str:
    return _PREFIX + digest_bytes(text.encode())[:16]


def _execute(text: str, file: str) -> types.ModuleType:
    name = _module_name(text)
    module = types.ModuleType(name)
    module.__file__ = file
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses look their module up while they are defined
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    try:
        exec(compile(text, file, "exec", dont_inherit=True), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        line = _line_of(error, file)
        raise SpecError(f"{file}, line {line}: {type(error).__name__}: {error}") from error
    return module


def _line_of(error: BaseException, file: str) -> int:
    """The line of the spec file that raised, or that called what raised."""
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        return error.lineno
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    return (lines[-1] if lines else None) or 1
