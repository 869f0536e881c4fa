"""Runs a request on the engines of one placement, until its last token or an engine's failure."""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason

from services.gateway.continuation import (
    Form,
    Prefilled,
    continue_outputs,
    decode_request,
    ends_at_first_token,
    first_token_output,
    form_after,
    form_of,
    must_stay_whole,
    output_budget_tokens,
    prefill_request,
    pulling_request,
    read_prefill,
    resample_outputs,
    shift_events,
    started_at_s,
    take_kv_result,
)
from services.gateway.deadline_line import deadline_line
from services.gateway.engine_calls import Engines, Held, Reply
from services.gateway.engine_health import EngineHealth
from services.gateway.engine_terms import engine_terms, next_pace_s
from services.gateway.moves import MOVABLE, Move, cause_of
from services.gateway.prefix_export import export_prefix
from services.gateway.remainder import Replay, named
from services.gateway.scope import RequestScope, SequenceRecord, enter
from services.gateway.wait_limits import WaitLimits, silence
from shared.clock import Clock
from shared.errors import (
    AnswerDiverged,
    DeadlinePassed,
    EngineDraining,
    EngineLost,
    EngineStalled,
    EngineUnreachable,
    SlosError,
)
from shared.requests import (
    EngineRef,
    Phase,
    Placement,
    PlacementMode,
    PrefixExport,
    PrefixSource,
)
from shared.rpc import slos_pb2 as pb


@dataclass(slots=True, kw_only=True)
class Drive:
    """One leg of a sequence: its run on the engines of one placement.

    Attributes:
        request: What is left to compute.
        deliver: Takes the outputs for the client.
        on_export: Takes what became of the export of a prefix.
        delivered: All tokens that the client has, those of earlier legs included.
        replay: Drops tokens that the client has already, if the answer is computed again.
        held: KV that an earlier leg left on its prefill engine, or that this one leaves.
        leg: Number of moves before this leg.
        at: The engine that it waits for, or that failed.
    """

    request: EngineCoreRequest
    placement: Placement
    scope: RequestScope
    record: SequenceRecord
    engines: Engines
    health: EngineHealth
    deliver: Callable[[EngineCoreOutputs], None]
    on_export: Callable[[PrefixExport], None]
    clock: Clock
    limits: WaitLimits
    max_model_len_tokens: int
    delivered: list[int] = field(default_factory=list)
    replay: Replay | None = None
    held: Held | None = None
    leg: int = 0
    at: EngineRef | None = field(default=None, init=False)
    _resumes: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Runs until the last token is delivered; cancel it to abort the request on its engines.

        Raises EngineLost, EngineDraining or DeadlinePassed.
        """
        self._resumes = bool(self.delivered)
        if self.record.line is None:
            self.record.line = deadline_line(self.placement)
        if self.held is not None:
            await self._run_rest(self.held)
        elif self.placement.way is PlacementMode.COLOCATED or self.placement.prefill is None:
            await self._run_pulled(self.placement.prefix_source)
        elif not must_stay_whole(self.request, self.max_model_len_tokens):
            await self._run_split(self.placement.prefill)
        elif output_budget_tokens(self.request, self.max_model_len_tokens) <= 1:
            await self._run_one_token(self.placement.prefill)
        else:
            await self._run_whole()

    def release_held(self) -> None:
        """Frees the held KV, which no engine will fetch."""
        if self.held is not None:
            self.engines.release(self.held.engine, self.held.request.request_id)
            self.held = None

    async def _run_whole(self) -> None:
        self._enter(Phase.DECODING)
        await self._follow(self._decode_engine, self.request, self._deliver)

    async def _run_pulled(self, source: PrefixSource | None) -> None:
        """Runs all on the decode engine, which first pulls the prefix that `source` has cached."""
        if source is None or must_stay_whole(self.request, self.max_model_len_tokens):
            await self._run_whole()
            return
        self._enter(Phase.TRANSFERRING)
        terms = self._terms(self.request)
        if terms.HasField("ttft_s"):
            terms.ttft_s = min(terms.ttft_s, terms.waited_s + source.limit_s)
        request = named(self.request, self.leg)
        asked_at_s = self.clock.now()
        exported = await export_prefix(request, source, terms, self.engines, self.health)
        export = PrefixExport(
            decision_id=self.placement.decision_id,
            seconds=self.clock.now() - asked_at_s,
            exported=exported is not None,
        )
        self.on_export(export)
        if exported is None:
            await self._run_whole()
            return
        pulled = False

        def on_reply(reply: Reply) -> None:
            nonlocal pulled
            pulled = True  # or computed instead, which frees the blocks as well
            self.record.recomputed |= take_kv_result(reply.outputs)
            self._enter(Phase.DECODING)
            self._deliver(reply)

        try:
            rest = pulling_request(self.request, exported)
            await self._follow(self._decode_engine, rest, on_reply)
        finally:
            if not pulled:
                self.engines.release(source.engine, request.request_id)

    async def _run_one_token(self, prefill_engine: EngineRef) -> None:
        self._enter(Phase.DECODING)
        try:
            await self._follow(prefill_engine, self.request, self._deliver)
        except (EngineDraining, EngineUnreachable) as error:
            self._note_loss(error)
            await self._run_whole()

    async def _run_split(self, prefill_engine: EngineRef) -> None:
        self._enter(Phase.PREFILLING)
        form = form_of(self.request)
        prefilled = await self._prefill(prefill_engine, form)
        if prefilled is None:
            await self._run_recomputed()
            return
        self.record.prefilled_at_s = self.clock.now()
        form = form_after(self.request, prefilled, form)
        request = named(self.request, self.leg)
        self.held = Held(engine=prefill_engine, request=request, prefilled=prefilled, form=form)
        if form is Form.CONTINUE:
            self._deliver(_first_reply(prefilled))
            if ends_at_first_token(prefilled):
                self._enter(Phase.DONE)
                return
        await self._run_rest(self.held)

    async def _run_recomputed(self) -> None:
        self.record.recomputed = True
        self._enter(Phase.TRANSFERRING)
        await self._run_whole()

    async def _run_rest(self, held: Held) -> None:
        self._enter(Phase.TRANSFERRING)

        def on_reply(reply: Reply) -> None:
            if held.form is Form.RESAMPLE and self.held:
                resample_outputs(reply.outputs, held.prefilled)
            else:
                continue_outputs(reply.outputs)
            if take_kv_result(reply.outputs):
                self.record.recomputed = True
            if self.held:
                self.held = None  # the engine that replies has fetched it
                self.record.decoding_at_s = self.clock.now()
                self._enter(Phase.DECODING)
            self._deliver(reply)

        rest = decode_request(held.request, held.prefilled, held.form)
        rest.request_id = self.record.request_id
        await self._follow(self._decode_engine, rest, on_reply)

    async def _prefill(self, engine: EngineRef, form: Form) -> Prefilled | None:
        # A separate task: if the client leaves just when the engine has reserved blocks, the
        # reply that names them must still arrive.
        reading = asyncio.create_task(self._read_prefill(engine, form))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            request_id = named(self.request, self.leg).request_id
            self.engines.wind_up(engine, request_id, reading)
            raise

    async def _read_prefill(self, engine: EngineRef, form: Form) -> Prefilled | None:
        replies: list[Reply] = []
        try:
            await self._follow(engine, prefill_request(self.request, form), replies.append)
        except MOVABLE as error:
            self._note_loss(error)
            return None  # the decode engine computes the prompt itself
        return read_prefill(replies[-1].outputs[-1], replies[-1].weight_version)

    async def _follow(
        self, engine: EngineRef, request: EngineCoreRequest, on_reply: Callable[[Reply], None]
    ) -> None:
        """Passes every reply on, with event times on our clock, and reports to `health`."""
        self.at = engine
        try:
            await self._follow_to_end(engine, request, on_reply)
        except AnswerDiverged:
            raise  # no fault of this engine
        except EngineLost as error:
            self.health.failed(engine, at_once=isinstance(error, EngineUnreachable))
            raise type(error)(self._lost(engine, str(error))) from error
        self.health.served(engine)

    async def _follow_to_end(
        self, engine: EngineRef, request: EngineCoreRequest, on_reply: Callable[[Reply], None]
    ) -> None:
        replies = self.engines.generate(engine, named(request, self.leg), self._terms(request))
        try:
            async with silence(self.limits) as patience, aclosing(replies):
                with self.health.waiting(engine, patience) as heard:
                    async for reply in replies:
                        heard()
                        self._take_in(reply)
                        on_reply(reply)
                        if reply.outputs[-1].finish_reason is not None:
                            return
        except TimeoutError as error:
            if patience.given_up:
                raise EngineStalled("It does not answer.") from error
            raise DeadlinePassed(self._too_slow(engine)) from error
        raise EngineLost("It ended the stream without an end of the answer.")

    def _terms(self, request: EngineCoreRequest) -> pb.EngineTerms:
        return engine_terms(
            self.placement,
            self.scope,
            self.record,
            self.clock.now(),
            answered_tokens=len(request.prompt_token_ids or ()) - self.record.prompt_tokens,
        )

    def _take_in(self, reply: Reply) -> None:
        shift_events(reply.outputs, self.clock.now() - reply.core_time_s)
        if self.record.started_at_s is None:
            self.record.started_at_s = started_at_s(reply.outputs)
        for output in reply.outputs:
            output.request_id = self.record.request_id
            if output.finish_reason is FinishReason.ERROR:
                raise EngineLost("It failed the request.")

    def _deliver(self, reply: Reply) -> None:
        outputs = reply.outputs
        if self.replay is not None:
            outputs = self.replay.unseen(outputs)
            if not outputs:
                return
        if self._resumes:
            continue_outputs(outputs)
        now = self.clock.now()
        for output in outputs:
            self._note(output, now)
        self.deliver(
            EngineCoreOutputs(outputs=outputs, timestamp=now, weight_version=reply.weight_version)
        )

    def _note(self, output: EngineCoreOutput, now: float) -> None:
        record = self.record
        if output.new_token_ids:
            self.delivered += output.new_token_ids
            record.output_tokens += len(output.new_token_ids)
            record.last_token_at_s = now
            if record.first_token_at_s is None:
                record.first_token_at_s = now
            self._note_paces(output.new_token_ids, now)
        if output.finish_reason is not None:
            record.finished = str(output.finish_reason)
            self._enter(Phase.DONE)

    def _note_paces(self, token_ids: Sequence[int], now: float) -> None:
        line, stages = self.record.line, self.record.stages
        for token_id in token_ids:
            if line is not None:
                pace_s = next_pace_s(self.placement, self.record)
                line.produced(now - self.scope.arrived_at_s, math.inf if pace_s is None else pace_s)
            if stages is not None:
                stages.produced((token_id,), now)

    def _note_loss(self, error: SlosError) -> None:
        """Records that the request continues on the other engine of its placement."""
        assert self.at is not None
        self.record.moves.append(
            Move(
                cause=cause_of(error),
                engine=self.at.name,
                after_tokens=self.record.output_tokens,
                at_s=self.clock.now(),
            )
        )

    def _enter(self, phase: Phase) -> None:
        enter(self.record, phase)

    @property
    def _decode_engine(self) -> EngineRef:
        if self.placement.decode is None:
            raise EngineLost("The planner's answer names no decode engine; send the request again.")
        return self.placement.decode

    def _lost(self, engine: EngineRef, why: str) -> str:
        return (
            f"Engine {engine.name} was lost after {self.record.output_tokens} tokens of the "
            f"answer; send the request again. {why}"
        )

    def _too_slow(self, engine: EngineRef) -> str:
        return (
            f"Engine {engine.name} gave nothing within the limit of "
            f"{self.limits.first_reply_s:g} s to the first and {self.limits.next_reply_s:g} s to "
            f"any further step, after {self.record.output_tokens} tokens; send the request again."
        )


def _first_reply(prefilled: Prefilled) -> Reply:
    return Reply(
        outputs=[first_token_output(prefilled)],
        core_time_s=0.0,
        weight_version=prefilled.weight_version,
    )
