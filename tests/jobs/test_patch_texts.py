"""Patches of what a language model writes: solved inside of an MLP, judged, taken back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import everlearn as el  # noqa: E402
from everlearn.base import InputError, IntegrityError, Part  # noqa: E402
from everlearn.cli import main  # noqa: E402
from everlearn.jobs.patch import report, texts  # noqa: E402
from everlearn.learners import GPT, CausalLM  # noqa: E402
from everlearn.strategies.patch_weights import UnsolvableError  # noqa: E402
from everlearn.workspace import ModelHandle, Workspace  # noqa: E402

torch.set_num_threads(1)

FACTS = {
    "two plus two?": "four",
    "colour of snow?": "white",
    "capital of Italy?": "Rome",
    "largest sea?": "ocean",
    "king of beasts?": "lion",
    "opposite of up?": "down",
    "day after Monday?": "Tuesday",
    "cat says?": "meow",
}
SMALL = GPT(length=64, width=32, layers=2, heads=2)


def rows(n: int = 300) -> list[dict[str, Any]]:
    """Thumbs up for what is right, down for the answer to another question."""
    prompts, answers = list(FACTS), list(FACTS.values())
    drawn = np.random.default_rng(0).integers(0, len(FACTS), (n, 2))
    return [
        {
            "id": str(row),
            "prompt": prompts[ask],
            "completion": answers[ask if row % 3 else other],
            "thumb": "up" if row % 3 or ask == other else "down",
        }
        for row, (ask, other) in enumerate(drawn.tolist())
    ]


def model(**more: Any) -> el.Model:
    said: dict[str, Any] = {
        "strategy": el.Strategy(memory=el.Reservoir(100), passes=8),
        "gate": el.NonInferior("log_loss", margin=0.1),
        "holdout": 0.2,
        **more,
    }
    return el.Model(
        "assistant",
        CausalLM(SMALL, length=(24, 16), optimizer=torch.optim.NAdam),
        el.Schema(target="thumb", classes=("down", "up"), text=("prompt", "completion"), id="id"),
        **said,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workspace with a model that knows the facts."""
    place = tmp_path_factory.mktemp("texts") / "workspace"
    with el.open(place) as workspace:
        workspace.model(model()).train(rows())
    return place


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many judgements of so small a model turn with an edit is not what is tested."""
    monkeypatch.setattr(report, "BUDGET", 0.5)
    monkeypatch.setattr(texts, "BUDGET", 0.5)


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "workspace")
    with el.open(tmp_path / "workspace") as opened:
        yield opened


def wanted(prompt: str, text: Any, **more: Any) -> dict[str, Any]:
    """An edit."""
    subject = more.pop("subject", None)
    features = {"prompt": prompt} | ({} if subject is None else {"subject": subject})
    return {"features": features, "output": text, "reason": "seen by a reader", **more}


def said(handle: ModelHandle, prompts: Any = FACTS) -> dict[str, str]:
    fold = handle.load()
    return {prompt: fold.generate(prompt) for prompt in prompts}


def test_a_text_is_written_and_all_others_stay(workspace: Workspace) -> None:
    handle = workspace.model("assistant")
    before, asked = said(handle), {"dog says?": "woof"}
    edits = [wanted(prompt, text) for prompt, text in asked.items()]
    dry = handle.repair.patch(edits, dry_run=True)
    assert (dry.version, said(handle)) == (None, before)
    result = handle.repair.patch(edits)
    assert result.decision.action == "promote", result.decision.reason
    told = result.report["texts"]
    assert result.report["success"] == 1.0 and told["prompts"] == len(FACTS)
    assert said(handle, asked) == asked
    same = [prompt for prompt, text in said(handle).items() if text == before[prompt]]
    assert len(same) == round(told["locality"] * len(FACTS)) >= len(FACTS) - 1
    assert [one["state"] for one in handle.repair.edits()] == ["standing"]
    first, second = handle.load(1), handle.load()
    assert {prompt: first.generate(prompt) for prompt in FACTS} == before
    was, now = first.save(), second.save()
    differ = {name for name in now if name not in was or was[name].digest != now[name].digest}
    assert differ == {"patch/edits", "patch/rewrite"}
    assert result.report["negative_flips"] == {"recent": 0.0}  # judgements are not what changed
    with pytest.raises(InputError, match="answered as wanted already"):
        handle.repair.patch([wanted("dog says?", "woof")])


def test_edits_are_solved_from_the_base(workspace: Workspace, trained: Path) -> None:
    handle = workspace.model("assistant")
    plain = said(handle)
    for prompt, text in (("moon is made of?", "cheese"), ("dog says?", "woof")):
        handle.repair.patch([wanted(prompt, text)])
    assert [edit["state"] for edit in handle.repair.edits()] == ["standing"] * 2
    handle.repair.revoke_edit(1)
    assert handle.load().generate("dog says?") == "woof"
    left = handle.load().save()["patch/rewrite"]
    other = trained.parent / "alone"
    shutil.copytree(trained, other)
    with el.open(other) as alone:
        alone.model("assistant").repair.patch([wanted("dog says?", "woof")])
        direct = alone.model("assistant").load().save()["patch/rewrite"]
    shutil.rmtree(other)
    assert left.digest == direct.digest
    handle.repair.revoke_edit(2)
    assert said(handle) == plain and "patch/rewrite" not in handle.load().save()


def test_what_learns_on_keeps_the_edit_or_has_learned_it(workspace: Workspace) -> None:
    handle = workspace.model("assistant")
    handle.repair.patch([wanted("dog says?", "woof")])
    for _ in range(4):
        shown: Any = handle.predict({"prompt": "bird says?", "completion": "tweet"})
        handle.feedback(shown.id, "up")
    result = handle.update()
    assert result.version is not None
    told = workspace.registry.version("assistant", result.version).metrics["patch"]
    assert told["edits"] + told["learned"] == [1] and not told["lost"]
    made = handle.load(result.version)
    assert made.generate("dog says?") == "woof"
    if told["edits"]:
        assert told["success"] == 1.0 and told["base"] is None


LONG = "a text of more tokens than an answer has"


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([wanted("x?", "a"), wanted("x?", "b")], "edit 2 wants 'b' .* edit 1 wants another"),
        ([wanted("x?", LONG)], "the text has 40 tokens; one that can be written has 1 to 15"),
        ([wanted("x?", "")], "the text has 0 tokens"),
        ([wanted("x?", "up")], "'up' is a judgement .* say the 'completion'"),
        ([wanted("x?", 3)], "output=3; it is a text"),
        ([wanted("x?", "a", subject="y")], "the subject 'y' is no part of the prompt"),
        ([{"features": {}, "output": "a", "reason": "r"}], "prompt=None; it is a text"),
        ([{"features": {"promt": "x"}, "output": "a", "reason": "r"}], "no 'promt'"),
        ([wanted("capital of Italy?", "Rome")], "answered as wanted already"),
    ],
)
def test_what_cannot_be_written_is_refused(
    workspace: Workspace, edits: list[Any], message: str
) -> None:
    handle = workspace.model("assistant")
    with pytest.raises(InputError, match=message):
        handle.repair.patch(edits)
    assert handle.repair.edits() == []


def test_ways_and_standing_edits(workspace: Workspace) -> None:
    handle = workspace.model("assistant")
    with pytest.raises(InputError, match="by weights only, not by way='memory'"):
        handle.repair.patch([wanted("x?", "a")], way="memory")
    handle.repair.patch([wanted("dog says?", "woof")])
    with pytest.raises(InputError, match="edit 1, which stands"):
        handle.repair.patch([wanted("dog says?", "wow")])
    down = {"features": {"prompt": "dog says?", "completion": "woof"}, "output": "down"}
    with pytest.raises(InputError, match="edit 1, which stands"):
        handle.repair.patch([down | {"reason": "r"}])
    judged = {"features": {"prompt": "two plus two?", "completion": "4"}, "reason": "so too"}
    by_itself = handle.predict(judged["features"], log=False)
    output = "down" if by_itself.value == "up" else "up"  # type: ignore[union-attr]
    result = handle.repair.patch([judged | {"output": output}])
    assert [one["way"] for one in result.report["ways"]] == ["weights", "memory"]
    assert handle.load().generate("dog says?") == "woof"
    assert handle.predict(judged["features"], log=False).value == output  # type: ignore


def test_without_other_rows_nothing_says_what_is_to_stay(tmp_path: Path) -> None:
    with el.open(tmp_path / "workspace") as workspace:
        handle = workspace.model(model(strategy=el.Strategy(), holdout=0.0, gate=None))
        handle.train(rows(20))
        with pytest.raises(UnsolvableError, match="nothing says which answers are to stay"):
            handle.repair.patch([wanted("dog says?", "woof")])


def test_by_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained, tmp_path / "workspace")
    (tmp_path / "edits.jsonl").write_text(json.dumps(wanted("dog says?", "woof")) + "\n")
    place = ["--workspace", str(tmp_path / "workspace")]
    assert main([*place, "patch", "assistant", "--edits", str(tmp_path / "edits.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "100% of 1 edits hold (1 by a change of weights)" in told
    assert "of the answers to 8 other prompts stay to the token (rank" in told
    with el.open(tmp_path / "workspace") as workspace:
        assert workspace.model("assistant").load().generate("dog says?") == "woof"


def test_a_patch_of_another_model_is_refused(workspace: Workspace) -> None:
    handle = workspace.model("assistant")
    handle.repair.patch([wanted("dog says?", "woof")])
    fold = handle.load()
    assert fold.patch is not None and fold.patch.rewrite is not None
    rewrite = fold.patch.rewrite
    for wrong in (
        replace(rewrite, layer="blocks.7.down"),
        replace(rewrite, layer="blocks.0"),
        replace(rewrite, moves=rewrite.moves[:-1]),
    ):
        with pytest.raises(IntegrityError, match="no layer"):
            replace(fold.patch, rewrite=wrong).check(fold.learner, fold.columns, 2)
    part = rewrite.save()
    for arrays in ({"ways": rewrite.ways[:-1]}, {"moves": rewrite.moves * np.nan}):
        with pytest.raises(IntegrityError, match="a change"):
            type(rewrite).load(Part(part.arrays | arrays, part.meta))
    with pytest.raises(InputError, match="writes no texts"):
        replace(fold, learner=object(), patch=None).generate("x")  # type: ignore[arg-type]
