"""How kernels are compiled: once a machine, kept on disk, without the interpreter's lock."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import caching

FASTMATH = {"arcp", "contract", "nsz", "reassoc"}
"""What a kernel's arithmetic may take for granted. NaN and infinity are not ruled out, as numba's
full `fastmath` would: it deletes the checks that keep them out of a state."""

_log = logging.getLogger("everlearn")

_PACKAGE = "everlearn.learners.native"
_FOLDER = Path(__file__).parent
_IMPORT = re.compile(rf"^\s*from {re.escape(_PACKAGE)}\.([\w.]+) import", re.MULTILINE)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile a function for the machine at its first call, and keep the result on disk.

    A kernel takes numbers and arrays, writes into arrays that it is given, and raises nothing.
    Sums within a row may be reordered (`FASTMATH`), the same way for every row; rows are taken
    one after the other, so that a result never depends on the chunk.
    """
    return _compiled(function, FASTMATH)


def exact_kernel(function: _Function) -> _Function:
    """A `kernel` whose arithmetic is done, and rounded, as it is written: for results that must be
    equal to another implementation's."""
    return _compiled(function, set())


def lean_kernel(function: _Function) -> _Function:
    """A `kernel` that makes no array and returns none, nor does any that it calls.

    For what is called in every row with many arrays, as in a NamedTuple: references to them are not
    counted, which can cost several times the arithmetic.
    """
    return _compiled(function, FASTMATH, _nrt=False)


def inlined(function: _Function) -> _Function:
    """Compile a piece of a kernel into every kernel that calls it.

    For what is called in every row with many arrays: references to them are not counted, which can
    cost several times the arithmetic. In return, it may make no array and return none.
    """
    return _compiled(function, FASTMATH, forceinline=True, _nrt=False)


def _compiled(function: _Function, fastmath: set[str], **options: Any) -> _Function:
    options["no_cfunc_wrapper"] = True
    compiled: Any = njit(nogil=True, fastmath=fastmath, error_model="numpy", **options)(function)
    try:
        compiled._cache = _Cache(function)  # type: ignore[no-untyped-call]
    except RuntimeError:  # there is no folder that can be written to
        compiled._cache = _Nowhere()
    return cast(_Function, compiled)


class _Stamp:
    """A kernel on disk is out of date if its file changed, or one that its file imports."""

    _py_file: str

    def get_source_stamp(self) -> str:
        return _stamp(self._py_file)


class _Provided(_Stamp, caching.UserProvidedCacheLocator):
    """In `NUMBA_CACHE_DIR`, where that is set."""


class _InTree(_Stamp, caching.InTreeCacheLocator):
    """Beside the source."""


class _UserWide(_Stamp, caching.UserWideCacheLocator):
    """In the user's cache, where the source's folder cannot be written to."""


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes = [  # noqa: RUF012
        _Provided,
        _InTree,
        _UserWide,
    ]


class _Cache(caching.FunctionCache):
    """The cache of one kernel, which says so before the first long wait of the process.

    Index and data are two files: a lock keeps other processes from reading or writing between them.
    What cannot be read is compiled again, and what cannot be written is not kept.
    """

    _impl_class = _Implementation

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        try:
            with self._locked():
                found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except OSError as error:  # another user's, say: it may be whole
            _log.info("compiled kernels in %s cannot be read: %s", self.cache_path, error)
        except Exception as error:  # a pickle that was cut off may raise anything
            _log.info("compiled kernels in %s cannot be read: %r", self.cache_path, error)
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
        if found is None:
            _announce("from now on they are kept on disk …")
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            with self._locked():
                super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:
            _log.info("compiled kernels cannot be kept in %s: %s", self.cache_path, error)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = Path(self.cache_path) / "everlearn.lock"
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # another user made it
            descriptor = os.open(lock, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            with suppress(OSError):  # a process forked meanwhile has the descriptor too
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


class _Nowhere(caching.NullCache):
    """Kernels are compiled in every process."""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        _announce("no folder can be written to, to keep them in; set NUMBA_CACHE_DIR to one …")


@cache
def _announce(more: str) -> None:
    """Once a process: a kernel is not on disk, and compiling it takes seconds."""
    text = f"compiling kernels for this machine; {more}"
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"everlearn: {text}\n")
        sys.stderr.flush()
    else:
        _log.info(text)


@cache
def _stamp(file: str) -> str:
    """SHA-256 of a source file and of all in this package that it imports, however far away."""
    seen: dict[Path, bytes] = {}
    waiting = [Path(file)]
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen[path] = path.read_bytes()
        for name in _IMPORT.findall(seen[path].decode()):
            module = _FOLDER.joinpath(*name.split("."))
            waiting += [module.with_suffix(".py"), module / "__init__.py"]
    hasher = hashlib.sha256()
    for path in sorted(seen):
        hasher.update(hashlib.sha256(seen[path]).digest())
    return hasher.hexdigest()
