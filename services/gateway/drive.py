"""One placed request from its placement to its last token, on one engine or two. No gRPC here."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest

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
    read_prefill,
    resample_outputs,
    shift_events,
    started_at_s,
    take_kv_result,
)
from services.gateway.deadline_line import deadline_line
from services.gateway.engine_terms import engine_terms, next_pace_s
from services.gateway.scope import RequestScope, SequenceRecord
from services.gateway.wait_limits import WaitLimits, silence
from shared.clock import Clock
from shared.errors import DeadlinePassed, EngineDraining, EngineLost, EngineUnreachable
from shared.requests import TRANSITIONS, EngineRef, Phase, Placement, Way
from shared.rpc import slos_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one engine step, or several that came together, gave for one request; one output at
    least. `core_time_s` is that of the last step on the engine core's monotonic clock.
    """

    outputs: list[EngineCoreOutput]
    core_time_s: float
    weight_version: str | None = None


# Another decode engine in place of those with these ids, or None.
StandIn = Callable[[Collection[str]], EngineRef | None]


class Engines(Protocol):
    """What a drive needs of the engines."""

    def generate(
        self, engine: EngineRef, request: EngineCoreRequest, terms: pb.EngineTerms
    ) -> AsyncGenerator[Reply, None]:
        """Replies until the request has ended. Raises EngineLost and EngineDraining.

        Closing the generator aborts the request on the engine.
        """

    def release(self, engine: EngineRef, request_id: str) -> None:
        """Frees, in the background, KV blocks that `engine` holds and no engine will fetch."""

    def wind_up(
        self, placement: Placement, request_id: str, prefill: asyncio.Task[Prefilled | None]
    ) -> None:
        """Ends, in the background, a prefill that nobody wants any more, and frees its blocks."""


@dataclass(slots=True, kw_only=True)
class Drive:
    """The life of one placed sequence.

    Attributes:
        deliver: Takes what the client is to see.
        stand_in: Chooses another decode engine when that of the placement is being stopped.
    """

    request: EngineCoreRequest
    placement: Placement
    scope: RequestScope
    record: SequenceRecord
    engines: Engines
    deliver: Callable[[EngineCoreOutputs], None]
    clock: Clock
    limits: WaitLimits
    max_model_len_tokens: int
    stand_in: StandIn = lambda _: None
    _decode_replied: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Until the last token is delivered; cancel it to abort the request on its engines.

        Raises EngineLost, EngineDraining or DeadlinePassed.
        """
        if self.record.line is None:
            self.record.line = deadline_line(self.placement)
        if self.placement.way is Way.COLOCATED or self.placement.prefill is None:
            await self._run_whole()
        elif not must_stay_whole(self.request, self.max_model_len_tokens):
            await self._run_split(self.placement.prefill)
        elif output_budget_tokens(self.request, self.max_model_len_tokens) <= 1:
            await self._run_one_token(self.placement.prefill)
        else:
            await self._run_whole()

    async def _run_whole(self) -> None:
        self._enter(Phase.DECODING)
        await self._follow_decode(self.request, self._deliver)

    async def _run_one_token(self, prefill_engine: EngineRef) -> None:
        self._enter(Phase.DECODING)
        try:
            await self._follow(prefill_engine, self.request, self._deliver)
        except (EngineDraining, EngineUnreachable):
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
        try:
            await self._run_rest(prefilled, form, prefill_engine)
        finally:
            if not self._decode_replied:
                self.engines.release(prefill_engine, self.record.request_id)

    async def _run_recomputed(self) -> None:
        self.record.recomputed = True
        self._enter(Phase.TRANSFERRING)
        await self._run_whole()

    async def _run_rest(self, prefilled: Prefilled, form: Form, holder: EngineRef) -> None:
        if form is Form.CONTINUE:
            self._deliver(_first_reply(prefilled))
            if ends_at_first_token(prefilled):
                self._enter(Phase.DONE)
                return
        self._enter(Phase.TRANSFERRING)

        def on_reply(reply: Reply) -> None:
            if form is Form.RESAMPLE and not self._decode_replied:
                resample_outputs(reply.outputs, prefilled)
            else:
                continue_outputs(reply.outputs)
            if take_kv_result(reply.outputs):
                self.record.recomputed = True
            if not self._decode_replied:
                self._decode_replied = True
                self.record.decoding_at_s = self.clock.now()
                self._enter(Phase.DECODING)
            self._deliver(reply)

        rest = decode_request(self.request, prefilled, form)
        await self._follow_decode(rest, on_reply, holder.engine_id)

    async def _prefill(self, engine: EngineRef, form: Form) -> Prefilled | None:
        # A task of its own, so that a client that leaves at the very moment when the engine has
        # set blocks aside does not take the word of them along.
        reading = asyncio.create_task(self._read_prefill(engine, form))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            self.engines.wind_up(self.placement, self.record.request_id, reading)
            raise

    async def _read_prefill(self, engine: EngineRef, form: Form) -> Prefilled | None:
        replies: list[Reply] = []
        try:
            await self._follow(engine, prefill_request(self.request, form), replies.append)
        except (EngineLost, EngineDraining, DeadlinePassed):
            return None  # the decode engine can do without
        return read_prefill(replies[-1].outputs[-1], replies[-1].weight_version)

    async def _follow_decode(
        self, request: EngineCoreRequest, on_reply: Callable[[Reply], None], *avoid: str
    ) -> None:
        """Follows on the decode engine. If it was stopped since the placement and has given nothing
        yet, another one replaces it, whose id is not among `avoid`.
        """
        stopped = set(avoid)
        replied = False

        def noted(reply: Reply) -> None:
            nonlocal replied
            replied = True
            on_reply(reply)

        while True:
            try:
                await self._follow(self._decode_engine, request, noted)
                return
            except (EngineDraining, EngineUnreachable):
                stopped.add(self._decode_engine.engine_id)
                other = None if replied else self.stand_in(stopped)
                if other is None:
                    raise
                self.placement = replace(self.placement, decode=other)
                self.record.placement = self.placement

    async def _follow(
        self, engine: EngineRef, request: EngineCoreRequest, on_reply: Callable[[Reply], None]
    ) -> None:
        """Hands on every reply, with its times brought to our clock, to the last one."""
        now = self.clock.now()
        terms = engine_terms(self.placement, self.scope, self.record, now)
        replies = self.engines.generate(engine, request, terms)
        try:
            async with silence(self.limits) as heard, aclosing(replies):
                async for reply in replies:
                    heard()
                    shift_events(reply.outputs, self.clock.now() - reply.core_time_s)
                    if self.record.started_at_s is None:
                        self.record.started_at_s = started_at_s(reply.outputs)
                    last = reply.outputs[-1].finish_reason is not None
                    on_reply(reply)
                    if last:
                        return
        except TimeoutError as error:
            raise DeadlinePassed(self._too_slow(engine)) from error
        except EngineLost as error:
            raise type(error)(self._lost(engine, str(error))) from error
        raise EngineLost(self._lost(engine, "It ended the stream without an end of the answer."))

    def _deliver(self, reply: Reply) -> None:
        now = self.clock.now()
        record = self.record
        for output in reply.outputs:
            if output.new_token_ids:
                record.output_tokens += len(output.new_token_ids)
                record.last_token_at_s = now
                if record.first_token_at_s is None:
                    record.first_token_at_s = now
                self._note_paces(output.new_token_ids, now)
            if output.finish_reason is not None:
                record.finished = str(output.finish_reason)
                self._enter(Phase.DONE)
        self.deliver(
            EngineCoreOutputs(
                outputs=reply.outputs, timestamp=now, weight_version=reply.weight_version
            )
        )

    def _note_paces(self, token_ids: Sequence[int], now: float) -> None:
        line, stages = self.record.line, self.record.stages
        for token_id in token_ids:
            if line is not None:
                pace_s = next_pace_s(self.placement, self.record)
                line.produced(now - self.scope.arrived_at_s, math.inf if pace_s is None else pace_s)
            if stages is not None:
                stages.produced((token_id,), now)

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


def enter(record: SequenceRecord, phase: Phase) -> None:
    """Moves a record on; staying is allowed, anything else only along TRANSITIONS."""
    if phase is record.phase:
        return
    assert phase in TRANSITIONS[record.phase], f"{record.phase} to {phase}"
    record.phase = phase
