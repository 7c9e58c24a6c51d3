"""Conditions on rows, as people write them: `source = 'bot-7' and time >= '2024-03-01'`.

    condition = any
    any       = all { "or" all }
    all       = one { "and" one }
    one       = "not" one | "(" any ")" | column test
    test      = sign literal | ["not"] "in" "(" literal { "," literal } ")"
              | ["not"] "like" text | "is" ["not"] "null"
    sign      = "=" | "!=" | "<>" | "<" | "<=" | ">" | ">="

Columns stand bare or in double quotes, texts in single quotes (either doubled within itself stands
for one), numbers and true and false bare. Keywords may be written in capitals. It is a grammar of
its own and never becomes SQL; its length and its depth are bounded, so that no text, however
hostile, costs more than its length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import pyarrow as pa

from everlearn.base import InputError
from everlearn.data.convert import Mask
from everlearn.data.predicates import (
    KEYWORDS,
    SIGNS,
    Among,
    And,
    Compare,
    Like,
    Literal,
    Missing,
    Not,
    Or,
    Predicate,
    narrowed,
)

LONGEST = 100_000
"""Letters of a condition."""

DEEPEST = 50
"""Parentheses and nots within each other."""

LONGEST_PATTERN = 1000
"""Letters of a pattern of `like`."""

_DIGITS = 40
_AROUND = 60  # letters of the text that an error shows before the place, and after it

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*+')
      | (?P<quoted>"(?:[^"]|"")*+")
      | (?P<number>[+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)(?!\w)
      | (?P<word>[^\W\d]\w*+)
      | (?P<sign><=|>=|<>|!=|[=<>(),])""",
    re.VERBOSE,
)
_BLANKS = re.compile(r"\s*+")
_NOT_EQUAL = "<>"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on rows; two that say the same in the same order are equal.

        >>> str(Condition.parse("SOURCE = 'bot-7' AND NOT (weight > 1)"))
        "SOURCE = 'bot-7' and not weight > 1"

    Args:
        root: what it is made of.
    """

    root: Predicate

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition.

        Raises:
            InputError: the text is none; the message says at which place, and what could stand
                there.
        """
        if len(text) > LONGEST:
            raise InputError(
                f"a condition has at most {LONGEST:,} letters, not {len(text):,}; "
                "give long lists of rows as rows"
            )
        return cls(_Parser(text).whole())

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks at, each once, in the order of its text."""
        return tuple(dict.fromkeys(self.root.columns()))

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """(n,) the rows for which it holds. Where a value is missing a comparison is unknown, and
        a row of which it is unknown whether the condition holds is not among them.

        Raises:
            InputError: a column that the table lacks (the nearest is named), or a literal that its
                values cannot be compared with.
        """
        truth = self.root.truth(table).fill_null(False)
        found: Mask = truth.to_numpy(zero_copy_only=False)
        return found

    def possible(self, table: pa.Table) -> Mask:
        """(n,) the rows for which it may hold, whatever values columns have that the table lacks.

        Raises:
            InputError: as `mask`, but for these.
        """
        truth = narrowed(self.root, table.schema.names).truth(table).fill_null(True)
        found: Mask = truth.to_numpy(zero_copy_only=False)
        return found

    def __str__(self) -> str:
        """The text in its canonical form, from which an equal condition is parsed."""
        return str(self.root)


class _Token(NamedTuple):
    kind: str  # "text", "quoted", "number", "word", "sign" or "end"
    text: str
    at: int

    @property
    def keyword(self) -> str:
        """The word in small letters if it is a keyword, the sign, or nothing."""
        if self.kind == "sign":
            return self.text
        lower = self.text.lower()
        return lower if self.kind == "word" and lower in KEYWORDS else ""


class _Parser:
    """Recursive descent, a method for each rule; one token is looked ahead."""

    def __init__(self, text: str) -> None:
        self._text, self._depth = text, 0
        self._token = self._read(0)

    def whole(self) -> Predicate:
        found = self._any()
        if self._token.kind != "end":
            self._fail("'and', 'or' or the end of the condition")
        return found

    # --- the rules of the grammar ---

    def _any(self) -> Predicate:
        return self._chain("or", self._all, Or)

    def _all(self) -> Predicate:
        return self._chain("and", self._one, And)

    def _chain(
        self, word: str, rule: Callable[[], Predicate], made: Callable[[Any], Predicate]
    ) -> Predicate:
        parts = [rule()]
        while self._accept(word):
            parts.append(rule())
        return parts[0] if len(parts) == 1 else made(tuple(parts))

    def _one(self) -> Predicate:
        self._depth += 1
        if self._depth > DEEPEST:
            self._fail(f"at most {DEEPEST} parentheses and nots within each other")
        if self._accept("not"):
            found: Predicate = Not(self._one())
        elif self._accept("("):
            found = self._any()
            self._expect(")")
        else:
            found = self._test(self._column())
        self._depth -= 1
        return found

    def _column(self) -> str:
        token = self._token
        if token.kind == "quoted" and len(token.text) > 2:
            name = token.text[1:-1].replace('""', '"')
        elif token.kind == "word" and not token.keyword:
            name = token.text
        else:
            self._fail("a column, 'not' or '('")
        self._next()
        return name

    def _test(self, column: str) -> Predicate:
        sign = self._token.keyword
        if sign in SIGNS or sign == _NOT_EQUAL:
            self._next()
            return Compare(column, "!=" if sign == _NOT_EQUAL else sign, self._literal())
        if self._accept("is"):
            negated = self._accept("not")
            self._expect("null")
            return self._negated(negated, Missing(column))
        negated = self._accept("not")
        if self._accept("in"):
            return self._negated(negated, Among(column, self._list()))
        if self._accept("like"):
            return self._negated(negated, Like(column, self._pattern()))
        self._fail("'in' or 'like'" if negated else f"{', '.join(SIGNS)}, in, like, not or is")

    @staticmethod
    def _negated(negated: bool, found: Predicate) -> Predicate:
        return Not(found) if negated else found

    def _list(self) -> tuple[Literal, ...]:
        self._expect("(")
        found = [self._literal()]
        while self._accept(","):
            found.append(self._literal())
        self._expect(")")
        return tuple(found)

    def _pattern(self) -> str:
        if self._token.kind != "text":
            self._fail("a pattern in single quotes, such as 'bot-%'")
        if len(self._token.text) - 2 > LONGEST_PATTERN:
            self._fail(f"a pattern of at most {LONGEST_PATTERN:,} letters")
        return str(self._literal())

    def _literal(self) -> Literal:
        token = self._token
        if token.kind == "text":
            found: Literal = token.text[1:-1].replace("''", "'")
        elif token.kind == "number":
            found = self._number(token)
        elif token.keyword in ("true", "false"):
            found = token.keyword == "true"
        elif token.keyword == "null":
            self._fail("a value; whether one is missing is asked for with 'is null'")
        else:
            named = token.kind in ("word", "quoted") and not token.keyword
            self._fail(f"a value{'; a text stands in single quotes' if named else ''}")
        self._next()
        return found

    def _number(self, token: _Token) -> int | float:
        if len(token.text) > _DIGITS:
            self._fail(f"a number of at most {_DIGITS} digits")
        if token.text.lstrip("+-").isdecimal():
            return int(token.text)
        if not math.isfinite(found := float(token.text)):
            self._fail("a number that is finite")
        return found

    # --- tokens ---

    def _accept(self, word: str) -> bool:
        """Pass over a keyword or a sign if it is there."""
        if self._token.keyword != word:
            return False
        self._next()
        return True

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            self._fail(f"'{word}'")

    def _next(self) -> None:
        self._token = self._read(self._token.at + len(self._token.text))

    def _read(self, at: int) -> _Token:
        blanks = _BLANKS.match(self._text, at)
        assert blanks is not None
        at = blanks.end()
        if at == len(self._text):
            return _Token("end", "", at)
        found = _TOKEN.match(self._text, at)
        if found is None:
            letter = self._text[at]
            if letter in "'\"":
                self._stop(at, f"the quote {letter} is never closed")
            self._stop(at, f"{self._text[at : at + 10]!r} means nothing in a condition")
        assert found.lastgroup is not None
        return _Token(found.lastgroup, found[0], at)

    def _fail(self, wanted: str) -> NoReturn:
        token = self._token
        shown = token.text if len(token.text) <= 20 else token.text[:20] + "…"
        found = "it ends" if token.kind == "end" else f"there is {shown}"
        self._stop(token.at, f"expected {wanted}, but {found}")

    def _stop(self, at: int, why: str) -> NoReturn:
        """Raise the error, with the text around the place and a caret under it."""
        start, stop = max(at - _AROUND, 0), at + _AROUND
        before = ("…" if start else "") + self._text[start:at]
        shown = before + self._text[at:stop] + ("…" if stop < len(self._text) else "")
        shown = re.sub(r"\s", " ", shown)
        raise InputError(
            f"the condition cannot be read at letter {at + 1}: {why}\n"
            f"  {shown}\n  {' ' * len(before)}^"
        )
