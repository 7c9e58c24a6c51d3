"""A client on this machine: without keys, the API answers no other."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient


class LocalClient(TestClient):
    """Calls an application from a loopback address, by a loopback name."""

    def __init__(self, app: Any, address: str = "127.0.0.1", **more: Any) -> None:
        more.setdefault("base_url", "http://127.0.0.1:8000")
        super().__init__(app, client=(address, 50_000), **more)
