"""From whatever holds the data to a `History`: read once, compiled, ordered, cut into periods."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from everlearn.base import Array, Batch, Columns, InputError, Ints, Schema
from everlearn.compare.hints import hints
from everlearn.compare.history import History
from everlearn.compare.periods import choose_probes
from everlearn.compare.timeline import NEVER, Span, Timeline, make_timeline

MOST_CLASSES = 1_000
FEW_CLASSES = 50
"""Texts with more different values than the first, or than the second and a tenth of the rows, are
no classes."""


def load_history(
    data: Any,
    schema: Schema,
    *,
    every: str | None = None,
    tick: str | None = None,
    label_delay: str | None = None,
    warmup: int = 1,
    learner: Any = None,
) -> History:
    """Read and compile a history.

    Args:
        data: what `open_sources` takes.
        every, tick, label_delay, warmup: as for `compare`.
        learner: decides whether the target is a class, or leaves that to the target.

    Raises:
        InputError: it cannot be read, holds nothing to learn from, or is too short.
        SpecError: the learner cannot learn in increments.
    """
    from everlearn.data.source import open_sources
    from everlearn.data.tables import MemoryBlobs

    if schema.target is None:
        raise InputError("a comparison needs a target: Schema(target=…)")
    if schema.label_time is not None and label_delay is not None:
        raise InputError("give a label time or a label delay, not both")
    if schema.label_time is not None and schema.time is None:
        raise InputError("a label time needs an event time beside it: Schema(time=…)")
    blobs = MemoryBlobs()
    sources = open_sources(data, blobs=blobs)
    columns, kind = _resolve(schema, sources, learner)
    batch, seconds, set_aside = _read(sources, columns, blobs)
    notes = [_set_aside(set_aside, len(batch))] if set_aside else []
    notes += hints(batch, columns, schema, sources)
    batch = _by_time(batch, notes)
    timeline, probes = _cut(
        batch,
        every=Span.parse(every) if every is not None else None,
        tick=_tick(tick, schema),
        label_delay=_delay(label_delay),
        warmup=warmup,
    )
    if every is None:
        notes.append(f"No period was given; {timeline.every} was chosen. Another: --every.")
    if timeline.warmup > warmup:
        used = len(np.unique(timeline.period_of(np.arange(timeline.before(timeline.start)))))
        notes.append(
            f"{used} periods with events instead of {warmup} warm up: before, too few labels are "
            "known to begin with."
        )
    batch = batch.take(timeline.arrival)
    codes, classes = _classes(batch.y, kind, schema)
    notes += _one_class(codes, classes, timeline)
    return History(
        batch=batch,
        codes=codes,
        classes=classes,
        columns=_for_learner(columns, kind),
        timeline=timeline,
        probes=probes,
        read_seconds=seconds,
        kind=kind,
        sources=tuple(source.name for source in sources),
        notes=notes,
    )


def _cut(batch: Batch, **settings: Any) -> tuple[Timeline, Ints]:
    """The timeline, and the events that nothing learns from, which are chosen by its periods."""
    line = make_timeline(batch.time, batch.label_time, rows=len(batch), **settings)
    probes = choose_probes(line, batch.ids)
    again = make_timeline(batch.time, batch.label_time, rows=len(batch), probes=probes, **settings)
    return again, probes


def _resolve(schema: Schema, sources: list[Any], learner: Any) -> tuple[Columns, str]:
    """Columns, and the kind of learner."""
    from everlearn.data.columns import resolve
    from everlearn.learners.adapt import learner_kind, leaves_open

    columns = resolve(schema, sources)
    with _current_folder():
        few = _sample_target(sources, columns)
        if leaves_open(learner) and (schema.classes or (few is not None and len(few) == 2)):
            kind: str = "classifier"
        else:
            kind = learner_kind(learner, columns, y=None if schema.classes else few)
    if kind not in ("classifier", "regressor"):
        raise InputError(f"strategies are compared for classifiers and regressors, not a {kind}")
    return resolve(schema, sources, target_is_class=kind == "classifier"), kind


def _for_learner(columns: Columns, kind: str) -> Columns:
    """The columns by which a learner that predicts any target is made of this kind."""
    if kind == "regressor":
        return replace(columns, target_kind="number")
    return replace(columns, target_kind="integer") if columns.target_kind == "number" else columns


def _sample_target(sources: list[Any], columns: Columns) -> Array | None:
    """Distinct values of a numeric target among the first rows; None for other targets."""
    if columns.target_kind not in ("integer", "number"):
        return None
    values = [
        np.asarray(source.sample().column(columns.target).to_numpy(), np.float64)
        for source in sources
    ]
    found = np.unique(np.concatenate(values))
    return found[~np.isnan(found)]


@contextmanager
def _current_folder() -> Iterator[None]:
    """A learner named by its import path may lie in the current folder."""
    folder = os.getcwd()
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _read(sources: list[Any], columns: Columns, blobs: Any) -> tuple[Batch, float, Counter[str]]:
    """All rows that can be learned from, CPU seconds per row, and why others are set aside."""
    from everlearn.data.compiler import Compiler, refused_mask
    from everlearn.data.guards import kind_of
    from everlearn.data.source import open_reader

    compiler = Compiler(columns)
    kept: list[Batch] = []
    reasons: Counter[str] = Counter()
    rows, before = 0, time.process_time()
    for source in sources:
        part = source.slice((), columns)
        if part is None:
            continue
        reader = open_reader(part, columns, blobs)
        try:
            for piece in reader.pieces(None):
                made = compiler.compile(piece.table, piece.bad)
                rows += len(made.batch)
                mask = refused_mask(made)
                kept.append(made.batch if mask is None else made.batch.take(~mask))
                reasons.update(kind_of(reason) for reason in made.refused.values())
        finally:
            reader.close()
    seconds = (time.process_time() - before) / max(rows, 1)
    if not sum(map(len, kept)):
        raise InputError(_nothing(rows, reasons))
    batch = Batch.concat(kept)
    if columns.id is not None:
        _, first = np.unique(batch.ids, return_index=True)
        if len(first) < len(batch):
            reasons["duplicate id"] += len(batch) - len(first)
            batch = batch.take(np.sort(first))
    return batch, seconds, reasons


def _by_time(batch: Batch, notes: list[str]) -> Batch:
    if batch.time is None:
        return batch
    late = int((np.diff(batch.time) < 0).sum())
    if not late:
        return batch
    notes.append(f"{late:,} rows stand after a later one; all were put in the order of time.")
    return batch.take(np.argsort(batch.time, kind="stable"))


def _nothing(rows: int, reasons: Counter[str]) -> str:
    if not rows:
        return "there are no rows to learn from"
    listed = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
    hint = ""
    if any(reason.endswith("not a time") for reason in reasons):
        hint = "; write times as 2024-01-31 or 2024-01-31T12:00:00"
    return f"none of {rows:,} rows can be learned from: {listed}{hint}"


def _set_aside(reasons: Counter[str], kept: int) -> str:
    listed = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
    return f"{sum(reasons.values()):,} rows were set aside, {kept:,} kept: {listed}."


def _tick(tick: str | None, schema: Schema) -> Span | None:
    """Without a time column a tick of an hour, which the command line gives, means nothing."""
    if tick is None:
        return None
    span = Span.parse(tick)
    return None if schema.time is None and span.unit == "time" else span


def _delay(text: str | None) -> Span | None:
    if text is None:
        return None
    if re.fullmatch(r"\s*0+\s*[a-z]*\s*", text.lower()):
        return Span(0, "rows" if "row" in text.lower() else "time")
    return Span.parse(text)


def _classes(y: Array | None, kind: str, schema: Schema) -> tuple[Array | None, tuple[Any, ...]]:
    """(n,) places of the targets among the classes, and these in natural order."""
    if kind == "regressor" or y is None:
        return None, ()
    values = [float(value) if not isinstance(value, str) else value for value in schema.classes]
    found = sorted({*np.unique(y).tolist(), *values})
    if len(found) < 2:
        raise InputError(
            f"the target has one value only, {found[0]!r}: there is nothing to predict"
        )
    if len(found) > (MOST_CLASSES if len(y) > 10 * len(found) else FEW_CLASSES):
        raise InputError(
            f"the target {schema.target!r} has {len(found):,} different values in {len(y):,} rows, "
            f"such as {found[0]!r} and {found[-1]!r}: too many for classes. If they are numbers, "
            "write them as 1234.5"
        )
    place = {value: code for code, value in enumerate(found)}
    if y.dtype == object:
        codes = np.fromiter((place[value] for value in y.tolist()), np.int64, len(y))
    else:
        codes = np.searchsorted(np.array(found), y).astype(np.int64)
    return codes, tuple(found)


def _one_class(codes: Array | None, classes: tuple[Any, ...], timeline: Timeline) -> list[str]:
    """That a model trained on the warm-up knows one class only."""
    if codes is None:
        return []
    known = codes[: timeline.known_at(timeline.start)]
    if (known != known[0]).any():
        return []
    others = timeline.available[codes != known[0]]
    later = int(np.searchsorted(timeline.edges, others[0] if len(others) else NEVER))
    hint = f": --warmup {later} or more" if later < len(timeline.edges) - 1 else ""
    only = classes[known[0]]
    shown = repr(only) if isinstance(only, str) else f"{only:g}"
    return [
        f"When the warm-up ends, the class {shown} is the only one that is known, so "
        f"that a model that is never retrained knows no other; warm up for longer{hint}."
    ]
