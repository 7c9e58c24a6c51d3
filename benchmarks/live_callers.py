"""Callers of a server that may be killed: they ask, label, say it again, and remember what was
acknowledged."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np

from everlearn.base import Json

PAUSE = 0.01
"""Seconds between two requests of a caller."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was acknowledged.

    Args:
        id, output: as they were given; the output has its value and its probabilities.
        x: what was asked.
        version, arm, position: who answered, and the last label that it had learned.
        own: the caller's own id, if it gave one.
    """

    id: str
    output: Json
    x: float
    version: int
    arm: str
    position: int | None
    own: str | None


@dataclass(slots=True)
class Said:
    """A label that was acknowledged.

    Args:
        body: as it was sent.
        position: in the log; None while it waits for its prediction.
    """

    body: Json
    position: int | None


@dataclass
class Memory:
    """What one caller knows of the events that it sent.

    Args:
        answers: acknowledged predictions, by id.
        said: acknowledged labels, by idempotency key.
        doubtful: labels whose acknowledgement never came, by idempotency key, until they are sent
            again.
        unheard: rows that were asked, and of which no answer came.
        twice: acknowledged labels that were sent again, and acknowledged again.
        unasked: own ids that were labelled before they were asked.
        refused: answers of a server that could not serve (503), after which it was tried again.
        violations: what an answer contradicted.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    said: dict[str, Said] = field(default_factory=dict)
    doubtful: dict[str, Json] = field(default_factory=dict)
    unheard: int = 0
    twice: int = 0
    unasked: list[str] = field(default_factory=list)
    refused: int = 0
    violations: list[str] = field(default_factory=list)


class Caller:
    """One caller of one model, over the lives of many servers.

    Args:
        name: of the caller; part of its ids.
        model: that it asks.
        seed: of what it does.
    """

    def __init__(self, name: str, model: str, seed: int) -> None:
        self.name, self.model, self.memory = name, model, Memory()
        self._random = np.random.default_rng(seed)
        self._numbers = 0
        self._unlabelled: list[Answer] = []
        self._asked_again: list[tuple[list[float], list[str]]] = []

    def begin(self, client: httpx2.Client) -> threading.Thread:
        """Go on calling, in a thread, until the server is gone."""
        thread = threading.Thread(target=self._run, args=[client], daemon=True)
        thread.start()
        return thread

    def _run(self, client: httpx2.Client) -> None:
        try:
            self.send_again(client)
            while True:
                self._turn(client)
                time.sleep(PAUSE)
        except httpx2.TransportError:
            return
        except Exception as error:
            self.memory.violations.append(f"{self.name}: {error!r}")

    def _turn(self, client: httpx2.Client) -> None:
        what = self._random.random()
        if what < 0.45 or len(self._unlabelled) < 5:
            x = self._random.normal(size=int(self._random.integers(1, 20))).tolist()
            own = [self._next("row") for _ in x] if self._random.random() < 0.3 else None
            self._ask(client, x, own)
        elif what < 0.50:
            self._label_first(client)
        elif what < 0.60 and self.memory.said:
            self._say_again(client)
        elif what < 0.63 and self.memory.said:
            self._correct(client)
        else:
            self._label(client)

    def _ask(self, client: httpx2.Client, x: list[float], own: list[str] | None) -> None:
        body: dict[str, Any] = {"instances": [{"x": value} for value in x]}
        body["keys"] = [f"user {n}" for n in self._random.integers(0, 5000, len(x))]
        if own is not None:
            body["ids"] = own
        try:
            given = self._post(client, "predict", body)
        except httpx2.TransportError:
            self.memory.unheard += len(x)
            if own is not None:
                self._asked_again.append((x, own))
            raise
        if given is None:  # asked before, and logged though no answer came
            return
        for place, item in enumerate(given["predictions"]):
            output = {"value": item["output"], "probabilities": item["probabilities"]}
            answer = Answer(
                item["id"],
                output,
                x[place],
                item["version"],
                item["arm"],
                item.get("position"),
                None if own is None else own[place],
            )
            if answer.id in self.memory.answers:
                self.memory.violations.append(f"{self.name}: the id {answer.id} was given twice")
            self.memory.answers[answer.id] = answer
            self._unlabelled.append(answer)

    def _label(self, client: httpx2.Client) -> None:
        """Labels of answers that were given some time ago."""
        count = int(self._random.integers(1, 20))
        taken = [self._take() for _ in range(min(count, len(self._unlabelled)))]
        self._say(client, [self._body(answer, int(answer.x > 0)) for answer in taken])

    def _take(self) -> Answer:
        return self._unlabelled.pop(int(self._random.integers(len(self._unlabelled))))

    def _body(self, answer: Answer, value: int) -> Json:
        named = {"prediction_id": answer.id}
        if answer.own is not None and self._random.random() < 0.5:
            named = {"external_id": answer.own}
        return named | {"value": value, "idempotency_key": self._next("label")}

    def _label_first(self, client: httpx2.Client) -> None:
        """A label whose prediction comes later."""
        own = self._next("late")
        self.memory.unasked.append(own)
        said = {"external_id": own, "value": 1, "idempotency_key": self._next("label")}
        self._say(client, [said])
        self._ask(client, [1.0], [own])
        self.memory.unasked.remove(own)

    def _say_again(self, client: httpx2.Client) -> None:
        """What was acknowledged before, in another order."""
        keys = list(self.memory.said)
        chosen = self._random.choice(len(keys), min(20, len(keys)), replace=False)
        self._say(client, [self.memory.said[keys[place]].body for place in chosen])

    def _correct(self, client: httpx2.Client) -> None:
        keys = list(self.memory.said)
        before = self.memory.said[keys[int(self._random.integers(len(keys)))]].body
        changed = {"value": 1 - before["value"], "idempotency_key": self._next("label")}
        self._say(client, [before | changed])

    def _say(self, client: httpx2.Client, bodies: list[Json]) -> None:
        memory = self.memory
        new = {body["idempotency_key"]: body for body in bodies}
        memory.doubtful |= {key: body for key, body in new.items() if key not in memory.said}
        given = self._post(client, "feedback", {"labels": bodies})
        assert given is not None
        for key, receipt in zip(new, given["labels"], strict=True):
            memory.doubtful.pop(key, None)
            before = memory.said.get(key)
            if before is None:
                memory.said[key] = Said(new[key], receipt["position"])
                continue
            memory.twice += 1
            if receipt["state"] != "known" or before.position not in (None, receipt["position"]):
                memory.violations.append(f"{self.name}: {key} was {before}, and is {receipt}")

    def send_again(self, client: httpx2.Client) -> None:
        """What nobody acknowledged before the server was killed."""
        for late in self.memory.unasked:
            if all(late not in names for _, names in self._asked_again):
                self._asked_again.append(([1.0], [late]))
        self.memory.unasked.clear()
        waiting, self._asked_again = self._asked_again, []
        while waiting:
            x, own = waiting[-1]
            try:
                self._ask(client, x, own)
            except httpx2.TransportError:
                self._asked_again += waiting[:-1]
                raise
            waiting.pop()
        if self.memory.doubtful:
            self._say(client, list(self.memory.doubtful.values()))

    def _post(self, client: httpx2.Client, path: str, body: Json) -> Any:
        """The answer; None where a prediction of this id is logged already."""
        while True:
            answer = client.post(f"/v1/models/{self.model}/{path}", json=body)
            if answer.status_code == 503:
                self.memory.refused += 1
                time.sleep(0.05)
                continue
            if answer.status_code == 409 and path == "predict":
                return None
            assert answer.status_code == 200, answer.text
            return answer.json()

    def _next(self, kind: str) -> str:
        self._numbers += 1
        return f"{self.name} {kind} {self._numbers}"
