"""A client of the HTTP API, with nothing but the standard library."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from everlearn.base import (
    ConflictError,
    EverlearnError,
    InputError,
    Json,
    NotFoundError,
    StorageError,
)

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which a request may be sent again."""

ERRORS: dict[int, type[EverlearnError]] = {
    404: NotFoundError,
    409: ConflictError,
    413: InputError,
    415: InputError,
    422: InputError,
}


class Client:
    """Asks a server for predictions, and tells it what was right.

    Args:
        url: of the server, such as ``http://127.0.0.1:8000``.
        key: the secret that `everlearn key create` printed, if the server asks for one.
        timeout: seconds that an answer may take.
        retries: how often a request is sent again that may be; labels may, because each has an
            idempotency key and counts once.
    """

    def __init__(
        self, url: str, key: str | None = None, *, timeout: float = 30.0, retries: int = 4
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"{url!r} is no address of a server: use http://host:port")
        self._url, self._key = url.rstrip("/"), key
        self._timeout, self._retries = timeout, retries

    def predict(
        self,
        model: str,
        instances: Sequence[Mapping[str, Any]],
        *,
        keys: Sequence[str | None] | None = None,
        ids: Sequence[str | None] | None = None,
        propensities: Sequence[float | None] | None = None,
        log: bool = True,
    ) -> list[Json]:
        """What the model answers for rows: ``{"id", "output", "version", "arm"}`` of each.

        It is sent once: sent twice, it would be logged twice.

        Args:
            keys: the entity of each row.
            ids: the caller's own id of each row.
            propensities: the chance with which each row was chosen to be acted upon, above 0.
            log: keep the answers, where labels can judge them; else their "id" is None.
        """
        body: dict[str, Any] = {"instances": list(instances)}
        given = {"keys": keys, "ids": ids, "propensities": propensities}
        body |= {name: list(values) for name, values in given.items() if values is not None}
        if not log:
            body["log"] = False
        found: list[Json] = self._call("POST", model, "predict", body, not log)["predictions"]
        return found

    def feedback(self, model: str, labels: Sequence[Mapping[str, Any]]) -> list[Json]:
        """Say what was right; when this returns, it is durable.

        Args:
            labels: ``{"prediction_id" or "external_id", "value", "kind"?, "source"?, "at"?,
                "selection"?, "weight"?, "reviewer"?, "idempotency_key"?}`` of each; "selection" is
                the chance with which a random audit chose the row.
        """
        made = [{"idempotency_key": uuid.uuid4().hex} | dict(label) for label in labels]
        found: list[Json] = self._call("POST", model, "feedback", {"labels": made}, True)["labels"]
        return found

    def model(self, model: str) -> Json:
        """What serves now, and how far it has learned."""
        return self._call("GET", model, "", None, True)

    def versions(self, model: str) -> list[Json]:
        """All versions."""
        found: list[Json] = self._call("GET", model, "versions", None, True)["versions"]
        return found

    def promote(self, model: str, version: int, *, expected: int | None) -> Json:
        """Make a version champion, if `expected` is champion still. Raises `ConflictError`."""
        return self._call("POST", model, "promote", {"version": version, "expected": expected})

    def refuse(self, model: str, version: int | None = None, reason: str | None = None) -> Json:
        """Have a candidate that catches up with what is learned online do so no more. Raises
        `ConflictError`: none does, or another one."""
        return self._call("POST", model, "refuse", {"version": version, "reason": reason})

    def rollback(self, model: str, to: int | None = None) -> Json:
        """Go back to an earlier champion; the one before, unless said."""
        return self._call("POST", model, "rollback", {"to": to})

    def erase(self, model: str, key: str) -> Json:
        """Erase the data of one key; the versions that learned from it are listed."""
        return self._call("POST", model, "erase", {"key": key})

    def patch(
        self, model: str, edits: Sequence[Json], *, way: str = "auto", dry_run: bool = False
    ) -> Json:
        """Put single answers of the champion right: ``{"features", "output", "reason"}`` of each.
        Raises `InputError`: they contradict each other, or cannot be."""
        body = {"edits": list(edits), "way": way, "dry_run": dry_run}
        return self._call("POST", model, "patches", body)

    def edits(self, model: str) -> list[Json]:
        """All edits, and what became of each."""
        found: list[Json] = self._call("GET", model, "edits", None, True)["edits"]
        return found

    def revoke_edit(self, model: str, number: int) -> Json:
        """Take an edit back; the others are solved again."""
        return self._call("POST", model, f"edits/{int(number)}/revoke", {})

    def excise(self, model: str, **asked: Json) -> Json:
        """Withdraw rows, and queue a job that folds without them what the champion learned.

        Args:
            asked: one of `where`, `rows`, `key` and `induced_by`; `reason`, `author`, `dry_run`.
        """
        return self._call("POST", model, "excisions", asked)

    def bisect(
        self, model: str, *, good: int, bad: int, metric: str, on: Sequence[Json] | None = None
    ) -> Json:
        """Have the version found that made a model worse; see `bisection` for how far that is.

        Args:
            on: rows to judge on, each with its target; those held out unless given.
        """
        body = {"good": good, "bad": bad, "metric": metric, "on": None if on is None else list(on)}
        return self._call("POST", model, "bisections", body)

    def bisection(self, model: str, number: int) -> Json:
        """A bisection: its state, what was measured, and its report."""
        return self._call("GET", model, f"bisections/{int(number)}", None, True)

    def _call(self, method: str, model: str, what: str, body: Json, again: bool = False) -> Json:
        path = "/".join(part for part in (quote(model, safe=""), what) if part)
        request = urllib.request.Request(f"{self._url}/v1/models/{path}", method=method)
        if body is not None:
            try:
                request.data = json.dumps(body, allow_nan=False).encode()
            except ValueError as error:
                raise InputError(f"NaN and infinity are no JSON: use None ({error})") from error
            request.add_header("Content-Type", "application/json")
        if self._key is not None:
            # not sent on to where a redirection points
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        for turn in range(self._retries + 1):
            wait = 0.1 * 2**turn * random.uniform(0.5, 1.0)
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                failure = _failure(error)
                if error.code not in AGAIN or not again or turn == self._retries:
                    raise failure from None
                said = error.headers.get("Retry-After") or ""  # a proxy may say a date
                wait = max(wait, float(said) if said.isdigit() else 0.0)
            except (OSError, HTTPException) as error:
                if not again or turn == self._retries:
                    raise StorageError(f"{self._url} does not answer: {error}") from error
            time.sleep(wait)
        raise AssertionError("the last turn returns or raises")


def _failure(error: urllib.error.HTTPError) -> EverlearnError:
    with error:
        text = error.read(10_000).decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        text = json.loads(text)["error"]
    kind = ERRORS.get(error.code, StorageError if error.code >= 500 else EverlearnError)
    return kind(f"{error.code}: {text}")
