"""Whether other threads can run while something computes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def runs_beside(call: Callable[[], Any]) -> bool:
    """Whether another thread could run during at least a quarter of a call's time.

    The other one looks, again and again, at the instruction that this one is at. No thread is made
    to give up the interpreter's lock meanwhile, so that it sees this one at the same instruction
    twice only if that instruction waits, or computes without the lock.
    """
    watched, over, waiting = threading.get_ident(), threading.Event(), threading.Event()
    seconds = 0.0  # between looks at the same instruction

    def watch() -> None:
        nonlocal seconds
        before, then = None, 0.0
        waiting.set()
        while not over.is_set():
            frame, now = sys._current_frames()[watched], time.perf_counter()
            place = id(frame), frame.f_lasti
            del frame
            if place == before:
                seconds += now - then
            before, then = place, now
            time.sleep(1e-5)

    watcher = threading.Thread(target=watch)
    interval = sys.getswitchinterval()
    watcher.start()
    waiting.wait()
    sys.setswitchinterval(3600.0)
    try:
        began, seconds = time.perf_counter(), 0.0
        call()
        found, whole = seconds, time.perf_counter() - began
    finally:
        sys.setswitchinterval(interval)
        over.set()
        watcher.join()
    return found >= 0.25 * whole
