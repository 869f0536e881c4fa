"""The planner without I/O: events in, effects out, and time as an argument. The gRPC service and
the simulator are its adapters.
"""

from collections.abc import Callable, Sequence

from services.planner.admission.decider import Decider
from services.planner.admission.waiting_queue import Answer, WaitingNumbers, WaitingQueue
from services.planner.advice import advise
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from services.planner.state.ledger import Ledger
from shared.engines import EngineDescription, Policy, StepReport
from shared.requests import Explanation, Outcome, PlacementQuery


class PlannerCore:
    """One planner. All times are seconds on one clock, that of the caller.

    `state` is what is known, `waiting` holds the requests without a decision and `ledger` the
    decisions that have not ended. An adapter may enter calls into `waiting` and have it decide by
    itself, where several calls are to share a round. `epoch_s` tells the seconds since the epoch
    that records show.
    """

    def __init__(
        self,
        state: ClusterState,
        *,
        epoch_s: Callable[[], float],
        waiting: WaitingNumbers | None = None,
    ) -> None:
        self.state = state
        self._decider = Decider(state=state, epoch_s=epoch_s)
        numbers = waiting or WaitingNumbers(hold_s=state.numbers.hold_s)
        self.waiting = WaitingQueue(decider=self._decider, numbers=numbers)

    @property
    def ledger(self) -> Ledger:
        return self._decider.ledger

    # ---- requests

    def place(
        self, queries: Sequence[PlacementQuery], now: float, *, limit_s: float
    ) -> list[Answer]:
        """Takes in queries, each to be answered within `limit_s` or the queue's own limit. Returns
        the answers to all that are decided now, in rounds, whenever they were taken in.
        """
        for query in queries:
            self.waiting.enter(query, limit_s, now)
        answers: list[Answer] = []
        while self.waiting.round_is_due:
            answers += self.waiting.decide(now)
        return answers

    def settle(self, outcomes: Sequence[Outcome], now: float) -> None:
        """Requests have ended; unknown decisions are ignored."""
        for outcome in outcomes:
            self._decider.settle(outcome, now)
        self.waiting.freed(now)

    def look_again(self, now: float) -> list[Answer]:
        """At the time that `waiting.next_look_s` named: defers the calls whose time is over. The
        next `place` decides the round that may be due.
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
        """The engine is gone, and all that it held."""
        self.state.leave(engine, now)
        self.ledger.left(engine.name)
        self.waiting.freed(now)

    def observe(
        self, engine: EngineState, reports: Sequence[StepReport], now: float
    ) -> Policy | None:
        """Takes in steps of one engine, in order; returns the policy that it is to be told, if any.

        Raises ValueError where a report cannot be read.
        """
        before = engine.report
        self.state.observe(engine, reports, now)
        self.ledger.reported(engine.name, reports, now)
        if reports and _may_free(before, reports):
            self.waiting.freed(now)
        return advise(engine, self.state, now)

    def drain(self, engine: EngineState, now: float, *, draining: bool) -> None:
        """The engine takes no more requests, or takes them again."""
        engine.draining = draining
        self.waiting.freed(now)

    def overdue(self, engine: EngineState, overdue_s: float, now: float) -> bool:
        """The host says by how many seconds its core is overdue; whether that changes if the engine
        serves.
        """
        changed = self.state.is_overdue(engine, overdue_s, now)
        if changed:
            self.waiting.freed(now)
        return changed

    # ---- time

    def tick(self, now: float) -> bool:
        """A tick (`shared.ticks.TICK_S`) has passed; whether it made an engine serve no longer."""
        changed = self.state.tick(now)
        if changed:
            self.waiting.freed(now)
        return changed

    def tidy(self, now: float) -> list[Explanation]:
        """Once a second: forgets reservations that nothing will end. Returns the decisions that
        ended since the last call, with all that will be known of them.
        """
        self.state.forget_old_holds(now)
        return self._decider.close_ended(now)


def _may_free(before: StepReport | None, reports: Sequence[StepReport]) -> bool:
    """Whether there may be more room than before."""
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
