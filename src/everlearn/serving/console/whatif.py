"""What a patch that is not made yet would answer to what was asked lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from everlearn.base import EverlearnError, Json
from everlearn.data.answers import as_answered
from everlearn.data.feedback import ERASED
from everlearn.jobs.learn import Fold
from everlearn.jobs.load import load_fold
from everlearn.jobs.patch.report import UNCHANGED
from everlearn.serving.console import queries
from everlearn.serving.console.predictions import recent, shown, text_of
from everlearn.serving.console.views import Source
from everlearn.serving.predictor import outputs_of
from everlearn.strategies.patch import Patch

ASKED = 500
"""Predictions that are asked again."""

SHOWN = 10
"""Of those whose answer would change, how many are shown."""

KINDS = ("lost", "won", "")
"""Right before and wrong after; wrong before and right after; neither, or not known. In the order
in which they are shown."""


def recent_flips(
    source: Source, model: str, patch: Patch | None, features: Mapping[str, Any]
) -> Json:
    """Which of the last predictions would be answered otherwise.

    Args:
        features: of the edit; what was asked alike changes on purpose.

    Returns:
        JSON: "rows" that were asked again, how many of them "changed", how many of these are the
        edit's "own" input, how many were "lost" (right by their label, and wrong after) or "won";
        and some that are not its own, as "flips". Or {"why_not": …}.
    """
    with source.registry.database.read() as connection:
        rows = recent(connection, model, queries.MOST, ASKED)
    rows = [row for row in rows if row["arm"] != ERASED]
    fold = load_fold(source.registry, model, source.registry.version(model))
    asked = [row["features"] for row in rows]
    try:
        before, after = answers(fold, asked), answers(replace(fold, patch=patch), asked)
    except EverlearnError as error:  # of columns that were others then
        return {"why_not": str(error)}
    was, will = ([one["value"] for one in given] for given in (before, after))
    places = _changed(was, will)
    own = [at for at in places if features.items() <= asked[at].items()]
    others = [at for at in places if at not in own]
    flips = [_flip(rows[at], was[at], will[at]) for at in others]
    flips.sort(key=lambda one: KINDS.index(one["kind"]))
    return {
        "rows": len(rows),
        "changed": len(others),
        "own": len(own),
        "lost": sum(one["kind"] == "lost" for one in flips),
        "won": sum(one["kind"] == "won" for one in flips),
        "flips": flips[:SHOWN],
    }


def answers(fold: Fold, rows: Sequence[Mapping[str, Any]]) -> list[Json]:
    """What a fold says of rows; columns that it does not know are passed over."""
    return outputs_of(fold, rows, Counter())


def features_of(fold: Fold) -> set[str]:
    """The columns that it answers by."""
    columns = fold.columns
    return {*columns.numbers, *columns.categories, *columns.times, *columns.texts}


def _changed(was: Sequence[Any], will: Sequence[Any]) -> list[int]:
    """Places of the answers that are others; of numbers, by more than a share of their spread."""
    if was and all(isinstance(one, float) for one in was):
        spread = float(np.std(was)) or 1.0
        return np.flatnonzero(np.abs(np.subtract(was, will)) > UNCHANGED * spread).tolist()
    return [at for at, (one, other) in enumerate(zip(was, will, strict=True)) if one != other]


def _flip(row: Json, was: Any, will: Any) -> Json:
    """A prediction whose answer would change, as texts, and whether that were for the better."""
    label = row["label"]
    kind = ""
    if label is not None and not isinstance(was, float):
        right = as_answered(label, was)
        kind = "lost" if was == right else "won" if will == right else ""
    return shown(row) | {"was": text_of(was), "will": text_of(will), "kind": kind}
