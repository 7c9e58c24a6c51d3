"""The settings and methods of the continual-learning benchmark, beside what was published."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.continual_tasks import Heads, mlp, normed_mlp, xavier_mlp
from everlearn.learners import TorchLearner
from everlearn.learners.encoder import Encoder
from everlearn.strategies import (
    AGEM,
    EWC,
    MAS,
    SI,
    DarkReplay,
    GDumb,
    LwF,
    Replay,
    Strategy,
)

AS_IT_IS = Encoder(numbers="as_is", missing="mean")

Published = tuple[float, float] | None
"""Mean and standard deviation of the accuracy, in per cent."""


@dataclass(frozen=True)
class Method:
    """A strategy, by the name that the table has.

    Args:
        name: in the table.
        strategy: how a task is learned.
        rate: of SGD, where the setting uses it.
        batch: rows of a step, remembered ones among them.
        published: scenario → what was published.
        joint: whether all tasks are learned at once.
        masked: of the task-incremental setting, ten scores of which the loss and the answer look at
            the pair that is told, instead of a head for each pair that the input names.
        steps: of a pass over the memory, where the rate of SGD follows the passes.
    """

    name: str
    strategy: Strategy
    rate: float = 0.1
    batch: int = 128
    published: dict[str, Published] | None = None
    joint: bool = False
    masked: bool = False
    steps: int = 0


def hsu(scenario: str) -> list[Method]:
    """Split-MNIST as in Hsu et al. 2018, table 2: MLP 400-400, Adam 1e-3, batch 128, 4 epochs."""

    def told(task: Published, domain: Published, classes: Published) -> dict[str, Published]:
        return {"task": task, "domain": domain, "class": classes}

    def method(name: str, published: Any = None, batch: int = 128, **parts: Any) -> Method:
        strategy = Strategy(passes=4, chunk=100_000, **parts)
        masked = scenario == "task" and name == "LwF"  # it distils the heads of other pairs too
        return Method(name, strategy, 0.0, batch, published, name == "joint", masked)

    ewc = {"task": 1e5, "domain": 5e4, "class": 1e4}[scenario]
    si = {"task": 300.0, "domain": 3000.0, "class": 300.0}[scenario]
    mas = {"task": 0.3, "domain": 1.0, "class": 1.0}[scenario]
    return [
        method("naive", told((93.46, 2.01), (55.16, 1.38), (19.71, 0.08))),
        method("EWC", told((97.70, 0.81), (58.85, 2.59), (19.80, 0.05)), retention=EWC(ewc)),
        method(
            "online EWC",
            told((98.04, 1.10), (57.33, 1.44), (19.77, 0.04)),
            retention=EWC(ewc, decay=0.9),
        ),
        method("SI", told((98.56, 0.49), (64.76, 3.09), (19.67, 0.09)), retention=SI(si)),
        method("MAS", told((99.22, 0.21), (68.57, 6.85), (19.52, 0.29)), retention=MAS(mas)),
        method("LwF", told((99.60, 0.03), (71.02, 1.26), (24.17, 0.33)), retention=LwF()),
        method("A-GEM 1,100", retention=AGEM(1100)),
        method(
            "replay 1,100",
            told((99.40, 0.08), (95.16, 0.49), (90.78, 0.85)),
            256,
            memory=Replay(1100, "balanced"),
        ),
        method(
            "replay 4,400",
            told((99.57, 0.07), (97.11, 0.34), (95.59, 0.49)),
            128,
            memory=Replay(4400, "balanced"),
        ),
        method(
            "replay 4,400, four old rows a new one",
            told((99.57, 0.07), (97.11, 0.34), (95.59, 0.49)),
            640,
            memory=Replay(4400, "balanced", ratio=4.0),
        ),
        method("DER++ 1,100", retention=DarkReplay(1100)),
        *([method("DER++ 4,400", retention=DarkReplay(4400))] if scenario == "class" else []),
        method("joint", told((99.52, 0.16), (98.59, 0.15), (97.53, 0.30))),
    ]


def mammoth_split() -> list[Method]:
    """Split-MNIST, class-incremental, as in mammoth (Buzzega et al. 2020): MLP 100-100, SGD, batch
    10, one epoch; steps, rates and weights of its best arguments."""

    def method(name: str, published: Published, rate: float, **parts: Any) -> Method:
        batch = 20 if "memory" in parts else 10
        strategy = Strategy(chunk=100_000, **parts)
        return Method(name, strategy, rate, batch, {"class": published}, joint=name == "joint")

    return [
        method("naive", (19.60, 0.04), 0.03),
        method("ER 200", (80.43, 1.89), 0.01, memory=Replay(200)),
        method("ER 500", (86.12, 1.89), 0.1, memory=Replay(500)),
        method("DER 200", (84.55, 1.64), 0.03, retention=DarkReplay(200, 0.2, 0.0, draw=10)),
        method("DER 500", (90.54, 1.18), 0.03, retention=DarkReplay(500, 1.0, 0.0, draw=128)),
        method("DER++ 200", (85.61, 1.40), 0.03, retention=DarkReplay(200, 0.2, 1.0, draw=128)),
        method("DER++ 500", (91.00, 1.49), 0.03, retention=DarkReplay(500, 1.0, 0.5, draw=10)),
        method("joint", (95.57, 0.24), 0.1),
    ]


def mammoth_domain(scenario: str) -> list[Method]:
    """Twenty permutations or rotations, as in mammoth: MLP 100-100, SGD, batch 128, one epoch."""

    def method(name: str, told: tuple[Published, Published], rate: float, **parts: Any) -> Method:
        batch = 256 if "memory" in parts else 128
        published = dict(zip(("permuted", "rotated"), told, strict=True))
        return Method(name, Strategy(chunk=6400, **parts), rate, batch, published)

    turned = scenario == "rotated"
    dark = partial(DarkReplay, 500, draw=128)
    return [
        method("naive", ((40.70, 2.33), (67.66, 8.53)), 0.2),
        method(
            "online EWC", ((75.79, 2.25), (77.35, 5.77)), 0.1, retention=EWC(10.0, decay=0.9999)
        ),
        method("SI", ((65.86, 1.57), (71.91, 5.83)), 0.1, retention=SI(1.0, damping=1.0)),
        method("A-GEM 500", ((67.56, 1.28), (80.31, 6.29)), 0.1, retention=AGEM(500, 128)),
        method("ER 500", ((80.60, 0.86), (88.91, 1.44)), 0.2, memory=Replay(500)),
        method(
            "DER++ 500",
            ((88.21, 0.39), (92.77, 1.05)),
            0.2,
            retention=dark(alpha=0.5, beta=1.0) if turned else dark(alpha=1.0, beta=0.5),
        ),
    ]


GDUMB_PASSES = 128


def gdumb() -> list[Method]:
    """The sober baseline on class-incremental Split-MNIST (Prabhu et al. 2020, table 2): learned
    from the memory alone, by the recipe of its code."""

    def method(n: int, published: Published) -> Method:
        memory = GDumb(n, epochs=GDUMB_PASSES)
        strategy = Strategy(start="scratch", memory=memory, chunk=100_000)
        steps = -(-n // 16)
        return Method(
            f"GDumb {n:,}", strategy, batch=16, published={"class": published}, steps=steps
        )

    return [method(500, (91.9, 0.5)), method(4400, (97.8, 0.1))]


def warm_restarts(steps: int, step: int) -> float:
    """The factor of the largest step of SGD in GDumb's code, which it sets once a pass: .1 in the
    first, then cosines down to .01, each twice as long as the one before.

    Args:
        steps: of a pass.
        step: so far.
    """
    number = step // steps
    if number == 0:
        return 0.1
    begun = 1 << (number.bit_length() - 1)  # the pass in which this cosine began, and its length
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (number - begun) / begun)) / 2


def between_pairs(output: Any, target: Any) -> Any:
    """Cross-entropy between the two digits of a row's pair."""
    first = target // 2 * 2
    pair = output.gather(1, torch.stack([first, first + 1], dim=1))
    return torch.nn.functional.cross_entropy(pair, target - first, reduction="none")


def learner(setting: str, scenario: str, method: Method) -> TorchLearner:
    """What a method of a setting trains."""
    outputs = 2 if scenario in ("domain", "task") and not method.masked else 10
    loss: Any = between_pairs if method.masked else "cross_entropy"
    known: dict[str, Any] = {"classes": outputs, "batch": method.batch, "encoder": AS_IT_IS}
    if setting == "gdumb":
        return TorchLearner(
            partial(normed_mlp, 400, outputs),
            loss,
            partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-6),
            scheduler=partial(LambdaLR, lr_lambda=partial(warm_restarts, method.steps)),
            clip=10.0,
            **known,
        )
    if setting == "mammoth":
        sgd = partial(torch.optim.SGD, lr=method.rate)
        return TorchLearner(partial(xavier_mlp, 100, outputs), loss, sgd, **known)
    made: Callable[[], Any] = partial(mlp, 400, outputs)
    if scenario == "task" and not method.masked:
        made = partial(Heads, 400)
    return TorchLearner(made, loss, partial(torch.optim.Adam, lr=1e-3), **known)
