"""What changed in a version's answers since another one: flips by period, class and slice, and the
rows that flipped, with what they were asked with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from everlearn.base import NO_TIME, Array, Batch, Floats, Ints, Json
from everlearn.data.answers import restored
from everlearn.data.hashing import hash_texts
from everlearn.data.slices import Slice
from everlearn.evaluation.flips import (
    LEVEL,
    Finding,
    Flips,
    Group,
    Grouping,
    by_value,
    counts_by,
    flips,
    groupings,
    search,
)
from everlearn.evaluation.trial import Answers, Trial
from everlearn.jobs.explain.reread import Located, Reread
from everlearn.jobs.learn import Fold
from everlearn.registry.models import as_text

SHOWN = 10
"""Rows that flipped that are shown, of those that were lost and of those that were won."""


@dataclass(slots=True)
class Flipped:
    """What changed in the answers for hold-out rows.

    Args:
        trial: of both versions, which has rows and answers of both.
        new, old: of the trial.
        own: rows of the version's own increments, read again.
        older: of those before, to find rows in.
        before: the increments before, the newest first.
        most: rows of these that are read.
    """

    trial: Trial
    new: Fold
    old: Fold
    own: Reread
    older: Reread
    before: Iterable[Slice]
    most: int

    def to_json(self) -> Json:
        """Counts in all, by period and by class; slices with more flips than chance gives; rows."""
        found, batch = flips(self.trial), self._batch
        if found is None:
            return {"rows": len(self.trial), "why_not": "a learner without a target is never wrong"}
        told = search(found, [*self._more_groupings(), *self._groupings()])
        shown = {kind: self._sample(found, kind) for kind in ("lost", "won")}
        places = np.concatenate([*shown.values(), [one.place for one in told.findings]])
        came = self._find(batch.ids[places.astype(np.int64)])
        slices = [self._finding(one, came) for one in told.findings]
        samples = [
            self._row(at, kind, came) for kind, rows in shown.items() for at in rows.tolist()
        ]
        return {
            **found.counts(),
            "tolerance": found.tolerance,
            "periods": self._by_period(found),
            "classes": self._by_class(found),
            "slices": slices,
            "tested": told.tested,
            "level": LEVEL,
            "samples": samples,
        }

    @property
    def _batch(self) -> Batch:
        assert self.trial.batch is not None
        return self.trial.batch

    @property
    def _classes(self) -> bool:
        return self.trial.kind == "classifier"

    # --- groups of rows ---

    def _groupings(self) -> Sequence[Grouping]:
        return list(groupings(self._batch, self.new.columns, classes=self._classes))

    def _more_groupings(self) -> Sequence[Grouping]:
        """By period, and by source where rows of several are known."""
        made = [by_value("period", np.array(self._period_names(), object)[self._periods()])]
        speaker = self.own.speakers_of(self._batch.ids)
        if len(np.unique(speaker[speaker >= 0])) > 1:
            names = [one.reviewer or one.source for one in self.own.speakers]
            of = by_value("source", np.array([*names, ""], object)[speaker])
            codes = np.where(speaker >= 0, of.codes, -1)
            made.append(Grouping(of.groups, codes))
        return made

    def _period_names(self) -> list[str]:
        return [period.name for period in self.trial.periods]

    def _periods(self) -> Ints:
        """(n,) number of the period of each row."""
        sizes = [len(period) for period in self.trial.periods]
        return np.repeat(np.arange(len(sizes)), sizes)

    def _by_period(self, found: Flips) -> list[Json]:
        codes, made = self._periods(), []
        for place, period in enumerate(self.trial.periods):
            ends = {"start": period.start, "stop": period.stop}
            known = {name: None if at is None else as_text(at) for name, at in ends.items()}
            numbers = {"first": period.first, "last": period.last}
            made.append({**numbers, **known, **found.counts(codes == place)})
        return made

    def _by_class(self, found: Flips) -> list[Json]:
        y, target = self._batch.y, self.new.columns.target
        if not self._classes or y is None or target is None:
            return []
        counted = counts_by(found, by_value(target, y))
        names = self._written(np.array([one["name"] for one in counted], object))
        return [{**one, "name": name} for one, name in zip(counted, names, strict=True)]

    def _finding(self, one: Finding, came: dict[int, Located]) -> Json:
        group, text = one.group, self._text(one.group, came.get(int(self._batch.ids[one.place])))
        value = text if group.hashed is not None else group.equals
        if value is not None and group.column == self.new.columns.target and self._classes:
            value = self._written(np.array([value], object))[0]
        said = Group(group.column, equals=value) if value is not None else group
        return {
            "slice": said.describe(),
            "column": group.column,
            "value": value,
            "hash": None if group.hashed is None else f"{group.hashed:016x}",
            "above": group.above,
            "upto": group.upto,
            "kind": one.kind,
            "rows": one.rows,
            "flips": one.flips,
            "share": one.flips / one.rows,
            "low": one.low,
            "high": one.high,
            "rest": one.rest,
            "p": one.p,
        }

    def _text(self, group: Group, row: Located | None) -> str | None:
        """The text of a hash, by a row that has it."""
        value = None if row is None else row.values.get(group.column)
        if group.hashed is None or value is None:
            return None
        text = str(value)
        same = int(hash_texts(pa.array([text], pa.string()))[0]) == group.hashed
        return text if same else None

    # --- rows ---

    def _sample(self, found: Flips, kind: str) -> Ints:
        """The rows of a kind whose answers moved most, in that order."""
        places = np.flatnonzero(getattr(found, kind))
        moved = np.abs(self._sure(self.trial.candidate) - self._sure(self.trial.champion))
        order = np.argsort(-np.nan_to_num(moved[places]), kind="stable")
        return places[order][:SHOWN].astype(np.int64)

    def _sure(self, answers: Answers | None) -> Floats:
        """(n,) chance that was given to the truth, or a regressor's answer."""
        assert answers is not None and answers.y is not None
        proba = answers.prediction.proba
        if not self._classes:
            return answers.prediction.value.astype(np.float64)
        if proba is None:
            return np.full(len(answers.y), np.nan)
        rows = np.arange(len(answers.y))
        chance = proba[rows, np.maximum(answers.y, 0)]
        return np.where(answers.y >= 0, chance, 0.0)

    def _find(self, ids: Array) -> dict[int, Located]:
        """The rows with these ids as they came; older increments are read only for those that
        are not found yet."""
        found = self.own.find(ids)
        rest = [one for one in ids.tolist() if one not in found]
        for part in self.before if rest else ():
            self.older.read([part], self.most)
            found |= self.older.find(np.array(rest, np.uint64))
            rest = [one for one in rest if one not in found]
            if not rest or len(self.older) >= self.most:
                break
        return found

    def _row(self, place: int, kind: str, came: dict[int, Located]) -> Json:
        trial, batch = self.trial, self._batch
        assert trial.candidate is not None and trial.champion is not None and batch.y is not None
        answers = {"before": (self.old, trial.champion), "after": (self.new, trial.candidate)}
        at = slice(place, place + 1)
        said: dict[str, Json] = {"kind": kind, "truth": self._written(batch.y[at])[0]}
        for name, (fold, one) in answers.items():
            said[name] = self._written(fold.decode(one.prediction.value[at]))[0]
            if self._classes and one.prediction.proba is not None:
                said[f"chance_{name}"] = float(self._sure(one)[place])
        moment = None if batch.time is None else int(batch.time[place])
        found = came.get(int(batch.ids[place]))
        came_from = (
            None
            if found is None
            else {**found.speaker._asdict(), "row": found.row, "prediction": found.prediction}
        )
        return {
            **said,
            "period": self._period_names()[int(self._periods()[place])],
            "time": None if moment in (None, NO_TIME) else as_text(int(moment or 0)),
            "features": self._features(place) if found is None else found.values,
            "from": came_from,
        }

    def _features(self, place: int) -> dict[str, Json]:
        """What a hold-out row has of its features: all but the texts of its categories."""
        batch, columns = self._batch, self.new.columns
        made: dict[str, Json] = {}
        for name, value in zip(columns.numbers, batch.numbers[place].tolist(), strict=True):
            made[name] = value if np.isfinite(value) else None
        for name, value in zip(columns.categories, batch.categories[place].tolist(), strict=True):
            made[name] = f"hash {value:016x}" if value else None
        for name, value in zip(columns.times, batch.times[place].tolist(), strict=True):
            made[name] = None if value == NO_TIME else as_text(value)
        if batch.texts is not None:
            made |= dict(zip(columns.texts, batch.texts[place].tolist(), strict=True))
        return made

    def _written(self, values: Array) -> list[Json]:
        """Values of the target as it is written; a regressor's as they are."""
        if not self._classes:
            return [float(value) if np.isfinite(value) else None for value in values.tolist()]
        return list(restored(values, self.new.columns))
