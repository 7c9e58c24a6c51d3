"""The models that a server answers for, and all that it needs to do so."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from everlearn.base import InputError, Json, NotFoundError
from everlearn.data.feedback import Label, PredictionIds, Receipt
from everlearn.data.review import ReviewQueue
from everlearn.data.reviewers import Reviewers
from everlearn.jobs.queue import Queue
from everlearn.jobs.update import Updates
from everlearn.registry.registry import Registry
from everlearn.rollout.explain import Explanations
from everlearn.rollout.rollouts import Rollouts
from everlearn.serving.bodies import FeedbackBody, PredictBody
from everlearn.serving.console.views import Source
from everlearn.serving.labelling import log_together
from everlearn.serving.observe import Observed
from everlearn.serving.predictor import Predictor, Question
from everlearn.serving.turns import Turns


class Models:
    """The models that a server answers for.

    Args:
        names: of the models.
        registry, queue, updates, rollouts: of the workspace.
    """

    def __init__(
        self,
        names: Sequence[str],
        registry: Registry,
        queue: Queue,
        updates: Updates,
        rollouts: Rollouts,
    ) -> None:
        self.versions, self.queue, self.updates = registry, queue, updates
        self.rollouts, self.explanations = rollouts, Explanations(registry)
        self.after_labels: Callable[[], None] = lambda: None
        ids = self.ids = PredictionIds(registry.database.clock)
        self.predictors = {
            name: Predictor(
                name, registry, updates.log(name), rollouts, ids, self._review_queue(name)
            )
            for name in names
        }
        self.observed = Observed(self.predictors, registry.database, updates, rollouts)
        self.predicting = {
            name: Turns[Question, list[Json]](predictor.answer)
            for name, predictor in self.predictors.items()
        }
        self.labelling = {
            name: Turns[list[Label], list[Receipt]](partial(log_together, predictor.log), most=64)
            for name, predictor in self.predictors.items()
        }

    def predictor(self, name: str) -> Predictor:
        """What answers for the model of this name. Raises `NotFoundError`."""
        if name not in self.predictors:
            known = ", ".join(self.predictors)
            raise NotFoundError(f"there is no model {name!r} here (models: {known})")
        return self.predictors[name]

    def _review_queue(self, name: str) -> ReviewQueue:
        """The predictions of a model that people look at, as its definition says."""
        model = self.versions.definition(name).model()
        return ReviewQueue(self.updates.log(name), model.review, model.labels)

    def reviewers(self, name: str) -> Reviewers:
        """Those who work the review queue of a model. Raises `NotFoundError`."""
        predictor = self.predictor(name)
        return Reviewers(predictor.log, predictor.queue.review)

    async def predict(self, name: str, body: PredictBody) -> Json:
        """Answer, once it is logged."""
        self.predictor(name)
        question = _question(body)
        began = time.perf_counter()
        answers = await self.predicting[name].ask(question)
        self.observed.predicted(name, len(answers), time.perf_counter() - began)
        return {"predictions": answers}

    async def label(self, name: str, body: FeedbackBody) -> Json:
        """Log labels; answer once they are durable."""
        self.predictor(name)
        began = time.perf_counter()
        receipts = await self.labelling[name].ask([item.said() for item in body.labels])
        self.observed.labelled(name, len(receipts), time.perf_counter() - began)
        self.after_labels()
        return {
            "labels": [
                {"label": item.label, "state": item.state, "position": item.position}
                for item in receipts
            ]
        }

    def about(self, name: str) -> Json:
        """What serves, and how far it has learned."""
        predictor = self.predictor(name)
        champion, rollout = self.versions.champion(name), self.rollouts.running(name)
        return {
            "name": name,
            "champion": None if champion is None else champion.number,
            "serving": {"version": predictor.served.version, "digest": predictor.served.digest},
            "rollout": None if rollout is None else rollout.to_json(),
            "labels": predictor.log.head(),
            "unlearned": self.updates.unlearned(name),
            "ignored_columns": dict(predictor.ignored),
        }

    def console(self) -> Source:
        """Where the console's figures come from."""

        def served(name: str) -> int:
            return self.predictors[name].served.version

        names = tuple(self.predictors)
        return Source(self.versions, self.updates, self.rollouts, self.explanations, names, served)

    def refresh(self) -> None:
        """Store what rollouts counted, and have every predictor look whether its champion moved."""
        for predictor in self.predictors.values():
            predictor.follow()


def _question(body: PredictBody) -> Question:
    """Raises `InputError` where what is given of rows is not of each, or not of what is logged."""
    given = {"keys": body.keys, "ids": body.ids, "propensities": body.propensities}
    for name, values in given.items():
        if values is not None and len(values) != len(body.instances):
            raise InputError(f"{len(body.instances)} instances, but {len(values)} {name}")
    if not body.log and (body.ids or body.propensities):
        raise InputError('ids and propensities are of answers that are logged, not of "log": false')
    return Question(body.instances, body.keys, body.ids, body.propensities, body.log)
