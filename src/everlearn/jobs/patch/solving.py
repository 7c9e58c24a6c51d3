"""Solving edits for a fold, in the way that each needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from typing import Literal

import numpy as np

from everlearn.base import Array, Batch, InputError, Json, Memory, State, under
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.learn import Fold
from everlearn.jobs.patch.regions import regions
from everlearn.jobs.patch.report import measured, too_far
from everlearn.jobs.patch.texts import problem, rewritten
from everlearn.jobs.patch.wanted import Wanted, wanted_of
from everlearn.learners.editable import editable_of
from everlearn.registry import edits
from everlearn.registry.config import from_config
from everlearn.storage.database import Database
from everlearn.strategies.patch import Edit, Patch, Way
from everlearn.strategies.patch_exceptions import Exceptions, Mask, Space
from everlearn.strategies.patch_weights import UnsolvableError, Weights, solved

HELD, REMEMBERED = 4_000, 2_000
"""Reference rows that are looked at: of the hold-outs, and of the memory."""

Leave = Literal["asked", "possible", "never"]
"""Whether edits that ask for a change of weights have to get one ("asked"), do where there are
weights ("possible"), or are answered by exceptions like all others ("never")."""

MOST_TRIED = 50
"""Edits that are tried one by one where no change of weights holds all of them."""


def remembered(state: State) -> Iterable[Batch]:
    """The rows in the memory of a state."""
    kept = under("memory", state)
    if not kept:
        return ()
    memory: Memory = from_config(kept["definition"].meta)
    return memory.open(under("held", kept)).rows()


def reference_rows(fold: Fold, holdouts: HoldOuts, memory: Iterable[Batch]) -> Batch | None:
    """Rows whose answers should stay: hold-outs, and rows of the memory, evenly chosen; y in codes
    (−1 for classes that the fold does not know). None if there are none."""
    chosen: list[Batch] = []
    for batches, most in (
        ([period.batch for period in holdouts.periods], HELD),
        (list(memory), REMEMBERED),
    ):
        if batches:
            rows = Batch.concat(batches)
            every = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))
            chosen.append(replace(rows.take(every), weight=None))
    if not chosen:
        return None
    rows = Batch.concat(chosen)
    return rows if rows.y is None else rows.with_y(fold.encode(rows.y))


def solve(
    fold: Fold,
    wanted: Wanted,
    reference: Batch | None,
    way: Way = "auto",
    base: int | None = None,
    *,
    weights: Leave = "asked",
) -> tuple[Patch | None, list[str]]:
    """A patch with which the fold's learner answers all edits as wanted, each in its own way.

    Of those that leave it to be chosen, edits that share a region are answered by a change of
    weights, where the learner has some that can be, and single ones by exceptions. Those that no
    change of weights holds together are answered by exceptions in any way.

    Args:
        wanted: of edits that the learner does not answer so by itself.
        way: of the edits that leave it to be chosen.
        base: number of the version that has the fold's learner; None: the one that is being made.
        weights: whether weights are changed.

    Returns:
        The patch, None without edits; and notes for people.

    Raises:
        UnsolvableError: weights are to be changed, and the learner has none that can be, or there
            are no reference rows.
    """
    if not wanted.edits:
        return None, []
    texts = [text for text in wanted.texts if text is not None]
    rewrite, said = rewritten(fold, texts, reference, online=way == "memory")
    edits, wanted = wanted.edits, wanted.take(~wanted.written)
    rows = wanted.batch.take(slice(0, 0)) if reference is None else reference
    chosen, told = _chosen(fold, wanted, rows, way, weights)
    change, held, notes = _by_weights(fold, wanted, chosen, rows)
    exceptions = None
    if not held.all():
        rest = wanted.take(~held)
        others, kept = wanted.take(held), _kept(fold, rows)
        answers = np.repeat(others.answers[:, None], kept.shape[1], axis=1)
        apart = Batch.concat([replace(rows, y=None, weight=None), others.batch])
        exceptions = Exceptions.around(rest.batch, rest.answers, apart, np.vstack([kept, answers]))
    made = Patch(edits=edits, base=base, weights=change, rewrite=rewrite, exceptions=exceptions)
    return made, said + told + notes


def _chosen(
    fold: Fold, wanted: Wanted, rows: Batch, way: Way, weights: Leave
) -> tuple[Mask, list[str]]:
    """(which edits are answered by a change of weights, notes)."""
    ways = np.array([way if edit.way == "auto" else edit.way for edit in wanted.edits])
    chosen = np.asarray(ways == "weights")
    problem = _no_weights(fold, rows) if chosen.any() else None
    if weights == "never" or (problem is not None and weights == "possible"):
        return np.zeros(len(ways), bool), [] if problem is None else [f"by exceptions: {problem}"]
    if problem is not None:
        raise UnsolvableError(problem)
    if (ways == "auto").any() and fold.kind == "classifier" and len(rows):
        some = wanted.take(ways != "memory")
        answered = fold.learner.predict(some.batch).value
        alike = regions(Space.of(rows), some.batch, some.answers, answered, rows)
        chosen[ways != "memory"] |= alike
    return chosen, []


def _no_weights(fold: Fold, rows: Batch) -> str | None:
    """Why no weights can be changed; None where some can."""
    if not len(rows):
        return "there are no hold-outs and no memory: nothing says what is to stay"
    if editable_of(fold.learner) is None:
        return (
            f"{type(fold.learner).__name__} has no linear layer and no leaves that can be changed;"
            " leave the way to be chosen, or take way='memory'"
        )
    return None


def _by_weights(
    fold: Fold, wanted: Wanted, chosen: Mask, rows: Batch
) -> tuple[Weights | None, Mask, list[str]]:
    """(the change of weights for the chosen edits, which it holds, notes). Where it cannot hold all
    of them (two may be alike to the learner, and want different answers), those that come first."""
    nothing = np.zeros(len(chosen), bool)
    if not chosen.any() or editable_of(fold.learner) is None:
        return None, nothing, []

    def change(mask: Mask) -> Weights:
        some = wanted.take(mask)
        return solved(fold.learner, some.batch, some.answers, rows)

    try:
        return change(chosen), chosen, []
    except UnsolvableError as error:
        notes = [f"some edits by exceptions: {error}"]
    weights: Weights | None = None
    held = nothing
    for place in np.flatnonzero(chosen)[:MOST_TRIED]:
        more = held.copy()
        more[place] = True
        try:
            weights, held = change(more), more
        except UnsolvableError:
            continue
    return weights, held, notes


def _kept(fold: Fold, rows: Batch) -> Array:
    """(R, m) the answers that may be given to reference rows: what is predicted, and what is right.
    Of a regressor NaN, for any other value would be a change."""
    if not len(rows) or fold.kind == "regressor":
        return np.full((len(rows), 1), np.nan)
    predicted = fold.learner.predict(rows).value
    return np.stack([predicted, predicted if rows.y is None else rows.y], axis=1)


def repatched(
    database: Database,
    model: str,
    fold: Fold,
    base: State,
    holdouts: HoldOuts,
    *,
    without: Set[int] = frozenset(),
    online: bool = False,
) -> tuple[Patch | None, Json]:
    """The patch of a fold that has learned, with the edits that its base had: to be set before the
    candidate is judged.

    Args:
        fold: as it has learned; what patch it has does not matter.
        base: the state of the champion that the job goes on from or replaces.
        holdouts: of the candidate.
        without: numbers of edits that are not carried on.
        online: whether the fold learns on under its patch, label by label: edits that leave it to
            be chosen are then answered by exceptions, which hold whatever it learns.

    Returns:
        The patch, or None, each edit in its own way; and what became of them, for the version's
        metrics under "patch": "edits" that are in the patch, with what it does (see
        `report.measured`); those that are "learned" by the fold itself; and "lost" ones, which its
        schema or its classes do not allow any more, with the reason. None where the base has no
        patch.
    """
    patch = Patch.load(under("patch", base))
    if patch is None:
        return None, None
    with database.read() as connection:
        carried, _ = edits.carried(connection, model, patch.edits, database.clock())
    kept = [edit for edit in carried if edit.number not in without]
    return solved_again(fold, kept, holdouts, "memory" if online else "auto")


def solved_again(
    fold: Fold, carried: Sequence[Edit], holdouts: HoldOuts, way: Way = "auto"
) -> tuple[Patch | None, Json]:
    """The same of these edits."""
    going: list[Edit] = []
    lost: list[Json] = []
    for edit in carried:
        try:
            wanted_of(fold, [edit])
            going.append(edit)
        except InputError as error:
            lost.append({"edit": edit.number, "reason": str(error)})
    report: dict[str, Json] = {"edits": [], "learned": [], "lost": lost, "base": None}
    if not going:
        return None, report
    wanted = wanted_of(fold, going)
    rows = reference_rows(fold, holdouts, fold.remembered())
    why = problem(rows, online=way == "memory")
    if why is not None and wanted.written.any():
        gone = wanted.take(wanted.written).edits
        lost += [{"edit": edit.number, "reason": why} for edit in gone]
        wanted = wanted.take(~wanted.written)
        if not wanted.edits:
            return None, report
    right = wanted.held(replace(fold, patch=None))
    leave: Leave = "possible"
    while True:  # one that is learned, and that the patch of the others would undo, is in it too
        left = wanted.take(~right)
        patch, notes = solve(fold, left, rows, way, weights=leave)
        before = fold.learner.predict
        done = {} if patch is None else measured(fold, patch, before, left, rows, holdouts)
        if leave != "never" and (far := too_far(done)) is not None:
            leave = "never"
            continue
        held = wanted.held(replace(fold, patch=patch))
        if held[right].all():
            break
        right &= held
    if leave == "never":
        notes.append(f"by exceptions: a change of weights would {far}")
    report["learned"] = [edit.number for edit in wanted.take(right).edits]
    return patch, report | done | {"notes": notes}
