"""What dynamic expansion gains on MNIST in five increments, and whether rows find their column.

    .venv/bin/python -m benchmarks.expansion [--data FILE] [--out DIR]

Split-MNIST (two digits an increment, as one target for all and as ten classes), the same digits
turned by 30° more with each increment, and with pixels permuted anew. No memory, no boundary is
told; a perceptron of 200 and 100 units, Adam, three passes, 12,000 training rows in all; accuracy
after the last increment, the mean over the test rows (2,000) of all five. One seed: what is
compared differs by far more than seeds do. A minute of CPU time. With --out, expansion.md is
written.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.ndimage import rotate
from torch import nn

import everlearn as el
from everlearn.learners.neural.definition import TorchLearner
from everlearn.strategies import Expand

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist.npz"
ROWS, TESTS, TASKS = 12_000, 2_000, 5
Rows = tuple[Any, Any]
Digits = Callable[[], Iterator[tuple[Rows, Rows]]]


def digits(path: Path) -> tuple[Rows, Rows]:
    """(training rows, test rows): (n, 784) from 0 to 1, and (n,) digits."""
    with np.load(path) as kept:
        train, test = (
            (kept[f"x_{name}"][:n].reshape(-1, 784) / 255.0, kept[f"y_{name}"][:n].astype(np.int64))
            for name, n in (("train", ROWS), ("test", TESTS))
        )
    return train, test


def split(train: Rows, test: Rows, classes: int) -> Iterator[tuple[Rows, Rows]]:
    """Two digits after the other."""
    for task in range(TASKS):
        yield tuple((X[y // 2 == task], y[y // 2 == task] % classes) for X, y in (train, test))  # type: ignore[misc]


def turned(train: Rows, test: Rows) -> Iterator[tuple[Rows, Rows]]:
    """All digits, 30° further each time."""

    def turn(X: Any, task: int) -> Any:
        pictures = X.reshape(-1, 28, 28)
        return rotate(pictures, 30 * task, axes=(1, 2), reshape=False, order=1).reshape(-1, 784)

    each = ROWS // TASKS
    for task in range(TASKS):
        own = slice(task * each, (task + 1) * each)
        yield (turn(train[0][own], task), train[1][own]), (turn(test[0], task), test[1])


def permuted(train: Rows, test: Rows) -> Iterator[tuple[Rows, Rows]]:
    """All digits, their pixels in another order each time."""
    rng, each = np.random.default_rng(0), ROWS // TASKS
    for task in range(TASKS):
        order = rng.permutation(784) if task else np.arange(784)
        own = slice(task * each, (task + 1) * each)
        yield (train[0][own][:, order], train[1][own]), (test[0][:, order], test[1])


def run(tasks: list[tuple[Rows, Rows]], classes: int, adaptation: Any) -> tuple[float, str, str]:
    """(mean accuracy, the column of each increment, how many test rows find it)."""
    definition = TorchLearner(
        lambda: nn.Sequential(
            nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, classes)
        ),
        batch=64,
        classes=classes,
        encoder=el.Encoder(numbers="as_is", missing="mean"),
    )
    learned: Any = definition
    strategy = el.Strategy(adaptation=adaptation, passes=3)
    columns: list[int] = []
    for (X, y), _ in tasks:
        learned = el.learn(learned, X, y, strategy)
        if adaptation:
            columns.append(learned._fold.learner.module.current)
    accuracy = float(np.mean([(learned.predict(X) == y).mean() for _, (X, y) in tasks]))
    if not adaptation:
        return accuracy, "", ""
    module = learned._fold.learner.module
    found = [
        float((module.route(torch.from_numpy(X).float()) == column).float().mean())
        for (_, (X, _)), column in zip(tasks, columns, strict=True)
    ]
    return accuracy, " ".join(map(str, columns)), f"{np.mean(found):.3f}"


def report(path: Path) -> str:
    """The table as Markdown."""
    train, test = digits(path)
    sets: dict[str, tuple[list[tuple[Rows, Rows]], int]] = {
        "Split, one target": (list(split(train, test, 2)), 2),
        "Split, ten classes": (list(split(train, test, 10)), 10),
        "Rotated by 30°": (list(turned(train, test)), 10),
        "Permuted": (list(permuted(train, test)), 10),
    }
    text = [
        "| MNIST | strategy | accuracy | column of each increment | rows that find theirs |",
        "|---|---|---|---|---|",
    ]
    for name, (tasks, classes) in sets.items():
        for words, adaptation in (
            ("naive", None),
            ("`Expand()`", Expand()),
            ("`Expand(at_most=3)`", Expand(at_most=3)),
        ):
            accuracy, columns, found = run(tasks, classes, adaptation)
            text.append(f"| {name} | {words} | {accuracy:.3f} | {columns} | {found} |")
            print(text[-1])
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="mnist.npz")
    parser.add_argument("--out", type=Path, help="folder for expansion.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = report(arguments.data)
    if arguments.out:
        about = " ".join((__doc__ or "").split("\n\n")[2].split())
        (arguments.out / "expansion.md").write_text(f"# Dynamic expansion\n\n{about}\n\n{text}")


if __name__ == "__main__":
    main()
