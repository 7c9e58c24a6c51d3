"""Where requests come from: this machine, a page of this server, or elsewhere."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from starlette.types import Scope

from everlearn.base import InputError
from everlearn.registry.keys import Keys
from everlearn.serving.limits import Refused


def check_host(host: str, keys: Keys) -> None:
    """Whether a server may listen there.

    Raises:
        InputError: it is an address that other machines reach, and there is no key.
    """
    if host != "localhost" and not is_loopback(host) and not keys.known().required:
        raise InputError(
            f"host {host} can be reached from other machines, and this workspace has no key: make"
            " one first (everlearn key create --role admin), or listen on 127.0.0.1"
        )


@lru_cache(1024)
def is_loopback(host: str) -> bool:
    """Whether this is an address of the machine for itself.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("10.0.0.1"), is_loopback("x")
    (True, True, False, False)
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def check_local(scope: Scope) -> None:
    """Without keys: only this machine, and no page of another site in its browser, whether it
    says where it comes from or has its own name point here. Raises `Refused`."""
    host, origin = _said(scope)
    name = _name_of(host.decode("latin-1"))
    local = name == "localhost" or is_loopback(name)
    foreign = origin is not None and origin.split(b"://")[-1] != host
    if not is_loopback(address_of(scope) or "") or not local or foreign:
        remedy = "only this machine may call: make a key (everlearn key create)"
        raise Refused(403, f"this workspace has no key, so that {remedy}")


def is_own(scope: Scope) -> bool:
    """Whether a browser says that a page of this server sent a request."""
    host, origin = _said(scope)
    return origin is not None and host != b"" and origin.split(b"://")[-1] == host


def _said(scope: Scope) -> tuple[bytes, bytes | None]:
    """The headers Host and Origin."""
    headers = dict(scope["headers"])
    return headers.get(b"host", b""), headers.get(b"origin")


def _name_of(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def address_of(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None
