"""PyTorch modules as learners."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is needed")

from torch import nn  # noqa: E402

from everlearn.base import (  # noqa: E402
    Columns,
    Learner,
)
from everlearn.learners.encoder import Encoder  # noqa: E402
from everlearn.learners.torch import TorchLearner  # noqa: E402
from everlearn.testing.learner import LearnerSuite  # noqa: E402

torch.set_num_threads(1)

ENCODER = Encoder(categories="onehot", buckets=8)
WIDTH = 3 * 2 + 6 + 8


def net(outputs: int = 3, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, 24), nn.ReLU(), nn.Dropout(dropout), nn.Linear(24, outputs)
    )


def one_output() -> nn.Module:
    return net(1)


def noisy() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 3)
    )


def fast(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def slower_and_slower(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)


class TestClassifier(LearnerSuite):
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = TorchLearner(net, optimizer=fast, batch=20, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)


class TestRegressor(LearnerSuite):
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = TorchLearner(one_output, "mse", fast, batch=10, encoder=ENCODER, precision="float64")
        return made.make_learner(columns, classes=classes, seed=seed)


class TestEverythingAtOnce(LearnerSuite):
    """Dropout, batch normalisation, a scheduler, clipping, momentum and bfloat16."""

    learns = False

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = TorchLearner(
            noisy,
            "cross_entropy",
            lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
            scheduler=slower_and_slower,
            batch=25,
            encoder=ENCODER,
            clip=1.0,
            precision="bfloat16",
        )
        return made.make_learner(columns, classes=classes, seed=seed)
