"""What a served model is compared with: handlers that a user would write by hand.

    python benchmarks/live_peers.py bare|river|stored|served|hung PORT [WORKSPACE MODEL]

bare: FastAPI around the same version of the same model; nothing is logged. river: FastAPI around
River's logistic regression, which learns each event when it comes; nothing is kept when the process
ends. stored: the same model, taken from a shelf and put back with its metric at each
event, as chantilly does. served: `everlearn serve` in this process. hung: the same, where the
model has a candidate as its shadow, which never answers.
"""

from __future__ import annotations

import shelve  # noqa: TID251 (what the peer keeps its model on)
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Instances(BaseModel):
    """Rows to predict for."""

    instances: list[dict[str, Any]]


class Event(BaseModel):
    """A row and its label."""

    x: dict[str, float]
    y: int


class Events(BaseModel):
    """Several of them."""

    events: list[Event]


def bare(workspace: str, model: str) -> FastAPI:
    """Predicts with the champion, from an array that is made of the rows."""
    import everlearn
    from everlearn.base import Batch
    from everlearn.jobs.load import load_fold

    opened = everlearn.open(workspace)
    champion = opened.registry.champion(model)
    assert champion is not None
    fold = load_fold(opened.registry, model, champion)
    columns, classes = fold.columns.numbers, fold.classes.tolist()
    names = [str(value) for value in classes]
    app = FastAPI()

    @app.post("/predict")
    async def predict(body: Instances) -> dict[str, Any]:
        rows = np.array([[row[name] for name in columns] for row in body.instances])
        none = np.empty((len(rows), 0))
        batch = Batch(
            numbers=rows,
            categories=none.astype(np.uint64),
            times=none.astype(np.int64),
            ids=np.zeros(len(rows), np.uint64),
        )
        found = fold.predict(batch).proba
        assert found is not None
        return {
            "predictions": [
                {
                    "output": classes[max(range(len(chances)), key=chances.__getitem__)],
                    "probabilities": dict(zip(names, chances, strict=True)),
                }
                for chances in found.tolist()
            ]
        }

    return app


def served(workspace: str, model: str, hangs: bool) -> FastAPI:
    """Our server; with a shadow that hangs, if the model has one."""
    import everlearn

    app: FastAPI = everlearn.open(workspace).app([model])
    if hangs:
        trial, never = app.state.models.predictor(model).served.trial, threading.Event()
        trial.ask = lambda rows: [None] * len(rows) * never.wait()
    return app


def river() -> FastAPI:
    """Predicts and learns, one event or several a request."""
    from river import linear_model, optim, preprocessing

    model = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01))
    app = FastAPI()

    @app.post("/learn")
    async def learn(body: Event) -> dict[str, Any]:
        chance = model.predict_proba_one(body.x)
        model.learn_one(body.x, body.y)
        return {"chance": chance}

    @app.post("/learn_many")
    async def learn_many(body: Events) -> dict[str, Any]:
        chances = []
        for event in body.events:
            chances.append(model.predict_proba_one(event.x))
            model.learn_one(event.x, event.y)
        return {"chances": chances}

    return app


def stored(folder: Path) -> FastAPI:
    """Learns an event a request, with a model that lies on a shelf between two of them."""
    from river import linear_model, metrics, optim, preprocessing

    app, place = FastAPI(), str(folder / "shelf")
    with shelve.open(place) as shelf:
        sgd = linear_model.LogisticRegression(optim.SGD(0.01))
        shelf["model"] = preprocessing.StandardScaler() | sgd
        shelf["metric"] = metrics.LogLoss()

    @app.post("/learn")
    async def learn(body: Event) -> dict[str, Any]:
        with shelve.open(place) as shelf:
            model, metric = shelf["model"], shelf["metric"]
            chance = model.predict_proba_one(body.x)
            metric.update(body.y, chance)
            model.learn_one(body.x, body.y)
            shelf["model"], shelf["metric"] = model, metric
        return {"chance": chance}

    return app


def main() -> None:
    """The command."""
    kind, port, *more = sys.argv[1:]
    if kind in ("served", "hung"):
        from everlearn.serving.app import serve

        serve(served(*more, hangs=kind == "hung"), "127.0.0.1", int(port))
        return
    folder = Path(tempfile.mkdtemp())
    app = {"bare": lambda: bare(*more), "river": river, "stored": lambda: stored(folder)}[kind]()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
