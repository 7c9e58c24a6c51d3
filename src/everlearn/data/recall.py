"""What the log has of labels that are about to be logged: the predictions that they judge, and what
was said of these before."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from everlearn.base import ConflictError, InputError
from everlearn.data.archive import Archive
from everlearn.data.feedback import ERASED, Label, Receipt, id_numbers
from everlearn.storage.bulk import fetch_among
from everlearn.storage.schema import labels, predictions

SPEAKER = ("prediction_id", "kind", "source", "reviewer")
"""Columns that say who speaks of which prediction."""

_OF_KEY = ("t.idempotency_key", "t.digest", "t.id", "t.position")
_OF_PREDICTION = ("t.position", "t.id", "t.model_id", "t.value", *(f"t.{one}" for one in SPEAKER))
_FIRST = "(SELECT min(b.position) FROM labels AS b WHERE b.prediction_id = t.id)"
_OF_ID = ("t.id", "t.arm", _FIRST)  # by the index: PostgreSQL may read all labels for EXISTS
_OF_NAME = (*_OF_ID, "t.external_id")


class Judging:
    """The predictions of some labels.

    Args:
        found: of each label; None where it is not known yet.
        erased: those of them that were erased.
        judged: those of them that have labels in the table.
    """

    def __init__(
        self, found: Sequence[int | None], erased: Collection[int], judged: Collection[int]
    ) -> None:
        self.found, self.erased, self.judged = found, erased, judged


def find(
    connection: Connection, model: int, said: Sequence[Label], archive: Archive | None
) -> Judging:
    """The predictions that labels judge.

    Args:
        model: row id of the model.
        archive: of the model; None if nothing was ever archived.

    Raises:
        InputError: an id of ours that was never given out.
    """
    spelled = [label.prediction for label in said if label.prediction is not None]
    numbers = id_numbers(spelled)
    ids = set(numbers)
    names = {label.external_id for label in said if label.external_id is not None}
    rows = fetch_among(connection, predictions, _OF_ID, "id", ids, model)
    named = fetch_among(connection, predictions, _OF_NAME, "external_id", names, model)
    arms = {row[0]: row[1] for row in (*rows, *named)}
    judged = {row[0] for row in (*rows, *named) if row[2] is not None}
    there, by_name = {row[0] for row in rows}, {row[3]: row[0] for row in named}
    if archive is not None:
        away = archive.predictions(connection, ids - there)
        older = archive.named(connection, names - by_name.keys())
        there |= away.keys()
        by_name |= {name: row["id"] for name, row in older.items()}
        arms |= {row["id"]: row["arm"] for row in (*away.values(), *older.values())}
        judged |= arms.keys()  # a label may be in the table, and its prediction not
    if len(there) < len(ids):
        wrong = next(text for text, one in zip(spelled, numbers, strict=True) if one not in there)
        raise InputError(f"there is no prediction {wrong!r} of this model")
    found: list[int | None] = list(numbers)
    if names:
        given = iter(numbers)
        found = [by_name.get(one[2]) if one[1] is None else next(given) for one in said]
    return Judging(found, {number for number, arm in arms.items() if arm == ERASED}, judged)


class Memory:
    """What was said before: by idempotency key (digest, number, position), and last by each speaker
    of each prediction (value, number, position). What is new in the same call is added.
    """

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, int, int | None]] = {}
        self.last: dict[tuple[Any, ...], tuple[str | None, int, int | None]] = {}

    @classmethod
    def of(
        cls,
        connection: Connection,
        model: int,
        keys: Collection[str],
        judging: Judging,
        archive: Archive | None,
    ) -> Memory:
        """What was said under these keys, and of these predictions.

        Args:
            model: row id of the model.
            archive: of the model; None if nothing was ever archived.
        """
        memory = cls()
        for key, digest, number, position in fetch_among(
            connection, labels, _OF_KEY, "idempotency_key", keys, model
        ):
            memory.keys[key] = (digest, number, position)
        if archive is not None:
            for row in archive.keys(connection, keys):
                memory.keys[row["idempotency_key"]] = (row["digest"], row["id"], row["position"])
            judged = {number for number in judging.found if number is not None}
            for row in archive.judging(connection, judged):
                speaker = tuple(row[name] for name in SPEAKER)
                memory.last[speaker] = (row["value"], row["id"], row["position"])
        rows = fetch_among(connection, labels, _OF_PREDICTION, "prediction_id", judging.judged)
        for position, number, whose, value, *speaks in sorted(rows, key=_first):
            if whose == model:
                memory.last[tuple(speaks)] = (value, number, position)
        return memory

    def recall(
        self, label: Label, speaker: tuple[Any, ...] | None, text: str | None
    ) -> Receipt | None:
        """Where the same was said before; by its key, or by what the speaker said last.

        Raises:
            ConflictError: the key came with something else.
        """
        key = label.idempotency_key
        if key is not None:
            if key not in self.keys:
                return None
            digest, number, position = self.keys[key]
            if digest and digest != label.digest:  # else it was erased
                raise ConflictError(f"the idempotency key {key!r} came with another label before")
            return Receipt(number, "known", position)
        if speaker is None or speaker not in self.last:
            return None
        value, number, position = self.last[speaker]
        return Receipt(number, "known", position) if value == text else None


def _first(row: Any) -> Any:
    return row[0]
