"""Parts of states as blobs: safetensors with one JSON header entry, shared by digest.

A manifest lists the parts of a state; parts that did not change since an earlier state keep the
blob they have, so ten thousand versions do not cost ten thousand memories.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import TypedDict

import numpy as np
from safetensors import SafetensorError

from everlearn.base import (
    Array,
    IntegrityError,
    Json,
    Part,
    State,
    canonical_array,
    canonical_json,
)
from everlearn.storage.blobs import Blobs

_REMEMBERED = 100_000
_CONFIRM_SECONDS = 300.0
_HEADER_BYTES = 8
_MALFORMED = (
    SafetensorError,
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)
_NATIVE = frozenset(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"])


class Entry(TypedDict):
    """Where one part is stored.

    Keys:
        digest: of the part's canonical arrays and JSON (SHA-256, see `Part.digest`).
        blob: of the bytes that hold it (BLAKE3, see `Blobs`).
        size: of the blob, in bytes.
    """

    digest: str
    blob: str
    size: int


Manifest = dict[str, Entry]
"""A stored state: part name → entry. JSON."""


class PartStore:
    """Stores states part by part, each once. Safe for several threads.

    Args:
        blobs: where the bytes go.
    """

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self._lock = threading.Lock()
        self._stored: OrderedDict[str, tuple[Entry, float]] = OrderedDict()
        self._matched: dict[str, str] = {}

    def save(self, state: State, *, known: Mapping[str, Entry] | None = None) -> Manifest:
        """Store every part that is not stored yet, and return the manifest of the state.

        When it returns, all blobs are durable. Each part may be released afterwards: it is loaded
        again when it is read.

        Args:
            state: part name → part.
            known: manifest of a version that is kept meanwhile (the base of a job): its blobs are
                taken as given. Parts stored by this object before are confirmed to be there.

        Raises:
            StorageError: the blob store failed. Earlier states are untouched.
        """
        given = {entry["digest"]: entry for entry in (known or {}).values()}
        manifest: Manifest = {}
        for name in sorted(state):
            part = state[name]
            digest = part.digest
            entry = given.get(digest) or self._confirmed(digest)
            if entry is None:
                data = encode_part(part)
                entry = Entry(digest=digest, blob=self.blobs.put(data), size=len(data))
                self._remember(entry)
                self._match(entry)
            manifest[name] = Entry(digest=digest, blob=entry["blob"], size=entry["size"])
            part.stored(partial(self._load, name, manifest[name]))
        return manifest

    def load(self, manifest: Mapping[str, Entry]) -> dict[str, Part]:
        """The parts of a manifest. Each is read, and its two digests checked, when first used.

        Reading a part raises `NotFoundError` if its blob is gone, and `IntegrityError`, naming
        part and blob, if its bytes are not what was stored.
        """
        return {
            name: Part.lazy(entry["digest"], partial(self._load, name, entry))
            for name, entry in manifest.items()
        }

    def _load(self, name: str, entry: Entry) -> Part:
        part = decode_part(self.blobs.get(entry["blob"]), f"part {name!r}, blob {entry['blob']}")
        if self._matched.get(entry["blob"]) == entry["digest"]:  # the same bytes, seen before
            return Part(part.arrays, part.meta, digest=entry["digest"])
        if part.digest != entry["digest"]:
            raise IntegrityError(
                f"part {name!r} in blob {entry['blob']} has digest {part.digest}, "
                f"but its manifest says {entry['digest']}"
            )
        self._match(entry)
        return part

    def _match(self, entry: Entry) -> None:
        """Remember that the bytes of this blob, which are verified whenever they are read, make
        the part of this digest: it need not be computed from them again."""
        if len(self._matched) >= _REMEMBERED:
            self._matched = {}
        self._matched[entry["blob"]] = entry["digest"]

    def _confirmed(self, digest: str) -> Entry | None:
        """Where this object stored the part before, if its blob was not collected since."""
        with self._lock:
            entry, confirmed_at = self._stored.get(digest, (None, 0.0))
        if entry is None or time.monotonic() - confirmed_at < _CONFIRM_SECONDS:
            return entry
        if not self.blobs.touch(entry["blob"]):
            return None
        self._remember(entry)
        return entry

    def _remember(self, entry: Entry) -> None:
        with self._lock:
            self._stored[entry["digest"]] = (entry, time.monotonic())
            self._stored.move_to_end(entry["digest"])
            while len(self._stored) > _REMEMBERED:
                self._stored.popitem(last=False)


def encode_part(part: Part) -> bytes:
    """The one byte string of a part: a safetensors file whose header has one entry, "json".

    The entry holds the part's meta, and dtype and shape of the arrays whose dtype safetensors
    lacks (texts, dates), which are stored as their bytes.

    Raises:
        TypeError: an array of objects, or meta that is not JSON.
    """
    from safetensors.numpy import save

    arrays: dict[str, Array] = {}
    foreign: dict[str, Json] = {}
    for name in sorted(part.arrays):
        original = part.arrays[name]
        array = canonical_array(original)
        if array.dtype.str[1:] not in _NATIVE:
            foreign[name] = [array.dtype.str, list(original.shape)]
            array = array.reshape(-1).view(np.uint8)
        else:
            array = array.reshape(original.shape)
        arrays[name] = array
    head = canonical_json({"meta": part.meta, "foreign": foreign}).decode()
    return save(arrays, metadata={"json": head})


def decode_part(data: bytes, what: str = "a part") -> Part:
    """The inverse of `encode_part`. Offsets and sizes are checked by safetensors.

    The arrays may not be written to (copy them to go on learning): a part that changed in place
    would be stored under the digest that it had before.

    Args:
        data: the bytes of a blob.
        what: how an error names them.

    Raises:
        IntegrityError: these are not the bytes of a part.
    """
    from safetensors.numpy import load

    try:
        arrays: dict[str, Array] = dict(load(data))
        length = int.from_bytes(data[:_HEADER_BYTES], "little")
        header = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + length])
        head = json.loads(header["__metadata__"]["json"])
        for name, (dtype, shape) in head["foreign"].items():
            arrays[name] = arrays[name].view(_plain_dtype(dtype)).reshape(shape)
        for array in arrays.values():
            array.flags.writeable = False
        return Part(arrays, head["meta"])
    except _MALFORMED as error:
        raise IntegrityError(f"{what} is no stored part: {error}") from error


def _plain_dtype(text: str) -> np.dtype[np.generic]:
    dtype = np.dtype(text)
    if dtype.hasobject:
        raise ValueError(f"dtype {text!r} holds objects")
    return dtype
