"""The engine's gRPC service: requests in, outputs out. What runs when is decided elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

import grpc
import msgspec
from vllm.v1.engine import EngineCoreOutputs

from shared.clock import Clock
from shared.engine.orders import NO_ADAPTERS, Orders
from shared.engine.replies import Delivery, is_last, joined, status_of
from shared.engine.state import EngineState
from shared.engine.streams import RequestEnded, Streams
from shared.engine.vllm_core import EngineCore
from shared.engine.vllm_stats import EngineStats
from shared.engine.wire import decode_adapter
from shared.errors import ConfigError, EngineDraining, EngineLost
from shared.rpc import codec
from shared.rpc import slos_pb2 as pb
from shared.rpc.multiplex import converse
from shared.rpc.slos_pb2_grpc import EngineServicer

_IDLE_POLL_S = 0.02


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
        self._orders = Orders(
            core=core,
            engine_id=state.description.engine_id,
            clock=clock,
            release=release,
            streams=self.streams,
        )

    # -- requests -----------------------------------------------------------------------------

    async def Serve(  # type: ignore[override] # noqa: N802 - writes, so that it ends at once
        self,
        request_iterator: AsyncIterator[pb.EngineOrders],
        context: "grpc.aio.ServicerContext[pb.EngineOrders, pb.EngineReplies]",
    ) -> None:
        async with self._orders.stream() as replies:
            await converse(
                replies,
                joined,
                context.write,
                request_iterator,
                partial(self._orders.take, replies=replies),
            )
        if replies.overfull:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "The gateway reads its outputs too slowly."
            )

    async def Generate(  # noqa: N802 - gRPC's name
        self,
        request: pb.GenerateRequest,
        context: "grpc.aio.ServicerContext[pb.GenerateRequest, pb.GenerateReply]",
    ) -> AsyncIterator[pb.GenerateReply]:
        async with self._orders.stream() as replies:
            await self._orders.start("", request, replies)
            last: Delivery | RequestEnded | None = None
            while not is_last(last) and (items := await replies.take()):
                last = items[-1]
                for message in joined(items):
                    for reply in message.replies:
                        yield reply
        if isinstance(last, RequestEnded) and last.error is not None:
            await context.abort(status_of(last.error), str(last.error))

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
                self.streams.remove(output.request_id)

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
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, NO_ADAPTERS)
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
