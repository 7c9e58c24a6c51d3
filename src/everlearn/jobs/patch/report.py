"""What a patch does: to its edits, to rows near them, and to all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from everlearn.base import Array, Batch, Decision, Floats, Json, Learner, Prediction
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.learn import Fold
from everlearn.jobs.patch.regions import systematic
from everlearn.jobs.patch.texts import effects, merged, too_many_lost
from everlearn.jobs.patch.wanted import EXACT, Wanted, contents
from everlearn.strategies.patch import Patch
from everlearn.strategies.patch_exceptions import Mask, Space

BUDGET = 0.02
"""Share of hold-out rows that a patch may turn from right to wrong."""

LEVEL = 0.95
"""Chance with which a change of weights keeps to that, where it was not asked for."""

NOISE, COPIES = 0.1, 16
"""Near neighbours of an edit are so many copies of it, with noise of this many standard deviations
in each number."""

Answers = Callable[[Batch], Prediction]

MOVED = 0.25
"""Root mean square by which a change of weights may move a regressor's answers for reference rows,
in standard deviations of its answers: a bound on what is absurd, where the model has no gate."""

UNCHANGED = 0.01
"""A regressor's answer is unchanged if it moves by no more standard deviations of its answers."""


def measured(
    fold: Fold,
    patch: Patch,
    before: Answers,
    wanted: Wanted,
    reference: Batch | None,
    holdouts: HoldOuts,
) -> dict[str, Json]:
    """What a patch does: JSON.

    "success" is the share of edits that are answered as wanted; "generalisation" that of their near
    neighbours (see `NOISE`); "locality" the share of reference rows, those that are an edit's input
    left out, whose answers stay what they were; "moved" by how much a change of weights moves those
    of a regressor, from what its learner says (see `MOVED`; None of classes); "turned_wrong" the
    share of them that it turns wrong of a classifier without hold-outs, whose flips are not known
    by these (None else); "ways" has for each
    edit the way that was "asked" for and the "way" of its answer, with the "radius" of its ball in
    standard deviations. Where edits want texts, "texts" says what becomes of other prompts (see
    `LanguageWriter.effects`); "locality" is then the lower of the two, and "generalisation" theirs
    if there are no others.

    Args:
        before: batch → prediction, as it was answered before.
        holdouts: of the version.
    """
    texts = [text for text in wanted.texts if text is not None]
    success = float(wanted.held(replace(fold, patch=patch)).mean())
    ways, numbers = _ways(patch, wanted), [edit.number for edit in wanted.edits]
    told = {"edits": numbers, "success": success, "ways": ways, "base": patch.base}
    judged = wanted.take(~wanted.written)
    found = told | _judged(fold, patch, before, judged, reference)
    wrong = None
    if reference is not None and fold.kind == "classifier" and not holdouts.periods:
        wrong = _turned_wrong(patch, fold.learner, reference)
    found["turned_wrong"] = wrong
    return merged(found, effects(fold, patch, texts, reference), bool(judged.edits))


def _judged(
    fold: Fold, patch: Patch, before: Answers, wanted: Wanted, reference: Batch | None
) -> dict[str, Json]:
    """What it does to rows near to edits, and to others."""
    learner = fold.learner
    now = patch.answer(learner, wanted.batch).value
    around = patch.answer(learner, _neighbours(wanted.batch, reference)).value
    kept = np.repeat(wanted.answers, COPIES)
    near = float(_close(around, kept, now).mean()) if wanted.edits else None
    found: dict[str, Json] = {"generalisation": near}
    if reference is None:
        none = dict.fromkeys(("locality", "moved", "systematic"))
        return found | {"reference_rows": 0, **none}
    others = ~np.isin(contents(reference), contents(wanted.batch))
    rows = reference.take(others)
    was, is_now = before(rows).value, patch.answer(learner, rows).value
    unchanged = _close(is_now, was, was)
    alike, moved = None, None
    if fold.kind == "regressor":
        moved = _moved(patch, learner, rows)
    elif fold.kind == "classifier" and wanted.edits:
        wrong, predicted = learner.predict(wanted.batch).value, learner.predict(reference)
        edits = wanted.batch, wanted.answers, wrong
        alike = systematic(Space.of(reference), *edits, reference, predicted)
    return found | {
        "reference_rows": len(rows),
        "locality": float(unchanged.mean()) if len(rows) else None,
        "moved": moved,
        "systematic": alike,
    }


def _ways(patch: Patch, wanted: Wanted) -> list[Json]:
    """Of each edit, how its answer is changed."""
    balls = [-1] * len(wanted.edits)
    if patch.exceptions is not None:
        balls = patch.exceptions.covering(wanted.batch).tolist()
    found: list[Json] = []
    balls = [-1 if text else ball for text, ball in zip(wanted.written, balls, strict=True)]
    for edit, ball in zip(wanted.edits, balls, strict=True):
        how = "weights" if ball < 0 else "memory"
        way: dict[str, Json] = {"edit": edit.number, "asked": edit.way, "way": how}
        if ball >= 0:
            assert patch.exceptions is not None
            way["radius"] = float(patch.exceptions.radii[ball])
        found.append(way)
    return found


def _moved(patch: Patch, learner: Learner, rows: Batch) -> float:
    """By how much a change of weights moves answers, in standard deviations of these."""
    if patch.weights is None or not len(rows):
        return 0.0
    by_itself = learner.predict(rows).value
    apart = np.sqrt(np.mean((patch.weights.answer(learner, rows).value - by_itself) ** 2))
    return float(apart / max(float(np.std(by_itself)), EXACT))


def _turned_wrong(patch: Patch, learner: Learner, rows: Batch) -> float:
    """The share of rows for which a change of weights turns a right answer wrong."""
    if patch.weights is None or rows.y is None or not len(rows):
        return 0.0
    was, is_now = learner.predict(rows).value, patch.weights.answer(learner, rows).value
    return float(((was == rows.y) & (is_now != rows.y)).mean())


def too_far(report: Json) -> str | None:
    """What a change of weights would do to other answers, where that is more than it may."""
    moved, wrong = report.get("moved"), report.get("turned_wrong")
    if moved is not None and moved > MOVED:
        return f"move other answers by {moved:.2f} standard deviations, more than {MOVED}"
    if wrong is not None and wrong > BUDGET:
        return f"turn {wrong:.1%} of the remembered answers wrong, more than {BUDGET:.1%}"
    return None


def _neighbours(edits: Batch, reference: Batch | None) -> Batch:
    """(n · COPIES,) rows near to edits."""
    rows = edits.take(np.repeat(np.arange(len(edits)), COPIES))
    space = Space.of(edits if reference is None else reference)
    noise = np.random.default_rng(0).normal(0.0, NOISE, rows.numbers.shape)
    return replace(rows, numbers=rows.numbers + noise / space.inverse)


def _close(answers: Array, wanted: Array, spread: Floats) -> Mask:
    """(n,) the same; of values, within a share of the spread of others."""
    if wanted.dtype.kind == "f":
        return np.asarray(np.abs(answers - wanted) <= UNCHANGED * max(float(np.std(spread)), EXACT))
    return np.asarray(answers == wanted)


def flips(evidence: Json) -> dict[str, tuple[int, float]]:
    """Of recent and of historical hold-outs: how many there are, and the share of them that turn
    from right to wrong; nothing of a regressor."""
    found: dict[str, tuple[int, float]] = {}
    for name in ("recent", "historical"):
        churn = evidence.get(name, {}).get("churn") or {}
        if churn.get("negative_flip_rate") is not None:
            found[name] = churn["rows"], churn["negative_flip_rate"]
    return found


def gated(decision: Decision, report: Json) -> Decision:
    """The gate's decision; a patch that passes it is refused where an edit does not hold, and where
    too many answers turn wrong."""
    if decision.action != "pass":
        return decision
    if report.get("success", 1.0) < 1.0:
        reason = f"only {report['success']:.1%} of the edits would be answered as wanted"
        return Decision("refuse", reason, decision.evidence)
    far = too_far(report)
    if far is not None:
        advice = "take way='memory', or give labels of such rows"
        reason = f"a change of weights would {far}: {advice}"
        return Decision("refuse", reason, decision.evidence)
    lost = too_many_lost(report)
    if lost is not None:
        return Decision("refuse", lost, decision.evidence)
    over = {name: rate for name, rate in report["negative_flips"].items() if rate > BUDGET}
    if over:
        told = ", ".join(f"{rate:.1%} of the {name} hold-outs" for name, rate in over.items())
        reason = f"{told} would turn from right to wrong, more than {BUDGET:.1%}"
        return Decision("refuse", reason, decision.evidence)
    return decision


def most_flips(evidence: Json) -> float:
    """The share of rows that surely are no more than turn from right to wrong, with a chance of .95
    (Clopper & Pearson 1934, "The use of confidence or fiducial limits"), by all hold-outs."""
    from scipy.special import betaincinv

    counted = flips(evidence).values()
    rows = sum(count for count, _ in counted)
    flipped = round(sum(count * rate for count, rate in counted))
    return float(betaincinv(flipped + 1, rows - flipped, LEVEL)) if rows > flipped else 1.0
