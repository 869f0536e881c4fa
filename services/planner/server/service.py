"""The planner's gRPC service: translates between the wire and the planner's core."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from services.planner.admission.waiting_queue import Answer
from services.planner.core import PlannerCore
from services.planner.scaling.fleet_size import FleetSize
from services.planner.scaling.numbers import ScalingNumbers
from services.planner.scaling.scaler import Scaler
from services.planner.server.attachments import Attachment, Bell
from services.planner.server.gateway_calls import GatewayCalls, Unreadable, read_query
from services.planner.server.metrics import PlannerMetrics
from services.planner.server.waiting import WaitingCalls
from services.planner.state.cluster import ClusterState
from services.planner.state.engine_state import EngineState
from shared.clock import Clock, wall_time_s
from shared.engines import EngineDescription
from shared.requests import Placement, PlacementQuery
from shared.rpc import codec, planner_codec
from shared.rpc import slos_pb2 as pb
from shared.rpc.slos_pb2_grpc import PlannerServicer
from shared.ticks import TICK_S

_LOG = logging.getLogger(__name__)
_WATCH_PAUSE_S = 0.1

_AttachContext = grpc.aio.ServicerContext[pb.EngineMessage, pb.PlannerMessage]
_ConsultContext = grpc.aio.ServicerContext[pb.PlannerCalls, pb.PlannerReplies]
_PlaceContext = grpc.aio.ServicerContext[pb.PlacementQuery, pb.Placement]
_SettleContext = grpc.aio.ServicerContext[pb.SettleRequest, pb.SettleReply]
_WatchContext = grpc.aio.ServicerContext[pb.WatchRequest, pb.ClusterView]
_ScaleContext = grpc.aio.ServicerContext[pb.ScaleRequest, pb.ScaleAdvice]
_ExplainContext = grpc.aio.ServicerContext[pb.ExplainRequest, pb.ExplainReply]


class PlannerService(PlannerServicer):
    """Serves the RPCs. All state is in `core`, used from one event loop only.

    Streams are coroutines that write, not generators, so that a cancelled call ends at once.
    """

    def __init__(
        self,
        state: ClusterState,
        metrics: PlannerMetrics,
        clock: Clock,
        *,
        registration_limit_s: float,
        scaling: ScalingNumbers | None = None,
    ) -> None:
        self.core = PlannerCore(state, epoch_s=wall_time_s)
        self.state = state
        self.attachments: dict[str, Attachment] = {}
        self._gateways: set[GatewayCalls] = set()
        self._metrics = metrics
        self._clock = clock
        self._registration_limit_s = registration_limit_s
        self._bell = Bell(clock, _WATCH_PAUSE_S)
        self._started_epoch_s = wall_time_s()
        self.scaler = Scaler(numbers=scaling or ScalingNumbers(), started_at_s=clock.now())
        self.waiting = WaitingCalls(
            queue=self.core.waiting,
            clock=clock,
            answered=self._note_answer,
            round_took=metrics.round_took,
        )
        metrics.shown(state)
        metrics.counts_waiting(lambda: len(self.core.waiting))

    def close(self) -> None:
        """Ends every stream and every call that waits, so that the server can stop."""
        self.waiting.close()
        for gateway in self._gateways:
            gateway.close()
        self._bell.silence()
        for attachment in self.attachments.values():
            attachment.end("the planner is being stopped")

    # ---- gateways

    async def Consult(  # type: ignore[override] # noqa: N802
        self, request_iterator: AsyncIterator[pb.PlannerCalls], context: _ConsultContext
    ) -> None:
        gateway = GatewayCalls(place=self._place, settle=self._settle)
        self._gateways.add(gateway)
        try:
            await gateway.serve(request_iterator, context.write)
        finally:
            self._gateways.discard(gateway)

    async def Place(  # noqa: N802
        self, request: pb.PlacementQuery, context: _PlaceContext
    ) -> pb.Placement:
        left_s = context.time_remaining()
        try:
            return await self._place(request, math.inf if left_s is None else left_s)
        except Unreadable as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise AssertionError  # abort raises

    async def Settle(  # noqa: N802
        self, request: pb.SettleRequest, context: _SettleContext
    ) -> pb.SettleReply:
        del context
        self._settle(request)
        return pb.SettleReply()

    async def _place(self, wire: pb.PlacementQuery, limit_s: float) -> pb.Placement:
        """Waits here for half of the caller's limit at most. Raises Unreadable."""
        placement = await self.waiting.place(read_query(wire), limit_s / 2)
        return codec.placement_to_wire(placement)

    def _settle(self, wire: pb.SettleRequest) -> None:
        outcomes = [codec.outcome_from_wire(outcome) for outcome in wire.outcomes]
        exports = [codec.export_from_wire(export) for export in wire.exports]
        self.core.exported(exports, self._clock.now())
        self.core.settle(outcomes, self._clock.now())
        self.waiting.ring()
        self._metrics.settled(outcomes)
        self._metrics.exported(exports)

    async def Watch(  # type: ignore[override] # noqa: N802
        self, request: pb.WatchRequest, context: _WatchContext
    ) -> None:
        del request
        last: pb.ClusterView | None = None
        async with aclosing(self._bell.listen()) as changes:
            async for _ in changes:
                views = (engine.view for engine in self.state.engines.values())
                view = pb.ClusterView(engines=[planner_codec.view_to_wire(one) for one in views])
                if view != last:
                    last = view
                    await context.write(view)

    async def Explain(  # noqa: N802
        self, request: pb.ExplainRequest, context: _ExplainContext
    ) -> pb.ExplainReply:
        del context
        explanation = self.state.explain(request.decision_id)
        found = planner_codec.explanation_to_wire(explanation) if explanation else None
        reply = found or pb.ExplainReply()
        reply.kept_decisions = self.state.numbers.kept_decisions
        reply.planner_started_epoch_s = self._started_epoch_s
        return reply

    async def Scale(  # noqa: N802
        self, request: pb.ScaleRequest, context: _ScaleContext
    ) -> pb.ScaleAdvice:
        del context
        starting = FleetSize(prefill=request.starting_prefill, decode=request.starting_decode)
        advice = self.scaler.advice(self.state, starting, self._clock.now())
        return planner_codec.scale_to_wire(advice)

    # ---- engines

    async def Attach(  # type: ignore[override] # noqa: N802
        self, request_iterator: AsyncIterator[pb.EngineMessage], context: _AttachContext
    ) -> None:
        engine, refusal, replaced = await self._register(request_iterator)
        self._metrics.registered(accepted=engine is not None)
        verdict = pb.RegistrationVerdict(
            accepted=engine is not None, message=refusal, replaced=replaced
        )
        if engine is None:
            _LOG.warning("%s (from %s)", refusal, context.peer())
            await context.write(pb.PlannerMessage(verdict=verdict))
            return
        attachment = self._attach(engine)
        reading = asyncio.create_task(self._read(request_iterator, attachment))
        try:
            await context.write(pb.PlannerMessage(verdict=verdict))
            async with aclosing(attachment.policies()) as policies:
                async for policy in policies:
                    wire = codec.policy_to_wire(policy)
                    await context.write(pb.PlannerMessage(policy=wire))
        finally:
            reading.cancel()
            self._detach(attachment)

    async def _register(
        self, messages: AsyncIterator[pb.EngineMessage]
    ) -> tuple[EngineState | None, str, bool]:
        """The engine's state, or None and the refusal; and whether another engine took its name."""
        limit_s = self._registration_limit_s
        try:
            async with asyncio.timeout(limit_s):
                first = await anext(messages)
        except (TimeoutError, StopAsyncIteration):
            words = f"No registration came within {limit_s:g} s; it must be the first message."
            return None, words, False
        if first.WhichOneof("kind") != "registration":
            return None, "The first message must be the registration.", False
        replaced = self.state.was_replaced(first.registration.engine_id)
        return *self._admit(first.registration), replaced

    def _admit(self, wire: pb.EngineDescription) -> tuple[EngineState | None, str]:
        try:
            description: EngineDescription = codec.description_from_wire(wire)
        except KeyError:
            return None, f"Engine {wire.name} is refused: its role is neither prefill nor decode."
        return self.core.register(description, self._clock.now())

    def _attach(self, engine: EngineState) -> Attachment:
        before = self.attachments.get(engine.name)
        if before:
            before.end("another engine registered under its name")
        attachment = Attachment(engine=engine)
        self.attachments[engine.name] = attachment
        _LOG.info("attached %s (%s)", engine.name, engine.description.role)
        self._changed()
        return attachment

    def _detach(self, attachment: Attachment) -> None:
        """Removes the engine at once, with what was placed on it."""
        engine = attachment.engine
        self.core.leave(engine, self._clock.now())
        if self.attachments.get(engine.name) is attachment:
            del self.attachments[engine.name]
        _LOG.info("detached %s: %s", engine.name, attachment.ended_because or "connection lost")
        self._changed()

    async def _read(
        self, messages: AsyncIterator[pb.EngineMessage], attachment: Attachment
    ) -> None:
        try:
            async for message in messages:
                try:
                    self._hear(message, attachment)
                except Exception:  # noqa: BLE001 - a fault of ours must not detach engines for ever
                    name, kind = attachment.engine.name, message.WhichOneof("kind")
                    _LOG.exception("%s of %s could not be taken in; it stays attached", kind, name)
        finally:
            attachment.end("its stream ended")

    def _hear(self, message: pb.EngineMessage, attachment: Attachment) -> None:
        kind, engine = message.WhichOneof("kind"), attachment.engine
        if engine.stalled:
            _LOG.info("%s sends messages again", engine.name)
        engine.silent_ticks = 0
        if kind == "reports":
            self._take_in(message.reports, attachment)
        elif kind == "beat":
            self._note_overdue(engine, message.beat.overdue_s)
        elif kind == "draining":
            self.core.drain(engine, self._clock.now(), draining=message.draining)
            _LOG.info("%s %s", engine.name, "drains" if message.draining else "serves again")
            self._changed()

    def _take_in(self, wire: pb.StepReports, attachment: Attachment) -> None:
        engine = attachment.engine
        reports = [codec.report_from_wire(report) for report in wire.reports]
        try:
            policy = self.core.observe(engine, reports, self._clock.now())
        except ValueError as error:
            _LOG.warning("a report of %s cannot be read: %s", engine.name, error)
            return
        self.waiting.ring()
        if policy is not None:
            attachment.send(policy)
        self._metrics.reported(engine, reports)
        self._bell.ring()

    def _note_overdue(self, engine: EngineState, overdue_s: float) -> None:
        if self.core.overdue(engine, overdue_s, self._clock.now()):
            said = f"is overdue by {overdue_s:.1f} s" if engine.stalled else "makes progress again"
            _LOG.warning("%s %s", engine.name, said)
            self._changed()

    async def listen(self) -> None:
        """Watches for engines that have fallen silent, until cancelled."""
        while True:
            await self._clock.sleep(TICK_S)
            if self.core.tick(self._clock.now()):
                silent = [one.name for one in self.state.engines.values() if one.stalled]
                _LOG.warning("no sign of progress of %s: no new requests", ", ".join(silent))
                self._changed()

    def _changed(self) -> None:
        self.waiting.ring()
        self._metrics.shown(self.state)
        self._bell.ring()

    def _note_answer(self, answer: Answer) -> None:
        self._metrics.decided(answer.placement, answer.waited_s)
        _log_decision(answer.call.asked.query, answer.placement)


def _log_decision(query: PlacementQuery, placement: Placement) -> None:
    level = logging.DEBUG if placement.runs else logging.INFO
    _LOG.log(
        level,
        "%s %s as %s: %s %s",
        placement.decision_id,
        query.request_id,
        placement.admission,
        placement.reason,
        placement.message,
    )
