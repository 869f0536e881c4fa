"""Our system as the simulator sees it: the production planner and step former, with nothing between
them but what gRPC would carry. Decides nothing itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from services.evaluation.engine_reports import MODEL, description_of, report_of
from services.evaluation.scaled_lengths import ScaledLengths, ScaledSurvival
from services.evaluation.told_prefixes import ToldPrefixes, prompt_hashes
from services.planner.advice import learn_from
from services.planner.engine_state import EngineState
from services.planner.numbers import PlannerNumbers
from services.planner.placement import Decision
from services.planner.policies import EngineNow, policy_for, worth_sending
from services.planner.rounds import Asked, Held, decide_round
from services.planner.state import ClusterState
from services.planner.waiting import WaitingNumbers
from shared.batch_time.table import Numbers
from shared.engine.step_ledger import DraftLedger, StepBook
from shared.engine.step_times import StepTimes
from shared.engines import Policy, Role
from shared.requests import (
    Admission,
    Explanation,
    OnRefuse,
    Outcome,
    Pacing,
    Placement,
    PlacementQuery,
    SloTargets,
    Way,
)
from shared.scheduling.kernel import form
from shared.scheduling.lost import settle_lost
from shared.scheduling.rows import (
    BEST_EFFORT,
    COMPUTED,
    DRAFT,
    GAIN,
    PLAIN,
    PROMISED,
    TOTAL,
    key_of,
)
from shared.scheduling.shares import KEPT, LONGEST_S, MAX_TOKENS, ONE, Tokens
from shared.simulation.engine import SimEngine
from shared.simulation.system import Ended, No, Route, Ticket

_ADVICE_PAUSE_S = 0.1
_ROUNDS = WaitingNumbers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What may be switched off, or put wrong, to see what it is worth.

    `best_effort`: who cannot be promised anything runs all the same. `max_step_tokens` 0: the
    engine's own. `round_robin`: each request in turn may have but one decode engine. `way`: the
    only one that is allowed. `length_factor`: answers are taken to be so many times as long as
    those of their class were.
    """

    speculation: bool = True
    best_effort: bool = True
    by_program: bool = True
    same_pace_first: bool = True
    max_step_tokens: int = 0
    round_robin: bool = False
    way: Way | None = None
    length_factor: float = 1.0


@dataclass(slots=True, eq=False)
class _Attached:
    """The planner's side of one engine, and what it was told."""

    state: EngineState
    policy: Policy = field(default_factory=Policy)
    advised_s: float = -math.inf
    drafts: DraftLedger = field(default_factory=DraftLedger)
    finished: list[str] = field(default_factory=list)  # requests that left it, until it tells
    told: tuple[int, float, int] = (-1, 0.0, 0)  # steps, end of the running one, requests
    prefixes: ToldPrefixes = field(default_factory=ToldPrefixes)
    times: StepTimes | None = None
    learned: tuple[int, float] = (0, 0.0)  # steps, seconds of them all


class Planned:
    """A `System` over one `ClusterState`. Engines know their tables; where there is a `profile`
    (a fit as plain data) they start from it and go on learning from their steps, as real ones do.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Sequence[SimEngine],
        *,
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        link = engines[0].hardware
        numbers = PlannerNumbers(
            kv_bytes_per_second=link.link_bytes_per_s,
            kv_fixed_s=link.link_latency_s,
            by_program=settings.by_program,
            same_pace_first=settings.same_pace_first,
        )
        self.state = ClusterState(numbers, epoch="s", now=0.0)
        self.state.lengths = ScaledLengths(settings.length_factor)
        self.state.survival = ScaledSurvival(settings.length_factor)
        self._settings = settings
        self._profile = profile
        self._model_len_tokens = link.max_model_len_tokens
        self._attached: dict[str, _Attached] = {}
        self._decisions: dict[int, str] = {}  # by life
        self._classes: dict[int, str] = {}
        self._held: dict[int, Held] = {}
        self._queries: dict[int, PlacementQuery] = {}  # of those that wait
        self._now = 0.0
        for engine in engines:
            self.joined(engine)

    # ---- the planner

    @property
    def recheck_s(self) -> float:
        """As the planner's room has it: sooner where a held request can wait no longer."""
        latest_s = min((held.latest_s for held in self._held.values()), default=math.inf)
        return max(_ROUNDS.pause_s, min(_ROUNDS.recheck_s, latest_s - self._now))

    def hear(self, engines: Mapping[str, SimEngine], now: float) -> None:
        """Engines report when a step has begun or ended, or somebody left them."""
        for engine in engines.values():
            attached = self._attached[engine.name]
            told = engine.steps, engine.ends_s, len(engine.rows)
            if told != attached.told or attached.finished:
                attached.told = told
                self._report(engine, now)

    def place(self, waiting: Sequence[Ticket], now: float) -> list[Route | No | None]:
        """A round of the production planner over all that wait."""
        self._now = now
        if self._settings.round_robin:
            return [self._in_turn(ticket, now) for ticket in waiting]
        return self._round(waiting, now)

    def _round(self, waiting: Sequence[Ticket], now: float) -> list[Route | No | None]:
        asked = [self._asked(ticket, now) for ticket in waiting]
        decisions = decide_round(asked, self.state, now)
        return [
            self._answer(ticket, one, decision, now)
            for ticket, one, decision in zip(waiting, asked, decisions, strict=True)
        ]

    def _in_turn(self, ticket: Ticket, now: float) -> Route | No | None:
        """To the planner it looks as if all other decode engines were draining."""
        engines = [one.state for one in self._attached.values()]
        decodes = [one for one in engines if one.description.role is Role.DECODE]
        turn = decodes[ticket.life % len(decodes)]
        for engine in decodes:
            engine.draining = engine is not turn
        try:
            return self._round([ticket], now)[0]
        finally:
            for engine in decodes:
                engine.draining = False

    def _asked(self, ticket: Ticket, now: float) -> Asked:
        came_s, query = ticket.arrives_s, self._queries.get(ticket.life)
        if query is None:
            query = self._queries[ticket.life] = self._query(ticket)
        return Asked(
            query=replace(query, waited_s=now - came_s),
            arrived_at_s=came_s,
            first_asked_at_s=came_s,
            held=self._held.pop(ticket.life, None),
        )

    def _query(self, ticket: Ticket) -> PlacementQuery:
        return PlacementQuery(
            request_id=ticket.name,
            group_id=ticket.name,
            session_id=ticket.program_id if ticket.in_session else None,
            model=MODEL,
            targets=self._targets(ticket),
            prompt_tokens=ticket.prompt_tokens,
            max_output_tokens=self._most_tokens(ticket),
            forced_way=self._settings.way,
            prompt_hashes=prompt_hashes(ticket),
        )

    def _most_tokens(self, ticket: Ticket) -> int:
        """As much as the call allows, and what the model's length leaves, as clients ask for it."""
        left = ticket.call.max_output_tokens - ticket.produced
        return max(1, min(left, self._model_len_tokens - ticket.prompt_tokens))

    def _targets(self, ticket: Ticket) -> SloTargets:
        best_effort = self._settings.best_effort
        targets = ticket.call.targets(OnRefuse.BEST_EFFORT if best_effort else OnRefuse.REFUSE)
        asks_start = math.isfinite(ticket.ttft_s) and not ticket.produced
        ttft_s = ticket.ttft_s if asks_start else None
        return replace(targets, ttft_s=ttft_s, ttft_slowdown=None)

    def _answer(
        self, ticket: Ticket, asked: Asked, decision: Decision | Held | None, now: float
    ) -> Route | No | None:
        if isinstance(decision, Held):
            self._held[ticket.life] = decision
            return None
        if decision is None or decision.placement.admission is Admission.DEFERRED:
            return None
        del self._queries[ticket.life]
        decision_id = self.state.next_decision_id
        placement = replace(decision.placement, decision_id=decision_id)
        query = self.state.sessions.enrich(asked.query, now)
        explanation = Explanation(
            query=query, placement=placement, decided_at_epoch_s=now, ways=decision.ways
        )
        self.state.commit(explanation, decision.chosen, now)
        if placement.decode is None:
            return No(retry_after_s=placement.retry_after_s)
        self._decisions[ticket.life] = decision_id
        self._classes[ticket.life] = ticket.call.class_name
        return _route(placement, query)

    def moved(self, engine: SimEngine, ticket: Ticket) -> None:
        """The engine will tell that it is done with this request."""
        self._attached[engine.name].finished.append(ticket.name)

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
                transfer_s=ended.moved_s,
                stage_lateness=ended.stage_lateness,
            ),
            ended.last_s,
        )

    def lost(self, engine: SimEngine, now: float) -> None:
        """Its stream ended."""
        self.state.leave(self._attached.pop(engine.name).state, now)

    def joined(self, engine: SimEngine) -> None:
        """It registers, with the step times of its profile."""
        state, refusal = self.state.register(description_of(engine, speculates=self._speculates))
        assert state is not None, refusal
        attached = self._attached[engine.name] = _Attached(state)
        if self._profile is not None:
            attached.times = StepTimes()
            attached.times.start_from(self._profile)

    @property
    def _speculates(self) -> bool:
        return self._settings.speculation

    def _report(self, engine: SimEngine, now: float) -> None:
        attached = self._attached[engine.name]
        step_time = attached.times.news(now) if attached.times else b""
        finished = tuple(attached.finished)
        prefixes = attached.prefixes.news(engine)
        report = report_of(engine, attached.drafts.take(), finished, step_time, prefixes, now)
        attached.finished.clear()
        self.state.observe(attached.state, [report], now)

    # ---- the engines

    def form(self, engine: SimEngine, tokens: Tokens, counts: Numbers, now: float) -> float:
        """As the scheduler inside vLLM: policy, drafts, then the step former."""
        attached = self._attached[engine.name]
        if attached.times is not None:
            _learn(attached.times, engine, attached, now)
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
        most_tokens = self._settings.max_step_tokens or engine.hardware.max_step_tokens
        engine.limits[MAX_TOKENS] = state.limits[MAX_TOKENS] = most_tokens
        present = EngineNow(
            description=state.description,
            table=state.table,
            rows=engine.rows,
            classes=[self._classes[life] for life in engine.who.tolist()],
            free_kv_blocks=int(engine.free_blocks),
            awaited_blocks=self.state.sessions.resting.blocks(state.description, now),
        )
        learn_from(state, self.state, now)
        asked = book.asked(engine.name, now)
        policy = policy_for(present, asked, book.acceptance, attached.policy, now)
        if worth_sending(attached.policy, policy):
            attached.policy = policy
            state.told(policy)
            engine.limits[LONGEST_S] = policy.longest_step_s
            engine.limits[KEPT] = policy.kept_blocks

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


def _learn(times: StepTimes, engine: SimEngine, attached: _Attached, now: float) -> None:
    """From the step that is over, whose counts the engine still has."""
    steps, busy_s = attached.learned
    if engine.steps > steps:
        attached.learned = engine.steps, engine.busy_s
        book = StepBook(started_at_s=now, counts=engine.counts)
        times.observe(book.step, engine.busy_s - busy_s, now)
        engine.table = times.table or engine.table


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
        grace_s=placement.grace_s,
        pace_share=placement.pace_share,
        delivery_s=placement.delivery_s,
        by_deadlines=placement.pacing is Pacing.DEADLINES,
    )
