"""What a stage of a rollout has shown so far, and what follows from it.

Every bound holds at every look, of all questions and stages together at the plan's level. So
looking often makes nothing worse, and what is not sure stays as it is: no time-out promotes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from everlearn.base import Decision, Json
from everlearn.evaluation.sequences import Moments, difference, mean_bounds, share_bounds
from everlearn.rollout.plans import Plan
from everlearn.rollout.traffic_ratio import TrafficRatio

QUESTIONS = 5
"""Loss, errors, time, churn and traffic."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What was seen of one arm.

    Args:
        requests: rows that it was to answer.
        errors: of these, rows that it failed to answer.
        loss: of its answers whose labels are known.
        seconds: that it took for requests.
    """

    requests: int = 0
    errors: int = 0
    loss: Moments = field(default_factory=Moments)
    seconds: Moments = field(default_factory=Moments)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen in one stage.

    Args:
        candidate, champion: each arm.
        apart: where both answered the same rows, the candidate's loss less the champion's.
        differs: there, 1 where the answers were not the same, else 0.
        ratio: of the traffic, where it is shared.
    """

    candidate: Arm = field(default_factory=Arm)
    champion: Arm = field(default_factory=Arm)
    apart: Moments = field(default_factory=Moments)
    differs: Moments = field(default_factory=Moments)
    ratio: TrafficRatio | None = None


def judge(plan: Plan, seen: Seen, zero_one: bool) -> Decision:
    """Whether a stage goes on ("hold"), is passed ("pass") or is over ("roll back").

    Args:
        plan: of the rollout.
        seen: in the present stage.
        zero_one: whether losses are 0 or 1.
    """
    alpha = (1.0 - plan.bounds.level) / (QUESTIONS * len(plan.stages))
    evidence: Json = {"alpha": alpha, "requests": _counts(seen, "requests")}
    harms = [
        _errors(plan, seen, alpha, evidence),
        _time(plan, seen, alpha, evidence),
        _churn(plan, seen, alpha, evidence),
    ]
    low, high = _loss(plan, seen, alpha, zero_one, evidence)
    if low > plan.bounds.margin:
        harms.append(f"its loss is larger by {low:.4g} at least (margin {plan.bounds.margin:g})")
    found = [harm for harm in harms if harm]
    if found:
        return Decision("roll back", "the candidate is worse: " + "; ".join(found), evidence)
    if seen.ratio is not None:
        evidence["traffic_log_evidence"] = seen.ratio.log_evidence
        if seen.ratio.differs(alpha):
            expected = f"{seen.ratio.share:.1%}"
            return Decision(
                "hold", f"arms do not get the traffic they should ({expected})", evidence
            )
    labels, least = evidence["labels"], plan.bounds.labels
    if labels < least:
        return Decision("hold", f"{labels:,} of {least:,} labelled answers", evidence)
    most = 0.0 if plan.must_be_better else plan.bounds.margin
    if high <= most:
        what = "better" if plan.must_be_better else "not worse"
        bound = (
            f"larger by {high:.4g} at most" if high > 0.0 else f"smaller by {-high:.4g} at least"
        )
        return Decision("pass", f"surely {what}: its loss is {bound}", evidence)
    if math.isinf(high):
        return Decision("hold", f"{labels:,} labelled answers are too few to tell", evidence)
    return Decision("hold", f"not decided: its loss is {low:+.4g} to {high:+.4g} apart", evidence)


def _loss(
    plan: Plan, seen: Seen, alpha: float, zero_one: bool, evidence: Json
) -> tuple[float, float]:
    """Bounds of how much larger the candidate's mean loss is."""
    if seen.apart.n:
        low, high = mean_bounds(seen.apart, alpha)
        apart, labels = seen.apart.mean, seen.apart.n
    else:
        candidate, champion = seen.candidate.loss, seen.champion.loss
        apart, low, high = difference(candidate, champion, alpha, shares=zero_one)
        labels = candidate.n
        evidence["mean_loss"] = {"candidate": candidate.mean, "champion": champion.mean}
    evidence |= {"labels": labels, "loss_apart": apart, "low": _finite(low), "high": _finite(high)}
    return low, high


def _errors(plan: Plan, seen: Seen, alpha: float, evidence: Json) -> str:
    evidence["errors"] = _counts(seen, "errors")
    shares = [
        Moments(arm.requests, arm.errors / arm.requests if arm.requests else 0.0)
        for arm in (seen.candidate, seen.champion)
    ]
    _, low, _ = difference(shares[0], shares[1], alpha, shares=True)
    if low > plan.bounds.errors:
        return f"it fails to answer {low:.2%} more of the requests at least"
    return ""


def _time(plan: Plan, seen: Seen, alpha: float, evidence: Json) -> str:
    candidate, champion = seen.candidate.seconds, seen.champion.seconds
    evidence["seconds"] = {"candidate": candidate.mean, "champion": champion.mean}
    low, _ = mean_bounds(candidate, 0.5 * alpha)
    _, high = mean_bounds(champion, 0.5 * alpha)
    if low > plan.bounds.slower * high:
        return f"it takes {low / high:.3g} times as long at least"
    return ""


def _churn(plan: Plan, seen: Seen, alpha: float, evidence: Json) -> str:
    if seen.differs.n == 0:
        return ""
    evidence["differs"] = seen.differs.mean
    low, _ = share_bounds(seen.differs, alpha)
    if plan.bounds.churn is not None and low > plan.bounds.churn:
        return f"it answers {low:.1%} of the rows otherwise at least"
    return ""


def _counts(seen: Seen, name: str) -> Json:
    return {"candidate": getattr(seen.candidate, name), "champion": getattr(seen.champion, name)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
