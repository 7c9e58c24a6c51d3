"""The results of a comparison: a record, its CSV and its JSON."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.base import Ints, Json, NotFoundError
from everlearn.compare.scores import (
    CLASSIFIER_METRICS,
    REGRESSOR_METRICS,
    Score,
    transfer_figures,
)

_HOUR = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Hindsight:
    """The best schedule of full retrainings, known only afterwards.

    Args:
        cost: of the schedule, in money.
        retrain_at: moments of its retrainings.
        periodic_cost: of retraining at the end of every period, by the same matrices.
        never_cost: of never retraining after the first training, by the same matrices.
    """

    cost: float
    retrain_at: tuple[int, ...]
    periodic_cost: float
    never_cost: float


@dataclass(slots=True)
class Results:
    """All that a comparison found.

    Args:
        scores: one for each strategy, in the order in which they were named.
        best: name of the strategy with the best `metric`.
        choice: name of the strategy that is advised.
        advice: what to choose and why, in sentences.
        metric: by which strategies are ranked.
        unit: "time" or "rows": of moments, `every` and `tick`.
        starts: (P,) beginnings of the scored periods.
        rows_in_period: (P,) scored events of each.
        baselines: answers that need no model → metrics.
        settings: what was asked for and what was chosen, in words.
        notes: what a reader must know to trust the figures.
        hindsight: the best schedule, where prices were given and full retraining was compared.
    """

    scores: list[Score]
    best: str
    choice: str
    advice: list[str]
    metric: str
    kind: str
    unit: str
    starts: Ints
    rows_in_period: Ints
    baselines: dict[str, dict[str, float | None]]
    settings: dict[str, str]
    notes: list[str] = field(default_factory=list)
    hindsight: Hindsight | None = None

    def __getitem__(self, name: str) -> Score:
        """The score of a strategy. Raises `NotFoundError` if it was not compared."""
        for score in self.scores:
            if score.name == name:
                return score
        names = ", ".join(score.name for score in self.scores)
        raise NotFoundError(f"{name!r} was not compared; there are {names}")

    @property
    def ranked(self) -> list[Score]:
        """Best first."""
        lower = self.metric != "accuracy"

        def place(score: Score) -> float:
            value = score.metrics.get(self.metric)
            if value is None:
                return math.inf
            return value if lower else -value

        return sorted(self.scores, key=place)

    @property
    def best_job(self) -> str:
        """The best strategy that can be run as jobs, without a service that learns all the time."""
        jobs = [score.name for score in self.ranked if score.is_job]
        return jobs[0] if jobs else self.best

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each strategy, as results.csv has them."""
        return [self._row(score) for score in self.scores]

    def write_csv(self, path: Path) -> None:
        """Write results.csv."""
        rows = self.rows()
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {key: "" if value is None else value for key, value in row.items()} for row in rows
            )

    def write_json(self, path: Path) -> None:
        """Write results.json: everything, also over time."""
        path.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False))

    def to_json(self) -> Json:
        """Everything as JSON; None for what is not a finite number."""
        over_time = {
            score.name: {name: values.tolist() for name, values in score.over_time.items()}
            for score in self.scores
        }
        transfer = {s.name: s.transfer.tolist() for s in self.scores if s.transfer is not None}
        return _plain(
            {
                "best": self.best,
                "choice": self.choice,
                "advice": self.advice,
                "metric": self.metric,
                "kind": self.kind,
                "unit": self.unit,
                "settings": self.settings,
                "notes": self.notes,
                "strategies": [row | self._more(row["strategy"]) for row in self.rows()],
                "baselines": self.baselines,
                "periods": {
                    "start": self.starts.tolist(),
                    "rows": self.rows_in_period.tolist(),
                    "metrics": over_time,
                },
                "transfer": transfer,
                "transfer_figures": self.transfer_figures(),
                "hindsight": None if self.hindsight is None else asdict(self.hindsight),
            }
        )

    def transfer_figures(self) -> dict[str, dict[str, float | None]]:
        """Strategy → average score, backward transfer, forgetting, and intransigence: how far it
        stays behind `batch`, which trains on everything, where that was compared."""
        known = {s.name: s.transfer for s in self.scores if s.transfer is not None}
        joint = known.get("batch")
        return {name: transfer_figures(matrix, joint) for name, matrix in known.items()}

    def _more(self, name: str) -> dict[str, Any]:
        score = self[name]
        behind = {key: interval.to_json() for key, interval in score.behind_by.items()}
        said = {"words": score.words, "is_job": score.is_job, "code": score.code}
        said |= {"cannot_help": score.cannot or None}
        return said | {"behind_best_by": behind}

    def _row(self, score: Score) -> dict[str, Any]:
        names = (*CLASSIFIER_METRICS, *(REGRESSOR_METRICS if self.kind == "regressor" else ()))
        row: dict[str, Any] = {"strategy": score.name, "rows": score.rows}
        row |= {name: score.metrics.get(name) for name in names}
        behind = score.behind
        row[f"{self.metric}_behind_best"] = 0.0 if behind is None else behind.mean
        row[f"{self.metric}_behind_best_low"] = 0.0 if behind is None else behind.low
        row[f"{self.metric}_behind_best_high"] = 0.0 if behind is None else behind.high
        row["forgetting"] = score.forgetting
        row["cpu_seconds"] = round(score.cpu_seconds, 6)
        for name in ("rows_learned", "rows_read", "updates"):
            row[name] = getattr(score, name)
        peak = score.peak_memory_mb
        row["peak_memory_mb"] = None if peak is None else round(peak, 1)
        wait = score.label_wait
        in_time = self.unit == "time"
        row["label_wait_hours"] = wait / _HOUR if in_time and wait is not None else None
        row["label_wait_rows"] = None if in_time else wait
        row["labels_used"] = score.labels_used
        for baseline, metrics in self.baselines.items():
            row |= {f"{baseline}_{name}": value for name, value in metrics.items()}
        if score.cost is not None:
            row |= {f"cost_{name}": value for name, value in score.cost.items()}
        return row


def _plain(value: Any) -> Json:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
