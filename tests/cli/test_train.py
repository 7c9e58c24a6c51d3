"""`train` and `worker`, from files to a version."""

from __future__ import annotations

from everlearn.cli import ERROR, REFUSED, USAGE
from tests.cli.conftest import SPEC, Shell, write_rows

COUNTS = ("rows", "held_out", "set_aside", "duplicates")


def test_a_file_becomes_a_version(shell: Shell) -> None:
    done = shell.train()
    assert done["version"] == 1
    assert done["resumed_from"] == 0
    assert done["decision"]["action"] == "promote"
    [increment] = done["increments"]
    assert (increment["start"], increment["stop"]) == (0, 400)
    assert sum(increment[name] for name in COUNTS) == 400
    assert done["rows"] == increment["rows"] > 300
    assert "rows=" in shell.error


def test_what_was_learned_is_nothing_new(shell: Shell) -> None:
    shell.train()
    done = shell.train()
    assert done["version"] is None
    assert done["decision"]["action"] == "nothing"
    assert [item["number"] for item in shell.json("versions", "bills")] == [1]


def test_again_learns_it_again(shell: Shell) -> None:
    shell.train()
    assert shell.train(shell.rows, "--again")["version"] == 2


def test_of_a_file_that_grew_only_the_tail_is_learned(shell: Shell) -> None:
    shell.train()
    with shell.rows.open("a") as file:
        file.writelines(f"{n / 7:.4f},-0.5,{int(n > 3)}\n" for n in range(60))
    [increment] = shell.train()["increments"]
    assert (increment["start"], increment["stop"]) == (400, 460)


def test_a_file_that_changed_is_refused(shell: Shell) -> None:
    shell.train()
    write_rows(shell.rows, 500, seed=9)
    shell("train", shell.spec, shell.rows, code=ERROR)
    assert shell.error.splitlines()[-1].startswith("error: ")
    assert "rows.csv" in shell.error


def test_told_to_people(shell: Shell) -> None:
    told = shell("train", shell.spec, shell.rows, "--chunk", "25")
    assert "rows.csv" in told
    assert "learned" in told
    assert "version 1" in told


def test_rows_that_cannot_be_learned_are_counted_with_their_reason(shell: Shell) -> None:
    shell.spec.write_text(SPEC.replace('target="late"', 'target="late", numeric=["a", "b"]'))
    with shell.rows.open("a") as file:
        file.write("1.0,2.0,\ninf,2.0,1\n1.0,oops,1\n")
    told = shell("train", shell.spec, shell.rows)
    assert "3 set aside" in told
    assert told.count("set aside: 1 × ") == 3
    [version] = shell.json("versions", "bills")
    assert version["increments"][0]["set_aside"] == 3


def test_a_refused_candidate_exits_with_3(shell: Shell) -> None:
    gate = 'gate=el.NonInferior("accuracy", margin=0.01),\n    holdout=0.3,\n)'
    shell.spec.write_text(SPEC.replace('loss="log_loss"', 'loss="perceptron"')[:-2] + "    " + gate)
    write_rows(shell.rows, 1500, share=0.1)
    done = shell.train(code=REFUSED)
    assert done["decision"]["action"] == "refuse"
    assert done["version"] == 1
    [version] = shell.json("versions", "bills")
    assert "champion" not in version["aliases"]


def test_a_spec_that_raises_is_named_with_its_line(shell: Shell) -> None:
    shell.spec.write_text(SPEC + "\n1 / 0\n")
    shell("train", shell.spec, shell.rows, code=ERROR)
    line = len(SPEC.splitlines()) + 2
    assert f"bills.py, line {line}: ZeroDivisionError" in shell.error


def test_bad_input_is_one_clear_line(shell: Shell) -> None:
    shell("train", shell.spec, shell.folder / "nothing.csv", code=ERROR)
    assert "nothing.csv" in shell.error
    other = shell.folder / "other.csv"
    other.write_text("a,b,latte\n1,2,0\n")
    shell("train", shell.spec, other, code=ERROR)
    assert "late" in shell.error
    shell("train", shell.spec, shell.rows, "--chunk", "0", code=USAGE)


def test_a_worker_carries_out_what_was_queued(shell: Shell) -> None:
    queued = shell.train(shell.rows, "--queue")
    assert shell.json("versions", "bills") == []
    assert shell.json("job", "show", queued["job"])["state"] == "queued"
    told = shell("worker", "--once")
    assert f"job {queued['job']} (bills)" in told
    assert [item["number"] for item in shell.json("versions", "bills")] == [1]
    assert shell.train(shell.rows, "--queue")["decision"]["action"] == "nothing"


def test_a_worker_ends_when_nothing_is_due(shell: Shell) -> None:
    shell.train()
    assert shell("worker", "--once") == ""
