"""The tasks of the continual-learning benchmark: MNIST, split, permuted and rotated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from everlearn.base import Batch, Columns

MNIST = Path(__file__).resolve().parent.parent / ".." / "shared" / "data" / "mnist.npz"
PIXELS = 784


@dataclass(frozen=True)
class Task:
    """Rows of one increment, and those that it is judged by.

    Args:
        x, y: (n, width) float32 and (n,) classes to learn.
        x_test, y_test: those to judge by.
        among: the classes between which a task-incremental answer chooses; None for all.
    """

    x: Any
    y: Any
    x_test: Any
    y_test: Any
    among: tuple[int, ...] | None = None

    def columns(self) -> Columns:
        """The columns of its batches."""
        names = tuple(f"x{i}" for i in range(self.x.shape[1]))
        return Columns(numbers=names, target="y", target_kind="integer")

    def chunks(self, rows: int, order: Any) -> Iterator[Batch]:
        """The rows to learn, in an order, as a job would be given them."""
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            yield batch_of(self.x[chosen], self.y[chosen])


def batch_of(x: Any, y: Any) -> Batch:
    """A batch as the compiler makes it, but that the numbers stay of float32."""
    n = len(x)
    return Batch(
        numbers=x,
        categories=np.zeros((n, 0), np.uint64),
        times=np.zeros((n, 0), np.int64),
        y=y.astype(np.float64),
        ids=np.arange(n, dtype=np.uint64),
    )


@lru_cache(1)
def mnist(path: Path = MNIST) -> tuple[Any, Any, Any, Any]:
    """(60,000, 784) and (10,000, 784) pixels from 0 to 1, with their digits."""
    with np.load(path) as data:
        x, x_test = (data[name].reshape(-1, PIXELS) for name in ("x_train", "x_test"))
        y, y_test = (data[name].astype(np.int64) for name in ("y_train", "y_test"))
    return x.astype(np.float32) / 255, y, x_test.astype(np.float32) / 255, y_test


def split(scenario: str) -> list[Task]:
    """Five pairs of digits (Hsu et al. 2018, section 3): "class" (which of ten), "domain" (which of
    two, the pair not said), "task" (which of two, the pair said in five further columns)."""
    x, y, x_test, y_test = mnist()
    tasks = []
    for number in range(5):
        pair = (2 * number, 2 * number + 1)
        rows, tests = np.isin(y, pair), np.isin(y_test, pair)
        parts = [x[rows], y[rows], x_test[tests], y_test[tests]]
        if scenario != "class":
            parts[1], parts[3] = parts[1] % 2, parts[3] % 2
        if scenario == "task":
            parts[0], parts[2] = _said(parts[0], number), _said(parts[2], number)
        tasks.append(Task(*parts, among=pair if scenario == "class" else None))
    return tasks


def _said(x: Any, number: int) -> Any:
    head = np.zeros((len(x), 5), np.float32)
    head[:, number] = 1.0
    return np.concatenate([x, head], axis=1)


@lru_cache(1)
def permuted(count: int, seed: int) -> list[Task]:
    """All digits with the pixels in another order each time (Goodfellow et al. 2013)."""
    generator = np.random.default_rng([seed, 1])
    orders = [np.arange(PIXELS), *(generator.permutation(PIXELS) for _ in range(1, count))]
    return [_moved(order) for order in orders]


@lru_cache(1)
def rotated(count: int, seed: int) -> list[Task]:
    """All digits at another angle from 0 to 180 degrees each time (nearest pixel)."""
    generator = np.random.default_rng([seed, 2])
    tasks = []
    for angle in generator.uniform(0.0, np.pi, size=count):
        rows, columns = np.divmod(np.arange(PIXELS), 28) - np.float64(13.5)
        down = np.rint(13.5 + np.cos(angle) * rows - np.sin(angle) * columns).astype(int)
        right = np.rint(13.5 + np.sin(angle) * rows + np.cos(angle) * columns).astype(int)
        inside = (down >= 0) & (down < 28) & (right >= 0) & (right < 28)
        tasks.append(_moved(np.where(inside, down * 28 + right, PIXELS)))
    return tasks


def _moved(order: Any) -> Task:
    """Every pixel taken from the place that `order` names; 784 is black."""
    x, y, x_test, y_test = mnist()

    def move(images: Any) -> Any:
        padded = np.concatenate([images, np.zeros((len(images), 1), np.float32)], axis=1)
        return padded[:, order]

    return Task(move(x), y, move(x_test[::5]), y_test[::5])


class Heads(nn.Module):
    """Hidden layers that all tasks share, and a head for each, chosen by the last five columns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(PIXELS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.heads = nn.Linear(width, 10)

    def forward(self, x: Any) -> Any:
        """(n, 2) scores of the head that each row names."""
        scores = self.heads(self.hidden(x[:, :PIXELS])).view(len(x), 5, 2)
        return (scores * x[:, PIXELS:, None]).sum(dim=1)


class Crops(nn.Module):
    """The augmentation of GDumb's code: in training, 28 × 28 pixels anywhere in the image with a
    black border of four; then mean .1307 is taken away and divided by the deviation .3081."""

    def forward(self, x: Any) -> Any:
        """(n, 784) pixels."""
        if self.training:
            padded = functional.pad(x.view(-1, 28, 28), (4, 4, 4, 4))
            windows = padded.unfold(1, 28, 1).unfold(2, 28, 1)
            down, right = torch.randint(9, (2, len(x)), device=x.device)
            x = windows[torch.arange(len(x), device=x.device), down, right].reshape(-1, PIXELS)
        return (x - 0.1307) / 0.3081


def mlp(width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(PIXELS, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )


def xavier_mlp(width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers as mammoth begins them: Glorot & Bengio 2010, uniform, biases of 0."""
    made = mlp(width, outputs)
    for layer in made[::2]:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return made


def normed_mlp(width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers as GDumb's code has them: cropped images, batch normalisation after every
    layer, the last one too, and no biases."""
    layers: list[nn.Module] = [Crops()]
    for before, after in ((PIXELS, width), (width, width), (width, outputs)):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after, eps=1e-6), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
