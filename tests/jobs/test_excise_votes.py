"""Labels are withdrawn that were not learned themselves, but decided what was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.data.selection import Selection
from everlearn.workspace import ModelHandle
from tests.jobs.test_excise import excise

Said = list[tuple[int, str, int | None]]
"""(which prediction, who says so, label; None takes it back), in order."""

HONEST: Said = [(place, "web", int(place > 5)) for place in range(2, 12)]


def learned(
    workspace: Any, policy: el.LabelPolicy, jobs: list[Said], names: list[str] | None = None
) -> ModelHandle:
    """A model that learned labels, a job for each list; the classes have names, if given."""

    def named(value: int | None) -> Any:
        return value if names is None or value is None else names[value]

    model = el.Model(
        "m",
        learner=el.learners.LogisticRegression(),
        schema=el.Schema(target="y"),
        strategy=el.Strategy(memory=el.Reservoir(20)),
        labels=policy,
        holdout=0.0,
        gate=None,
    )
    handle: ModelHandle = workspace.model(model)
    handle.train({"x": [-1.0, 1.0, -2.0, 2.0], "y": [named(y) for y in (0, 1, 0, 1)]})
    asked = handle.predict([{"x": place / 10} for place in range(12)])
    for said in jobs:
        for place, source, value in said:
            handle.feedback(asked[place].id, named(value), source=source)
        handle.update()
    return handle


@pytest.mark.parametrize(
    ("policy", "jobs"),
    [
        (el.LabelPolicy(conflict="majority"), [[(0, "bot", 1), (0, "app", 1), (0, "web", 0)]]),
        (el.LabelPolicy(conflict="agreement"), [[(0, "bot", 1), (0, "web", 1)]]),
        (el.LabelPolicy(conflict="agreement"), [[(0, "bot", 1)], [(0, "web", 1)]]),
        (
            el.LabelPolicy(conflict="agreement"),
            [[(0, "app", 1), (0, "web", 1), (0, "bot", 0), (0, "desk", 0)]],
        ),
        (el.LabelPolicy(), [[(0, "web", 1), (0, "bot", None)]]),
        (el.LabelPolicy(), [[(0, "web", 1)], [(0, "bot", None)]]),
    ],
)
def test_what_was_decided_by_labels_that_were_not_learned_is_decided_again(
    policy: el.LabelPolicy, jobs: list[Said], tmp_path: Path
) -> None:
    first = 1 + len(jobs)  # the version that is another one without the bot
    jobs = [HONEST[:5] + said for said in jobs] + [HONEST[5:]]
    with el.open(tmp_path / "a") as workspace, el.open(tmp_path / "b") as other:
        handle = learned(workspace, policy, jobs)
        before = handle.versions()[-1]["state_digest"]
        honest = [[one for one in said if one[1] != "bot"] for said in jobs]
        wanted = learned(other, policy, honest).versions()[-1]["state_digest"]
        assert before != wanted
        found = excise(workspace, "m", Selection.where("source = 'bot'"))
        assert found["job"] is not None and found["marked"] == [*range(first, 2 + len(jobs))]
        assert handle.versions()[-1]["state_digest"] == wanted


@pytest.mark.parametrize("conflict", ["last", "priority"])
def test_what_was_taken_back_by_a_job_of_its_own_stays_taken_back(
    conflict: Any, tmp_path: Path
) -> None:
    jobs: list[Said] = [[(1, "bot", 1), (0, "web", 1)], [(0, "web", None)]]
    policy = el.LabelPolicy(conflict=conflict)
    with el.open(tmp_path / "a") as workspace, el.open(tmp_path / "b") as other:
        handle = learned(workspace, policy, jobs)
        wanted = learned(other, policy, [jobs[0][1:], jobs[1]])
        assert excise(workspace, "m", Selection.where("source = 'bot'"))["folded"] == [2, 3]
        assert handle.versions()[-1]["state_digest"] == wanted.versions()[-1]["state_digest"]


@pytest.mark.parametrize("names", [None, ["no", "yes"]])
@pytest.mark.parametrize(
    ("policy", "jobs"),
    [
        (el.LabelPolicy(), [[(0, "bot", 0), (0, "web", 1)]]),
        (el.LabelPolicy(), [[(0, "web", 1)], [(0, "bot", 1)]]),
        (el.LabelPolicy(conflict="majority"), [[(0, "web", 1), (0, "app", 1), (0, "bot", 0)]]),
    ],
)
def test_labels_that_made_no_difference_mark_nothing(
    policy: el.LabelPolicy, jobs: list[Said], names: list[str] | None, tmp_path: Path
) -> None:
    with el.open(tmp_path) as workspace:
        learned(workspace, policy, [HONEST + jobs[0], *jobs[1:]], names)
        found = excise(workspace, "m", Selection.where("source = 'bot'"))
        assert (found["rows"], found["marked"], found["job"]) == (1, [], None)
