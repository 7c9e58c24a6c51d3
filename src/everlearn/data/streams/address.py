"""Addresses of streams: URLs, which may hold secrets, and the names that they have without them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from everlearn.base import InputError

GROUP = "everlearn"
"""Under which a stream is read, unless its URL says ``group=``."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a stream is.

    Args:
        scheme: "kafka", "nats" or "mqtt".
        hosts: host:port, or several after commas.
        parts: of the path.
        group: one stream can be read from its start again under another one.
        options: of the client, by their names.
        user, password: None if there are none.
    """

    scheme: str
    hosts: str
    parts: tuple[str, ...]
    group: str
    options: dict[str, str]
    user: str | None = None
    password: str | None = None

    @classmethod
    def of(cls, url: str) -> Address:
        """The address that a URL says. Raises `InputError` if it says none."""
        parsed = urlsplit(url)
        login, _, hosts = parsed.netloc.rpartition("@")
        user, colon, password = login.partition(":")
        if not parsed.scheme or not hosts or "#" in url:
            shown = url.partition("?")[0].rpartition("@")[2]  # without what may be secret
            raise InputError(f"{shown!r} is no address of a stream; {FORMS}")
        try:
            pairs = parse_qsl(parsed.query, keep_blank_values=True, strict_parsing=True)
        except ValueError:
            pairs = []
        options = dict(pairs)
        return cls(
            scheme=parsed.scheme,
            hosts=hosts,
            parts=tuple(unquote(part) for part in parsed.path.strip("/").split("/") if part),
            group=options.pop("group", GROUP),
            options=options,
            user=unquote(user) if login else None,
            password=unquote(password) if colon else None,
        )

    @property
    def name(self) -> str:
        """The URL without secrets and options of the client."""
        return f"{self.scheme}://{self.hosts}/{'/'.join(self.parts)}?group={self.group}"

    @property
    def source(self) -> str:
        """Of labels that name none: the kind of stream and its path."""
        return f"{self.scheme}:{('/' if self.scheme == 'mqtt' else ':').join(self.parts)}"

    def path(self, *names: str) -> tuple[str, ...]:
        """The parts of the path, one for each name. Raises `InputError` if there are others."""
        if len(self.parts) != len(names):
            raise InputError(
                f"{self.name!r} should name, after the host, its {' and its '.join(names)}"
            )
        return self.parts


FORMS = (
    "use kafka://host:port/topic, nats://host:port/stream/subject or mqtt://host:port/topic, and "
    "?group=NAME to read it from its start again; in names, # is written %23"
)
