"""What to choose and why, in plain words, from the scores alone."""

from __future__ import annotations

import math

from everlearn.compare.results import Hindsight, Results
from everlearn.compare.scores import Score, wait_in_words

NAMES = {
    "log_loss": "log loss",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "roc_auc": "ROC AUC",
    "mae": "mean absolute error",
    "rmse": "RMSE",
}
"""Metrics as people call them."""

TOO_GOOD = 0.995
RANKS = 0.55
FEWEST_ROWS = 200
SURELY, PERHAPS = 0.02, 0.1
"""A strategy is as good as the best in practice where it is behind by less than the first share of
what the best one gains over the answer that needs no model; or by less than the second, if that is
within chance. To be within chance alone proves nothing: a short history cannot tell much."""


def choose(results: Results) -> str:
    """The cheapest strategy that is as good as the best one; with prices, the cheapest in all."""
    usable = [score for score in results.ranked if score.finite] or results.ranked
    if all(score.cost is not None for score in usable):
        return min(usable, key=lambda score: (score.cost or {})["total"]).name
    close = [score for score in usable if _as_good(score, results)]
    return min(close or usable[:1], key=lambda score: score.cpu_seconds).name


def advise(results: Results) -> list[str]:
    """The sentences of the report, the most important first."""
    nothing = _worth_nothing(results)
    sentences = _too_few(results)
    sentences += nothing or [_why(results), *_against_never(results), *_jobs(results)]
    sentences += [*_against_last_label(results), *_doubts(results)]
    if results.hindsight is not None:
        sentences.append(_hindsight(results, results.hindsight))
    return sentences


def _as_good(score: Score, results: Results) -> bool:
    if score.name == results.best or score.behind is None:
        return score.name == results.best
    gain = _gain(results[results.best], results)
    if gain is None:
        return score.level
    return score.behind.mean < (PERHAPS if score.level else SURELY) * gain


def _gain(score: Score, results: Results) -> float | None:
    """How much better than the answer that needs no model, by the metric of the ranking."""
    floor = results.baselines.get("majority") or results.baselines.get("mean") or {}
    base, value = floor.get(results.metric), score.metrics.get(results.metric)
    if base is None or value is None:
        return None
    return value - base if results.metric == "accuracy" else base - value


def _why(results: Results) -> str:
    choice, best = results[results.choice], results[results.best]
    cost = f"{seconds(choice.cpu_seconds)} of CPU time"
    metric = NAMES[results.metric]
    if choice.cost is not None:
        total = f"{choice.cost['total']:,.2f}"
        return (
            f"Choose {choice.name} ({choice.words}): at your prices it costs least, {total} for "
            f"{choice.rows:,} answers, of which {choice.cost['cpu']:,.2f} is CPU time."
            + _runner_up(results, choice)
        )
    if len(results.scores) == 1:
        return f"{choice.name} has a {metric} of {figure(choice, results.metric)} and takes {cost}."
    if choice.name == best.name:
        return (
            f"Choose {choice.name} ({choice.words}): it has the best {metric} "
            f"({figure(choice, results.metric)}), no cheaper strategy comes near it, and it takes "
            f"{cost}."
        )
    behind = choice.behind
    apart = (
        "" if behind is None else f" by {behind.mean:.4f} ({behind.low:.4f} to {behind.high:.4f})"
    )
    if behind is not None and not math.isfinite(behind.error):
        apart = f" by {behind.mean:.4f}"
    ratio = best.cpu_seconds / choice.cpu_seconds if choice.cpu_seconds > 0 else float("inf")
    return (
        f"Choose {choice.name} ({choice.words}): {best.name} has the best {metric} "
        f"({figure(best, results.metric)}), but {choice.name} is behind{apart} only, which is "
        f"{'within chance' if choice.level else 'next to nothing'}, and takes {cost}, "
        f"{ratio:,.1f} times less."
    )


def _runner_up(results: Results, choice: Score) -> str:
    """The next cheapest strategy, where it is almost as cheap."""
    others = [score for score in results.scores if score.name != choice.name]
    if not others or choice.cost is None:
        return ""
    total = choice.cost["total"]
    next_one = min(others, key=lambda score: (score.cost or {})["total"])
    above = (next_one.cost or {})["total"] - total
    if above > 0.005 * total:
        return ""
    return f" {next_one.name} costs next to the same ({total + above:,.2f})."


def _against_never(results: Results) -> list[str]:
    """Whether this data needs retraining at all."""
    names = {score.name for score in results.scores}
    if "never" not in names or results.best == "never":
        if results.best == "never":
            return [
                "A model that was trained once and never again does best: nothing in this history "
                "speaks for retraining."
            ]
        return []
    never = results["never"]
    if never.behind is None:
        return []
    figures = f"{never.behind.mean:.4f} of {NAMES[results.metric]}"
    if math.isfinite(never.behind.error):
        figures += f" ({never.behind.low:.4f} to {never.behind.high:.4f}, 95 %)"
    if never.level and not _as_good(never, results):
        return [
            f"Never retraining seems to cost {figures}, but this history is too short to be sure."
        ]
    if never.level:
        return [
            "A model that is never retrained is next to as good as the best strategy: this data "
            "does not drift in a way that this learner notices."
        ]
    if results.choice == never.name and never.cost is not None:
        return [f"Never retraining costs {figures}, which at your prices is less than updates do."]
    if _as_good(never, results):
        return [f"Never retraining costs {figures}: next to nothing beside what the model gains."]
    return [f"Never retraining costs {figures}: this data calls for updates."]


def _jobs(results: Results) -> list[str]:
    choice = results[results.choice]
    if choice.is_job:
        return _in_code(choice)
    job = results[results.best_job]
    if not job.is_job:
        return []
    wait = wait_in_words(choice.label_wait, results.unit)
    late = wait_in_words(job.label_wait, results.unit)
    return [
        f"{choice.name} needs a service that learns all the time (a label waits {wait} before the "
        f"serving model knows it). With jobs on a schedule, choose {job.name}: {job.words}; "
        f"{NAMES[results.metric]} {figure(job, results.metric)}, {seconds(job.cpu_seconds)} of CPU "
        f"time, and a label waits {late}.",
        *_in_code(job),
    ]


def _in_code(score: Score) -> list[str]:
    """How to say it in the file that defines a model."""
    if not score.code:
        return []
    once = " and train it once" if score.name == "never" else ""
    return [f"In the file that defines your model, say strategy={score.code}{once}."]


def _too_few(results: Results) -> list[str]:
    rows = results.scores[0].rows
    if rows >= FEWEST_ROWS:
        return []
    return [f"Only {rows:,} answers were scored: too few to trust any difference below."]


def _floor_cost(score: Score, results: Results) -> float | None:
    """What the errors of the answer that needs no model cost, in money."""
    hits = results.kind == "classifier"
    name, metric = ("majority", "accuracy") if hits else ("mean", "mae")
    base, value = results.baselines.get(name, {}).get(metric), score.metrics.get(metric)
    if score.cost is None or base is None or value is None:
        return None
    mine, its = (1.0 - value, 1.0 - base) if hits else (value, base)
    return score.cost["errors"] * its / mine if mine > 0.0 else None


def _worth_nothing(results: Results) -> list[str]:
    """What to say where no strategy is better than an answer that needs no model."""
    best = results[results.best]
    gain = _gain(best, results)
    name = "majority" if "majority" in results.baselines else "mean"
    choice = results[results.choice]
    cost = _floor_cost(choice, results)
    if choice.cost is not None and cost is not None:
        total = choice.cost["total"]
        if total < cost:
            return []
        return [
            f"No strategy is worth its cost: at your prices even {choice.name} costs {total:,.2f}, "
            f"and {name}, which needs no model, {cost:,.2f}."
        ]
    if gain is None or gain > 0.0:
        return []
    floor = results.baselines[name][results.metric]
    said = (
        f"No strategy is worth its cost: even the best, {best.name}, has a {NAMES[results.metric]} "
        f"of {figure(best, results.metric)}, and {name}, which needs no model, has {floor:.4f}."
    )
    area = best.metrics.get("roc_auc")
    if area is not None and area >= RANKS:
        return [
            f"{said} It does rank (ROC AUC {area:.4f}), so its probabilities are wrong, not its "
            "order: try another learner, or judge by accuracy or AUC."
        ]
    return [f"{said} Look for better columns, more rows or another learner first."]


def _doubts(results: Results) -> list[str]:
    """Whether the figures can be true."""
    best = results[results.best]
    said = []
    area, hits = best.metrics.get("roc_auc"), best.metrics.get("accuracy")
    floor = (results.baselines.get("majority") or {}).get("accuracy") or 0.0
    too_good = (area is not None and area >= TOO_GOOD) or (hits or 0.0) >= max(
        TOO_GOOD, floor + 0.01
    )
    if too_good:
        said.append(
            "This is suspiciously good: make sure that no column is known only together with the "
            "label, and leave out those that are."
        )
    broken = [score.name for score in results.scores if not score.finite]
    if broken:
        said.append(
            f"{', '.join(broken)} answered with numbers that are not finite: the learner diverged."
        )
    return said


def _against_last_label(results: Results) -> list[str]:
    """Whether answering with the label that became known last beats every model."""
    floors = results.baselines
    name, metric = ("no_change", "accuracy") if "no_change" in floors else ("last_value", "mae")
    still = floors.get(name, {}).get(metric)
    values = [score.metrics.get(metric) for score in results.scores]
    known = [value for value in values if value is not None]
    if still is None or not known:
        return []
    beaten = max(known) < still if metric == "accuracy" else min(known) > still
    if not beaten:
        return []
    return [
        f"To answer with the label that became known last is better than every model here "
        f"({NAMES[metric]} {still:.4f}): give the model the labels known so far as columns."
    ]


def _hindsight(results: Results, best: Hindsight) -> str:
    choice = results[results.choice]
    total = (choice.cost or {}).get("total", float("nan"))
    times = len(best.retrain_at)
    return (
        f"In hindsight the best schedule of full retrainings has {times} of them and costs "
        f"{best.cost:,.2f}; retraining every period costs {best.periodic_cost:,.2f}, only once "
        f"{best.never_cost:,.2f}, {choice.name} {total:,.2f}. It covers full retraining and losses "
        "that add up only, so incremental and online strategies may beat it."
    )


def figure(score: Score, metric: str) -> str:
    """A metric of a score with four digits."""
    value = score.metrics.get(metric)
    return "–" if value is None else f"{value:,.4f}"


def seconds(value: float) -> str:
    """CPU seconds for people."""
    return f"{value:,.1f} s" if value >= 10 else f"{value:.2f} s"
