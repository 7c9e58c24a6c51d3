"""`show`: a version explained, for people and as JSON."""

from __future__ import annotations

from everlearn.cli import ERROR
from tests.cli.conftest import Shell, write_rows

SPEC = """
import everlearn as el

model = el.Model(
    "bills",
    learner=el.learners.LogisticRegression(),
    schema=el.Schema(target="late"),
    strategy=el.Strategy(chunk={chunk}),
    holdout=0.3,
)
"""


def turned(shell: Shell) -> Shell:
    """Two versions: 600 rows, then 600 of which all are late."""
    shell.spec.write_text(SPEC.format(chunk=50))
    shell.train(write_rows(shell.folder / "one.csv", 600))
    shell.spec.write_text(SPEC.format(chunk=20))
    shell.train(write_rows(shell.folder / "two.csv", 600, seed=1, share=1.0))
    return shell


def test_a_version_is_explained_as_json(shell: Shell) -> None:
    turned(shell)
    found = shell.json("show", "bills", 2)
    assert (found["number"], found["parent"], found["against"]) == (2, 1, 1)
    assert found["made"]["by"] == "job"
    assert {"name": "strategy.chunk", "before": 50, "after": 20} in found["definition"]["changes"]
    [source] = found["learned"]["sources"]
    [increment] = found["increments"]
    assert source["learned"] == increment["rows"]
    assert source["classes"] == [{"value": 1, "rows": increment["rows"]}]
    changed = found["predictions"]
    assert changed["lost"] > 20
    assert sum(one["lost"] for one in changed["classes"]) == changed["lost"]
    assert changed["slices"][0]["p"] < 0.05
    assert found["admission"]["gate"]["action"] == "pass"
    assert found["admission"]["moves"][-1]["version_to"] == 2


def test_a_version_is_explained_for_people(shell: Shell) -> None:
    turned(shell)
    told = shell("show", "bills", 2)
    assert "version 2 of bills (champion)" in told
    assert "changed since version 1: strategy.chunk 50 → 20" in told
    assert "two.csv" in told
    assert "What changed in its answers since version 1" in told
    assert "right before and wrong now" in told
    assert "more flips than chance gives" in told
    assert "champion 1 → 2 (promote)" in told
    assert "gate: pass" in told
    shell("promote", "bills", 1)
    assert "promote by " in shell("show", "bills", 1)


def test_the_first_version_says_why_nothing_is_compared(trained: Shell) -> None:
    told = trained("show", "bills", 1)
    assert "there is none to compare it with" in told


def test_a_version_that_is_not_there_is_said_so(trained: Shell) -> None:
    trained("show", "bills", 7, code=ERROR)
    assert "has no version 7" in trained.error
