"""Learners as files: whole, bit-equal when they go on, and without code that the file chooses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from everlearn.base import (
    InputError,
    IntegrityError,
    NotFoundError,
    Part,
    StorageError,
    state_digest,
)
from everlearn.learners import Experts, Majority, RunningMean, load_file, save_file
from everlearn.storage.parts import decode_part, encode_part
from tests.learners.natives import IN_GROUPS, TABLE, data

X, Y = np.zeros((5, 2)), ["late", "early", "late", "late", "early"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "learner.safetensors"


def rewritten(path, **changes):
    part = decode_part(path.read_bytes())
    path.write_bytes(encode_part(Part(part.arrays, part.meta | changes)))


@pytest.mark.parametrize("key", IN_GROUPS)
def test_goes_on_bit_equal(key, path):
    rows, y = data(TABLE[key], 600)
    learner = TABLE[key].make().partial_fit(rows[:400], y[:400] if y is not None else None)
    save_file(learner, path)
    other = load_file(path)
    assert type(other) is type(learner)
    assert repr(other) == repr(learner)
    for one in (learner, other):
        one.partial_fit(rows[400:], y[400:] if y is not None else None)
    assert state_digest(other.save()) == state_digest(learner.save())
    assert (other.predict(rows) == learner.predict(rows)).all()


@pytest.mark.parametrize("key", IN_GROUPS)
def test_before_anything_was_learned(key, path):
    rows, y = data(TABLE[key], 50)
    learner = TABLE[key].make()
    if learner.kind == "classifier":
        learner.set_params(classes=sorted(set(y)))
    save_file(learner, path)
    assert (load_file(path).fit(rows, y).predict(rows) == learner.fit(rows, y).predict(rows)).all()


def test_classes_keep_their_types(path):
    for classes in (["b", "a"], [3, 1], [True, False], ("x", "y"), np.array([0.5, 1.5])):
        save_file(Majority(classes=classes).fit(X, [classes[0]] * 5), path)
        found = load_file(path)
        assert found.classes_.tolist() == sorted(classes)
        assert found.classes_.dtype == np.asarray(sorted(classes)).dtype
        assert type(found.classes) is (list if isinstance(classes, np.ndarray) else type(classes))


def test_parameters_that_json_lacks(path):
    learner = Majority(classes=None)
    learner.classes = (1.0, float("inf"), (None, "x", [True]))
    save_file(learner, path)
    assert load_file(path).classes == learner.classes


def test_is_a_safetensors_file_with_json(path):
    from safetensors import safe_open

    save_file(Majority().fit(X, Y), path)
    with safe_open(path, "numpy") as file:
        assert file.get_tensor("counts/counts").tolist() == [3.0, 2.0]
        said = json.loads(file.metadata()["json"])["meta"]
    assert said["definition"] == {"learner": "Majority", "params": {"classes": None}}
    assert said["parts"]["native"]["meta"]["classes"] == ["late", "early"]


def test_what_cannot_be_written(path):
    for learner in (SGDClassifier(), 5, None, Majority):
        with pytest.raises(InputError, match="is no learner of"):
            save_file(learner, path)
    odd = RunningMean()
    odd.get_params = lambda deep=True: {"x": object()}
    with pytest.raises(InputError, match="cannot be written to a file"):
        save_file(odd, path)

    class Majority2(Majority):
        pass

    with pytest.raises(InputError, match="Majority2 is no learner of"):
        save_file(Majority2(), path)
    assert not path.exists()


def test_a_file_is_replaced_only_by_a_whole_one(path, tmp_path):
    save_file(Majority().fit(X, Y), path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"no-folder.*cannot be written"):
        save_file(Majority(), tmp_path / "no-folder" / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder cannot be written"):
        save_file(Majority(), tmp_path / "folder")
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder", path.name]


def test_what_cannot_be_loaded(path, tmp_path):
    with pytest.raises(NotFoundError, match="there is no file"):
        load_file(path)
    with pytest.raises(StorageError, match="cannot be read"):
        load_file(tmp_path)
    save_file(Majority().fit(X, Y), path)
    whole = path.read_bytes()
    for broken in (b"", whole[:40], whole[:-1], b"text"):
        path.write_bytes(broken)
        with pytest.raises(IntegrityError):
            load_file(path)
    path.write_bytes(encode_part(Part(meta={"format": "other"})))
    with pytest.raises(InputError, match="is no file of a learner"):
        load_file(path)
    path.write_bytes(whole)
    rewritten(path, revision=2)
    with pytest.raises(InputError, match=r"revision 2 of the format.*upgrade"):
        load_file(path)


@pytest.mark.parametrize(
    "definition",
    [
        {"learner": "os.system", "params": {}},
        {"learner": "as_learner", "params": {"definition": None}},
        {"learner": "Encoder", "params": {}},
        {"learner": "__builtins__", "params": {}},
        {"learner": "Majority", "params": {"color": 1}},
        {"learner": "RunningMean", "params": {}},
        {"something": 1},
        [],
        None,
    ],
)
def test_a_definition_that_is_none(definition, path):
    save_file(Majority().fit(X, Y), path)
    rewritten(path, definition=definition)
    with pytest.raises(InputError):
        load_file(path)


@pytest.mark.parametrize("name", ["os.getcwd", "os:getcwd", "sklearn.linear_model.SGDClassifier"])
def test_a_file_names_no_import_path(name, path):
    with pytest.raises(InputError, match="names no other than"):
        save_file(Experts([name]), path)
    save_file(Majority().fit(X, Y), path)
    for learners in ([name], {"tuple": [name]}, name):
        rewritten(path, definition={"learner": "Experts", "params": {"learners": learners}})
        with pytest.raises(InputError, match="names no other than"):
            load_file(path)
