"""Labels from files: what is logged elsewhere, said in the words of the HTTP API."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from everlearn.base import InputError, Json
from everlearn.data.feedback import Label, check, id_number
from everlearn.data.log import FeedbackLog
from everlearn.storage.bulk import rows_among
from everlearn.storage.database import Database
from everlearn.storage.schema import models, predictions

BATCH = 5000
"""Labels in one transaction."""

FIELDS = {
    "prediction_id": "prediction",
    "external_id": "external_id",
    "value": "value",
    "kind": "kind",
    "source": "source",
    "reviewer": "reviewer",
    "weight": "weight",
    "selection": "selection",
    "at": "at",
    "idempotency_key": "idempotency_key",
}
"""What a record may say → the field of `Label`."""

_TEXTS = ("prediction_id", "external_id", "kind", "source", "reviewer", "idempotency_key")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def import_labels(
    path: str | os.PathLike[str],
    database: Database,
    log: Callable[[str], FeedbackLog],
    model: str | None = None,
) -> Json:
    """Log the labels of a file, in its order. Imported again, nothing is logged twice.

    Args:
        path: of JSON lines, JSON (a list, or an object with "labels"), CSV or Parquet.
        database: of the workspace.
        log: of the model of a name.
        model: of records that name none; without it, the model that the prediction is of, or the
            only one that there is.

    Returns:
        JSON: how many labels were "logged", are "waiting" for their prediction, or "known" before.

    Raises:
        InputError: a record that says something wrong (the message names it), before any is logged;
            or a prediction that was never made, after those of the batches before it.
    """
    said = list(_read(Path(path), model))
    homes = _homes(database, log, said)
    counts: Counter[str] = Counter({"logged": 0, "waiting": 0, "known": 0})
    placed = [(home, label) for home, (_, label) in zip(homes, said, strict=True)]
    for start in range(0, len(placed), BATCH):
        parts: dict[str, list[Label]] = {}
        for name, label in placed[start : start + BATCH]:
            parts.setdefault(name, []).append(label)
        with database.write() as connection:
            for name, part in parts.items():
                receipts = log(name).append_labels(part, connection)
                counts.update(receipt.state for receipt in receipts)
    return dict(counts)


def moment(value: object, name: str = "at") -> int:
    """Microseconds since 1970 of ISO 8601 text or a datetime; UTC where it has no zone.

    Args:
        name: of the field that it is the value of, for the message.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError as error:
            raise InputError(f"{name}={value!r} is no ISO 8601 time") from error
    if not isinstance(value, dt.datetime):
        raise InputError(f"{name}={value!r} is no ISO 8601 time")
    zoned = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
    return (zoned - _EPOCH) // dt.timedelta(microseconds=1)


def label_of(record: object) -> Label:
    """What a record says in the words of the HTTP API; see `FIELDS`.

    Raises:
        InputError: it says something wrong.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"a label is an object of names and values, not {record!r}")
    unknown = set(record) - set(FIELDS)
    if unknown:
        raise InputError(f"unknown {sorted(map(str, unknown))}; a label has {', '.join(FIELDS)}")
    if "value" not in record:
        raise InputError("it has no value (null takes a label back)")
    record = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in record.items()
    }
    given: dict[str, Any] = {
        FIELDS[name]: value
        for name, value in record.items()
        if value is not None or name == "value"
    }
    for name in _TEXTS:
        said = record.get(name)
        if not isinstance(said, str | None) or "\0" in (said or ""):
            raise InputError(f"{name} is a text without NUL, not {said!r}")
    for name in ("weight", "selection"):
        if not isinstance(record.get(name), int | float | None):
            raise InputError(f"{name} is a number, not {record[name]!r}")
    value = given["value"]
    if not isinstance(value, str | bool | int | float | None):
        raise InputError(f"value is a text, a number or null, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"value is a finite number, not {value!r}")
    if "at" in given:
        given["at"] = moment(given["at"])
    label = Label(**given)
    check(label)
    if label.prediction is not None:
        id_number(label.prediction)
    return label


def _homes(
    database: Database,
    log: Callable[[str], FeedbackLog],
    said: Sequence[tuple[str | None, Label]],
) -> list[str]:
    """The model of each label. Raises `InputError` where nothing tells."""
    ids = {
        id_number(label.prediction): label.prediction
        for name, label in said
        if name is None and label.prediction is not None
    }
    found: dict[str, str] = {}
    with database.read() as connection:
        query = sa.select(models.c.id, models.c.name)
        known = {row.id: row.name for row in connection.execute(query)}
        if len(known) > 1:
            for row in rows_among(connection, predictions, ("id", "model_id"), "id", ids, None):
                found[ids[row.id]] = known[row.model_id]
            for name in known.values():  # what was moved to the archive
                left = ids.keys() - {id_number(one) for one in found}
                for number in log(name).archive.predictions(connection, left):
                    found[ids[number]] = name
    only = next(iter(known.values())) if len(known) == 1 else None
    homes = []
    for place, (name, label) in enumerate(said, start=1):
        home = name or found.get(label.prediction or "") or only
        if home is None:
            raise InputError(f"record {place} names no model, and its prediction is not known")
        homes.append(home)
    return homes


def _read(path: Path, model: str | None) -> Iterator[tuple[str | None, Label]]:
    """(model, label) of each record."""
    for place, record in enumerate(records_in(path), start=1):
        try:
            yield _label(record, model)
        except InputError as error:
            raise InputError(f"{path.name}, record {place}: {error}") from error


def _label(record: object, model: str | None) -> tuple[str | None, Label]:
    if not isinstance(record, Mapping):
        raise InputError("it is no object of names and values")
    named = record.get("model")
    if not isinstance(named, str | None):
        raise InputError(f"model is a text, not {named!r}")
    said = {name: value for name, value in record.items() if name != "model"}
    return named or model, label_of(said)


def records_in(path: Path) -> Iterator[Any]:
    """What a file holds: JSON values of its lines, those of a list in a .json, or rows of a table.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"there is no file {os.fspath(path)!r}")
    kind = path.suffix.lower()
    if kind in (".csv", ".parquet"):
        yield from _rows(path, kind)
        return
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise InputError(f"{path.name} is not UTF-8: {error}") from error
    if kind == ".json":
        whole = _parsed(text, path.name)
        found = whole.get("labels", [whole]) if isinstance(whole, dict) else whole
        if not isinstance(found, list):
            raise InputError(f"{path.name} holds no list of labels, but {str(found)[:100]!r}")
        yield from found
        return
    for number, line in enumerate(text.split("\n"), start=1):  # U+2028 may stand in a text
        if line.strip():
            yield _parsed(line, f"{path.name}, line {number}")


def _rows(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The rows of a table, without what is missing in them."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    types = dict.fromkeys((*_TEXTS, "model", "at"), pa.string())
    options = csv.ConvertOptions(column_types=types)
    try:
        if kind == ".csv":
            table = csv.read_csv(path, convert_options=options)
        else:
            table = parquet.read_table(path)
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read: {error}") from error
    for row in rows:
        yield {name: value for name, value in row.items() if value not in (None, "")}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no JSON: {error}") from error
