"""People who work the review queue: claims that expire, answers that become labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import ConflictError, InputError, Json, NotFoundError
from everlearn.data.feedback import Label, Receipt, id_text
from everlearn.data.log import FeedbackLog
from everlearn.data.review import CLAIMED, DONE, DROPPED, SKIPPED, WAITING, Review, lock
from everlearn.storage.schema import predictions, review_items

SOURCE = "review"
"""Source of the labels that are made here."""

PAGE = 200

Claims = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Item:
    """A prediction in the queue.

    Args:
        id: of the item.
        prediction: id of the prediction, as it was answered.
        why: "uncertain", "disagreement", or "random" where it was chosen whatever was answered.
        selection: the chance with which it was chosen.
        state: "waiting", "claimed", "done" or "skipped".
        wanted: how many reviewers.
        claims: reviewer → {"until"}, {"answered"} or {"skipped"}, in microseconds.
        features, output, version, key, at: of the prediction.
    """

    id: int
    prediction: str
    why: str
    selection: float
    state: str
    wanted: int
    claims: Mapping[str, Mapping[str, int]]
    features: Json
    output: Json
    version: int
    key: str | None
    at: int

    def to_json(self) -> Json:
        return {name: getattr(self, name) for name in self.__slots__}


class Reviewers:
    """The queue of one model, as those see it who answer.

    Nobody is given what as many others as are wanted have taken or answered. A claim ends when it
    expires; an answer that comes later still counts, if no other took the prediction meanwhile.

    Args:
        log: of the model, which takes the labels.
        review: for how long a claim lasts.
    """

    def __init__(self, log: FeedbackLog, review: Review | None) -> None:
        self._log, self._database, self._model = log, log.database, log.model
        minutes = (review or Review()).claim_minutes
        self._claim = round(minutes * 60_000_000)

    def counts(self) -> dict[str, int]:
        """How many items are in each state."""
        table = review_items.c
        query = sa.select(table.state, sa.func.count()).where(table.model_id == self._model)
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(table.state)).all()
        found = {state: int(count) for state, count in rows}
        return {state: found.get(state, 0) for state in (WAITING, CLAIMED, DONE, SKIPPED)}

    def next(self, reviewer: str, limit: int = 1, at: int | None = None) -> list[Item]:
        """What a reviewer may take, the first first; what he has is among it. Claims nothing."""
        at = self._database.clock() if at is None else at
        with self._database.read() as connection:
            return self._free(connection, reviewer, limit, at)

    def show(self, number: int) -> Item:
        """One item, whoever has it. Raises `NotFoundError`."""
        with self._database.read() as connection:
            return self._item(connection, number)

    def claim(self, reviewer: str, number: int | None = None, at: int | None = None) -> Item | None:
        """Give an item to a reviewer, until the claim expires; claimed again, that is later.

        Args:
            number: of the item; the next one unless given.
            at: microseconds since 1970 UTC; now unless given.

        Returns:
            The item; None where there is no next one.

        Raises:
            NotFoundError: there is no such item.
            ConflictError: others have it, or he answered or skipped it.
        """
        at = self._database.clock() if at is None else at
        with self._locked() as connection:
            if number is None:
                found = self._free(connection, reviewer, 1, at)
                if not found:
                    return None
                number = found[0].id
            item = self._open(connection, reviewer, number, at)
            self._keep(connection, item, reviewer, {"until": at + self._claim})
            return self._item(connection, number)

    def answer(
        self,
        reviewer: str,
        number: int,
        value: Json,
        at: int | None = None,
        source: str = SOURCE,
    ) -> Receipt:
        """Log what a reviewer says as a label of the kind "human". Answered again, the last counts.

        Raises:
            InputError: the value is null.
            NotFoundError, ConflictError: as `claim`.
        """
        if value is None:
            raise InputError("an answer is a value of the target; skip what cannot be answered")
        at = self._database.clock() if at is None else at
        with self._locked() as connection:
            item = self._item(connection, number)
            if "answered" not in item.claims.get(reviewer, {}):
                item = self._open(connection, reviewer, number, at)
            label = Label(
                value,
                item.prediction,
                kind="human",
                source=source,
                reviewer=reviewer,
                selection=item.selection,
                at=at,
            )
            (receipt,) = self._log.append_labels([label], connection)
            self._keep(connection, item, reviewer, {"answered": at})
            return receipt

    def skip(self, reviewer: str, number: int, at: int | None = None) -> Item:
        """Not be given an item again. Skipped by as many as are wanted, it is given to nobody.

        Raises:
            NotFoundError, ConflictError: as `claim`.
        """
        at = self._database.clock() if at is None else at
        with self._locked() as connection:
            item = self._open(connection, reviewer, number, at)
            self._keep(connection, item, reviewer, {"skipped": at})
            return self._item(connection, number)

    def release(self, reviewer: str, number: int) -> Item:
        """End the claim of a reviewer: others may take the item, and so may he again.

        Raises:
            NotFoundError: there is no such item.
            ConflictError: he has no claim on it.
        """
        with self._locked() as connection:
            item = self._item(connection, number)
            if "until" not in item.claims.get(reviewer, {}):
                raise ConflictError(f"{reviewer!r} has not taken item {number}")
            claims = {name: said for name, said in item.claims.items() if name != reviewer}
            self._store(connection, item, claims)
            return self._item(connection, number)

    # --- inside ---

    def _free(self, connection: Connection, reviewer: str, limit: int, at: int) -> list[Item]:
        table, start = review_items.c, 0
        found: list[Item] = []
        query = self._query().where(table.state.in_((WAITING, CLAIMED)))
        query = query.order_by(table.priority.desc(), table.id)
        while len(found) < limit:
            rows = connection.execute(query.limit(PAGE).offset(start)).mappings().all()
            found += [_item(row) for row in rows if is_free(row, reviewer, at)]
            start += PAGE
            if len(rows) < PAGE:
                break
        return found[:limit]

    def _open(self, connection: Connection, reviewer: str, number: int, at: int) -> Item:
        """An item that this reviewer may work on."""
        item = self._item(connection, number)
        said = item.claims.get(reviewer, {})
        for verb in ("answered", "skipped"):
            if verb in said:
                raise ConflictError(f"{reviewer!r} has {verb} item {number} already")
        if item.state not in (WAITING, CLAIMED):
            raise ConflictError(f"item {number} is {item.state}")
        if others(item.claims, reviewer, at) >= item.wanted:
            raise ConflictError(f"item {number} is with another reviewer: take the next one")
        return item

    def _keep(
        self, connection: Connection, item: Item, reviewer: str, said: Mapping[str, int]
    ) -> None:
        self._store(connection, item, {**item.claims, reviewer: said})

    def _store(self, connection: Connection, item: Item, claims: Claims) -> None:
        verbs = Counter(verb for one in claims.values() for verb in one)
        state = CLAIMED if claims else WAITING
        if verbs["answered"] >= item.wanted:
            state = DONE
        elif verbs["skipped"] >= item.wanted:
            state = SKIPPED
        update = sa.update(review_items).where(review_items.c.id == item.id)
        connection.execute(update.values(claims=claims, state=state))

    def _item(self, connection: Connection, number: int) -> Item:
        table = review_items.c
        query = self._query().where(table.id == number, table.state != DROPPED)
        row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFoundError(f"there is no item {number} in the review queue of this model")
        return _item(row)

    def _query(self) -> sa.Select[Any]:
        table, asked = review_items.c, predictions.c
        return (
            sa.select(
                table.id,
                table.prediction_id,
                table.why,
                table.selection,
                table.state,
                table.wanted,
                table.claims,
                asked.features,
                asked.output,
                asked.version,
                asked.key,
                asked.at,
            )
            .join(predictions, asked.id == table.prediction_id)
            .where(table.model_id == self._model)
        )

    @contextmanager
    def _locked(self) -> Iterator[Connection]:
        with self._database.write() as connection:
            lock(self._log, connection)
            yield connection


def others(claims: Claims, reviewer: str, at: int) -> int:
    """How many others have answered, or have a claim that holds at a moment."""
    return sum(
        "answered" in said or said.get("until", 0) > at
        for name, said in claims.items()
        if name != reviewer
    )


def is_free(row: Any, reviewer: str, at: int) -> bool:
    """Whether a reviewer may take an item."""
    mine = row["claims"].get(reviewer, {})
    if "answered" in mine or "skipped" in mine:
        return False
    return others(row["claims"], reviewer, at) < int(row["wanted"])


def _item(row: Any) -> Item:
    said = dict(row)
    prediction = id_text(said.pop("prediction_id"))
    features, output = json.loads(said.pop("features")), json.loads(said.pop("output"))
    return Item(prediction=prediction, features=features, output=output, **said)
