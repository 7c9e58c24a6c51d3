"""What a job costs beside a loop written by hand for the same method, on tensors in memory."""

from __future__ import annotations

import gc
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import everlearn as el
from benchmarks.continual_methods import AS_IT_IS
from benchmarks.continual_tasks import mlp, split
from everlearn.learners import TorchLearner
from everlearn.strategies import EWC, Replay, Strategy

EPOCHS, BATCH, ROWS = 5, 128, 500
FISHER_ROWS, STRENGTH = 1024, 1000.0
ROUNDS = 3


def adam(parameters: Any) -> torch.optim.Optimizer:
    """The optimizer of both."""
    return torch.optim.Adam(parameters, lr=1e-3)


def net() -> Any:
    """The module of both."""
    return mlp(400, 10)


def tasks() -> list[tuple[Any, Any]]:
    """(rows, classes) of three increments: 0 and 1, 2 and 3, 4 and 5."""
    return [(task.x, task.y) for task in split("class")[:3]]


# --- by hand ---


def naive(data: list[tuple[Any, Any]]) -> None:
    """Nothing is held on to."""
    module = net()
    optimizer = adam(module.parameters())
    for x, y in data:
        for _ in range(EPOCHS):
            order = torch.randperm(len(x))
            for start in range(0, len(x), BATCH):
                rows = order[start : start + BATCH]
                optimizer.zero_grad()
                cross_entropy(module(x[rows]), y[rows]).backward()
                optimizer.step()


def replay(data: list[tuple[Any, Any]]) -> None:
    """As many remembered rows as new ones in each step, once there are any; a reservoir of all
    rows."""
    module = net()
    optimizer = adam(module.parameters())
    kept_x = torch.empty(ROWS, data[0][0].shape[1])
    kept_y = torch.empty(ROWS, dtype=torch.int64)
    seen = 0
    for x, y in data:
        held = min(seen, ROWS)
        old_x, old_y = kept_x[:held].clone(), kept_y[:held].clone()
        size = BATCH if held else 2 * BATCH
        for epoch in range(EPOCHS):
            order = torch.randperm(len(x))
            for start in range(0, len(x), size):
                rows = order[start : start + size]
                new_x, new_y = x[rows], y[rows]
                if held:
                    drawn = torch.randint(held, (len(rows),))
                    new_x = torch.cat([new_x, old_x[drawn]])
                    new_y = torch.cat([new_y, old_y[drawn]])
                optimizer.zero_grad()
                cross_entropy(module(new_x), new_y).backward()
                optimizer.step()
                if epoch == 0:
                    for row in rows.tolist():
                        place = seen if seen < ROWS else int(torch.randint(seen + 1, ()))
                        if place < ROWS:
                            kept_x[place], kept_y[place] = x[row], y[row]
                        seen += 1


def ewc(data: list[tuple[Any, Any]]) -> None:
    """λ/2 · Σ F (weight − anchor)² in the loss; F of one row at a time, after each increment."""
    module = net()
    optimizer = adam(module.parameters())
    names = [name for name, _ in module.named_parameters()]
    fisher: dict[str, Any] = {}
    anchor: dict[str, Any] = {}
    for x, y in data:
        for _ in range(EPOCHS):
            order = torch.randperm(len(x))
            for start in range(0, len(x), BATCH):
                rows = order[start : start + BATCH]
                optimizer.zero_grad()
                loss = cross_entropy(module(x[rows]), y[rows])
                if fisher:
                    for name, weight in module.named_parameters():
                        apart = (weight - anchor[name]).square()
                        loss = loss + STRENGTH / 2 * (fisher[name] * apart).sum()
                loss.backward()
                optimizer.step()
        weights = {name: p.detach() for name, p in module.named_parameters()}
        rows = torch.randperm(len(x))[:FISHER_ROWS]
        found = _fisher(module, weights, x[rows])
        fisher = {name: fisher.get(name, 0.0) + found[name] for name in names}
        anchor = {name: weights[name].clone() for name in names}


def _fisher(module: Any, weights: dict[str, Any], x: Any) -> dict[str, Any]:
    from torch.func import functional_call, grad, vmap

    def loss(weights: Any, row: Any, label: Any) -> Any:
        return cross_entropy(functional_call(module, weights, (row[None],)), label[None])

    with torch.no_grad():
        drawn = torch.distributions.Categorical(logits=module(x)).sample()
    total = {name: torch.zeros_like(p) for name, p in weights.items()}
    each = vmap(grad(loss), in_dims=(None, 0, 0))
    for start in range(0, len(x), 16):  # 30 MB of gradients, which is quickest
        piece = slice(start, start + 16)
        part = each(weights, x[piece], drawn[piece])
        for name in total:
            total[name] += part[name].square().sum(dim=0) / len(x)
    return total


# --- by a job ---


def learner(strategy: Strategy) -> TorchLearner:
    """The same module and optimizer, and as many rows in a step, remembered ones among them."""
    rows = BATCH if strategy.memory is None else 2 * BATCH
    return TorchLearner(net, "cross_entropy", adam, classes=10, batch=rows, encoder=AS_IT_IS)


def model_of(strategy: Strategy) -> Any:
    """What is learned, and how."""
    schema = el.Schema(target="y", classes=tuple(range(10)))
    return el.Model("m", learner=learner(strategy), schema=schema, strategy=strategy)


def in_memory(strategy: Strategy, data: list[tuple[Any, Any]]) -> None:
    """`everlearn.learn`: each increment from arrays, with test-then-train metrics."""
    model = model_of(strategy)
    for x, y in data:
        model = el.learn(model, x, y, strategy=strategy)


def in_workspace(strategy: Strategy, data: list[tuple[Any, Any]]) -> None:
    """Jobs of a workspace: rows kept, hold-outs, gate, checkpoints, a version each."""
    with tempfile.TemporaryDirectory() as folder, el.open(folder) as workspace:
        handle = workspace.model(model_of(strategy))
        for x, y in data:
            handle.train((x, y))


def measure() -> dict[str, Any]:
    """Processor seconds of each, and their ratios: the median over rounds that go in turn."""
    data = tasks()
    tensors = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in data]
    chunk = 12_800
    methods: dict[str, tuple[Callable[..., None], Strategy]] = {
        "naive": (naive, Strategy(chunk=chunk, passes=EPOCHS)),
        "replay": (replay, Strategy(chunk=chunk, passes=EPOCHS, memory=Replay(ROWS))),
        "EWC": (ewc, Strategy(chunk=chunk, passes=EPOCHS, retention=EWC(STRENGTH))),
    }
    results: dict[str, Any] = {}
    for name, (by_hand, strategy) in methods.items():
        seconds: dict[str, list[float]] = {"hand": [], "learn": [], "job": []}
        for number in range(ROUNDS + 1):
            took = {
                "hand": _seconds(partial(by_hand, tensors)),
                "learn": _seconds(partial(in_memory, strategy, data)),
                "job": _seconds(partial(in_workspace, strategy, data)),
            }
            if number:  # the first one warms up
                for key, value in took.items():
                    seconds[key].append(value)
        results[name] = {key: statistics.median(values) for key, values in seconds.items()}
        for key in ("learn", "job"):
            pairs = zip(seconds[key], seconds["hand"], strict=True)
            results[name][f"{key} ratio"] = statistics.median(a / b for a, b in pairs)
        print(name, results[name])
    return results | {"memory": memory()}


def _seconds(call: Callable[[], None]) -> float:
    gc.collect()
    torch.manual_seed(0)
    began = time.process_time()
    call()
    return time.process_time() - began


def memory(increments: int = 100) -> dict[str, float]:
    """Largest resident size, in MiB, after 10 and after all increments of 2,000 rows each with
    replay and EWC."""
    x, y = tasks()[0]
    strategy = Strategy(chunk=2000, memory=Replay(ROWS), retention=EWC(STRENGTH, rows=64))
    generator = np.random.default_rng(0)
    model = model_of(strategy)
    found = {}
    for number in range(1, increments + 1):
        rows = generator.choice(len(x), 2000, replace=False)
        model = el.learn(model, x[rows], y[rows], strategy=strategy)
        if number in (10, increments):
            size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            found[f"after {number}"] = size
    return found
