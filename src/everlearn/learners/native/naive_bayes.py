"""Naive Bayes: classes whose columns are taken to be independent of each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from everlearn.base import Array, Floats, InputError, Ints, Part, State
from everlearn.learners.native.bayes.base import (
    EVERY,
    NaiveBayes,
    begin_buckets,
    checked_alpha,
    checked_number,
    checked_whole,
    kinds_of,
    with_calendar,
)
from everlearn.learners.native.bayes.binary import learn_binary
from everlearn.learners.native.bayes.gaussian import learn_gaussian
from everlearn.learners.native.bayes.multinomial import fill_logs, learn_multinomial
from everlearn.learners.native.bayes.presence import (
    begin_presence,
    derived_presence,
    fitting_presence,
    learn_presence,
)
from everlearn.learners.native.bayes.words import (
    begin_words,
    find_seen,
    packed_words,
    unpack_words,
    words_of,
)
from everlearn.learners.native.loading import all_like, check_within, like
from everlearn.learners.native.rows import Rows, Shape

ROOM = 64
"""Places for frequent words that a class begins with."""


class GaussianNB(NaiveBayes):
    """Naive Bayes with a normal distribution for each class and number, and for each class and
    category the share of its values.

    A missing value is left out of its row's product. To every variance in a class, `var_smoothing`
    times the column's variance over all rows learned so far is added; so the unit of a column does
    not matter, and neither do chunks. (scikit-learn adds, to all columns alike, `var_smoothing`
    times the largest variance of a column in the batch that was fitted last: the same where columns
    are standardised.) Times are three numbers each, their places in the day, the week and the year.

    Args:
        classes: how many there are, or which; None where they are not known beforehand.
        var_smoothing: share of a column's variance that is added, from 1e-12 to 1.
        alpha: weight that is added to each value of a category in each class, above 0.
        buckets: how many values of a category are told apart, by hash; the state has
            buckets × categories × classes numbers.
        nominal: columns of a matrix that are categories.

    Raises:
        SpecError: a parameter that is out of its bounds.

    Example:
        >>> learner = GaussianNB()
        >>> X = np.array([[-1.0], [1.2], [-0.8], [1.0], [-1.1], [0.9]])
        >>> learner.score_then_learn(X, ["low", "high"] * 3).tolist()
        ['low', 'low', 'low', 'low', 'low', 'high']
        >>> learner.predict(np.array([[0.6], [-0.7]])).tolist()
        ['high', 'low']

    Paper:
        Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
        sample variances"; Domingos & Pazzani 1997, "On the optimality of the simple Bayesian
        classifier under zero-one loss", for why such a product classifies well.
    """

    class_axes = {"counts": 0, "moments": 0, "tally": 2, "known": 1}  # noqa: RUF012
    derived = frozenset({"kinds"})

    def __init__(
        self,
        classes: Any = None,
        *,
        var_smoothing: float = 1e-9,
        alpha: float = 1.0,
        buckets: int = 1024,
        nominal: tuple[int, ...] = (),
    ) -> None:
        self.classes = classes
        self.var_smoothing = var_smoothing
        self.alpha = alpha
        self.buckets = buckets
        self.nominal = nominal

    def _begin(self, shape: Shape, seed: int) -> None:
        checked_number("var_smoothing", self.var_smoothing, 1e-12, 1.0)
        checked_alpha(self.alpha)
        buckets = checked_whole("buckets", self.buckets, 2, 2**24)
        p, k = shape.numbers + shape.times, shape.outputs
        self._state = {
            "counts": np.zeros(k),
            "overall": np.zeros((p, 3)),
            "moments": np.zeros((k, p, 3)),
            **begin_buckets(shape.categories, buckets, k),
        }

    def _learn(self, rows: Rows, y: Ints, weight: Floats, out: Floats) -> None:
        learn_gaussian(
            rows.dense(),
            rows.categories,
            y,
            weight,
            tuple(self._state.values()),
            float(self.var_smoothing),
            float(self.alpha),
            out,
        )

    def _predict(self, rows: Rows, out: Floats) -> None:
        self._learn(rows, EVERY, np.zeros(len(rows)), out)

    def _add(self, state: dict[str, Array]) -> None:
        for name in ("overall", "moments"):
            self._state[name] = _pooled(self._state[name], state.pop(name))
        super()._add(state)

    def _derive(self) -> None:
        self._state["kinds"] = kinds_of(self._state["tally"])


class BernoulliNB(NaiveBayes):
    """Naive Bayes over columns that are on or off; what is off tells as much as what is on.

    A number is on above `binarize`; a missing one is left out of its row's product. A category has
    one of its values, a time is in an hour, a day of the week and a month, each of which has its
    share in every class. A column of a sparse matrix counts from the first learned row on in which
    it was on; the columns that a row lacks are taken together, so that a row costs what it holds,
    not the size of the vocabulary.

    Args:
        classes: how many there are, or which; None where they are not known beforehand.
        alpha: weight that is added to on and off, and to each value of a category, above 0.
        binarize: a number above it is on; from 0 for a sparse matrix.
        buckets: how many values of a category are told apart, by hash.
        bits: a sparse matrix's columns have 2**bits places; those below have their own, all
            others get one by hash. From 1 to 30.
        nominal: columns of a matrix that are categories.

    Raises:
        SpecError: a parameter that is out of its bounds.

    Example:
        >>> learner = BernoulliNB(classes=["ham", "spam"])
        >>> X = np.array([[1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0]])
        >>> learner.partial_fit(X, ["ham", "spam", "ham", "spam"])
        BernoulliNB(classes=['ham', 'spam'])
        >>> learner.predict_proba(np.array([[1, 0, np.nan]])).round(3).tolist()
        [[0.9, 0.1]]

    Paper:
        Manning, Raghavan & Schütze 2008, "Introduction to information retrieval", section 13.3;
        McCallum & Nigam 1998, "A comparison of event models for naive Bayes text classification".
    """

    takes_sparse = True
    class_axes = {  # noqa: RUF012
        "counts": 0,
        "switches": 2,
        "tally": 2,
        "known": 1,
        "weights": 1,
        "scale": 0,
        "powers": 0,
        "frequent": 0,
        "frequents": 0,
    }
    derived = frozenset({"kinds", "seen", "size", "scale", "powers", "frequent", "frequents"})

    def __init__(
        self,
        classes: Any = None,
        *,
        alpha: float = 1.0,
        binarize: float = 0.0,
        buckets: int = 1024,
        bits: int = 18,
        nominal: tuple[int, ...] = (),
    ) -> None:
        self.classes = classes
        self.alpha = alpha
        self.binarize = binarize
        self.buckets = buckets
        self.bits = bits
        self.nominal = nominal

    def _begin(self, shape: Shape, seed: int) -> None:
        checked_alpha(self.alpha)
        buckets = checked_whole("buckets", self.buckets, 2, 2**24)
        width = 2 ** checked_whole("bits", self.bits, 1, 30)
        checked_number("binarize", self.binarize, 0.0 if shape.sparse else -1e300, 1e300)
        k = shape.outputs
        self._state = {"counts": np.zeros(k)}
        self._sparse = shape.sparse
        if shape.sparse:
            self._state |= begin_words(width, k) | begin_presence(k, ROOM)
            self._marks = np.zeros(width, np.bool_)
        else:
            self._state["switches"] = np.zeros((shape.numbers, 2, k))
            self._state |= begin_buckets(shape.categories + shape.times, buckets, k)

    def _learn(self, rows: Rows, y: Ints, weight: Floats, out: Floats) -> None:
        if self._sparse:
            self._learn_sparse(rows, y, weight, out)
            return
        learn_binary(
            rows.numbers,
            with_calendar(rows),
            y,
            weight,
            float(self.binarize),
            tuple(self._state.values()),
            float(self.alpha),
            out,
        )

    def _learn_sparse(self, rows: Rows, y: Ints, weight: Floats, out: Floats) -> None:
        done = 0
        while True:
            done = learn_presence(
                rows.starts,
                rows.places,
                rows.values,
                y,
                weight,
                float(self.binarize),
                tuple(self._state.values()),
                float(self.alpha),
                self._marks,
                done,
                out,
            )
            if done == len(rows):
                return
            frequent = self._state["frequent"]
            more = np.zeros((len(frequent), max(ROOM, frequent.shape[1])), np.int64)
            self._state["frequent"] = np.hstack([frequent, more])

    def _predict(self, rows: Rows, out: Floats) -> None:
        self._learn(rows, EVERY, np.zeros(len(rows)), out)

    def _derive(self) -> None:
        if self._sparse:
            find_seen(self._state)
            self._state |= derived_presence(self._state, float(self.alpha))
        else:
            self._state["kinds"] = kinds_of(self._state["tally"])

    def _save(self) -> dict[str, Part]:
        if not self._sparse:
            return super()._save()
        longest = self._state["frequents"].max()
        arrays = {name: self._state[name].copy() for name in ("counts", "scale", "powers")}
        arrays |= {"frequents": self._state["frequents"].copy()}
        in_use = np.arange(longest) < self._state["frequents"][:, None]
        arrays |= {"frequent": np.where(in_use, self._state["frequent"][:, :longest], 0)}
        return {"model": Part(arrays | packed_words(self._state))}

    def _load(self, state: State) -> None:
        if not self._sparse:
            super()._load(state)
            return
        arrays = dict(state["model"].arrays)
        unpack_words(self._state, arrays)
        own = {name: self._state[name] for name in ("counts", "scale", "powers", "frequents")}
        self._state |= all_like(own, arrays)
        frequents, longest = self._state["frequents"], arrays["frequent"].shape[1]
        frequent = np.zeros((len(frequents), longest), np.int64)
        self._state["frequent"] = like(frequent, arrays["frequent"], "frequent")
        check_within(self._state["frequent"], 0, len(self._state["weights"]) - 1, "words")
        check_within(frequents, 0, longest, "frequents")
        self._state |= fitting_presence(self._state, float(self.alpha))


class MultinomialNB(NaiveBayes):
    """Naive Bayes over how often words come: each column is a word, and its number how often.

    Numbers are amounts from 0, not only whole ones; 0 and missing are the same. A category is a
    word that comes once, and so are the hour, the day of the week and the month of a time. The
    vocabulary is of the words that any learned row held.

    Args:
        classes: how many there are, or which; None where they are not known beforehand.
        alpha: weight that is added to each word in each class, above 0.
        bits: a sparse matrix's columns have 2**bits places, and so have categories; columns of a
            sparse matrix below that have their own, all others get one by hash. From 1 to 30.
        nominal: columns of a matrix that are categories.

    Raises:
        SpecError: a parameter that is out of its bounds.
        InputError: a number below 0.

    Example:
        >>> learner = MultinomialNB()
        >>> X = np.array([[2, 0, 1], [0, 3, 1], [1, 0, 2]])
        >>> learner.partial_fit(X, ["tea", "coffee", "tea"]).predict(X).tolist()
        ['tea', 'coffee', 'tea']

    Paper:
        Manning, Raghavan & Schütze 2008, "Introduction to information retrieval", section 13.2;
        McCallum & Nigam 1998, "A comparison of event models for naive Bayes text classification".
    """

    takes_sparse = True
    class_axes = {"counts": 0, "totals": 0, "weights": 1, "logs": 1}  # noqa: RUF012
    derived = frozenset({"seen", "size", "logs"})

    def __init__(
        self,
        classes: Any = None,
        *,
        alpha: float = 1.0,
        bits: int = 18,
        nominal: tuple[int, ...] = (),
    ) -> None:
        self.classes = classes
        self.alpha = alpha
        self.bits = bits
        self.nominal = nominal

    def _begin(self, shape: Shape, seed: int) -> None:
        checked_alpha(self.alpha)
        width = 2 ** checked_whole("bits", self.bits, 1, 30)
        if not shape.sparse:
            width = shape.numbers + (width if shape.categories + shape.times else 0)
        k = shape.outputs
        self._state = {
            "counts": np.zeros(k),
            "totals": np.zeros(k),
            "logs": np.zeros((width, k)),
            **begin_words(width, k),
        }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags

    def _check(self, rows: Rows) -> None:
        super()._check(rows)
        for amounts in (rows.numbers, rows.values):
            if amounts.size and np.nanmin(amounts, initial=0.0) < 0.0:
                raise InputError(
                    "Negative values in data: MultinomialNB takes amounts from 0, not"
                    f" {np.nanmin(amounts)}"
                )

    def _learn(self, rows: Rows, y: Ints, weight: Floats, out: Floats) -> None:
        learn_multinomial(
            rows.numbers,
            with_calendar(rows),
            rows.starts,
            rows.places,
            rows.values,
            y,
            weight,
            tuple(self._state.values()),
            float(self.alpha),
            out,
        )

    def _predict(self, rows: Rows, out: Floats) -> None:
        self._learn(rows, EVERY, np.zeros(len(rows)), out)

    def _derive(self) -> None:
        find_seen(self._state)
        fill_logs(words_of(self._state), float(self.alpha), self._state["logs"])

    def _save(self) -> dict[str, Part]:
        arrays = {name: self._state[name].copy() for name in ("counts", "totals")}
        return {"model": Part(arrays | packed_words(self._state))}

    def _load(self, state: State) -> None:
        arrays = dict(state["model"].arrays)
        unpack_words(self._state, arrays)
        self._state |= all_like({name: self._state[name] for name in ("counts", "totals")}, arrays)
        fill_logs(words_of(self._state), float(self.alpha), self._state["logs"])


def _pooled(mine: Array, other: Array) -> Array:
    """Weight, mean and variance of (…, 3) numbers together with others (Chan et al. 1979, 2.1)."""
    n, m = mine[..., 0], other[..., 0]
    total = n + m
    share = np.divide(m, total, out=np.zeros_like(total), where=total > 0.0)
    apart = other[..., 1] - mine[..., 1]
    mean = mine[..., 1] + apart * share
    spread = (1.0 - share) * (mine[..., 2] + share * apart * apart) + share * other[..., 2]
    return np.stack([total, mean, spread], axis=-1)
