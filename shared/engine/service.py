"""The engine's gRPC service: requests in, outputs out. What runs when is decided elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import NoReturn

import grpc
import msgspec
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest

from shared.clock import Clock
from shared.engine.state import EngineState
from shared.engine.streams import DuplicateRequest, Streams
from shared.engine.terms import attach_terms, terms_from_wire
from shared.engine.vllm_core import EngineCore
from shared.engine.vllm_stats import EngineStats
from shared.engine.wire import decode_adapter, decode_request, encode_outputs
from shared.errors import ConfigError, EngineDraining, EngineLost, EngineStalled, SlosError
from shared.kv_transfer.settings import fault_in
from shared.rpc import codec
from shared.rpc import slos_pb2 as pb
from shared.rpc.slos_pb2_grpc import EngineServicer

_STATUS: dict[type[SlosError], grpc.StatusCode] = {
    EngineDraining: grpc.StatusCode.FAILED_PRECONDITION,
    DuplicateRequest: grpc.StatusCode.ALREADY_EXISTS,
    EngineLost: grpc.StatusCode.UNAVAILABLE,
    EngineStalled: grpc.StatusCode.ABORTED,
}
_IDLE_POLL_S = 0.02
_NO_ADAPTERS = "This engine runs without LoRA: start it with --vllm '{enable_lora: true}'."


@dataclass(frozen=True, slots=True)
class Delivery:
    """One output of one step on its way to its stream."""

    output: EngineCoreOutput
    core_time_s: float
    weight_version: str


class EngineService(EngineServicer):
    """Serves one engine core."""

    def __init__(
        self,
        core: EngineCore,
        stats: EngineStats,
        state: EngineState,
        clock: Clock,
        on_draining: Callable[[bool], None],
        release: Callable[[Sequence[str]], None],
    ) -> None:
        self._core = core
        self._stats = stats
        self._state = state
        self._clock = clock
        self._on_draining = on_draining
        self._ends = False
        self._release = release
        self.streams: Streams[Delivery] = Streams()

    # -- requests -----------------------------------------------------------------------------

    async def Generate(  # noqa: N802 - gRPC's name
        self,
        request: pb.GenerateRequest,
        context: "grpc.aio.ServicerContext[pb.GenerateRequest, pb.GenerateReply]",
    ) -> AsyncIterator[pb.GenerateReply]:
        core_request = await self._read(request, context)
        request_id = core_request.request_id
        if core_request.abort_immediately:
            # It has no outputs: it only makes the connector tell the prefill engine
            # to free its blocks.
            await self._core.add(core_request)
            return
        try:
            stream = self.streams.add(request_id, request.reader)
        except SlosError as error:
            await _refuse(context, error)
        finished = False
        try:
            await self._core.add(core_request)
            if stream.reader is not None:
                await stream.until_ended()
                finished = True
            while not finished:
                deliveries = await stream.take()
                finished = deliveries[-1].output.finished
                for reply in _replies(deliveries):
                    yield reply
        except SlosError as error:
            await _refuse(context, error)
        finally:
            self.streams.remove(request_id)
            if not (finished or stream.is_ended):
                self._release([request_id])
                await self._core.abort([request_id])

    async def Outputs(  # type: ignore[override] # noqa: N802 - writes, so that it ends at once
        self,
        request: pb.OutputsRequest,
        context: "grpc.aio.ServicerContext[pb.OutputsRequest, pb.GenerateReply]",
    ) -> None:
        with self.streams.reader(request.reader) as reader:
            await context.write(pb.GenerateReply())
            with suppress(EngineDraining):
                while True:
                    for reply in _replies(await reader.take()):
                        await context.write(reply)

    async def _read(
        self,
        request: pb.GenerateRequest,
        context: "grpc.aio.ServicerContext[pb.GenerateRequest, pb.GenerateReply]",
    ) -> EngineCoreRequest:
        if request.engine_id not in ("", self._state.description.engine_id):
            await context.abort(
                grpc.StatusCode.NOT_FOUND, "The engine that is meant has been started anew since."
            )
        try:
            core_request = decode_request(request.request)
        except (msgspec.MsgspecError, IndexError) as error:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"This is no request of the vLLM that runs here ({error}); "
                "gateway and engine must run the same version.",
            )
        params = core_request.sampling_params
        fault = fault_in(((params.extra_args if params else None) or {}).get("kv_transfer_params"))
        if fault is not None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{fault}.")
        if core_request.lora_request is not None and not self._core.takes_adapters:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _NO_ADAPTERS)
        attach_terms(core_request, terms_from_wire(request.terms, now_s=self._clock.now()))
        return core_request

    async def pump(self) -> None:
        """Hands every step's outputs to their streams until the engine core dies (EngineLost)."""
        try:
            async for outputs in self._core.outputs():
                self._distribute(outputs)
                self._stats.observe(outputs)
        except EngineLost as error:
            self.fail(error)
            raise

    def fail(self, error: EngineLost) -> None:
        """The engine core gives nothing any more: every request that it holds is lost."""
        self._state.alive = False
        self.streams.fail_all(error)

    def _distribute(self, outputs: EngineCoreOutputs) -> None:
        for output in outputs.outputs:
            delivery = Delivery(output, outputs.timestamp, outputs.weight_version or "")
            if not self.streams.give(output.request_id, delivery) and output.kv_transfer_params:
                self._release([output.request_id])  # only this output says that they are held
            if output.finished:
                self.streams.end(output.request_id)

    async def Abort(  # noqa: N802
        self,
        request: pb.AbortRequest,
        context: "grpc.aio.ServicerContext[pb.AbortRequest, pb.AbortReply]",
    ) -> pb.AbortReply:
        del context
        request_ids = list(request.request_ids)
        await self._core.abort(request_ids)
        for request_id in request_ids:
            stream = self.streams.open.get(request_id)
            if stream is not None:
                stream.fail(EngineLost(f"The request {request_id} was aborted."))
        return pb.AbortReply()

    async def Release(  # noqa: N802
        self,
        request: pb.ReleaseRequest,
        context: "grpc.aio.ServicerContext[pb.ReleaseRequest, pb.ReleaseReply]",
    ) -> pb.ReleaseReply:
        del context
        if request.engine_id == self._state.description.engine_id:
            self._release(list(request.request_ids))
        return pb.ReleaseReply()

    # -- the engine itself --------------------------------------------------------------------

    async def Describe(  # noqa: N802
        self,
        request: pb.DescribeRequest,
        context: "grpc.aio.ServicerContext[pb.DescribeRequest, pb.EngineDescription]",
    ) -> pb.EngineDescription:
        del request, context
        return codec.description_to_wire(self._state.description)

    async def Drain(  # noqa: N802
        self,
        request: pb.DrainRequest,
        context: "grpc.aio.ServicerContext[pb.DrainRequest, pb.DrainReply]",
    ) -> pb.DrainReply:
        del context
        return pb.DrainReply(left_over=await self.drain(request.limit_s))

    async def drain(self, limit_s: float) -> int:
        """Takes nothing new, waits for what runs and for KV that others still fetch. What is left
        then is cut, to go on elsewhere; returns how many requests that were.
        """
        self._set_draining(True)
        try:
            async with asyncio.timeout(limit_s):
                await self.streams.until_empty()
                while not self._state.idle:
                    await self._clock.sleep(_IDLE_POLL_S)
        except TimeoutError:
            pass
        left_over = len(self.streams.open)
        self.streams.fail_all(
            EngineDraining(f"It is being stopped, and the request did not end in {limit_s:g} s.")
        )
        return left_over

    async def end(self, limit_s: float) -> int:
        """As `drain`, for an engine that is being stopped: it takes no requests again."""
        self._ends = True
        return await self.drain(limit_s)

    async def Undrain(  # noqa: N802
        self,
        request: pb.UndrainRequest,
        context: "grpc.aio.ServicerContext[pb.UndrainRequest, pb.UndrainReply]",
    ) -> pb.UndrainReply:
        del request
        if self._ends:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, "the engine is being stopped; start it again"
            )
        self._set_draining(False)
        return pb.UndrainReply()

    async def LoadAdapter(  # noqa: N802
        self,
        request: pb.LoadAdapterRequest,
        context: "grpc.aio.ServicerContext[pb.LoadAdapterRequest, pb.LoadAdapterReply]",
    ) -> pb.LoadAdapterReply:
        if not self._core.takes_adapters:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, _NO_ADAPTERS)
        try:
            await self._core.load_adapter(decode_adapter(request.adapter))
        except (ConfigError, msgspec.MsgspecError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except EngineLost as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return pb.LoadAdapterReply()

    def _set_draining(self, draining: bool) -> None:
        self.streams.draining = draining
        self._on_draining(draining)

    async def Health(  # noqa: N802
        self,
        request: pb.HealthRequest,
        context: "grpc.aio.ServicerContext[pb.HealthRequest, pb.HealthReply]",
    ) -> pb.HealthReply:
        del request, context
        state = self._state
        return pb.HealthReply(
            serving=state.alive and not self.streams.draining,
            draining=self.streams.draining,
            running=state.running,
            waiting=state.waiting,
            free_kv_blocks=state.free_kv_blocks,
            kv_blocks=state.description.kv_blocks,
            planner_attached=state.attached,
        )


def _replies(deliveries: list[Delivery]) -> Iterator[pb.GenerateReply]:
    """One message for all that were given by the same weights: a message costs more than its
    content. Its time is that of the last.
    """
    for weight_version, group in groupby(deliveries, key=lambda one: one.weight_version):
        joined = list(group)
        yield pb.GenerateReply(
            outputs=encode_outputs([one.output for one in joined]),
            core_time_s=joined[-1].core_time_s,
            weight_version=weight_version,
        )


async def _refuse(
    context: "grpc.aio.ServicerContext[pb.GenerateRequest, pb.GenerateReply]", error: SlosError
) -> NoReturn:
    await context.abort(_STATUS.get(type(error), grpc.StatusCode.INTERNAL), str(error))
    raise error
