"""A version as one file: a zip archive of ``version.json`` and of the parts of its state.

    version.json            definition, lineage, increments, metrics, manifests, decision
    blobs/<digest>          one safetensors file per part, stored without compression

Nothing in the archive is unpacked to disk under a name of its own, nothing is executed, and every
part is checked against its digests before anything is stored.
"""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path

import sqlalchemy as sa

from everlearn.base import (
    ConflictError,
    Decision,
    InputError,
    IntegrityError,
    Json,
    Model,
    NotFoundError,
    Part,
    SpecError,
    StorageError,
    under,
)
from everlearn.registry import definitions, edits, lineage, models, versions
from everlearn.registry.audit import note
from everlearn.registry.config import from_config
from everlearn.registry.references import check_untrusted
from everlearn.registry.versions import Increment
from everlearn.storage.blobs import check_digest, verify
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore, decode_part
from everlearn.strategies.patch import Patch

FORMAT = "everlearn version"
REVISION = 1
RECORD = "version.json"
MAX_RECORD = 256 << 20
"""Bytes of the largest ``version.json`` that is read."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def export(
    database: Database,
    parts: PartStore,
    model: str,
    number: int,
    path: str | os.PathLike[str],
) -> Path:
    """Write a version to one file, from which `import_` makes a version that goes on learning.

    The file is complete or not there. The same version gives the same bytes.

    Args:
        path: the file to write; an existing one is replaced.

    Returns:
        The path of the file.

    Raises:
        NotFoundError: there is no such version, or its state was removed.
        IntegrityError: a blob is damaged.
        StorageError: the file cannot be written.
    """
    target = Path(path)
    with database.read() as connection:
        record = _record(connection, model, number)
    with _replacing(target) as temporary, zipfile.ZipFile(temporary, "x") as archive:
        _write(archive, RECORD, json.dumps(record, indent=1, allow_nan=False).encode())
        for digest in sorted(_blobs(record)):
            _write(archive, f"blobs/{digest}", parts.blobs.get(digest))
    return target


def import_(
    database: Database,
    parts: PartStore,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    trust: bool = False,
) -> tuple[str, int]:
    """Add the version in a file to this workspace. No alias is moved: it serves once promoted.

    Args:
        path: what `export` wrote.
        name: the model to add it to; the one that it was exported from unless given.
        trust: accept a definition that needs classes of other packages than everlearn and
            scikit-learn, or of its own spec file: loading it will execute their code.

    Returns:
        (model, number of the new version)

    Raises:
        InputError: the file is no exported version, or was made by a newer release.
        IntegrityError: a part is damaged; nothing was added.
        SpecError: the definition needs code that is not trusted, or cannot be rebuilt.
        ConflictError: the workspace has a model of this name with another definition, or with
            another edit of the same number.
    """
    file = Path(path)
    with _reading(file) as archive:
        record = _read_record(archive, file)
        model = _check_definition(record, name, trust)
        patch: dict[str, Part] = {}
        for part, entry in _entries(record):
            found = _check_part(_read_blob(archive, entry["blob"]), part, entry, trust)
            if part.startswith("patch/"):
                patch[part] = found
        patched = Patch.load(under("patch", patch))
        asked = () if patched is None else patched.edits
        for digest in sorted(_blobs(record)):
            parts.blobs.put(_read_blob(archive, digest))
    with database.write() as connection:
        number = _add(connection, model, record)
        edits.adopt(connection, model, asked, database.clock())
        note(connection, "import version", model, {"version": number, "trust": trust})
        return model, number


def read_state(path: str | os.PathLike[str]) -> dict[str, Part]:
    """The state of the version in a file, checked and in memory: what `Pretrained` starts from.

    Raises:
        NotFoundError: there is no such file.
        InputError: the file is no exported version, or was made by a newer release.
        IntegrityError: a part is damaged.
        SpecError: the memory in the state is of a class of another package.
    """
    file = Path(path)
    with _reading(file) as archive:
        manifest = _read_record(archive, file)["manifest"]
        return {
            name: _check_part(_read_blob(archive, entry["blob"]), name, entry, trust=False)
            for name, entry in manifest.items()
        }


# --- writing -----------------------------------------------------------------------------------


def _record(connection: sa.Connection, model: str, number: int) -> dict[str, Json]:
    versions.check_exists(connection, model, number, whole=True)
    version = versions.get(connection, model, number)
    definition = definitions.definition(connection, model, version.definition)
    history = lineage.learned(connection, model, number)
    return {
        "format": FORMAT,
        "revision": REVISION,
        "model": model,
        "number": number,
        "lineage": lineage.lineage(connection, model, number),
        "definition": {"config": definition.config, "source": definition.source},
        "strategy": version.strategy,
        "state_digest": version.state_digest,
        "manifest": version.manifest,
        "holdouts": version.holdouts,
        "metrics": models.plain(version.metrics),
        "environment": version.environment,
        "decision": models.plain(version.decision.to_json()),
        "created_at": version.created_at,
        "increments": [
            {item.name: getattr(one, item.name) for item in fields(one)} for _, one in history
        ],
    }


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    with archive.open(entry, "w", force_zip64=len(data) > 1 << 30) as stream:
        stream.write(data)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary file beside the target, made durable and renamed to it if all goes well."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(error.errno, f"{target} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


# --- reading -----------------------------------------------------------------------------------


@contextmanager
def _reading(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as archive:
            _check_names(archive, file)
            yield archive
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {str(file)!r}") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise InputError(f"{file} is no exported version, or is damaged: {error}") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(error.errno, f"{file} cannot be read: {error.strerror}") from error


def _check_names(archive: zipfile.ZipFile, file: Path) -> None:
    """Refuse any entry that `export` does not write: other names, compressed, encrypted, twice."""
    seen: set[str] = set()
    for entry in archive.infolist():
        folder, _, digest = entry.filename.partition("/")
        known = entry.filename == RECORD or (folder == "blobs" and _is_digest(digest))
        plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 0x1
        if not known or not plain or entry.filename in seen:
            raise InputError(
                f"{file} is no exported version: it has the entry {entry.filename[:100]!r}"
                f" ({'compressed, encrypted or twice' if known else 'of an unknown name'})"
            )
        if entry.file_size != entry.compress_size:
            raise InputError(f"{file}: the entry {entry.filename!r} has two different sizes")
        seen.add(entry.filename)
    if RECORD not in seen:
        raise InputError(f"{file} is no exported version: it has no {RECORD}")


def _is_digest(text: str) -> bool:
    try:
        check_digest(text)
    except InputError:
        return False
    return True


def _read_record(archive: zipfile.ZipFile, file: Path) -> dict[str, Json]:
    if archive.getinfo(RECORD).file_size > MAX_RECORD:
        raise InputError(f"{file}: {RECORD} is larger than {MAX_RECORD} bytes")
    try:
        record = json.loads(archive.read(RECORD))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: {RECORD} is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{file} is no exported version: its {RECORD} does not say {FORMAT!r}")
    if record.get("revision") != REVISION:
        raise InputError(
            f"{file} has revision {record.get('revision')!r} of the format, and this release knows"
            f" {REVISION}; upgrade everlearn to import it"
        )
    _check_fields(record, file)
    return record


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "definition": dict,
    "strategy": (dict, type(None)),
    "state_digest": str,
    "manifest": dict,
    "holdouts": dict,
    "metrics": dict,
    "environment": dict,
    "decision": dict,
    "created_at": int,
    "increments": list,
    "lineage": list,
    "number": int,
}


def _check_fields(record: Mapping[str, Json], file: Path) -> None:
    for name, kind in _FIELDS.items():
        if not isinstance(record.get(name), kind):
            raise InputError(f"{file}: {RECORD} has no proper {name!r}")
    for name, entry in _entries(record):
        right = isinstance(entry, dict) and set(entry) == {"digest", "blob", "size"}
        if not right or not _is_digest(str(entry["blob"])):
            raise InputError(f"{file}: the entry of the part {name!r} is malformed")
    config = record["definition"].get("config")
    if not isinstance(config, dict) or not isinstance(config.get("params"), dict):
        raise InputError(f"{file}: the definition is malformed")
    try:
        _increments(record)
        Decision.from_json(record["decision"])
    except (TypeError, KeyError) as error:
        raise InputError(f"{file}: an increment or the decision is malformed: {error}") from error


def _check_definition(record: Mapping[str, Json], name: str | None, trust: bool) -> str:
    """The name of the model to add to, once its definition is known to be safe and complete."""
    definition = record["definition"]
    if not trust:
        check_untrusted(definition["config"])
        check_untrusted(record["strategy"])
    if name is not None:
        definition["config"]["params"]["name"] = name
    model = from_config(definition["config"], definition.get("source"))
    if not isinstance(model, Model):
        raise SpecError(f"the definition is of a {type(model).__name__}, not of a Model")
    return model.name


def _read_blob(archive: zipfile.ZipFile, digest: str) -> bytes:
    try:
        data = archive.read(f"blobs/{digest}")
    except KeyError:
        raise InputError(f"the archive lacks the blob {digest}") from None
    except zipfile.BadZipFile as error:
        raise IntegrityError(f"the blob {digest} in the archive is damaged: {error}") from error
    verify(data, digest, "the archive")
    return data


def _check_part(data: bytes, name: str, entry: Mapping[str, Json], trust: bool) -> Part:
    part = decode_part(data, f"the part {name!r}")
    if part.digest != entry["digest"] or len(data) != entry["size"]:
        raise IntegrityError(f"the part {name!r} is not the one that its manifest names")
    if not trust and name.rpartition("/")[2] == "definition":
        check_untrusted(part.meta)
    return part


def _entries(record: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    for manifest in (record["manifest"], record["holdouts"]):
        yield from manifest.items()


def _blobs(record: Mapping[str, Json]) -> set[str]:
    return {entry["blob"] for _, entry in _entries(record)}


def _increments(record: Mapping[str, Json]) -> list[Increment]:
    return [Increment(**value) for value in record["increments"]]


def _add(connection: sa.Connection, model: str, record: Mapping[str, Json]) -> int:
    config, source = record["definition"]["config"], record["definition"].get("source")
    digest = definitions.definition_digest(config, source)
    try:
        known = definitions.definitions(connection, model)
    except NotFoundError:
        known = [definitions.insert(connection, model, config, source)]
    same = [one for one in known if one.digest == digest]
    if not same:
        raise ConflictError(
            f"this workspace has a model {model!r} with another definition; import the version"
            " under another name (`everlearn import --name`)"
        )
    decision = Decision.from_json(record["decision"])
    reason = f"imported: version {record['number']} of {record['model']!r} ({decision.reason})"
    return versions.add(
        connection,
        model,
        parent=None,
        definition=same[-1].number,
        strategy=record["strategy"],
        state_digest=record["state_digest"],
        manifest=record["manifest"],
        holdouts=record["holdouts"],
        metrics=record["metrics"],
        decision=Decision(decision.action, reason, decision.evidence),
        increments=_increments(record),
        environment_=record["environment"],
        created_at=record["created_at"],
    )
