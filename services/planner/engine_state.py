"""One attached engine: what it reported and what was placed on it since. Decides nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.batch_time import BatchTimeModel
from shared.engines import EngineDescription, EngineView, StepReport
from shared.requests import EngineRef

# A request needs about this long from the decision to the engine's queue; a step that began
# earlier cannot have seen it.
ARRIVAL_S = 0.05
SEEN_LIMIT_S, UNSEEN_LIMIT_S = 3600.0, 120.0
HOLDS_LIMIT = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What one placed request takes of one engine. `due_at_s` is when it reaches the engine.

    `ends_at_s` is when it is predicted to leave, None when unknown.
    """

    decision_id: str
    request_id: str
    prefill_tokens: int
    kv_tokens: int
    due_at_s: float
    ends_at_s: float | None = None


@dataclass(slots=True, eq=False)
class EngineState:
    """Unseen holds are those that its reports cannot show yet; seen ones are in its counts."""

    description: EngineDescription
    model: BatchTimeModel
    draining: bool = False
    report: StepReport | None = None
    seen: dict[str, Hold] = field(default_factory=dict)
    unseen: dict[str, Hold] = field(default_factory=dict)
    unseen_prefill_tokens: int = 0
    unseen_kv_tokens: int = 0

    @property
    def name(self) -> str:
        return self.description.name

    @property
    def ref(self) -> EngineRef:
        engine = self.description
        return EngineRef(name=engine.name, engine_id=engine.engine_id, address=engine.address)

    @property
    def view(self) -> EngineView:
        return EngineView(
            description=self.description,
            draining=self.draining,
            running=self.report.running if self.report else 0,
            waiting=self.report.waiting if self.report else 0,
            free_kv_blocks=self.free_kv_blocks,
        )

    @property
    def requests(self) -> int:
        """Requests that it has or is about to get."""
        reported = self.report.running + self.report.waiting if self.report else 0
        return reported + len(self.unseen)

    @property
    def free_kv_blocks(self) -> int:
        return self.report.free_kv_blocks if self.report else self.description.kv_blocks

    @property
    def free_kv_tokens(self) -> int:
        """What is left for another request; negative when more is promised than is free."""
        return self.free_kv_blocks * self.description.block_size_tokens - self.unseen_kv_tokens

    @property
    def prefill_tokens_ahead(self) -> int:
        """Prompt tokens that are to be computed before those of a request placed now."""
        reported = self.report.queued_prefill_tokens if self.report else 0
        return reported + self.unseen_prefill_tokens

    @property
    def decode_tokens(self) -> int:
        """Tokens that decoding requests take of each step now."""
        return min(self.report.decode_tokens, self.report.running) if self.report else 0

    @property
    def context_tokens(self) -> int:
        """Context that each step reads now; an idle engine's last report says nothing of it."""
        return self.report.context_tokens if self.report and self.report.running else 0

    def hold(self, hold: Hold) -> None:
        if len(self.seen) + len(self.unseen) >= HOLDS_LIMIT:
            self.release(next(iter(self.seen or self.unseen)))
        self.release(hold.decision_id)
        self.unseen[hold.decision_id] = hold
        self.unseen_prefill_tokens += hold.prefill_tokens
        self.unseen_kv_tokens += hold.kv_tokens

    def release(self, decision_id: str) -> None:
        """The request has left or will never come; unknown ones are no matter."""
        self.seen.pop(decision_id, None)
        self._pop_unseen(decision_id)

    def observe(self, report: StepReport, now: float) -> None:
        """Takes in a step that ended about now."""
        self.report = report
        self.model.observe(report)
        self._see(before_s=now - report.duration_s - ARRIVAL_S)
        self._release_requests(report.finished)
        if report.running == 0 and report.waiting == 0:
            self.seen.clear()

    def forget_old_holds(self, now: float) -> None:
        """Of requests whose gateway vanished with them."""
        for held, limit_s in ((self.seen, SEEN_LIMIT_S), (self.unseen, UNSEEN_LIMIT_S)):
            for hold in [hold for hold in held.values() if now - hold.due_at_s > limit_s]:
                self.release(hold.decision_id)

    def room_in_s(self, kv_tokens: int, now: float) -> float:
        """Seconds until it has a free slot and room for `kv_tokens`; nan when nobody can know."""
        slots = self.description.max_running_requests - self.requests
        free_kv_tokens = self.free_kv_tokens
        if slots > 0 and free_kv_tokens >= kv_tokens:
            return 0.0
        for hold in sorted(self.seen.values(), key=_end):
            slots += 1
            free_kv_tokens += hold.kv_tokens
            if slots > 0 and free_kv_tokens >= kv_tokens:
                return math.nan if hold.ends_at_s is None else max(0.0, hold.ends_at_s - now)
        return math.nan

    def _see(self, before_s: float) -> None:
        for hold in [hold for hold in self.unseen.values() if hold.due_at_s <= before_s]:
            self._pop_unseen(hold.decision_id)
            self.seen[hold.decision_id] = hold

    def _release_requests(self, request_ids: Iterable[str]) -> None:
        gone = set(request_ids)
        if not gone:
            return
        for held in (self.seen, self.unseen):
            for hold in [hold for hold in held.values() if hold.request_id in gone]:
                self.release(hold.decision_id)

    def _pop_unseen(self, decision_id: str) -> None:
        hold = self.unseen.pop(decision_id, None)
        if hold:
            self.unseen_prefill_tokens -= hold.prefill_tokens
            self.unseen_kv_tokens -= hold.kv_tokens


def _end(hold: Hold) -> float:
    return math.inf if hold.ends_at_s is None else hold.ends_at_s
