"""What a server tells Prometheus. Counters grow with the requests; the rest is read from the
database when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.engine import Connection

from everlearn.base import EverlearnError
from everlearn.jobs.update import Updates
from everlearn.registry.models import model_id
from everlearn.rollout.rollouts import Rollouts
from everlearn.serving.predictor import Predictor
from everlearn.storage import schema
from everlearn.storage.database import Database

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the buckets of durations."""


class Observed:
    """The metrics of one server process.

    Args:
        predictors: of the models that it answers for.
        database, updates, rollouts: of the workspace.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        database: Database,
        updates: Updates,
        rollouts: Rollouts,
    ) -> None:
        self.registry = CollectorRegistry()
        self._predictions = Counter(
            "everlearn_predictions_total", "Rows predicted.", ["model"], registry=self.registry
        )
        self._labels = Counter(
            "everlearn_labels_total", "Labels received.", ["model"], registry=self.registry
        )
        self._seconds = Histogram(
            "everlearn_request_seconds",
            "Time from a request to its answer, which is logged by then.",
            ["model", "what"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.registry.register(_Standing(predictors, database, updates, rollouts))

    def predicted(self, model: str, rows: int, seconds: float) -> None:
        """A request was answered."""
        self._predictions.labels(model).inc(rows)
        self._seconds.labels(model, "predict").observe(seconds)

    def labelled(self, model: str, labels: int, seconds: float) -> None:
        """Labels were logged."""
        self._labels.labels(model).inc(labels)
        self._seconds.labels(model, "feedback").observe(seconds)


class _Standing(Collector):
    """How models, jobs and rollouts stand: the same in all replicas, but for what each serves."""

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        database: Database,
        updates: Updates,
        rollouts: Rollouts,
    ) -> None:
        self._predictors, self._database = predictors, database
        self._updates, self._rollouts = updates, rollouts

    def describe(self) -> list[Metric]:
        """Nothing: what there is, is read when it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the database. Without it, only what this process knows is told, and ``up`` is 0."""
        serving = GaugeMetricFamily(
            "everlearn_serving_version", "Version that this process serves.", labels=["model"]
        )
        for name, predictor in self._predictors.items():
            serving.add_metric([name], predictor.served.version)
        yield serving
        up = GaugeMetricFamily("everlearn_database_up", "Whether the database answers.")
        try:
            read = list(self._read())
        except (EverlearnError, sa.exc.SQLAlchemyError):
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from read

    def _read(self) -> Iterator[Metric]:
        families = _families()
        for name, predictor in self._predictors.items():
            head = predictor.log.head()
            unlearned = self._updates.unlearned(name)
            families["labels_unlearned"].add_metric([name], unlearned)
            position = predictor.served.position
            if position is not None:
                families["online_behind"].add_metric([name], max(0, head - position))
            rollout = self._rollouts.running(name)
            families["rollout_running"].add_metric([name], rollout is not None)
            if rollout is not None:
                families["rollout_stage"].add_metric([name], rollout.stage + 1)
            with self._database.read() as connection:
                key = model_id(connection, name)
                for family, table, column, states in COUNTED:
                    counts = dict.fromkeys(states, 0) | _counts(connection, table, column, key)
                    for value, count in counts.items():
                        families[family].add_metric([name, value], count)
                held = schema.quarantined_sources.c
                query = sa.select(sa.func.count()).where(
                    held.model_id == key, held.released_at.is_(None)
                )
                families["quarantined_sources"].add_metric(
                    [name], connection.execute(query).scalar_one()
                )
        yield from families.values()


COUNTED: tuple[tuple[str, sa.Table, str, tuple[str, ...]], ...] = (
    ("jobs", schema.jobs, "state", ("queued", "running", "done", "failed")),
    ("alias_moves", schema.alias_history, "action", ("promote", "rollback", "refuse")),
    ("review_items", schema.review_items, "state", ()),
)
"""Rows that are counted: metric, table, the column by whose values, values that are always told."""


def _families() -> dict[str, CounterMetricFamily | GaugeMetricFamily]:
    gauges = {
        "labels_unlearned": ("Labels that no version was learned from.", []),
        "online_behind": ("Labels that what this process serves has yet to learn.", []),
        "rollout_running": ("Whether a rollout is going on.", []),
        "rollout_stage": ("Its stage, from 1.", []),
        "quarantined_sources": ("Sources whose labels are set aside.", []),
        "jobs": ("Jobs by state.", ["state"]),
        "review_items": ("Predictions in the review queue by state.", ["state"]),
    }
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
        name: GaugeMetricFamily(f"everlearn_{name}", text, labels=["model", *more])
        for name, (text, more) in gauges.items()
    }
    families["alias_moves"] = CounterMetricFamily(
        "everlearn_alias_moves", "Promotions, rollbacks and refusals.", labels=["model", "action"]
    )
    return families


def _counts(connection: Connection, table: sa.Table, column: str, key: int) -> dict[str, int]:
    by = table.c[column]
    query = sa.select(by, sa.func.count()).where(table.c.model_id == key).group_by(by)
    return {str(value): int(count) for value, count in connection.execute(query)}
