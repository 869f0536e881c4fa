"""Rounds of decisions on the cluster's state, and what is kept of them. It decides nothing."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.planner.ledger import Ledger
from services.planner.metrics import PlannerMetrics
from services.planner.placement import Decision
from services.planner.rounds import Asked, Held, decide_round
from services.planner.state import ClusterState
from shared.batch_time import StepTable
from shared.clock import Clock, wall_time_s
from shared.requests import Admission, Explanation, Outcome, Placement, PlacementQuery, Reason

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The `waiting.Decider` over one state."""

    state: ClusterState
    metrics: PlannerMetrics
    clock: Clock
    ledger: Ledger = field(default_factory=Ledger)

    def decide_round(self, asked: Sequence[Asked], now: float) -> list[Decision | Held | None]:
        began_s = self.clock.now()
        decisions = decide_round(asked, self.state, now)
        self.metrics.round_took(self.clock.now() - began_s)
        return decisions

    def commit(self, asked: Asked, decision: Decision, now: float) -> Placement:
        """Gives the decision its id, that of the request's record if it has one, and notes what it
        takes of the engines.
        """
        decision_id = asked.decision_id or self.state.next_decision_id
        placement = replace(decision.placement, decision_id=decision_id)
        explanation = Explanation(
            query=self.state.sessions.enrich(asked.query, now),
            placement=placement,
            decided_at_epoch_s=wall_time_s(),
            ways=decision.ways,
        )
        self.state.commit(explanation, decision.chosen, now)
        self.ledger.decided(explanation, _tables(self.state, placement), now)
        self.metrics.decided(placement, now - asked.first_asked_at_s)
        _log_decision(asked.query, placement)
        return placement

    def put_off(self, asked: Asked, so_far: Decision | None, now: float) -> Placement:
        """Deferred, to be asked again at once."""
        decision = so_far or Decision(placement=_nothing_yet(asked.query))
        again = replace(decision.placement, hold_s=0.0)
        return self.commit(asked, replace(decision, placement=again), now)

    def withdraw(self, placement: Placement) -> None:
        self.settle(
            Outcome(
                decision_id=placement.decision_id,
                request_id="",
                finished="abort",
                message="The gateway no longer waited for the decision.",
            )
        )

    def settle(self, outcome: Outcome) -> None:
        now = self.clock.now()
        self.state.settle(outcome, now)
        self.ledger.settled(outcome, now)

    def close_ended(self) -> list[Explanation]:
        """The decisions that ended since the last call, with all that will be known of them."""
        ended = self.ledger.ended(self.clock.now())
        return [self.state.note(explanation) for explanation in ended]


def _tables(state: ClusterState, placement: Placement) -> dict[str, StepTable | None]:
    """By engine name the step times that the decision rests on."""
    engines = [state.engines.get(ref.name) for ref in (placement.prefill, placement.decode) if ref]
    return {one.name: one.table or state.any_table for one in engines if one}


def _nothing_yet(query: PlacementQuery) -> Placement:
    return Placement(
        decision_id="",
        admission=Admission.DEFERRED,
        reason=Reason.COMPUTE,
        message="No way is free yet that keeps what was asked for; it is held until one is.",
        ttft_s=query.targets.ttft_s,
        tpot_s=query.targets.tightest_tpot_s,
    )


def _log_decision(query: PlacementQuery, placement: Placement) -> None:
    level = logging.DEBUG if placement.runs else logging.INFO
    _LOG.log(
        level,
        "%s %s as %s: %s %s",
        placement.decision_id,
        query.request_id,
        placement.admission,
        placement.reason,
        placement.message,
    )
