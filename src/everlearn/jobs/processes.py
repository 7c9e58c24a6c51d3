"""Names of the processes that work, by which others on the same machine see whether they live."""

from __future__ import annotations

import os
import socket


def worker_name() -> str:
    """Names this process so that another one on the same machine can see whether it still lives."""
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid())}"


def _machine() -> str:
    """The machine, and on Linux this start of it and the container: two of one name, or with one
    network, do not know each other's processes."""
    name = socket.gethostname()
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            started = file.read(8)
        return f"{name}/{started}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return name


def is_gone(worker: str) -> bool:
    """Whether a worker is a process of this machine that has ended: its lease need not run out."""
    host, _, rest = worker.rpartition(":")[0].rpartition(":")
    started = worker.rpartition(":")[2]
    if host != _machine():
        return False
    return _started(int(rest)) != started


def _started(pid: int) -> str:
    """Start time of a process in clock ticks, "" if it is gone (or a zombie, which is dead too)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            after_name = file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return ""
        return _alive_without_proc(pid)
    return "" if after_name[0] in "ZX" else after_name[19]


def _alive_without_proc(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
