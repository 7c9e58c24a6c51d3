"""Rollouts of a workspace: begun by jobs, counted by servers, decided by looking.

Everything that decides is in the database, so that a rollout goes on, and is rolled back, with any
process that looks, whichever ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
from sqlalchemy.engine import Connection

from everlearn.base import Decision, InputError, Json, SpecError
from everlearn.data.feedback import PredictionIds, now
from everlearn.data.log import FeedbackLog
from everlearn.data.quarantine import Quarantine
from everlearn.data.tables import BlobStore
from everlearn.evaluation.outcomes import ZERO_ONE, loss_of, metric_for
from everlearn.evaluation.sequences import Moments
from everlearn.registry import aliases
from everlearn.registry.audit import note
from everlearn.registry.config import from_config, to_config
from everlearn.registry.definitions import definition
from everlearn.registry.models import model_id, plain
from everlearn.rollout import store
from everlearn.rollout.judge import Arm, Seen, judge
from everlearn.rollout.plans import Plan, Stage
from everlearn.rollout.store import PROMOTING, ROLLED_BACK, STOPPED, Rollout, Traffic
from everlearn.rollout.traffic_ratio import TrafficRatio
from everlearn.storage.database import Database

CANDIDATE, CHAMPION = "candidate", "champion"

PAGE = 5000
"""Labels that are looked at in one transaction."""

_FIGURES = re.compile(r"[-+\d.,%]+")
"""A reason to hold is kept once, not for every new label."""


class Rollouts:
    """The rollouts of all models of a workspace.

    Args:
        database: the workspace's.
        blobs: where old rows of the feedback logs may have been moved to.
    """

    def __init__(self, database: Database, blobs: BlobStore | None = None) -> None:
        self._database, self._blobs = database, blobs

    # --- beginning and ending ---

    def begin(
        self, connection: Connection, model: str, candidate: int, champion: int, reason: str
    ) -> int | None:
        """Begin the rollout that the model's definition has, for a version that passed its gate.

        Args:
            connection: of a writing transaction to take part in.

        Returns:
            Its number; None if the definition has none.

        Raises:
            ConflictError: another one of this model is running.
            SpecError: the definition's rollout is none.
        """
        plan = definition(connection, model).section("rollout")
        if plan is None:
            return None
        if not isinstance(plan, Plan):
            raise SpecError(f"rollout={plan!r} is none: Shadow(), Canary([…]) or ABTest({{…}})")
        number = store.begin(
            connection,
            model,
            plan=plain(to_config(plan)),
            candidate=candidate,
            champion=champion,
            since=PredictionIds.first(self._database.clock()),
            position=_log(self._database, connection, model).head(connection),
            reason=reason,
        )
        stands = aliases.current(connection, model, CANDIDATE)
        aliases.move(
            connection, model, CANDIDATE, candidate, expected=stands, action="try", reason=reason
        )
        return number

    def stop(self, model: str, reason: str) -> Rollout:
        """End the rollout that is running; the champion stays.

        Raises:
            ConflictError: it was changed meanwhile.
            InputError: there is none.
        """
        with self._database.write() as connection:
            rollout = store.running(connection, model)
            if rollout is None:
                raise InputError(f"no rollout of {model!r} is running")
            ended = self._end(connection, rollout, STOPPED, Decision("stop", reason))
            note(connection, "stop rollout", model, {"rollout": rollout.id, "reason": reason})
            return ended

    # --- asking ---

    def running(self, model: str) -> Rollout | None:
        """The rollout of a model that is going on."""
        with self._database.read() as connection:
            return store.running(connection, model)

    def listed(self, model: str) -> list[Rollout]:
        """All rollouts of a model, in their order."""
        with self._database.read() as connection:
            return store.listed(connection, model)

    def show(self, model: str, number: int) -> Json:
        """A rollout with its plan, its traffic and all its decisions. Raises `NotFoundError`."""
        with self._database.read() as connection:
            rollout = store.get(connection, model, number)
            plan, stage = stage_of(rollout)
            return rollout.to_json() | {
                "plan": repr(plan),
                "share": stage.share,
                "stages": [item.share for item in plan.stages],
                "traffic": {
                    arm: plain(asdict(seen))
                    for arm, seen in store.traffic(connection, number, rollout.stage).items()
                },
                "decisions": store.decisions(connection, number),
            }

    # --- counting ---

    def count(
        self,
        rollout: Rollout,
        arms: Mapping[str, Traffic],
        shadows: Mapping[int, Json],
        met: Mapping[int, str],
    ) -> None:
        """Add what a server counted in the rollout's stage, what the candidate would have answered,
        by the prediction's id, and the arms of keys, by their digests: those while it is running.
        """
        with self._database.write() as connection:
            self._database.in_commit_order(connection, f"rollout/{rollout.id}")
            store.add_traffic(connection, rollout.id, rollout.stage, arms)
            store.add_shadows(connection, rollout.id, shadows)
            if store.is_running(connection, rollout.id):
                store.add_keys(connection, rollout.id, rollout.stage, met)

    # --- deciding ---

    def look(self, model: str) -> Decision | None:
        """Look at the labels that came, and do what follows: hold, go on to the next stage, promote
        or roll back. None where no rollout is running.

        Raises:
            ConflictError: somebody else looked at the same time; nothing was changed.
        """
        rollout = self.running(model)
        if rollout is None:
            return None
        plan, stage = stage_of(rollout)
        rollout, seen = self._read_labels(model, rollout, plan)

        def decided(connection: Connection) -> Decision:
            standing = aliases.current(connection, model)
            if standing != rollout.champion:
                return Decision("stop", f"the champion is version {standing} by now")
            traffic = store.traffic(connection, rollout.id, rollout.stage)
            keys = store.keys(connection, rollout.id, rollout.stage)
            metric = rollout.seen.get("metric")
            return judge(plan, with_traffic(seen, traffic, keys, stage), metric == ZERO_ONE)

        with self._database.read() as connection:
            decision = decided(connection)
        if decision.action == "hold" and rollout.seen.get("said") == _kind(decision):
            return decision  # mostly so: whoever logs what is asked needs not wait for that
        with self._database.write() as connection:
            decision = decided(connection)
            if decision.action == "stop":
                self._end(connection, rollout, STOPPED, decision)
                return decision
            return self._act(connection, model, rollout, plan, decision)

    def _act(
        self, connection: Connection, model: str, rollout: Rollout, plan: Plan, decision: Decision
    ) -> Decision:
        if decision.action == "roll back":
            self._end(connection, rollout, ROLLED_BACK, decision)
        elif decision.action == "hold":
            if rollout.seen.get("said") != _kind(decision):
                store.note(connection, rollout.id, rollout.stage, decision)
                said = {"said": _kind(decision)}
                store.change(connection, rollout, seen=dict(rollout.seen) | said)
        elif rollout.stage + 1 < len(plan.stages):
            store.note(connection, rollout.id, rollout.stage, decision)
            store.change(
                connection,
                rollout,
                stage=rollout.stage + 1,
                since=PredictionIds.first(self._database.clock()),
                position=_log(self._database, connection, model).head(connection),
                seen={},
            )
        else:
            decision = replace(decision, action="promote")
            aliases.move(
                connection,
                model,
                aliases.CHAMPION,
                rollout.candidate,
                expected=rollout.champion,
                reason=f"rollout {rollout.id}: {decision.reason}",
            )
            self._end(connection, rollout, PROMOTING, decision)
        return decision

    def served(self, model: str, version: int, digest: str, by: str) -> None:
        """A server answers with a version: the rollout that made it champion is promoted, and says
        so only now.

        Args:
            digest: of the state that it answers with.
            by: name of the process.
        """
        with self._database.read() as connection:
            rollout = store.promoting(connection, model, version)
        if rollout is None:
            return
        evidence = {"version": version, "digest": digest, "process": by}
        said = Decision("promoted", f"{by} answers with version {version}", evidence)
        with self._database.write() as connection:
            self._database.in_commit_order(connection, f"rollout/{rollout.id}")
            if store.promoted(connection, rollout):
                store.note(connection, rollout.id, rollout.stage, said)

    def _end(
        self, connection: Connection, rollout: Rollout, state: str, decision: Decision
    ) -> Rollout:
        self._database.in_commit_order(connection, f"rollout/{rollout.id}")
        store.note(connection, rollout.id, rollout.stage, decision)
        store.forget_keys(connection, rollout.id)
        return store.change(connection, rollout, state=state, ended_at=now())

    # --- labels ---

    def _read_labels(self, model: str, rollout: Rollout, plan: Plan) -> tuple[Rollout, Seen]:
        """Take in the labels that are new, page by page, each in a transaction with its position:
        whoever ends in between, none is counted twice or missed."""
        with self._database.read() as connection:
            log = FeedbackLog(self._database, model_id(connection, model), self._blobs)
        seen = _seen(rollout.seen)
        while (head := log.head()) > rollout.position:
            upto = min(head, rollout.position + PAGE)
            seen, metric = self._add(log, rollout, plan, seen, upto)
            kept: dict[str, Any] = {
                name: asdict(moments) for name, moments in _moments(seen).items()
            }
            kept |= {"metric": metric, "said": rollout.seen.get("said")}
            with self._database.write() as connection:
                rollout = store.change(connection, rollout, position=upto, seen=plain(kept))
        return rollout, seen

    def _add(
        self, log: FeedbackLog, rollout: Rollout, plan: Plan, seen: Seen, upto: int
    ) -> tuple[Seen, str | None]:
        """What was seen, with labels up to a position; and the metric. The first label of a
        prediction counts, whatever is said of it later; those of sources in quarantine do not.
        """
        held = Quarantine(self._database, log.model).active()
        rows = [
            row
            for row in log.read(rollout.position, upto)
            if row.prediction.id >= rollout.since
            and row.value is not None
            and row.source not in held
        ]
        earlier = log.judged(rollout.position, (rollout.position, upto)) if rows else set()
        metric = plan.bounds.metric or rollout.seen.get("metric")
        with self._database.read() as connection:
            asked = [row.prediction.id for row in rows]
            answers = store.shadows(connection, rollout.id, asked)
        losses: dict[str, list[float]] = {CANDIDATE: [], CHAMPION: [], "apart": [], "differs": []}
        for row in rows:
            if row.prediction.id in earlier:
                continue
            earlier.add(row.prediction.id)
            output = row.prediction.output
            metric = metric or metric_for(output, row.value)
            loss = loss_of(metric, output, row.value)
            if loss is None:
                continue
            if row.prediction.arm in (CANDIDATE, CHAMPION):
                losses[row.prediction.arm].append(loss)
            other = answers.get(row.prediction.id)
            if other is not None and (shadow := loss_of(metric, other, row.value)) is not None:
                losses["apart"].append(shadow - loss)
                losses["differs"].append(float(other["value"] != output["value"]))
        made = {name: Moments().add(np.array(values)) for name, values in losses.items()}
        return _seen({name: asdict(_moments(seen)[name].plus(made[name])) for name in made}), metric


def _kind(decision: Decision) -> str:
    """What it says, whatever the figures are."""
    return _FIGURES.sub("#", decision.reason)


def stage_of(rollout: Rollout) -> tuple[Plan, Stage]:
    """The plan of a rollout, and the stage that it is in."""
    plan = cast(Plan, from_config(rollout.plan))
    return plan, plan.stages[rollout.stage]


def with_traffic(
    seen: Seen, traffic: Mapping[str, Traffic], keys: Mapping[str, int], stage: Stage
) -> Seen:
    """What was seen, with what servers counted. Whether arms get their shares is asked of keys, not
    of requests: one key may ask a thousand times, and each time in the same arm."""
    made = {}
    for name, arm in ((CANDIDATE, seen.candidate), (CHAMPION, seen.champion)):
        counted = traffic.get(name, Traffic())
        made[name] = Arm(counted.requests, counted.errors, arm.loss, counted.seconds)
    ratio = None
    if 0.0 < stage.share < 1.0:
        ratio = TrafficRatio(stage.share).seen(keys.get(CANDIDATE, 0), keys.get(CHAMPION, 0))
    return replace(seen, candidate=made[CANDIDATE], champion=made[CHAMPION], ratio=ratio)


def _log(database: Database, connection: Connection, model: str) -> FeedbackLog:
    return FeedbackLog(database, model_id(connection, model))


def _moments(seen: Seen) -> dict[str, Moments]:
    return {
        CANDIDATE: seen.candidate.loss,
        CHAMPION: seen.champion.loss,
        "apart": seen.apart,
        "differs": seen.differs,
    }


def _seen(kept: Mapping[str, Any]) -> Seen:
    found = {name: Moments(**kept.get(name, {})) for name in _moments(Seen())}
    return Seen(
        Arm(loss=found[CANDIDATE]),
        Arm(loss=found[CHAMPION]),
        apart=found["apart"],
        differs=found["differs"],
    )
