"""One attached engine: what it reported, and what was placed on it since."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from services.planner.estimators.safety_margin import SafetyMargin
from services.planner.state.engine_reservations import Reservation, Reservations
from services.planner.state.shared_kv import SharedKv, shared_in
from services.planner.state.standing import Promised, promised_in, still_coming
from services.planner.tuning import (
    ARRIVAL_S,
    OVERDUE_LIMIT_S,
    SILENCE_LIMIT_S,
    STEPS_AHEAD,
    WAITING_AHEAD,
)
from shared.batch_time import StepTable
from shared.batch_time.table import FloatArray
from shared.engines import EngineDescription, EngineView, Policy, Role, StepReport
from shared.requests import EngineRef
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import (
    KIND,
    NO_SLO,
    SHARED,
    Rows,
    from_wire,
)
from shared.scheduling.shares import LONGEST_S
from shared.ticks import TICK_S


@dataclass(slots=True, eq=False, kw_only=True)
class EngineState(Reservations):
    """An engine from its registration until it leaves.

    Attributes:
        overdue_s: How long its core has made no progress beyond its longest step, as its host says.
        silent_ticks: Ticks of the planner since the last message of the host.
        heard_at_s: When its last report came.
        followed_at_s: When answer lengths were last learned from its requests.
        policy: The last policy sent.
        advised_at_s: When a policy for it was last computed.
        limits: The limits of its steps; `kv_forecast` accounts for KV.
    """

    description: EngineDescription
    table: StepTable | None = None
    draining: bool = False
    overdue_s: float = 0.0
    silent_ticks: int = 0
    report: StepReport | None = None
    heard_at_s: float = 0.0
    followed_at_s: float = -math.inf
    policy: Policy = field(default_factory=Policy)
    advised_at_s: float = -math.inf
    safety_margin: SafetyMargin = field(default_factory=SafetyMargin)
    limits: FloatArray = field(init=False, repr=False)
    _transports: tuple[str, ...] = field(init=False, repr=False)
    _fitted: tuple[StepTable | None, bytes] = (None, b"")
    _counted: Rows | None = field(default=None, repr=False)
    _promised: Promised = field(default_factory=Promised)
    _shared: SharedKv = field(default_factory=SharedKv, repr=False)

    def __post_init__(self) -> None:
        self._transports = self.description.transports
        self.limits = engine_limits(
            max_tokens=self.description.max_step_tokens,
            block_tokens=self.description.block_size_tokens,
            max_resident=self.description.max_running_requests,
        )

    @property
    def name(self) -> str:
        return self.description.name

    @property
    def stalled(self) -> bool:
        """Whether its host is silent or its core overdue, for too long."""
        silent_s = self.silent_ticks * TICK_S
        return self.overdue_s >= OVERDUE_LIMIT_S or silent_s >= SILENCE_LIMIT_S

    @property
    def serves(self) -> bool:
        """Whether it takes requests."""
        return not (self.draining or self.stalled)

    @property
    def why_not(self) -> str:
        """Why it does not serve, as the end of a sentence."""
        return "is draining" if self.draining else "gives no sign of progress"

    @property
    def ref(self) -> EngineRef:
        engine = self.description
        return EngineRef(name=engine.name, engine_id=engine.engine_id, address=engine.address)

    @property
    def exchanges(self) -> bool:
        """Whether it has any transport for KV."""
        return bool(self._transports)

    def exchanges_with(self, other: "EngineState") -> bool:
        """Whether KV can move between these two different engines."""
        return other is not self and bool(self.transports_to(other))

    def transports_to(self, other: "EngineState") -> tuple[str, ...]:
        if self._transports == other._transports:
            return self._transports
        return tuple(one for one in self._transports if one in other._transports)

    @property
    def make(self) -> tuple[int, bytes]:
        """Engines with equal makes have the same zero-load times."""
        if self._fitted[0] is not self.table:
            self._fitted = self.table, self.table.curve if self.table else b""
        return self.description.max_step_tokens, self._fitted[1]

    @property
    def view(self) -> EngineView:
        return EngineView(
            description=self.description,
            draining=self.draining,
            stalled=self.stalled,
            running=self.report.running if self.report else 0,
            waiting=self.report.waiting if self.report else 0,
            free_kv_blocks=self.free_kv_blocks,
        )

    @property
    def adapters(self) -> frozenset[int]:
        """The LoRA adapters of its requests, with those on the way."""
        reported = self.report.adapters if self.report else ()
        return frozenset((*reported, *(hold.adapter for hold in self.unseen.values()))) - {0}

    @property
    def requests(self) -> int:
        """Requests that it reported or that are on the way."""
        reported = self.report.running + self.report.waiting if self.report else 0
        return reported + len(self.unseen)

    @property
    def free_kv_blocks(self) -> int:
        return self.report.free_kv_blocks if self.report else self.description.kv_blocks

    @property
    def free_kv_tokens(self) -> int:
        """KV tokens left for another request; negative when reservations exceed what is free."""
        return self.free_kv_blocks * self.description.block_size_tokens - self.unseen_kv_tokens

    @property
    def shared_kv(self) -> SharedKv:
        """The KV blocks that several of its requests share."""
        if self._shared.rows is not self.rows:
            engine = self.description
            used = engine.kv_blocks - self.free_kv_blocks
            names = self.classes(self.rows) if self.rows[:, SHARED].any() else []
            self._shared = shared_in(self.rows, names, used, engine.block_size_tokens)
        return self._shared

    @property
    def prefill_tokens_ahead(self) -> int:
        """Prompt tokens queued before those of a request placed now."""
        reported = self.report.queued_prefill_tokens if self.report else 0
        return reported + self.unseen_prefill_tokens

    @property
    def is_backed_up(self) -> bool:
        """Whether a request without a promise would wait behind others there."""
        many_tokens = STEPS_AHEAD * self.description.max_step_tokens
        return self.many_wait or self.prefill_tokens_ahead >= many_tokens

    @property
    def many_wait(self) -> bool:
        """Whether enough requests wait there for its next steps."""
        waiting = (self.report.waiting if self.report else 0) + len(self.unseen)
        return waiting >= WAITING_AHEAD

    @property
    def promised(self) -> Promised:
        """Its promised requests, with those on the way."""
        if self._counted is not self.rows:
            self._counted, self._promised = self.rows, promised_in(self.rows)
        if not self.unseen:
            return self._promised
        return self._promised + promised_in(np.array([hold.row for hold in self.unseen.values()]))

    @property
    def decode_tokens(self) -> int:
        """Tokens of each step that decoding requests take now."""
        return min(self.report.decode_tokens, self.report.running) if self.report else 0

    @property
    def context_tokens(self) -> int:
        """Context tokens that each step reads now; 0 while no request runs."""
        return self.report.context_tokens if self.report and self.report.running else 0

    def told(self, policy: Policy) -> None:
        """Notes a policy that is sent, so that simulations of the engine follow it."""
        self.policy = policy
        self.limits[LONGEST_S] = policy.longest_step_s

    def free_at_s(self, now: float) -> float:
        """When its next step can begin, the first one that may include a request placed now."""
        busy_s = self.report.busy_s if self.report else 0.0
        return max(now, self.heard_at_s + busy_s)

    def standing_rows(self, now: float) -> Rows:
        """Rows of requests there or on the way that are promised or asked for nothing: promises do
        not displace these.
        """
        coming = [still_coming(hold.row, now) for hold in self.unseen.values()]
        rows = np.vstack([self.rows, *coming]) if coming else self.rows
        standing: Rows = rows[rows[:, KIND] <= NO_SLO]
        return standing

    def observe(self, report: StepReport, now: float, *, newest: bool = True) -> None:
        """Takes in the report of a step that ended about now. Of several at once, only the `newest`
        updates the requests.

        Raises ValueError where their rows or the step times cannot be read.
        """
        self.report, self.heard_at_s = report, now
        if report.step_time:
            self.table = StepTable.from_bytes(report.step_time)
        if newest and (report.requests or not report.running + report.waiting):
            self.rows = from_wire(report.requests, now, report.shared_tokens)
            self._see_rows()
        if newest and not report.requests:
            self._see(before_s=now - report.duration_s - ARRIVAL_S)
        self._release_requests(report.finished)
        if report.running == 0 and report.waiting == 0:
            self.seen.clear()

    def room_in_s(self, kv_tokens: int, now: float) -> float:
        """Seconds until it has a free slot and room for `kv_tokens`; nan when unknown."""
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

    def inherit(self, before: "EngineState") -> None:
        """Takes over the state of the same process, which registered again on a new stream."""
        self.report, self.rows = before.report, before.rows
        self.heard_at_s, self.safety_margin = before.heard_at_s, before.safety_margin
        self.seen.update(before.seen)
        for hold in before.unseen.values():
            self.hold(hold)


def _end(hold: Reservation) -> float:
    return math.inf if hold.ends_at_s is None else hold.ends_at_s


def engines_by_role(engines: Iterable[EngineState]) -> dict[Role, int]:
    counts = dict.fromkeys(Role, 0)
    for engine in engines:
        counts[engine.description.role] += 1
    return counts
