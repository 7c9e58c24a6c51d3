"""What happens to models, in the process's log: one line for each event, with its ids."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime

from everlearn.base import EverlearnError, Json
from everlearn.serving.events import Cursor, Event, Events

_log = logging.getLogger("everlearn.events")

EXTRA = "ids"
"""Attribute of a log record that holds the ids of what it is about."""

FORMATS = ("text", "json")


class Journal:
    """A thread that logs the events of a server's models, as `/v1/models/{m}/events` tells them.

    Every replica logs them all, so each line says which process wrote it.

    Args:
        events: of the workspace.
        models: name → its id in the database.
        pause: seconds between looks.
    """

    def __init__(self, events: Events, models: Mapping[str, int], pause: float = 1.0) -> None:
        self._events, self._models, self._pause = events, models, pause
        self._told: dict[str, dict[int, Json]] = {name: {} for name in models}
        self._cursors: dict[str, Cursor] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="everlearn-journal", daemon=True)

    def start(self) -> None:
        """Begin behind what has happened."""
        for name, key in self._models.items():
            cursor = self._cursors[name] = self._events.begin(key, None)
            self._events.read(key, cursor, self._told[name])  # jobs that ended a moment ago
        self._thread.start()

    def stop(self) -> None:
        """Log what is new, and end."""
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Log what is new."""
        for name, key in self._models.items():
            for event in self._events.read(key, self._cursors[name], self._told[name]):
                self._cursors[name] = event.cursor
                level, text, ids = told(name, event)
                _log.log(level, "%s", text, extra={EXTRA: ids})

    def _run(self) -> None:
        last = False
        while not last:
            last = self._stop.wait(self._pause)
            try:
                self.look()
            except EverlearnError as error:
                _log.warning("events are told later: %s", error)


def told(model: str, event: Event) -> tuple[int, str, Json]:
    """(level, text, ids) of an event."""
    data, ids = event.data, {"model": model, "event": event.kind}
    if event.kind == "alias":
        ids |= {"alias": data["name"], "version": data["version_to"]}
        text = f"{data['action']}: {data['name']} is version {data['version_to']}: {data['reason']}"
        return logging.INFO, f"{model}: {text}", ids
    if event.kind == "job":
        ids |= {"job": data["id"], "version": data["version"], "state": data["state"]}
        why = data["error"] or (data["decision"] or {}).get("reason", "")
        level = logging.ERROR if data["state"] in ("failed", "dead") else logging.INFO
        return level, f"{model}: job {data['id']} is {data['state']}{why and ': ' + why}", ids
    if event.kind == "trigger":
        ids |= {"trigger": data["name"], "job": data["job_id"]}
        level = logging.INFO if data["action"] == "learn" else logging.DEBUG
        return level, f"{model}: {data['name']}: {data['action']}: {data['reason']}", ids
    ids |= {"rollout": data["rollout_id"], "stage": data["stage"]}
    level = logging.DEBUG if data["action"] == "hold" else logging.INFO
    text = f"rollout {data['rollout_id']}: {data['action']}: {data['reason']}"
    return level, f"{model}: {text}", ids


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: ``{"at", "level", "logger", "process", "message"}``, with the
    ids of what it is about, and with the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **getattr(record, EXTRA, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_as(form: str, level: str) -> None:
    """Write this process's log to its standard error.

    Args:
        form: "text" or "json".
        level: "debug", "info", "warning" or "error".
    """
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    for name in ("everlearn", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level.upper() if name == "everlearn" else logging.WARNING)
