"""Decides rounds on the cluster's state and records each decision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from services.planner.admission.pending import Deferral, PendingRequest
from services.planner.admission.placement import Decision
from services.planner.admission.rounds import decide_round
from services.planner.state.cluster import ClusterState
from services.planner.state.decision_records import DecisionRecords
from shared.batch_time import StepTable
from shared.requests import Admission, Explanation, Outcome, Placement, PlacementQuery, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Implements `waiting_queue.Decides` on one state. `epoch_s` returns the seconds since the
    epoch that records show.
    """

    state: ClusterState
    epoch_s: Callable[[], float]
    ledger: DecisionRecords = field(default_factory=DecisionRecords)

    def decide_round(
        self, asked: Sequence[PendingRequest], now: float
    ) -> list[Decision | Deferral | None]:
        return decide_round(asked, self.state, now)

    def commit(self, asked: PendingRequest, decision: Decision, now: float) -> Placement:
        """Records a decision and reserves what it takes of the engines. Its id is that of the
        request's record, where it has one.
        """
        decision_id = asked.decision_id or self.state.next_decision_id
        placement = replace(decision.placement, decision_id=decision_id)
        explanation = Explanation(
            query=self.state.sessions.enrich(asked.query, now),
            placement=placement,
            decided_at_epoch_s=self.epoch_s(),
            ways=decision.ways,
        )
        self.state.commit(explanation, decision.chosen, now)
        self.ledger.decided(explanation, _tables(self.state, placement), now)
        return placement

    def defer(self, asked: PendingRequest, so_far: Decision | None, now: float) -> Placement:
        """Records a deferral; the gateway is to ask again at once."""
        decision = so_far or Decision(placement=_nothing_yet(asked.query))
        again = replace(decision.placement, hold_s=0.0)
        return self.commit(asked, replace(decision, placement=again), now)

    def withdraw(self, placement: Placement, now: float) -> None:
        self.settle(
            Outcome(
                decision_id=placement.decision_id,
                request_id="",
                finished="abort",
                message="The gateway no longer waited for the decision.",
            ),
            now,
        )

    def settle(self, outcome: Outcome, now: float) -> None:
        self.state.settle(outcome, now)
        self.ledger.settled(outcome, now)

    def close_ended(self, now: float) -> list[Explanation]:
        """The decisions that ended since the last call, in their final form."""
        return [self.state.note(explanation) for explanation in self.ledger.ended(now)]


def _tables(state: ClusterState, placement: Placement) -> dict[str, StepTable | None]:
    """The step times that the decision depends on, by engine name."""
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
