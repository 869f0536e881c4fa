"""Our system as the simulator sees it: the production planner and step former, with nothing between
them but what gRPC would carry. Decides nothing itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from services.planner.engine_state import EngineState
from services.planner.placement import Decision
from services.planner.policies import EngineNow, policy_for, worth_sending
from services.planner.rounds import Asked, decide_round
from services.planner.state import ClusterState, PlannerNumbers
from shared.batch_time.table import Numbers
from shared.engine.policy_limits import step_limit
from shared.engine.step_ledger import DraftLedger
from shared.engines import EngineDescription, KvAddress, Policy, StepReport
from shared.requests import (
    Admission,
    Explanation,
    OnRefuse,
    Outcome,
    Placement,
    PlacementQuery,
    SloTargets,
)
from shared.scheduling.kernel import form
from shared.scheduling.pressure import settle_lost
from shared.scheduling.rows import (
    AVAILABLE,
    BEST_EFFORT,
    COMPUTED,
    DRAFT,
    GAIN,
    PLAIN,
    PROMISED,
    TOTAL,
    key_of,
    to_wire,
)
from shared.scheduling.shares import LONGEST_S, MAX_TOKENS, ONE, Tokens
from shared.simulation.engine import SimEngine
from shared.simulation.system import Ended, No, Route, Ticket

_MODEL = "simulated"
_ADVICE_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What may be switched off to see what it is worth."""

    speculation: bool = True
    on_refuse: OnRefuse = OnRefuse.BEST_EFFORT


@dataclass(slots=True, eq=False)
class _Attached:
    """The planner's side of one engine, and what it was told."""

    state: EngineState
    policy: Policy = field(default_factory=Policy)
    advised_s: float = -math.inf
    drafts: DraftLedger = field(default_factory=DraftLedger)
    finished: list[str] = field(default_factory=list)
    reports: int = 0


class Planned:
    """A `System` over one `ClusterState`."""

    recheck_s = 0.05

    def __init__(self, settings: Settings, engines: Sequence[SimEngine]) -> None:
        link = engines[0].hardware
        numbers = PlannerNumbers(
            kv_bytes_per_second=link.link_bytes_per_s, kv_fixed_s=link.link_latency_s
        )
        self.state = ClusterState(numbers, epoch="s", now=0.0)
        self._settings = settings
        self._attached: dict[str, _Attached] = {}
        self._decisions: dict[int, str] = {}  # by life
        self._classes: dict[int, str] = {}
        for engine in engines:
            self.joined(engine)

    # ---- the planner

    def place(
        self, waiting: Sequence[Ticket], engines: Mapping[str, SimEngine], now: float
    ) -> list[Route | No | None]:
        """A round of the production planner over all that wait."""
        for engine in engines.values():
            self._report(engine, now)
        asked = [self._asked(ticket, now) for ticket in waiting]
        decisions = decide_round(asked, self.state, now)
        return [
            self._answer(ticket, one, decision, now)
            for ticket, one, decision in zip(waiting, asked, decisions, strict=True)
        ]

    def _asked(self, ticket: Ticket, now: float) -> Asked:
        query = PlacementQuery(
            request_id=ticket.name,
            group_id=ticket.name,
            session_id=ticket.program_id if ticket.round or ticket.call.prefix_tokens else None,
            model=_MODEL,
            targets=self._targets(ticket),
            prompt_tokens=ticket.prompt_tokens,
            max_output_tokens=ticket.call.max_output_tokens - ticket.produced,
            waited_s=now - ticket.arrives_s,
        )
        came_s = ticket.arrives_s
        return Asked(query=query, arrived_at_s=came_s, first_asked_at_s=came_s)

    def _targets(self, ticket: Ticket) -> SloTargets:
        targets = ticket.call.targets(self._settings.on_refuse)
        asks_start = math.isfinite(ticket.ttft_s) and not ticket.produced
        ttft_s = ticket.ttft_s if asks_start else None
        return replace(targets, ttft_s=ttft_s, ttft_slowdown=None)

    def _answer(
        self, ticket: Ticket, asked: Asked, decision: Decision | None, now: float
    ) -> Route | No | None:
        if decision is None or decision.placement.admission is Admission.DEFERRED:
            return None
        decision_id = self.state.next_decision_id
        placement = replace(decision.placement, decision_id=decision_id)
        query = self.state.sessions.enrich(asked.query, now)
        explanation = Explanation(
            query=query, placement=placement, decided_at_epoch_s=now, ways=decision.ways
        )
        self.state.commit(explanation, decision.chosen, now)
        if placement.decode is None:
            return No()
        self._decisions[ticket.life] = decision_id
        self._classes[ticket.life] = ticket.call.class_name
        return _route(placement, query)

    def ended(self, ended: Ended) -> None:
        """The gateway settles it, the engine reports it as finished."""
        decision_id = self._decisions.pop(ended.ticket.life)
        del self._classes[ended.ticket.life]
        later_s = ended.last_s - ended.first_s
        self.state.settle(
            Outcome(
                decision_id=decision_id,
                request_id=ended.ticket.name,
                finished="stop",
                output_tokens=ended.tokens,
                ttft_s=ended.first_s - ended.ticket.arrives_s,
                tpot_s=later_s / (ended.tokens - 1) if ended.tokens > 1 else None,
                transfer_s=ended.moved_s or None,
            )
        )

    def lost(self, engine: SimEngine, now: float) -> None:
        """Its stream ended."""
        self.state.leave(self._attached.pop(engine.name).state, now)

    def joined(self, engine: SimEngine) -> None:
        """It registers, with the step times of its profile."""
        state, refusal = self.state.register(_description(engine, speculates=self._speculates))
        assert state is not None, refusal
        self._attached[engine.name] = _Attached(state)

    @property
    def _speculates(self) -> bool:
        return self._settings.speculation

    def _report(self, engine: SimEngine, now: float) -> None:
        """The engine as it will be when the running step is over, which is what engines tell."""
        attached = self._attached[engine.name]
        rows = engine.after
        if (rows[:, AVAILABLE] > now).any():
            rows = rows.copy()
            rows[rows[:, AVAILABLE] > now, AVAILABLE] = math.inf
        attached.reports += 1
        missing = rows[:, TOTAL] - rows[:, COMPUTED]
        report = StepReport(
            step=attached.reports,
            ended_at_s=now,
            duration_s=0.0,
            prefill_tokens=0,
            decode_tokens=int((missing <= ONE).sum()),
            decode_context_tokens=int(rows[missing <= ONE, TOTAL].sum()),
            speculated_tokens=0,
            accepted_tokens=0,
            running=len(rows),
            waiting=0,
            queued_prefill_tokens=int(missing[missing > ONE].sum()),
            free_kv_blocks=int(engine.free_blocks),
            busy_s=0.0 if engine.is_idle else max(0.0, engine.ends_s - now),
            drafts=attached.drafts.take(),
            requests=to_wire(rows, now),
        )
        self.state.observe(attached.state, [report], now)

    # ---- the engines

    def form(self, engine: SimEngine, tokens: Tokens, counts: Numbers, now: float) -> float:
        """As the scheduler inside vLLM: policy, drafts, then the step former."""
        attached = self._attached[engine.name]
        self._advise(engine, attached, now)
        rows, table = engine.rows, engine.table.numbers
        if engine.hardware.draft is not None and self._speculates:
            self._draft(engine, attached)
        settle_lost(rows, table, now)
        return float(form(rows, tokens, counts, table, engine.limits, now))

    def _advise(self, engine: SimEngine, attached: _Attached, now: float) -> None:
        if now - attached.advised_s < _ADVICE_PAUSE_S:
            return
        attached.advised_s = now
        state, book = attached.state, self.state.policies
        present = EngineNow(
            description=state.description,
            table=state.table,
            rows=engine.rows,
            free_kv_blocks=int(engine.free_blocks),
        )
        if state.description.max_speculation_tokens:
            book.drafting.observe(engine.rows)
        asked = book.asked(engine.name, now)
        policy = policy_for(present, asked, book.acceptance, attached.policy, now)
        if worth_sending(attached.policy, policy):
            attached.policy = policy
            state.told(policy)
            engine.limits[LONGEST_S] = policy.longest_step_s
            engine.limits[MAX_TOKENS] = step_limit(policy, engine.hardware.max_step_tokens)

    def _draft(self, engine: SimEngine, attached: _Attached) -> None:
        """What the last step's drafts became is known; each row drafts what its class may."""
        if engine.drafted is not None:
            past = engine.drafted
            for life, drafted, accepted in zip(
                past.lives.tolist(), past.drafted.tolist(), past.accepted.tolist(), strict=True
            ):
                if life in self._classes:
                    attached.drafts.observe(self._classes[life], int(drafted), int(accepted))
            engine.drafted = None
        policy, rows = attached.policy, engine.rows
        names = [self._classes[life] for life in engine.who.tolist()]
        allowed = {name: _allowed(policy, name) for name in set(names)}
        gains = {name: attached.drafts.gain(name) for name in allowed}
        rows[:, DRAFT] = np.array([allowed[name] for name in names], dtype=np.float64)
        rows[:, GAIN] = [gains[name] for name in names]
        rows[rows[:, TOTAL] - rows[:, COMPUTED] > ONE, DRAFT] = 0.0


def _allowed(policy: Policy, class_name: str) -> float:
    return float(policy.speculation_by_class.get(class_name, policy.speculation_tokens) or 0)


def _route(placement: Placement, query: PlacementQuery) -> Route:
    assert placement.decode is not None
    best_effort = placement.admission is Admission.BEST_EFFORT
    kind = PLAIN if query.targets.asks_for_nothing else PROMISED
    return Route(
        decode=placement.decode.name,
        prefill=placement.prefill.name if placement.prefill else None,
        kind=BEST_EFFORT if best_effort else kind,
        admission=placement.admission,
        key=key_of(placement.decision_id),
    )


def _description(engine: SimEngine, *, speculates: bool) -> EngineDescription:
    hardware = engine.hardware
    drafts = hardware.draft.max_speculation_tokens if hardware.draft and speculates else 0
    return EngineDescription(
        name=engine.name,
        engine_id=f"{engine.name}-1",
        role=engine.role,
        address=f"{engine.name}:1",
        model=_MODEL,
        vllm_version="simulated",
        block_size_tokens=hardware.block_size_tokens,
        kv_blocks=hardware.kv_blocks,
        kv_bytes_per_token=int(hardware.kv_bytes_per_token),
        max_model_len_tokens=hardware.max_model_len_tokens,
        max_running_requests=hardware.max_running_requests,
        max_step_tokens=hardware.max_step_tokens,
        max_speculation_tokens=drafts,
        kv_address=KvAddress(transport="nixl", host=engine.name, port=1),
        step_time=engine.table.to_bytes(),
    )
