"""A model whose increments are honest, but for the labels of one source in one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import everlearn as el

GOOD, POISONED, BAD = 2, 5, 6
SOURCES = ("ann", "bob", "bot-7", "eve")
BOT = "bot-7"


def table(seed: int, rows: int = 200, flipped: str | None = None, **more: Any) -> dict[str, Any]:
    """Rows of several sources; those of one of them have the wrong labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).round(6)
    late = x @ [2.0, -2.0, 1.0] + 0.3 * rng.normal(size=rows) > 0
    share = [0.25] * 4 if flipped is None else [0.6 if s == flipped else 0.4 / 3 for s in SOURCES]
    source = rng.choice(SOURCES, rows, p=share)
    if flipped is not None:
        late ^= source == flipped
    return {
        "id": np.arange(rows) + 1000 * seed,
        **{f"x{k}": x[:, k] for k in range(3)},
        "source": source,
        "late": late.astype(np.int64),
        **more,
    }


def model(**changes: Any) -> el.Model:
    """Slow to learn and slow to forget."""
    return el.Model(
        "m",
        learner=el.learners.LogisticRegression(learning_rate=0.05, horizon=1),
        schema=el.Schema(target="late", id="id", ignore=("source",)),
        strategy=el.Strategy(chunk=20),
        holdout=0.2,
    ).replace(**changes)


def poisoned(folder: Path, flipped: str = BOT, versions: int = BAD) -> el.Workspace:
    """A workspace in which the increment of version `POISONED` has wrong labels."""
    workspace = el.open(folder / "workspace")
    handle = workspace.model(model())
    for number in range(1, versions + 1):
        wrong = flipped if number == POISONED else None
        rows = 300 if number < POISONED else 150 if number == POISONED else 30
        handle.train(table(number, rows, wrong), source=f"week-{number}")
    return workspace
