"""Versions explained: what each is and learned, what it answers otherwise, and why it was let
through."""

from __future__ import annotations

import threading
from collections import OrderedDict

from everlearn.base import Json
from everlearn.data.log import FeedbackLog
from everlearn.jobs.explain.explaining import Explanation
from everlearn.registry.registry import Registry
from everlearn.rollout.admission import admission

KEPT = 32
"""Versions of which what was measured is kept in memory."""


class Explanations:
    """Explains versions of a workspace; what takes long is measured once.

    A version never changes, nor does the one that it is compared with, so that what both answered
    is kept; what was decided about them is read anew each time. Safe for threads.

    Args:
        registry: of the workspace.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._measured: OrderedDict[str, dict[str, Json]] = OrderedDict()

    def explain(self, model: str, number: int, log: FeedbackLog) -> dict[str, Json]:
        """All that is known of a version.

        Args:
            log: of the model.

        Returns:
            JSON: "model", "number", "parent", "against" (the version that it is compared with) and
            the rest of its record, see `Explanation.record`; "learned" and "predictions", see
            `Explanation.measured`; "admission", see `admission`. A part that cannot be told has
            "why_not" instead.

        Raises:
            NotFoundError: there is no such model or version.
        """
        found = Explanation(self._registry, log, model, number)
        with self._registry.database.read() as connection:
            decided = admission(connection, model, found.version)
        record = found.record()
        erased = log.erased()  # rows that were erased since may not be shown from memory
        key = repr((model, number, record["dropped_at"], record["against"], erased))
        return {**record, **self._of(key, found), "admission": decided}

    def _of(self, key: str, found: Explanation) -> dict[str, Json]:
        with self._lock:
            if key not in self._measured:
                self._measured[key] = found.measured()
                while len(self._measured) > KEPT:
                    self._measured.popitem(last=False)
            self._measured.move_to_end(key)
            return self._measured[key]
