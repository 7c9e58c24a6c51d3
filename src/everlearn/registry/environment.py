"""What a version was learned with: interpreter, libraries, processor, threads."""

from __future__ import annotations

import functools
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from everlearn.base import Json

LIBRARIES = ("everlearn", "numpy", "scipy", "scikit-learn", "pyarrow")


def environment() -> dict[str, Json]:
    """Versions of Python and of the libraries, platform and thread limit; a copy for each call."""
    return dict(_environment())


@functools.cache
def _environment() -> dict[str, Json]:
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = getattr(sys.modules.get(name), "__version__", None)
    found["platform"] = platform.platform()
    found["machine"] = platform.machine()
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of nested levels
    found["threads"] = int(first) if first.isdecimal() else _cores()
    return found


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
