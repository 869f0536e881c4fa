"""The planner without I/O: takes events and the time, returns answers and policies. The gRPC
service and the simulator are its adapters.
"""

from collections.abc import Callable, Sequence

from services.planner.admission.decider import Decider
from services.planner.admission.waiting_queue import Answer, WaitingLimits, WaitingQueue
from services.planner.advice import advise
from services.planner.state.cluster import ClusterState
from services.planner.state.decision_records import DecisionRecords
from services.planner.state.engine_state import EngineState
from shared.engines import EngineDescription, Policy, StepReport
from shared.requests import Explanation, Outcome, PlacementQuery, PrefixExport


class PlannerCore:
    """One planner. All times are seconds on one clock, that of the caller.

    `state` is what is known, `waiting` holds the requests without a decision and `ledger` the
    decisions that have not ended. An adapter that lets several calls share a round uses `waiting`
    itself. `epoch_s` returns the seconds since the epoch that records show.
    """

    def __init__(
        self,
        state: ClusterState,
        *,
        epoch_s: Callable[[], float],
        waiting: WaitingLimits | None = None,
    ) -> None:
        self.state = state
        self._decider = Decider(state=state, epoch_s=epoch_s)
        numbers = waiting or WaitingLimits(hold_s=state.numbers.hold_s)
        self.waiting = WaitingQueue(decider=self._decider, numbers=numbers)

    @property
    def ledger(self) -> DecisionRecords:
        return self._decider.ledger

    # ---- requests

    def place(
        self, queries: Sequence[PlacementQuery], now: float, *, limit_s: float
    ) -> list[Answer]:
        """Enters queries, each to be answered within `limit_s` or the queue's own limit. Decides
        rounds as long as one is due; returns all their answers, those to earlier queries too.
        """
        for query in queries:
            self.waiting.enter(query, limit_s, now)
        answers: list[Answer] = []
        while self.waiting.round_is_due:
            answers += self.waiting.decide(now)
        return answers

    def settle(self, outcomes: Sequence[Outcome], now: float) -> None:
        """Records that requests have ended; ignores unknown decisions."""
        for outcome in outcomes:
            self._decider.settle(outcome, now)
        self.waiting.freed(now)

    def exported(self, exports: Sequence[PrefixExport], now: float) -> None:
        """Learns from exports of cached prefixes that have ended; ignores unknown decisions."""
        for export in exports:
            self.state.exported(export, now)

    def look_again(self, now: float) -> list[Answer]:
        """Defers the calls that have waited their time; to be called when `waiting.next_look_s`
        says. The next `place` decides the round that may be due.
        """
        return self.waiting.look_again(now)

    # ---- engines

    def register(
        self, description: EngineDescription, now: float
    ) -> tuple[EngineState | None, str]:
        """The engine's state, or None and why it may not join."""
        engine, refusal = self.state.register(description)
        if engine is not None:
            self.waiting.freed(now)
        return engine, refusal

    def leave(self, engine: EngineState, now: float) -> None:
        """Removes an engine and everything placed on it."""
        self.state.leave(engine, now)
        self.ledger.left(engine.name)
        self.waiting.freed(now)

    def observe(
        self, engine: EngineState, reports: Sequence[StepReport], now: float
    ) -> Policy | None:
        """Takes in step reports of one engine, in order; returns the policy to send to it, if any.

        Raises ValueError where a report cannot be read.
        """
        before = engine.report
        self.state.observe(engine, reports, now)
        self.ledger.reported(engine.name, reports, now)
        if reports and _may_free(before, reports):
            self.waiting.freed(now)
        return advise(engine, self.state, now)

    def drain(self, engine: EngineState, now: float, *, draining: bool) -> None:
        """Stops placing requests on the engine, or resumes it."""
        engine.draining = draining
        self.waiting.freed(now)

    def overdue(self, engine: EngineState, overdue_s: float, now: float) -> bool:
        """Notes by how many seconds the engine's core is overdue, as its host says; returns whether
        that changes if the engine serves.
        """
        changed = self.state.is_overdue(engine, overdue_s, now)
        if changed:
            self.waiting.freed(now)
        return changed

    # ---- time

    def tick(self, now: float) -> bool:
        """Counts a tick (`shared.ticks.TICK_S`) of silence; whether an engine stopped serving."""
        changed = self.state.tick(now)
        if changed:
            self.waiting.freed(now)
        return changed

    def tidy(self, now: float) -> list[Explanation]:
        """Drops reservations that have expired, once a second. Returns the decisions that ended
        since the last call, in their final form.
        """
        self.state.forget_old_holds(now)
        return self._decider.close_ended(now)


def _may_free(before: StepReport | None, reports: Sequence[StepReport]) -> bool:
    """Whether an engine may have more room after these reports."""
    after = reports[-1]
    return before is None or any(
        (
            *(report.finished for report in reports),
            after.free_kv_blocks > before.free_kv_blocks,
            after.queued_prefill_tokens < before.queued_prefill_tokens,
            after.running + after.waiting < before.running + before.waiting,
            after.step_time,
        )
    )
