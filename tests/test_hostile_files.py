"""Files that mean harm, given to everything that reads files: each is refused, none executes
anything, leaves anything or unpickles anything."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import everlearn as el
from everlearn.base import EverlearnError
from everlearn.learners import load_file
from everlearn.registry.bundle import read_state
from everlearn.storage.parts import decode_part

SOURCES = sorted((Path(el.__file__).parent).rglob("*.py"))
SUFFIXES = (".zip", ".csv", ".parquet", ".arrow", ".jsonl", ".json")
WATCHED = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, proof: str) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (self.proof,)


def zipped(*entries: tuple[str, bytes], packed: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with entries of any name."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", packed) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, packed)
    return made.getvalue()


def linked(target: str) -> bytes:
    """A zip file with a symbolic link, and an entry that would be written through it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        link = zipfile.ZipInfo("blobs")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
        archive.writestr("blobs/evil", b"evil")
    return made.getvalue()


def headed(length: int, header: bytes, body: bytes = b"") -> bytes:
    """A safetensors file whose header says that it is so long."""
    return length.to_bytes(8, "little") + header + body


def described(**said: Any) -> bytes:
    """A safetensors file with one tensor that is not as it says."""
    header = json.dumps({"x": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]} | said})
    return headed(len(header), header.encode(), bytes(8))


def arrow(evil: bytes, parquet: bool) -> bytes:
    """A table with a column of a type that old readers unpickle."""
    said = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": evil}
    field = pa.field("x", pa.int64()).with_metadata(said)
    table = pa.table([pa.array([1])], schema=pa.schema([field]))
    made = io.BytesIO()
    if parquet:
        pq.write_table(table, made)
    else:
        with pa.ipc.new_file(made, table.schema) as writer:
            writer.write_table(table)
    return made.getvalue()


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    made = io.BytesIO()
    write(made)
    return made.getvalue()


def corpus(proof: str) -> dict[str, bytes]:
    """Name → content."""
    evil = Evil(proof)
    objects = np.array([evil], dtype=object)
    plain = pickle.dumps(evil)
    skops = {
        "__class__": "mkdir", "__module__": "os", "__loader__": "FunctionNode", "__id__": 1,
        "content": {"module_path": "os", "function": "mkdir", "args": [proof]}, "protocol": 2,
        "_skops_version": "0.10",
    }  # fmt: skip
    slips = ("../evil", "../../../../tmp/evil", "/tmp/evil", "C:\\evil", "blobs\\..\\..\\evil",
             "blobs/../../evil", "blobs/evil\x00.json", "~/evil", "//host/share/evil")  # fmt: skip
    deep = b"[" * 100_000
    return {
        **{f"pickle {n}": pickle.dumps(evil, n) for n in range(6)},
        "joblib": saved(lambda file: joblib.dump(evil, file)),
        "joblib, packed": saved(lambda file: joblib.dump(evil, file, compress=("zlib", 3))),
        "npy": saved(lambda file: np.save(file, objects, allow_pickle=True)),
        "npz": saved(lambda file: np.savez(file, x=objects)),
        "torch": zipped(("archive/data.pkl", plain), ("archive/version", b"3\n")),
        "skops": zipped(("schema.json", json.dumps(skops).encode())),
        "skops that is no zip": plain,
        "skops with a pickle": zipped(("schema.json", b"{}"), ("1.pkl", plain)),
        "keras": zipped(("config.json", b'{"class_name": "Lambda"}'), ("metadata.json", b"{}")),
        **{f"zip slip {n}": zipped(("version.json", b"{}"), (name, b"evil"))
           for n, name in enumerate(slips)},
        "zip with a link": linked("/tmp"),
        "zip bomb": zipped(("version.json", bytes(30_000_000)), packed=zipfile.ZIP_DEFLATED),
        "zip in a zip": zipped(("version.json", zipped(("version.json", b"{}")))),
        "bundle of a pickle": zipped(("version.json", plain)),
        "bundle of depth": zipped(("version.json", deep)),
        "header of 2^63": headed(2**63 - 1, b"{}"),
        "header of 2^64": headed(2**64 - 1, b"{}"),
        "header of 100 MB": headed(100_000_000, b"{}"),
        "header of blanks": headed(20_000_000, b" " * 20_000_000),
        "header of depth": headed(len(deep), deep),
        "offsets beyond": described(data_offsets=[0, 2**62]),
        "offsets before": described(data_offsets=[-8, 0]),
        "shape beyond": described(shape=[2**62]),
        "type of objects": described(dtype="O"),
        "arrow": arrow(plain, parquet=False),
        "parquet": arrow(plain, parquet=True),
        "yaml": f"!!python/object/apply:os.mkdir ['{proof}']\n".encode(),
        "script": f"#!/usr/bin/env python3\nimport os\nos.mkdir({proof!r})\n".encode(),
        "depth": deep,
    }  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[el.Workspace]:
    folder = tmp_path_factory.mktemp("hostile")
    rows = folder / "rows.csv"
    rows.write_text("x,late\n" + "1.0,1\n-1.0,0\n" * 50)
    with el.open(folder / "workspace") as workspace:
        model = el.Model("m", learner="logistic", schema=el.Schema(target="late", numeric=("x",)))
        workspace.model(model).train(str(rows))
        workspace.model("m").predict(str(rows))  # numba loads its own kernels before we watch
        yield workspace


@pytest.fixture(scope="module")
def watched() -> Iterator[list[str]]:
    """What Python says of what is unpickled and started while a test runs."""
    seen: list[str] = []
    watching = [True]

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and event in WATCHED:
            seen.append(f"{event} {arguments}")

    sys.addaudithook(note)  # for as long as the process lives
    yield seen
    watching[0] = False


def test_the_watch_sees_what_it_is_to_see(watched: list[str], tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(str(tmp_path / "proof"))))
    assert (tmp_path / "proof").is_dir()
    assert any(event.startswith("pickle.find_class") for event in watched)


def test_no_file_executes_anything(
    workspace: el.Workspace, watched: list[str], tmp_path: Path
) -> None:
    handle = workspace.model("m")
    readers: dict[str, Callable[[Path], object]] = {
        "import": workspace.import_version,
        "import, trusted": lambda path: workspace.import_version(path, trust=True),
        "state": read_state,
        "learner": load_file,
        "part": lambda path: decode_part(path.read_bytes()),
        "train": lambda path: handle.train(str(path)),
        "predict": lambda path: handle.predict(str(path)),
        "labels": lambda path: workspace.import_feedback(path, model="m"),
    }
    inside, proof = tmp_path / "inside", tmp_path / "proof"
    inside.mkdir()
    files = corpus(str(proof))
    before = {*tmp_path.rglob("*"), *Path("/tmp").glob("*evil*")}
    for name, data in files.items():
        del watched[:]
        for what, read in readers.items():
            suffixes = SUFFIXES if what in ("train", "predict", "labels") else (".zip",)
            for suffix in suffixes:
                path = inside / f"file{suffix}"
                path.write_bytes(data)
                try:
                    read(path)
                except EverlearnError:
                    pass
                else:  # a table without rows, or one whose type is that of its values
                    assert what in ("train", "predict", "labels"), (name, what, suffix)
                path.unlink()
        assert watched == [], name
    assert {*tmp_path.rglob("*"), *Path("/tmp").glob("*evil*")} == before
    assert [version["number"] for version in handle.versions()] == [1]
    assert handle.log.head() == 0
    assert not proof.exists()


def test_nothing_that_unpickles_is_named_in_the_package() -> None:
    """Neither imported nor called, by whatever name it came; numba keeps its own kernels."""
    modules = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    calls = {"torch.load", "pd.read_pickle", "pandas.read_pickle", "yaml.load", "skops.io.load"}
    wrong = []
    for path in SOURCES:
        text = path.read_text()
        if not re.search(r"pickle|joblib|dill|shelve|marshal|load\(", text):
            continue
        for node in ast.walk(ast.parse(text)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in calls:
                    wrong.append((path.name, called))
                elif called in ("np.load", "numpy.load"):
                    said = {one.arg: ast.unparse(one.value) for one in node.keywords}
                    if said.get("allow_pickle") != "False":
                        wrong.append((path.name, ast.unparse(node)))
            wrong += [(path.name, one) for one in names if one.split(".")[0] in modules]
    assert wrong == []
