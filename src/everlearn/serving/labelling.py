"""Labels of many requests, logged in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from everlearn.base import ConflictError, InputError, StorageError
from everlearn.data.feedback import Label, Receipt
from everlearn.data.log import FeedbackLog


def log_together(
    log: FeedbackLog, asked: Sequence[Sequence[Label]]
) -> list[list[Receipt] | Exception]:
    """The receipts of each request, durable; an error for one of which nothing was logged.

    Requests of one turn are logged as if they had come one after the other. Where one is refused,
    each is logged by itself.
    """
    try:
        receipts = log.append_labels([label for labels in asked for label in labels])
    except StorageError as error:
        return [error for _ in asked]
    except (InputError, ConflictError) as error:
        if len(asked) == 1:
            return [error]
        return [log_together(log, [labels])[0] for labels in asked]
    given = iter(receipts)
    return [[next(given) for _ in labels] for labels in asked]
