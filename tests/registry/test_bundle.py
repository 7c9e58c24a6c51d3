from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import SGDClassifier

from everlearn.base import (
    ConflictError,
    EverlearnError,
    InputError,
    IntegrityError,
    Model,
    NotFoundError,
    Part,
    SpecError,
    StorageError,
    state_digest,
)
from everlearn.registry import bundle
from everlearn.registry.registry import Registry
from tests.registry.conftest import MODEL, add_version, increment, opened, state_of


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Registry]:
    """Another workspace."""
    folder = tmp_path / "other"
    yield from opened(f"sqlite:///{folder}/everlearn.db", folder)


@pytest.fixture
def file(local: Registry, tmp_path: Path) -> Path:
    """Version 2 of a model, exported."""
    add_version(local, state_of(1), increments=[increment("jan.csv")], promote=True)
    learned = [increment("feb.csv", reasons={"target is missing": 1})]
    add_version(local, state_of(2), parent=1, increments=learned, metrics={"auc": 0.7})
    return local.export("delays", 2, tmp_path / "delays-2.zip")


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The same file with another version.json."""

    def apply(name: str, data: bytes) -> bytes:
        if name != bundle.RECORD:
            return data
        record = json.loads(data)
        change(record)
        return json.dumps(record).encode()

    return rewrite(file, apply)


def rewrite(file: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> Path:
    with zipfile.ZipFile(file) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in [*entries, *more.items()]:
            if (changed := change(name, data)) is not None:
                archive.writestr(name, changed)
    return file


def nothing_added(registry: Registry) -> bool:
    return not registry.models() and not list(registry.parts.blobs.list())


def test_an_exported_version_goes_on_elsewhere(
    local: Registry, other: Registry, file: Path
) -> None:
    assert other.import_(file) == ("delays", 1)
    ours, theirs = local.version("delays", 2), other.version("delays", 1)
    for name in ("state_digest", "metrics", "environment", "created_at", "manifest", "strategy"):
        assert getattr(theirs, name) == getattr(ours, name)
    assert (theirs.parent, theirs.job_id, theirs.aliases) == (None, None, ())
    assert [one.source for one in theirs.increments] == ["jan.csv", "feb.csv"]
    assert theirs.increments[1] == ours.increments[0]
    assert theirs.decision.reason == "imported: version 2 of 'delays' (for a test)"
    state = other.state("delays", theirs)
    assert state_digest(state) == ours.state_digest
    np.testing.assert_array_equal(
        state["learner/weights"].arrays["w"], state_of(2)["learner/weights"].arrays["w"]
    )
    assert other.definition("delays").model() == MODEL
    other.promote("delays", 1, expected=None)
    assert other.version("delays").number == 1


def test_a_state_can_be_read_without_a_workspace(local: Registry, file: Path) -> None:
    state = bundle.read_state(file)
    assert state_digest(state) == local.version("delays", 2).state_digest
    with pytest.raises(NotFoundError, match=r"missing\.zip"):
        bundle.read_state(file.with_name("missing.zip"))
    with pytest.raises(IntegrityError, match="damaged"):
        bundle.read_state(rewrite(file, lambda n, d: d[:-1] if n.startswith("blobs/") else d))


def test_exporting_twice_gives_the_same_bytes(local: Registry, file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    assert local.export("delays", 2, tmp_path / "again.zip").read_bytes() == before
    assert local.export("delays", 2, file).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_an_import_beside_the_original_needs_the_same_definition(
    local: Registry, file: Path
) -> None:
    assert local.import_(file) == ("delays", 3)
    assert local.import_(file, name="copy") == ("copy", 1)
    assert local.import_(file, name="copy") == ("copy", 2)
    assert local.definition("copy").model().name == "copy"
    local.define(MODEL.replace(name="taken", holdout=0.2))
    with pytest.raises(ConflictError, match="another name"):
        local.import_(file, name="taken")
    with pytest.raises(SpecError, match="a model's name"):
        local.import_(file, name="../up")


def test_a_version_without_a_state_cannot_be_exported(local: Registry, tmp_path: Path) -> None:
    add_version(local)
    local.drop("delays", 1)
    with pytest.raises(NotFoundError, match="removed by the retention"):
        local.export("delays", 1, tmp_path / "x.zip")
    with pytest.raises(NotFoundError, match="no version 2"):
        local.export("delays", 2, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_an_export_that_fails_leaves_no_file(local: Registry, file: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        local.export("delays", 2, tmp_path / "no" / "folder.zip")
    before = file.read_bytes()
    entry = local.version("delays", 2).manifest["learner/weights"]
    digest = entry["blob"]
    stored = Path(local.parts.blobs.url) / digest[:2] / digest[2:]
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match=digest):
        local.export("delays", 2, file)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_flipped_byte_anywhere_is_refused_or_harmless(other: Registry, file: Path) -> None:
    """Every byte that is read is covered by a digest, a checksum or a check of its form."""
    data = bytearray(file.read_bytes())
    refused = 0
    for at in range(0, len(data), 97):
        data[at] ^= 0x41
        file.write_bytes(data)
        data[at] ^= 0x41
        try:
            model, number = other.import_(file)
        except EverlearnError:
            refused += 1
            continue
        version = other.version(model, number)  # a byte that no reader of zip files looks at
        assert state_digest(other.state(model, version)) == version.state_digest
    assert refused > 20


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"PK\x03\x04" + tail))
def test_other_files_are_refused(other: Registry, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "noise.zip"
    path.write_bytes(data)
    with pytest.raises(InputError, match="no exported version"):
        other.import_(path)


def test_a_truncated_or_missing_file_is_named(other: Registry, file: Path, tmp_path: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"delays-2\.zip"):
        other.import_(file)
    with pytest.raises(NotFoundError, match=r"missing\.zip"):
        other.import_(tmp_path / "missing.zip")
    with pytest.raises(StorageError, match="cannot be read"):
        other.import_(tmp_path)
    assert nothing_added(other)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "blobs/../../evil",
        "/etc/passwd",
        "C:\\evil",
        "blobs\\" + "0" * 64,
        "blobs/" + "0" * 63 + "/",
        "blobs/" + "0" * 65,
        "blobs/" + "A" * 64,
        "version.json/",
    ],
)
def test_entries_with_other_names_are_refused(other: Registry, file: Path, name: str) -> None:
    before = set(file.parent.parent.rglob("*evil*"))
    with pytest.raises(InputError, match="unknown name"):
        other.import_(rewrite(file, lambda _, data: data, **{name: b"evil"}))
    assert nothing_added(other)
    assert set(file.parent.parent.rglob("*evil*")) == before


def test_compressed_or_double_entries_are_refused(other: Registry, file: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("version.json", b" " * 10_000_000)
    file.write_bytes(bomb.getvalue())
    with pytest.raises(InputError, match="compressed"):
        other.import_(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("version.json", b"{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("version.json", b"{}")
    with pytest.raises(InputError, match="twice"):
        other.import_(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("blobs/" + "0" * 64, b"")
    with pytest.raises(InputError, match=r"no version\.json"):
        other.import_(file)


def test_damaged_missing_or_swapped_blobs_are_refused(
    local: Registry, other: Registry, file: Path
) -> None:
    whole = file.read_bytes()
    with pytest.raises(IntegrityError, match="damaged"):
        other.import_(rewrite(file, lambda n, data: data[:-1] if n.startswith("blobs/") else data))
    file.write_bytes(whole)
    with pytest.raises(InputError, match="lacks the blob"):
        other.import_(rewrite(file, lambda n, data: None if n.startswith("blobs/") else data))
    file.write_bytes(whole)

    def swap(record: dict[str, Any]) -> None:
        manifest = record["manifest"]
        one, two = manifest["learner/weights"], manifest["memory/rows"]
        one["blob"], two["blob"] = two["blob"], one["blob"]

    with pytest.raises(IntegrityError, match="not the one that its manifest names"):
        other.import_(edit(file, swap))
    assert nothing_added(other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(format="x"), "does not say"),
        (lambda r: r.update(revision=2), "upgrade everlearn"),
        (lambda r: r.pop("manifest"), "no proper 'manifest'"),
        (lambda r: r.update(increments=[{"source": "x"}]), "malformed"),
        (lambda r: r.update(increments=[7]), "malformed"),
        (lambda r: r.update(decision={}), "malformed"),
        (lambda r: r.update(definition={"config": []}), "malformed"),
        (lambda r: r["manifest"].update(x={"blob": "../up", "digest": "", "size": 1}), "malformed"),
        (lambda r: r["manifest"].update(x=7), "malformed"),
    ],
)
def test_a_malformed_record_is_refused(
    other: Registry, file: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        other.import_(edit(file, change))
    assert nothing_added(other)


def test_a_record_that_is_no_json_is_refused(other: Registry, file: Path) -> None:
    for text in (b"\xff", b"{", b"[" * 100_000, b"7", b"null"):
        with pytest.raises(InputError):
            other.import_(rewrite(file, lambda n, d, t=text: t if n == bundle.RECORD else d))


def test_code_from_elsewhere_runs_only_if_trusted(
    other: Registry, file: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "executed"
    code = f"import os; os.mkdir({str(proof)!r})\nclass Mine:\n    def partial_fit(self): ...\n"
    for learner in (
        {"class": "spec:Mine", "params": {}},
        {"class": "subprocess:Popen", "params": {"args": ["touch", str(proof)]}},
        {"ref": "os:system"},
    ):

        def change(record: dict[str, Any], learner: Any = learner) -> None:
            record["definition"]["config"]["params"]["learner"] = learner
            record["definition"]["source"] = code

        with pytest.raises(SpecError, match="trust"):
            other.import_(edit(file, change))
        with pytest.raises(SpecError, match="trust"):
            other.import_(edit(file, lambda r, x=learner: r.update(strategy={"dict": [["a", x]]})))
    assert not proof.exists()
    assert nothing_added(other)

    def own_class(record: dict[str, Any]) -> None:
        own = {"class": "spec:Mine", "params": {}}
        record["definition"]["config"]["params"]["learner"] = own

    other.import_(edit(file, own_class), trust=True)
    assert proof.exists()


def test_a_memorys_definition_inside_a_state_is_checked_too(
    local: Registry, other: Registry, tmp_path: Path
) -> None:
    evil = Part(meta={"class": "subprocess:Popen", "params": {"args": ["false"]}})
    add_version(local, {"memory/definition": evil})
    path = local.export("delays", 1, tmp_path / "evil.zip")
    with pytest.raises(SpecError, match="subprocess:Popen"):
        other.import_(path)
    assert nothing_added(other)


def test_a_definition_that_is_no_model_is_refused(other: Registry, file: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["definition"]["config"] = {"class": "everlearn:Schema", "params": {}}

    with pytest.raises(SpecError, match="is of a Schema"):
        other.import_(edit(file, change))


def test_a_spec_files_text_travels_with_the_version(
    local: Registry, other: Registry, tmp_path: Path
) -> None:
    model = Model("sgd", learner=SGDClassifier(alpha=0.5))
    local.define(model, "# how it was said")
    add_version(local, model="sgd")
    local.promote("sgd", 1, expected=None)
    other.import_(local.export("sgd", 1, tmp_path / "sgd.zip"))
    assert other.definition("sgd").source == "# how it was said"
    assert other.definition("sgd").section("learner").alpha == 0.5
