"""Edits that are alike: whether they share a region, and whether the model is wrong there always.

Single wrong answers are exceptions. Several alike, near to each other, ask for a change that holds
between them too; and where the rows around them are answered as wrongly, no list of edits is the
remedy, but learning from more labels.
"""

from __future__ import annotations

import numpy as np

from everlearn.base import Array, Batch, Floats, Ints, Json, Prediction
from everlearn.strategies.patch_exceptions import Mask, Space

FEWEST = 3
"""Edits that make a region."""

NEAR = 0.75
"""Edits of a region are nearer to each other than this share of the distance of any two rows."""

NEIGHBOURS = 10
"""Rows with a known answer that are looked at around each edit."""

WRONG = 0.5
"""Share of these that is answered as wrongly as the edit, from which on an error is systematic."""

MANY = 5
"""Edits of one region from which on an error is systematic, whatever is known of other rows; and
the fewest other rows that say so."""


def regions(space: Space, edits: Batch, wanted: Array, answered: Array, reference: Batch) -> Mask:
    """(n,) which edits share a region: at least `FEWEST` with the same answer and the same one
    wanted, nearer to each other (in the median) than `NEAR` of the median distance of rows.

    Args:
        space: where they are compared; categories need not be equal.
        edits: (n,) their inputs.
        wanted, answered: (n,) class codes.
        reference: rows that tell how far rows are apart.
    """
    found = np.zeros(len(edits), bool)
    usual = _usual(space.places(reference)[0])
    points = space.places(edits)[0]
    for pair in sorted(set(zip(answered.tolist(), wanted.tolist(), strict=True))):
        alike = np.flatnonzero((answered == pair[0]) & (wanted == pair[1]))
        if len(alike) < FEWEST:
            continue
        apart = _distances(points[alike], points[alike])
        apart[np.diag_indices_from(apart)] = np.nan
        near = alike[np.nanmedian(apart, axis=1) <= NEAR * usual]
        if len(near) >= FEWEST:
            found[near] = True
    return found


def systematic(
    space: Space,
    edits: Batch,
    wanted: Array,
    answered: Array,
    reference: Batch,
    predicted: Prediction,
) -> Json:
    """Whether the model is wrong as a rule where the edits are, with what says so.

    Args:
        space, edits, wanted, answered: as for `regions`; answered without a patch.
        reference: rows with codes of known answers as y.
        predicted: for them, without a patch.

    Returns:
        JSON: "found"; the "region" of edits that are alike; among the `NEIGHBOURS` nearest
        reference rows of each edit that have its wanted answer, how many "neighbours" there are and
        how many are answered as "wrong" as the edit is; and the "advice".
    """
    shared = int(regions(space, edits, wanted, answered, reference).sum())
    rows, wrong = 0, 0
    if reference.y is not None:
        apart = _distances(space.places(edits)[0], space.places(reference)[0])
        for e in range(len(edits)):
            others = np.flatnonzero((reference.ids != edits.ids[e]) & (reference.y == wanted[e]))
            near = others[np.argsort(apart[e, others], kind="stable")[:NEIGHBOURS]]
            rows += len(near)
            wrong += int((predicted.value[near] == answered[e]).sum())
    found = shared >= MANY or (wrong >= MANY and wrong >= WRONG * rows)
    advice = (
        "the model is wrong in a whole region: a patch holds the edits and little around them; give"
        " labels of such rows as feedback, and let an incremental job learn them"
    )
    evidence = {"region": shared, "neighbours": rows, "wrong": wrong}
    return {"found": bool(found), **evidence, "advice": advice if found else None}


def _usual(points: Floats) -> float:
    """The median distance of two different rows, of some pairs."""
    generator = np.random.default_rng(0)
    pairs: Ints = generator.integers(0, len(points), (2, 1000))
    apart = np.sqrt(((points[pairs[0]] - points[pairs[1]]) ** 2).sum(axis=1))
    apart = apart[pairs[0] != pairs[1]]
    return float(np.median(apart)) if len(apart) else 0.0


def _distances(a: Floats, b: Floats) -> Floats:
    """(n, m) distances of points."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T
    made: Floats = np.sqrt(np.maximum(squares, 0.0))
    return made
