"""Files of learners that were written once: this release loads them, and goes on from them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from everlearn.base import state_digest
from tests.learners.golden.make import FOLDER, MORE, ROWS, answers, files_of, go_on, stored
from tests.learners.natives import IN_GROUPS, TABLE


def same(found, expected):
    """Other processors round otherwise."""
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("key", IN_GROUPS)
def test_a_stored_learner_answers_and_goes_on(key, tmp_path):
    state, said = files_of(key)
    assert state.exists(), f"write it: python -m tests.learners.golden.make '{key}'"
    expected = json.loads(said.read_text())
    assert (expected["rows"], expected["more"]) == (ROWS, MORE)
    assert state.stat().st_size < 100_000
    learner = stored(key, tmp_path)
    assert type(learner) is type(TABLE[key].make())
    same(answers(TABLE[key], learner), expected["answers"])
    before = state_digest(learner.save())
    go_on(TABLE[key], learner)
    assert state_digest(learner.save()) != before
    same(answers(TABLE[key], learner), expected["answers after more"])


def test_no_file_is_left_over():
    kept = {path for key in TABLE for path in files_of(key)}
    assert {path for path in FOLDER.iterdir() if path.suffix in (".json", ".gz")} == kept
