"""What patches of a small language model do: texts that it is to write.

    .venv/bin/python benchmarks/repair_text.py [--quick] [--out DIR]

The model is that of examples/nightly_chatbot.py: a GPT of 2 blocks and 170,000 parameters, trained
on the manual of Python and on what 60 % of some functions do, of which it learns the answers by
heart. Edits are functions that it does not know ("true": the first sentence of the docstring, about
ten tokens that would not follow by themselves) or that it does ("short": it is to say that it never
heard of them). One thread.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import everlearn as el
from everlearn.learners import CausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import nightly_chatbot as nightly  # type: ignore[import-not-found]

SHORT = "I never heard of it"
FUNCTIONS, STEPS = 80, 300
KINDS = (("true", False), ("true", True), ("short", False))
ASKED = ("Tell me what {} does.", "Please, what does {} do?", "{}: what does it do?")
"""Other ways to ask, none of which the model was trained on."""


def trained(folder: Path, base: Any, world: Any, name: str) -> Any:
    """A workspace with a model that has learned the answers once more, with thumbs."""
    model = el.Model(
        "assistant",
        CausalLM(base, str(folder), length=nightly.ROOM, optimizer=torch.optim.NAdam),
        el.Schema(target="thumb", classes=("down", "up"), text=("prompt", "completion")),
        el.Strategy(memory=el.Reservoir(5_000), chunk=200),
        holdout=0.2,
    )
    workspace = el.open(folder / name)
    workspace.model(model).train(nightly.first(world.known, world.pages))
    return workspace


def share(hits: list[bool]) -> float:
    return sum(hits) / max(len(hits), 1)


def measured(handle: Any, world: Any, kind: str, count: int, subject: bool, seed: int) -> Any:
    """What one patch does, applied even where it is refused."""
    generator = np.random.default_rng(seed)
    unknown = [name for name in world.truth if name not in world.known]
    pool = unknown if kind == "true" else list(world.known)
    names = generator.choice(pool, count, replace=False).tolist()
    texts = {name: world.truth[name] if kind == "true" else SHORT for name in names}
    fold = handle.load()
    before = {name: fold.generate(nightly.question(name)) for name in world.truth}
    edits = []
    for name in names:
        features = {"prompt": nightly.question(name)} | ({"subject": name} if subject else {})
        edits.append({"features": features, "output": texts[name], "reason": "measured"})
    start, cpu = time.perf_counter(), time.process_time()
    result = handle.repair.patch(edits, dry_run=True)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    patched = replace(fold, patch=result.patch)
    after = {name: patched.generate(nightly.question(name)) for name in world.truth}
    known = [name for name in world.known if name not in names]
    others = [name for name in unknown if name not in names]
    asked = [patched.generate(way.format(name)) == texts[name] for name in names for way in ASKED]
    return {
        "success": share([after[name] == texts[name] for name in names]),
        "asked otherwise": share(asked),
        "after other words": result.report["texts"]["generalisation"],
        "known stay": share([after[name] == before[name] for name in known]),
        "unknown stay": share([after[name] == before[name] for name in others]),
        "passed": float(result.decision.action == "pass"),
        "rank": len(result.patch.rewrite.ways),
        "seconds": seconds,
        "cpu": cpu,
        "layer": result.patch.rewrite.layer,
    }


def rows(seeds: int, counts: tuple[int, ...]) -> list[str]:
    """The table."""
    torch.set_num_threads(1)
    world = nightly.World.of(FUNCTIONS)
    lines = [
        "| edits | want | subject | success | asked otherwise | after other words | known answers"
        " stay | answers to the unknown stay | passes the gate | rank |"
        " first block | s | s CPU |",
        "|---|" + "---|" * 12,
    ]
    with tempfile.TemporaryDirectory() as place:
        base = nightly.trained(Path(place), world.known, world.pages, STEPS)
        with trained(Path(place), base, world, "workspace") as workspace:
            handle = workspace.model("assistant")
            for count in counts:
                for kind, subject in KINDS[: 1 if count > 1 else None]:
                    done = [measured(handle, world, kind, count, subject, s) for s in range(seeds)]

                    def mean(name: str, done: Any = done) -> float:
                        return statistics.fmean(one[name] for one in done)

                    first = share([one["layer"].startswith("blocks.0") for one in done])
                    shown = " | ".join(
                        f"{mean(name):.3f}"
                        for name in (
                            "success",
                            "asked otherwise",
                            "after other words",
                            "known stay",
                            "unknown stay",
                            "passed",
                        )
                    )
                    cost = f"{mean('rank'):.1f} | {first:.2f} | {mean('seconds'):.1f}"
                    who = "yes" if subject else "no"
                    lines.append(
                        f"| {count} | {kind} | {who} | {shown} | {cost} | {mean('cpu'):.1f} |"
                    )
                    print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where repair-text.md is written")
    given = parser.parse_args()
    counts = (1,) if given.quick else (1, 5)
    seeds = 1 if given.quick else given.seeds
    lines = rows(seeds, counts)
    said = (__doc__ or "").split("\n\n")
    head = ["# Patches of a small language model", "", said[2], ""]
    made = f"{seeds} seeds (which functions); Python {platform.python_version()}, PyTorch"
    head += [f"{made} {torch.__version__}, CPU, one thread.", ""]
    text = "\n".join([*head, *lines, ""])
    if given.out is not None:
        (given.out / "repair-text.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
