"""Runs one sequence from arrival to end: places it, drives it, places it again if it moves."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequest

from services.gateway.continuation import must_stay_whole, output_budget_tokens
from services.gateway.drive import Drive
from services.gateway.engine_calls import Engines, Held
from services.gateway.engine_health import EngineHealth
from services.gateway.moves import MOVABLE, Cause, Move, MoveBudget, Unmoved, cause_of
from services.gateway.outcome import outcome_of
from services.gateway.planner_link import PlannerLink
from services.gateway.prompt_hashes import prompt_hashes
from services.gateway.remainder import Replay, rest_of, why_it_ends_here
from services.gateway.scope import RequestScope, SequenceRecord, enter
from services.gateway.wait_limits import WaitLimits
from shared.clock import Clock
from shared.errors import AnswerDiverged, NoEngine, PlannerUnavailable, Refused, SlosError
from shared.requests import (
    Admission,
    EngineRef,
    OnRefuse,
    Phase,
    Placement,
    PlacementMode,
    PlacementQuery,
    PromptHashes,
    Reason,
    SloTargets,
)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The collaborators and limits that all journeys of one gateway share. `prefix_hashes`: the
    planner gets the hashes of prompts.
    """

    planner: PlannerLink
    engines: Engines
    health: EngineHealth
    budget: MoveBudget
    clock: Clock
    waits: WaitLimits
    model: str
    max_model_len_tokens: int
    deliver: Callable[[EngineCoreOutputs], None]
    prefix_hashes: bool = True


@dataclass(slots=True, kw_only=True)
class Journey:
    """The legs of one sequence. `on_placed` is called after every placement that runs."""

    request: EngineCoreRequest
    scope: RequestScope
    record: SequenceRecord
    means: Means
    on_placed: Callable[[], None]
    _rest: EngineCoreRequest = field(init=False)  # what is left of it
    _replay: Replay | None = None  # set if the rest repeats tokens that the client has
    _at: EngineRef | None = None  # the engine on which the last leg ended
    _delivered: list[int] = field(default_factory=list)
    _failed: list[str] = field(default_factory=list)  # ids of engines
    _held: Held | None = None
    _hashes: PromptHashes | None = None  # of the rest
    _legs: int = 0
    _losses: int = 0

    def __post_init__(self) -> None:
        self._rest = self.request

    async def run(self) -> None:
        """Runs until the last token is delivered; cancel it to abort the sequence.

        Raises Refused, NoEngine or PlannerUnavailable before the first leg, and the errors of
        `Drive.run` if the sequence could not move to another engine.
        """
        self.means.budget.placed(self.means.clock.now())
        try:
            await self._place()
            while (error := await self._leg()) is not None:
                await self._move(error)
        finally:
            self._release_held()

    async def _leg(self) -> SlosError | None:
        """Runs one leg. Returns the error that ended it early, None after the last token."""
        assert self.record.placement is not None
        drive = Drive(
            request=self._rest,
            placement=self.record.placement,
            scope=self.scope,
            record=self.record,
            engines=self.means.engines,
            health=self.means.health,
            deliver=self.means.deliver,
            on_export=self.means.planner.exported,
            clock=self.means.clock,
            limits=self.means.waits,
            max_model_len_tokens=self.means.max_model_len_tokens,
            delivered=self._delivered,
            replay=self._replay,
            held=self._held,
            leg=self._legs,
        )
        self._held = None
        try:
            await drive.run()
        except MOVABLE as error:
            self._at = drive.at
            self._held, drive.held = drive.held, None
            return error
        finally:
            drive.release_held()
        return None

    async def _move(self, error: SlosError) -> None:
        """Places the rest on other engines. Raises `error`, with the reason added, if it cannot."""
        why_not = self._why_not(error)
        if why_not is not None:
            self.record.unmoved = why_not[0]
            raise _with_words(error, why_not[1]) from error
        move = Move(
            cause=cause_of(error),
            engine=self._at.name if self._at else "",
            after_tokens=len(self._delivered),
            at_s=self.means.clock.now(),
        )
        self._losses += move.cause is Cause.LOST
        promise = self.record.placement
        self._settle_moved(str(error))
        self._begin_again()
        try:
            await self._place()
        except (Refused, NoEngine, PlannerUnavailable) as refusal:
            self.record.unmoved = Unmoved.NOWHERE
            raise _with_words(error, f"No other engine took it: {refusal}") from refusal
        self.record.moves.append(move)
        self._keep_promise(promise, self.record.placement)
        _LOG.info(
            "%s continues on another engine after %d tokens: %s",
            self.record.request_id,
            move.after_tokens,
            error,
        )

    def _why_not(self, error: SlosError) -> tuple[Unmoved, str] | None:
        limits = self.means.budget.limits
        if isinstance(error, AnswerDiverged):
            return Unmoved.INEXACT, ""
        why = why_it_ends_here(self.request, self._delivered)
        if why:
            return Unmoved.INEXACT, f"It could not go on elsewhere: {why}."
        if self._legs >= limits.most_per_request:
            return Unmoved.LIMIT, f"It had moved {self._legs} times, as often as one request may."
        if cause_of(error) is Cause.LOST and self._losses >= limits.losses_per_request:
            return Unmoved.LIMIT, "An engine was lost under it before: it may be the cause."
        if not self.means.budget.take(self.means.clock.now()):
            return Unmoved.BUDGET, "As many requests as may have gone on elsewhere of late."
        return None

    def _settle_moved(self, why: str) -> None:
        placement = self.record.placement
        if placement is not None and placement.reason is not Reason.PLANNER_AWAY:
            self.means.planner.settle(outcome_of(self.scope, self.record, "moved", why))

    def _begin_again(self) -> None:
        self._legs += 1
        if self._at is not None:
            self._failed.append(self._at.engine_id)
        enter(self.record, Phase.PLACING)
        self._rest, self._replay = rest_of(self.request, self._delivered)
        if not self._delivered:
            self.record.started_at_s = self.record.prefilled_at_s = None
        self.record.decoding_at_s = None

    def _keep_promise(self, promise: Placement | None, found: Placement | None) -> None:
        """Applies the first promise to the new placement, and keeps held KV that it can use."""
        assert promise is not None
        assert found is not None
        if promise.admission is Admission.ADMITTED:
            found = _promised_as(promise, found)
        if self._held is not None and found.decode != self._held.engine:
            found = replace(found, way=PlacementMode.DISAGGREGATED, prefill=self._held.engine)
        else:
            self._release_held()
        self.record.placement = found

    def _release_held(self) -> None:
        if self._held is not None:
            self.means.engines.release(self._held.engine, self._held.request.request_id)
            self._held = None

    async def _place(self) -> None:
        held_from_s = self.means.clock.now() if self._legs else None
        if self.means.prefix_hashes:
            self._hashes = await prompt_hashes(self._rest, self.means.planner.engines)
        await self.means.planner.place(
            self._query, self.record, self.scope.arrived_at_s, held_from_s=held_from_s
        )
        self.on_placed()

    def _query(self, waited_s: float) -> PlacementQuery:
        request, limit = self._rest, self.means.max_model_len_tokens
        moved, held = self._legs > 0, self._held
        forced_way = None if moved else self.scope.forced_way
        # A single token in disaggregated mode needs a prefill engine alone.
        one_token = output_budget_tokens(request, limit) <= 1
        alone = one_token and forced_way is PlacementMode.DISAGGREGATED
        avoid = (*self._failed, *self.means.health.avoided())
        return PlacementQuery(
            request_id=request.request_id,
            group_id=request.external_req_id or request.request_id,
            session_id=None if moved else self.scope.session_id,
            model=self.means.model,
            targets=self._targets_after_move() if moved else self.scope.targets,
            prompt_tokens=len(request.prompt_token_ids or ()),
            max_output_tokens=max(0, output_budget_tokens(request, limit)),
            waited_s=waited_s,
            forced_way=PlacementMode.COLOCATED
            if held
            else forced_way,  # it needs a decode engine alone
            whole_on_one_engine=not alone and must_stay_whole(request, limit),
            tenant=self.scope.account.tenant.name,
            weight=self.scope.account.tenant.weight,
            client_id=self.scope.client_id,
            avoid=tuple(dict.fromkeys((*avoid, held.engine.engine_id) if held else avoid)),
            prompt_hashes=self._hashes,
            adapter=request.lora_request.lora_int_id if request.lora_request else 0,
        )

    def _targets_after_move(self) -> SloTargets:
        """The targets of the rest, which is never refused; no TTFT once a token was delivered."""
        targets = replace(self.scope.targets_in_force, on_refuse=OnRefuse.BEST_EFFORT)
        if not self._delivered:
            return targets
        return replace(targets, ttft_s=None, ttft_slowdown=None)


def _promised_as(promise: Placement, found: Placement) -> Placement:
    return replace(
        found,
        admission=promise.admission,
        ttft_s=promise.ttft_s,
        tpot_s=promise.tpot_s,
        predicted_ttft_s=promise.predicted_ttft_s,
        predicted_tpot_s=promise.predicted_tpot_s,
        grace_s=promise.grace_s,
        pace_share=promise.pace_share,
        delivery_s=promise.delivery_s,
        pacing=promise.pacing,
    )


def _with_words(error: SlosError, words: str) -> SlosError:
    return type(error)(f"{error} {words}".rstrip())
