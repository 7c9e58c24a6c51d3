"""Withdrawals from models of which old labels, files or states were removed: what cannot be folded
again, or not even be searched, is told, and from where it can be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.base import InputError, NotFoundError
from everlearn.workspace import ModelHandle

DAY = 86_400_000_000
TEN_DAYS = 10 * DAY
ROWS = 40


def model() -> el.Model:
    return el.Model(
        "m",
        learner=el.learners.LogisticRegression(),
        schema=el.Schema(target="y"),
        strategy=el.Strategy(memory=el.Reservoir(20)),
        holdout=0.0,
    )


class Past:
    """A model that learned labels every ten days, which were archived each time.

    Args:
        folder: of its workspace.
        lies: versions that learned labels of a bot, too.
    """

    def __init__(self, folder: Path, lies: range = range(2, 6)) -> None:
        self.now = 1_700_000_000_000_000
        self.workspace = el.open(folder, clock=lambda: self.now)
        self.handle: ModelHandle = self.workspace.model(model())
        self.handle.train({"x": [-1.0, 1.0, -2.0, 2.0], "y": [0, 1, 0, 1]}, source="first")
        for version in range(2, 6):
            self.say(version, version in lies)

    def say(self, seed: int, lies: bool, every: int = 2) -> None:
        """Ten days of labels; each so many'th is the bot's."""
        x = np.random.default_rng(seed).normal(size=ROWS).round(3).tolist()
        answers = self.handle.predict([{"x": one} for one in x])
        assert isinstance(answers, list)
        for place, (value, one) in enumerate(zip(x, answers, strict=True)):
            is_bot = place % every == every - 1
            if lies or not is_bot:
                source = "bot" if is_bot else "web"
                self.handle.feedback(one.id, int((value > 0) ^ is_bot), source=source)
        self.handle.update()
        self.now += TEN_DAYS
        self.workspace.compact("m", older_than="5d")

    def forget(self, older_than: str) -> None:
        self.workspace.compact("m", older_than="5d", drop_older_than=older_than)

    def excise(self, **asked: Any) -> Any:
        return self.handle.repair.excise(**asked, dry_run=True).report


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    """The labels that versions 2 and 3 learned were deleted, but for the last one; only dry runs
    are made in it."""
    past = Past(tmp_path_factory.mktemp("half") / "workspace")
    past.forget("25d")
    assert (past.handle.log.first(), past.handle.log.head()) == (79, 160)
    yield past
    past.workspace.close()


def test_labels_are_folded_away_though_older_ones_were_deleted(tmp_path: Path) -> None:
    past, other = Past(tmp_path / "one"), Past(tmp_path / "other", lies=range(2, 4))
    past.forget("25d")
    where = "source = 'bot' and position > 80"
    found = past.handle.repair.excise(where=where)
    assert (found.report["base"], found.report["folded"]) == (3, [4, 5])
    assert found.result is not None and found.result.decision.action == "promote"
    digests = [one.handle.versions()[-1]["state_digest"] for one in (past, other)]
    assert digests[0] == digests[1]
    for one in (past, other):
        one.workspace.close()


@pytest.mark.parametrize(
    ("asked", "base", "rows"),
    [
        ({"where": "position > 120 and source = 'bot'"}, 4, 20),
        ({"where": "position is null and source = 'first' and x > 1.5"}, None, 1),
        ({"where": "source = 'bot' and not position < 121"}, 4, 20),
        ({"rows": ["feedback:90-119"]}, 3, 30),
        ({"induced_by": 3}, 3, 40),
        ({"induced_by": 4}, 4, 40),
    ],
)
def test_what_cannot_be_meant_is_not_looked_at(
    half: Past, asked: dict[str, Any], base: int | None, rows: int
) -> None:
    found = half.excise(**asked)
    assert (found["base"], found["rows"]) == (base, rows)


@pytest.mark.parametrize(
    ("asked", "others"),
    [
        ({"where": "source = 'bot'"}, "source = 'bot'"),
        ({"where": "x > 2.1 or x < -2.1"}, "(x > 2.1 or x < -2.1)"),
        ({"key": "ann"}, "key = 'ann'"),
        ({"induced_by": 1}, "version = 1"),
    ],
)
def test_where_it_cannot_be_told_a_condition_for_the_others_is_given(
    half: Past, asked: dict[str, Any], others: str
) -> None:
    with pytest.raises(InputError) as raised:
        half.excise(**asked)
    told = str(raised.value)
    assert told.startswith("whether rows that version 2 of 'm' learned are meant cannot be told")
    assert "positions 1 to 39 were deleted" in told
    text = f"(position > 80 or position is null) and {others}"
    assert told.endswith(f"ask for the others: {text}")
    if "where" in asked:
        assert half.excise(where=text)["base"] == 3


def test_what_was_deleted_cannot_be_folded_again_but_what_came_later_can(half: Past) -> None:
    with pytest.raises(InputError) as raised:
        half.excise(rows=["feedback:3-5", "feedback:50-60"])
    told = str(raised.value)
    assert told.startswith("what version 2 of 'm' learned cannot be folded again: positions 1 to")
    assert "the same holds for version 3; only what was learned after version 3 can" in told


def test_a_version_without_labels_and_one_that_is_not_there_are_told_apart(half: Past) -> None:
    with pytest.raises(InputError, match="no such row: labels of predictions that version 5 ans"):
        half.excise(induced_by=5)
    with pytest.raises(NotFoundError, match="has no version 9"):
        half.excise(induced_by=9)


def test_an_explanation_says_which_rows_are_gone(half: Past) -> None:
    gone, kept = (half.handle.show(number)["learned"] for number in (2, 5))
    assert "positions 1 to 39 were deleted" in gone["missing"][0]
    assert not kept["missing"] and {one["source"] for one in kept["sources"]} == {"web", "bot"}


def test_a_bisection_ends_at_the_version_whose_labels_are_gone(tmp_path: Path) -> None:
    x = np.random.default_rng(9).normal(size=200).tolist()
    rows = {"x": x, "y": [int(one > 0) for one in x]}
    past = Past(tmp_path / "workspace", lies=range(0))
    for seed in (6, 7):
        past.say(seed, True, every=1)
    past.forget("5d")
    asked = {"good": 5, "bad": 7, "metric": "log_loss", "on": rows, "processes": 1}
    found = past.handle.repair.bisect(**asked)
    past.workspace.close()
    assert found["decision"]["action"] == "found" and found["version"] in (6, 7)
    assert "cannot be told: the labels at positions" in found["decision"]["reason"]


def test_removed_states_and_files_are_named_with_what_is_left(tmp_path: Path) -> None:
    with el.open(tmp_path / "workspace") as workspace:
        handle = workspace.model(model())
        files = [tmp_path / f"{number}.csv" for number in range(1, 6)]
        for number, file in enumerate(files):
            x = np.random.default_rng(number).normal(size=50)
            lines = [f"{one:.3f},{int(one > 0)}" for one in x]
            file.write_text("\n".join(["x,y", *lines]) + "\n")
            handle.train(str(file))
        for number in (2, 3):
            workspace.registry.drop("m", number)
        files[1].unlink()
        excise = handle.repair.excise
        with pytest.raises(
            InputError, match=r"version 2 .* others: source != '.*2\.csv' and x > 1"
        ):
            excise(where="x > 1", dry_run=True)
        others = f"source != '{files[1]}' and source != '{files[0]}' and x > 1"
        with pytest.raises(InputError) as raised:
            excise(where=others, dry_run=True)
        told = str(raised.value)
        assert told.startswith("what version 2 of 'm' learned cannot be folded again: rows 0 to 49")
        assert "2.csv" in told and "removed the state of version 2; only" in told
        assert "only what was learned after version 4 can" in told
        found = excise(where=f"source = '{files[4]}' and x > 1").report
        assert (found["base"], found["folded"]) == (4, [5])
