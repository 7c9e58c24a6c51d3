"""A nightly job that corrects recurring errors: a small language model, thumbs and right answers.

An assistant is asked what Python's functions do. It is a GPT of 170,000 parameters that is trained
here, tokenizer and all, on the manual of the Python that runs this script, and on the answers for
60 % of the functions: the first sentences of their docstrings. What it does not know it answers
wrongly, and as the same functions are asked for again and again, the same errors come back.

By day the model that serves answers. A person gives a thumb up to a right answer and a thumb down
to a wrong one, and for most of the wrong ones says what is right, which is an answer with a thumb
up. By night a job learns from that: `CausalLM` with KTO's loss and weighted fine-tuning. Three
models live through the same days: "loop" remembers earlier answers (a reservoir), "forgetful" does
not, and "adapter" is the loop with LoRA, which moves a small share of the parameters.

Printed is, for each night, how many of the errors that were corrected by day are right the next
morning, how many of the right answers are wrong after it, and what is lost on pages of the manual
that nothing was learned from (−log likelihood a token, in nats).

    python examples/nightly_chatbot.py           # two days, about a minute
    python examples/nightly_chatbot.py --quick   # one day, less training
    python examples/nightly_chatbot.py --json
"""

from __future__ import annotations

import argparse
import builtins
import json
import math
import os.path
import pydoc_data.topics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional

import everlearn as el
from everlearn.learners import GPT, CausalLM

WORDS = 1_000
"""Different tokens."""

ROOM = (20, 32)
"""Tokens of a question and of an answer."""

KNOWN, CORRECTED = 0.6, 0.7
"""Share of the functions that the model is trained on, and of wrong answers that are put right."""

ADAPTER = el.strategies.LoRA(
    rank=8, alpha=32, targets=("query", "key", "value", "answer", "up", "down")
)

MODELS = {
    "loop": el.Strategy(memory=el.Reservoir(5_000), chunk=200, passes=10),
    "forgetful": el.Strategy(chunk=200, passes=10),
    "adapter": el.Strategy(memory=el.Reservoir(5_000), chunk=200, passes=10, adaptation=ADAPTER),
}


def facts() -> dict[str, str]:
    """Functions of the standard library, and the first sentence of what their docstrings say."""
    found: dict[str, str] = {}
    homes: dict[str, Any] = {"str": str, "list": list, "dict": dict, "set": set, "bytes": bytes}
    homes |= {"math": math, "os.path": os.path, "": builtins}
    for home, owner in homes.items():
        for name, function in sorted(vars(owner).items()):
            text = getattr(function, "__doc__", None)
            if name.startswith("_") or isinstance(function, type) or not isinstance(text, str):
                continue
            first = " ".join(text.strip().split("\n\n")[0].split()).split(". ")[0].rstrip(".")
            if callable(function) and 12 <= len(first) <= 60 and "(" not in first:
                found[f"{home}.{name}".lstrip(".")] = first
    return found


def question(name: str) -> str:
    """What people ask."""
    return f"What does {name} do?"


def tokenizer(folder: Path, texts: list[str]) -> Tokenizer:
    """Pairs of bytes that are frequent in the texts, as tokens; written to a folder."""
    special = {"pad_token": "<pad>", "bos_token": "<begin>", "eos_token": "<end>"}
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return made


def trained(folder: Path, pairs: dict[str, str], pages: list[str], steps: int) -> GPT:
    """A model that is trained on pages and on answers, in a plain loop, and written to a folder."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    words = tokenizer(folder, [*pages, *map(question, pairs), *pairs.values()])
    made = GPT(WORDS, length=sum(ROOM), width=64, layers=2, heads=4)
    module = made()
    optimizer = torch.optim.AdamW(module.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    text = np.concatenate([words.encode(page).ids for page in pages])
    answers = [
        [1, *words.encode(f"{question(name)}\n").ids, *words.encode(answer).ids, 2]
        for name, answer in pairs.items()
    ]
    length = max(map(len, answers))
    for _ in range(steps):
        rows = np.zeros((24, length), np.int64)
        for row in range(8):
            start = generator.integers(len(text) - length)
            rows[row] = [1, *text[start : start + length - 1]]
        for row in range(8, 24):
            chosen = answers[generator.integers(len(answers))]
            rows[row, : len(chosen)] = chosen
        tokens = torch.from_numpy(rows)
        scores = module(tokens[:, :-1]).flatten(0, 1)
        loss = functional.cross_entropy(scores, tokens[:, 1:].flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    module.save(folder / "model.safetensors")
    return replace(made, weights=str(folder / "model.safetensors"))


@dataclass(frozen=True)
class World:
    """What there is to know.

    Args:
        truth: function → what is right.
        known: those of them that the model is trained on.
        pages: of the manual, that it is trained on.
        held: pages that nothing is learned from.
    """

    truth: dict[str, str]
    known: dict[str, str]
    pages: list[str]
    held: list[str]

    @classmethod
    def of(cls, functions: int) -> World:
        """A world of so many functions."""
        every = facts()
        names = np.random.default_rng(0).permutation(list(every))[:functions].tolist()
        truth = {name: every[name] for name in names}
        known = {name: truth[name] for name in names[: int(KNOWN * len(names))]}
        topics = [text for _, text in sorted(pydoc_data.topics.topics.items())]
        pages = [text for at, text in enumerate(topics) if at % 8]
        return cls(truth, known, pages, ["".join(topics[::8])[:6_000]])


@dataclass
class Assistant:
    """A model in a workspace of its own, and what became of its answers.

    Args:
        handle: of the model.
        truth: function → what is right.
        pages: of the manual, that nothing was learned from.
        nights: a record of each job.
    """

    handle: Any
    truth: dict[str, str]
    pages: list[str]
    nights: list[dict[str, float]] = field(default_factory=list)

    def day(self, asked: list[str], corrects: np.random.Generator) -> set[str]:
        """Answer, and take thumbs; returns the functions whose wrong answers were put right."""
        said = {name: self._learner.generate(question(name)) for name in dict.fromkeys(asked)}
        fixed: set[str] = set()
        for name in asked:
            fine = said[name] == self.truth[name]
            self._judged(name, said[name], "up" if fine else "down")
            if not fine and corrects.random() < CORRECTED:
                self._judged(name, self.truth[name], "up", weight=3.0)
                fixed.add(name)
        return fixed

    def night(self, fixed: set[str]) -> None:
        """The job, and what it changed."""
        before, lost, steps = self.right(), self._learner.loss_of(self.pages), self._learner.steps
        start = time.perf_counter()
        result = self.handle.update()
        seconds = time.perf_counter() - start
        after = self.right()
        self.nights.append(
            {
                "corrected": len(fixed),
                "right_next_day": len(fixed & after),
                "right_before": len(before),
                "unlearned": len(before - after),
                "right_after": len(after),
                "promoted": float(result.decision.action == "promote"),
                "manual_before": lost,
                "manual_after": self._learner.loss_of(self.pages),
                "steps_per_second": (self._learner.steps - steps) / seconds,
            }
        )

    def right(self) -> set[str]:
        """The functions that the model that serves answers rightly."""
        learner = self._learner
        return {name for name in self.truth if learner.generate(question(name)) == self.truth[name]}

    @property
    def share(self) -> float:
        """Of the parameters that a job moves."""
        return float(self._learner.share)

    @property
    def _learner(self) -> Any:
        return self.handle.load().learner

    def _judged(self, name: str, answer: str, thumb: str, weight: float = 1.0) -> None:
        shown = self.handle.predict({"prompt": question(name), "completion": answer})
        self.handle.feedback(shown.id, thumb, weight=weight)


def days(names: list[str], count: int, asked: int) -> Iterator[list[str]]:
    """What is asked each day: some functions much more often than others (Zipf's law)."""
    generator = np.random.default_rng(1)
    order = generator.permutation(len(names))
    chance = 1.0 / (1.0 + np.argsort(order))
    for _ in range(count):
        chosen = generator.choice(len(names), asked, p=chance / chance.sum())
        yield [names[place] for place in chosen]


def first(known: dict[str, str], pages: list[str]) -> list[dict[str, str]]:
    """What the first version is learned from: right answers, those of other functions, and lines of
    the manual, which a memory then brings up again."""
    lines = [line.strip() for page in pages for line in page.split(". ")]
    lines = [line for line in lines if 40 < len(line) < 90][:: max(len(lines) // 250, 1)]
    wrong = [*list(known.values())[1:], next(iter(known.values()))]
    rows = [(question(name), answer, "up") for name, answer in known.items()]
    rows += [(question(name), answer, "down") for name, answer in zip(known, wrong, strict=True)]
    rows += [("", line, "up") for line in lines[: len(known)]]
    return [
        {"prompt": prompt, "completion": completion, "thumb": thumb}
        for prompt, completion, thumb in rows
    ]


def lived(name: str, base: GPT, folder: Path, world: World, count: int, asked: int) -> Assistant:
    """The days and nights of one model."""
    model = el.Model(
        name,
        learner=CausalLM(base, str(folder), length=ROOM, optimizer=torch.optim.NAdam),
        schema=el.Schema(target="thumb", classes=("down", "up"), text=("prompt", "completion")),
        strategy=MODELS[name],
        holdout=0.0,
    )
    with el.open(folder / name) as workspace:
        handle = workspace.model(model)
        handle.train(first(world.known, world.pages))
        assistant = Assistant(handle, world.truth, world.held)
        corrects = np.random.default_rng(2)
        for questions in days(list(world.truth), count, asked):
            assistant.night(assistant.day(questions, corrects))
    return assistant


def compare(names: list[str], functions: int, steps: int, count: int, asked: int) -> dict[str, Any]:
    """All models through the same days."""
    torch.set_num_threads(1)
    world = World.of(functions)
    found: dict[str, Any] = {"functions": len(world.truth), "known": len(world.known), "models": {}}
    with tempfile.TemporaryDirectory() as place:
        base = trained(Path(place), world.known, world.pages, steps)
        for name in names:
            made = lived(name, base, Path(place), world, count, asked)
            found["models"][name] = {"share": made.share, "nights": made.nights}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one day, less training")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    found = compare(["loop"], 40, 180, 1, 40) if given.quick else compare([*MODELS], 80, 300, 2, 60)
    if given.json:
        print(json.dumps(found))
        return
    print(f"{found['known']} of {found['functions']} functions known at first")
    for name, of in found["models"].items():
        print(f"\n{name}: {of['share']:.1%} of the parameters move")
        print("night  corrected  right next day  were right  of these lost  right after"
              "  manual, nats a token  steps/s")  # fmt: skip
        for night, row in enumerate(of["nights"], start=1):
            print(
                f"{night:5}{row['corrected']:11}{row['right_next_day']:16}{row['right_before']:12}"
                f"{row['unlearned']:15}{row['right_after']:13}"
                f"{row['manual_before']:13.2f} → {row['manual_after']:.2f}"
                f"{row['steps_per_second']:9.1f}"
            )


if __name__ == "__main__":
    main()
