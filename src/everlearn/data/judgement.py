"""What becomes of the labels of a slice of the log: which count, which do not and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from everlearn.data.policy import CONFIRMED, OUTRANKED, REPLACED, LabelPolicy, Said, Verdict
from everlearn.data.quality import QUARANTINED
from everlearn.data.withdrawn import NOTHING, WITHDRAWN, Numbers


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of the labels of a slice.

    Args:
        verdicts: position → the label that counts for its prediction, learned as the row there.
        refused: position → why nothing is learned at it.
        corrects: positions of rows that judge anew what was learned before.
    """

    verdicts: Mapping[int, Verdict]
    refused: Mapping[int, str]
    corrects: Set[int]

    def without(self, aside: Mapping[int, str]) -> Judgement:
        """The same where guards set some of the labels aside: position → why."""
        if not aside:
            return self
        return Judgement(
            {at: one for at, one in self.verdicts.items() if at not in aside},
            {**self.refused, **aside},
            self.corrects - aside.keys(),
        )

    def beside(self, other: Judgement) -> Judgement:
        """What becomes of the labels of both."""
        return Judgement(
            {**self.verdicts, **other.verdicts},
            {**self.refused, **other.refused},
            self.corrects | other.corrects,
        )


@dataclass(frozen=True, slots=True)
class Unheard:
    """Labels that have no say.

    Args:
        sources: those in quarantine.
        withdrawn: positions of labels that were withdrawn: they count as never said.
        learned: whether what goes on may have learned them all the same: a label that takes the
            place of a withdrawn one is marked as a correction then, lest it is taken for a row that
            was learned before.
    """

    sources: Set[str] = frozenset()
    withdrawn: Numbers = NOTHING
    learned: bool = False

    def any(self, start: int, stop: int) -> bool:
        """Whether that may be some of the labels with start < position ≤ stop."""
        return bool(self.sources) or len(self.withdrawn.between(start + 1, stop + 1)) > 0

    def reason(self, one: Said) -> str | None:
        """Why a label has no say; None where it has one."""
        if one.position in self.withdrawn:
            return WITHDRAWN
        return QUARANTINED if one.source in self.sources else None


ALL_HEARD = Unheard()
"""Every label has its say."""


def judge(
    policy: LabelPolicy,
    new: Mapping[int, list[Said]],
    earlier: Mapping[int, list[Said]],
    unheard: Unheard = ALL_HEARD,
) -> Judgement:
    """Decide what counts.

    Args:
        new: prediction → its labels in the slice, in the log's order.
        earlier: prediction → its labels before the slice.
        unheard: what of both has no say.
    """
    verdicts: dict[int, Verdict] = {}
    refused: dict[int, str] = {}
    corrects: set[int] = set()
    for prediction, spoken in new.items():
        silent = {one.position: why for one in spoken if (why := unheard.reason(one)) is not None}
        refused |= silent
        said = [one for one in spoken if one.position not in silent]
        if not said:
            continue
        past = earlier.get(prediction, [])
        learned = [one for one in past if one.position not in unheard.withdrawn]
        before = [one for one in learned if one.source not in unheard.sources]
        verdict = policy.settle([*before, *said])
        place = _place(verdict, said)
        for one in said:
            refused[one.position] = REPLACED if one.position < place else OUTRANKED
        if verdict.winner is None:
            refused |= dict.fromkeys((one.position for one in said), verdict.reason)
        elif before == learned and _known(policy, before, verdict):
            refused[place] = CONFIRMED
            continue
        else:
            del refused[place]
            verdicts[place] = verdict
        if past if unheard.learned else learned:
            corrects.add(place)
    return Judgement(verdicts, refused, corrects)


def _known(policy: LabelPolicy, before: Sequence[Said], verdict: Verdict) -> bool:
    """Whether what counted before is the same."""
    return bool(before) and policy.settle(before)[1:] == verdict[1:]


def _place(verdict: Verdict, said: Sequence[Said]) -> int:
    """The position of the slice at which the prediction is learned: of the label that counts or,
    where that one is older, of the last one."""
    mine = {one.position for one in said}
    if verdict.winner is not None and verdict.winner.position in mine:
        return verdict.winner.position
    return said[-1].position
