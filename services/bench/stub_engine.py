"""An engine without a model that answers every request at once, for measuring gateways.

`python -m services.bench.stub_engine` registers with a real planner and serves the engine's gRPC
interface until it is told to stop.
"""

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import grpc
import uvloop
import vllm
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason

from shared.addresses import Address
from shared.clock import Clock, MonotonicClock
from shared.engine.registration import Registration
from shared.engine.replies import Delivery, joined
from shared.engine.state import EngineState
from shared.engine.streams import RequestEnded
from shared.engine.wire import decode_request
from shared.engines import EngineDescription, Policy, Role, StepReport
from shared.entry import exit_status
from shared.options import load, option
from shared.rpc import codec
from shared.rpc import slos_pb2 as pb
from shared.rpc.channels import PlannerClient, listen
from shared.rpc.event_engine import without_event_engine
from shared.rpc.identity import own_identity
from shared.rpc.multiplex import Outbox, converse
from shared.rpc.slos_pb2_grpc import EngineServicer, add_EngineServicer_to_server

_REPORT_EVERY_S = 0.1
_KV_BLOCKS = 1 << 20  # so many that the planner never waits for room
_STEP_S = 1e-4  # the step time that the planner sees
_TOKEN = 65


@dataclass(frozen=True, slots=True, kw_only=True)
class StubOptions:
    """Options of the stub, a subset of an engine host's."""

    host: str = option("127.0.0.1", help="address to listen on")
    port: int = option(8200, help="port of the gRPC service; 0 picks one")
    planner: Address = option("127.0.0.1:8100", help="address of the planner")
    model: str = option("bench", help="name of the model that it claims to serve")
    max_model_len: int = option(2048, help="longest prompt plus answer in tokens")
    step_ms: float = option(0.0, help="time from one token of a request to its next")


class StubEngine(EngineServicer):
    """Sends each request its tokens one by one, `step_s` apart or as the connection takes them."""

    def __init__(self, description: EngineDescription, clock: Clock, step_s: float = 0.0) -> None:
        self._description = description
        self._clock = clock
        self._step_s = step_s
        self._giving: set[asyncio.Task[None]] = set()

    async def Serve(  # type: ignore[override] # noqa: N802 - writes, so that it ends at once
        self,
        request_iterator: AsyncIterator[pb.EngineOrders],
        context: "grpc.aio.ServicerContext[pb.EngineOrders, pb.EngineReplies]",
    ) -> None:
        outbox: Outbox[Delivery | RequestEnded] = Outbox()

        async def take(message: pb.EngineOrders) -> None:
            """Ignores aborts, since no request runs long, and releases, since there is no KV."""
            for order in message.orders:
                if order.HasField("start"):
                    giving = asyncio.create_task(self._give(order.start, outbox.put))
                    self._giving.add(giving)
                    giving.add_done_callback(self._giving.discard)

        await converse(outbox, joined, context.write, request_iterator, take)

    async def Generate(  # noqa: N802 - gRPC's name
        self,
        request: pb.GenerateRequest,
        context: "grpc.aio.ServicerContext[pb.GenerateRequest, pb.GenerateReply]",
    ) -> AsyncIterator[pb.GenerateReply]:
        del context
        given: list[Delivery] = []
        await self._give(request, given.append)
        for one in given:
            for message in joined([one]):
                yield message.replies[0]

    async def _give(self, request: pb.GenerateRequest, give: Callable[[Delivery], None]) -> None:
        """Gives one output at a time, as if each came from a step that all requests share."""
        asked = decode_request(request.request)
        tokens = (asked.sampling_params.max_tokens or 1) if asked.sampling_params else 0
        for at in range(tokens):
            output = _output(asked, last=at == tokens - 1)
            give(Delivery(output, self._clock.now(), ""))
            await self._clock.sleep(self._step_s)

    async def Describe(  # noqa: N802 - gRPC's name
        self,
        request: pb.DescribeRequest,
        context: "grpc.aio.ServicerContext[pb.DescribeRequest, pb.EngineDescription]",
    ) -> pb.EngineDescription:
        del request, context
        return codec.description_to_wire(self._description)

    async def Drain(  # noqa: N802 - gRPC's name
        self,
        request: pb.DrainRequest,
        context: "grpc.aio.ServicerContext[pb.DrainRequest, pb.DrainReply]",
    ) -> pb.DrainReply:
        del request, context
        return pb.DrainReply()

    async def Undrain(  # noqa: N802 - gRPC's name
        self,
        request: pb.UndrainRequest,
        context: "grpc.aio.ServicerContext[pb.UndrainRequest, pb.UndrainReply]",
    ) -> pb.UndrainReply:
        del request, context
        return pb.UndrainReply()

    async def LoadAdapter(  # noqa: N802 - gRPC's name
        self,
        request: pb.LoadAdapterRequest,
        context: "grpc.aio.ServicerContext[pb.LoadAdapterRequest, pb.LoadAdapterReply]",
    ) -> pb.LoadAdapterReply:
        del request, context
        return pb.LoadAdapterReply()

    async def Health(  # noqa: N802 - gRPC's name
        self,
        request: pb.HealthRequest,
        context: "grpc.aio.ServicerContext[pb.HealthRequest, pb.HealthReply]",
    ) -> pb.HealthReply:
        del request, context
        return pb.HealthReply(serving=True, kv_blocks=_KV_BLOCKS, free_kv_blocks=_KV_BLOCKS)


def _output(asked: EngineCoreRequest, *, last: bool) -> EngineCoreOutput:
    return EngineCoreOutput(
        request_id=asked.request_id,
        new_token_ids=[_TOKEN],
        finish_reason=FinishReason.LENGTH if last else None,
    )


def describe(options: StubOptions) -> EngineDescription:
    address = f"{options.host}:{options.port}"
    return EngineDescription(
        name=f"stub-{address}",
        engine_id=uuid.uuid4().hex,
        role=Role.DECODE,
        address=address,
        model=options.model,
        vllm_version=vllm.__version__,
        block_size_tokens=32,
        kv_blocks=_KV_BLOCKS,
        kv_bytes_per_token=1,
        max_model_len_tokens=options.max_model_len,
        max_running_requests=1024,
        max_step_tokens=1 << 16,
        max_speculation_tokens=0,
    )


async def report_steps(state: EngineState, clock: Clock) -> None:
    """Reports invented steps, so that the planner can predict, until cancelled."""
    step = 0
    while True:
        step += 1
        tokens = 1 + step % 32  # the planner fits a line through different sizes
        state.take(_report(step, tokens, clock.now()))
        await clock.sleep(_REPORT_EVERY_S)


def _report(step: int, tokens: int, now_s: float) -> StepReport:
    return StepReport(
        step=step,
        ended_at_s=now_s,
        duration_s=_STEP_S + 1e-7 * tokens,
        prefill_tokens=16 * tokens,
        decode_tokens=tokens,
        decode_context_tokens=64 * tokens,
        speculated_tokens=0,
        accepted_tokens=0,
        running=0,
        waiting=0,
        queued_prefill_tokens=0,
        free_kv_blocks=_KV_BLOCKS,
    )


async def run(options: StubOptions) -> int:
    """Serves until SIGTERM or SIGINT."""
    clock, identity = MonotonicClock(), own_identity()
    server, _ = listen(options.host, options.port, identity)
    state, planner = EngineState(describe(options)), PlannerClient(options.planner, identity)
    stub = StubEngine(state.description, clock, options.step_ms / 1000)
    add_EngineServicer_to_server(stub, server)
    healthy = health.aio.HealthServicer()  # type: ignore[attr-defined] # unknown to the stubs
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    await server.start()
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    tasks = [
        asyncio.create_task(report_steps(state, clock)),
        asyncio.create_task(_registration(state, planner, clock).keep()),
    ]
    try:
        await _told_to_stop()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await planner.close()
        await server.stop(None)
    return 0


def _registration(state: EngineState, planner: PlannerClient, clock: Clock) -> Registration:
    async def ignore(policy: Policy) -> None:
        del policy

    return Registration(
        client=planner,
        state=state,
        clock=clock,
        on_policy=ignore,
        report_every_s=_REPORT_EVERY_S,
    )


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def main(argv: Sequence[str]) -> int:
    options = load(
        StubOptions, section="bench_stub", argv=argv, environ=os.environ, prog="bench stub engine"
    )
    without_event_engine(os.environ)
    status: int = uvloop.run(run(options))
    return status


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="bench stub engine"))
