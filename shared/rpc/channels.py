"""gRPC channels, servers, and a client of the planner, without retries."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import grpc

from shared.engines import EngineDescription, EngineView, Policy, ScaleAdvice, StepReport
from shared.errors import (
    EngineReplaced,
    PlannerUnavailable,
    RegistrationRefused,
    UnknownDecision,
)
from shared.requests import Explanation, Outcome, Placement, PlacementQuery, PrefixExport
from shared.rpc import codec, planner_codec
from shared.rpc import slos_pb2 as pb
from shared.rpc.consultation import Consultation, unavailable
from shared.rpc.identity import Identity
from shared.rpc.refusals import Refusals
from shared.rpc.slos_pb2_grpc import PlannerStub

MESSAGE_LIMIT_BYTES = 256 * 1024 * 1024  # a request may carry the tensors of images
PING_EVERY_MS = 5_000
PING_ANSWER_LIMIT_MS = 15_000

# Either side notices a vanished peer within twenty seconds; a peer on a machine that is starved for
# ten is kept. Callers that wait for a peer probe it earlier: see `TICK_S`.
_BOTH_SIDES = (
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.keepalive_time_ms", PING_EVERY_MS),
    ("grpc.keepalive_timeout_ms", PING_ANSWER_LIMIT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.ping_timeout_ms", PING_ANSWER_LIMIT_MS),
)
_CLIENT = (
    *_BOTH_SIDES,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # also the limit of one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),  # the environment's proxy is for other hosts
)
_SERVER = (
    *_BOTH_SIDES,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_EVERY_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
)


def open_channel(address: str, identity: Identity | None = None) -> grpc.aio.Channel:
    """A channel to `host:port`, unencrypted without an identity.

    It connects on first use; close it when done.
    """
    if identity is None:
        return grpc.aio.insecure_channel(address, options=_CLIENT)
    return grpc.aio.secure_channel(
        address, identity.for_channel(), options=(*_CLIENT, *identity.channel_options)
    )


def make_server() -> grpc.aio.Server:
    """A server with our limits; add services, then bind with `bind`."""
    return grpc.aio.server(options=_SERVER)


def bind(server: grpc.aio.Server, host: str, port: int) -> int:
    """Binds without encryption; returns the port (0 picks one). Raises OSError if it is taken."""
    return _bound(server.add_insecure_port, host, port)


def listen(host: str, port: int, identity: Identity | None) -> tuple[grpc.aio.Server, int]:
    """A bound server and its port (0 picks one); add services, then start it.

    With an identity it accepts only peers of the same cluster, and logs refused ones. Raises
    OSError if the port is taken.
    """
    if identity is None:
        server = make_server()
        return server, bind(server, host, port)
    refusals = Refusals()
    credentials = identity.for_server(refusals.begins)
    server = grpc.aio.server(options=_SERVER, interceptors=[refusals])
    refusals.port = _bound(lambda name: server.add_secure_port(name, credentials), host, port)
    return server, refusals.port


def _bound(add_port: Callable[[str], int], host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Try first: gRPC would write its own lines to stderr before it fails.
    with socket.create_server((host, port), family=family):
        pass
    name = f"[{host}]" if family is socket.AF_INET6 else host
    try:
        return add_port(f"{name}:{port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {name}:{port}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainingNotice:
    """An engine's message to the planner that it drains, or takes requests again."""

    draining: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A sign of life of the host.

    `overdue_s` is the time beyond its longest step for which its engine core, which has work, has
    made no progress.
    """

    overdue_s: float = 0.0


EngineNews = Sequence[StepReport] | DrainingNotice | Beat


class PlannerClient:
    """Client of the planner. Calls raise PlannerUnavailable if it cannot be reached.

    `limit_s` limits each call without its own limit, and the wait for a registration's verdict.
    """

    def __init__(
        self, address: str, identity: Identity | None = None, *, limit_s: float = 5.0
    ) -> None:
        self.address = address
        self._limit_s = limit_s
        self._channel = open_channel(address, identity)
        self._stub = PlannerStub(self._channel)
        self._consultation = Consultation(address, self._stub.Consult)

    async def close(self) -> None:
        """Ends every call that still runs."""
        await self._consultation.close()
        await self._channel.close(None)

    async def place(self, query: PlacementQuery, limit_s: float) -> Placement:
        """The planner's decision, or PlannerUnavailable after at most `limit_s`."""
        return await self._consultation.place(query, limit_s)

    async def settle(
        self, outcomes: Sequence[Outcome], exports: Sequence[PrefixExport] = ()
    ) -> None:
        """Reports how placed requests ended, whose reservations the planner frees, and what became
        of exports of prefixes.
        """
        await self._consultation.settle(outcomes, exports, self._limit_s)

    async def explain(self, decision_id: str) -> Explanation:
        """The record of a decision. Raises UnknownDecision if the planner has none."""
        request = pb.ExplainRequest(decision_id=decision_id)
        try:
            reply = await self._stub.Explain(request, timeout=self._limit_s)
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        if not reply.found:
            raise UnknownDecision(_unknown_decision_message(decision_id, reply))
        return planner_codec.explanation_from_wire(reply)

    async def scale(self, *, starting_prefill: int = 0, starting_decode: int = 0) -> ScaleAdvice:
        """The number of engines of each role that are needed.

        `starting_prefill` and `starting_decode` count engines that the caller has started and that
        have not registered yet.
        """
        request = pb.ScaleRequest(
            starting_prefill=starting_prefill, starting_decode=starting_decode
        )
        try:
            reply = await self._stub.Scale(request, timeout=self._limit_s)
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        return planner_codec.scale_from_wire(reply)

    async def watch(self) -> AsyncGenerator[list[EngineView], None]:
        """The attached engines, at once and at every change.

        Raises PlannerUnavailable when the planner ends; close the iterator to end it earlier.
        """
        call = self._stub.Watch(pb.WatchRequest())
        try:
            async for view in call:
                yield [planner_codec.view_from_wire(engine) for engine in view.engines]
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        finally:
            call.cancel()
        raise PlannerUnavailable(f"The planner at {self.address} ended the watch.")

    async def attach(
        self, description: EngineDescription, news: AsyncIterable[EngineNews]
    ) -> AsyncGenerator[Policy, None]:
        """Registers an engine and yields its policies; the first one arrives with the acceptance.

        Sends `news` as long as the stream lasts. Raises RegistrationRefused if the planner refuses
        the engine, and PlannerUnavailable when the planner ends. Close the iterator
        (`contextlib.aclosing`) to detach.
        """
        call = self._stub.Attach(_engine_messages(description, news))
        try:
            await self._await_acceptance(call)
            while isinstance(message := await call.read(), pb.PlannerMessage):
                if message.WhichOneof("kind") == "policy":
                    yield codec.policy_from_wire(message.policy)
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        finally:
            call.cancel()
        raise PlannerUnavailable(f"The planner at {self.address} ended the attachment.")

    async def _await_acceptance(
        self, call: grpc.aio.StreamStreamCall[pb.EngineMessage, pb.PlannerMessage]
    ) -> None:
        try:
            message = await asyncio.wait_for(call.read(), self._limit_s)
        except TimeoutError as error:
            raise PlannerUnavailable(
                f"The planner at {self.address} gave no verdict on the registration "
                f"in {self._limit_s:g} s."
            ) from error
        if not isinstance(message, pb.PlannerMessage):
            raise PlannerUnavailable(f"The planner at {self.address} ended without a verdict.")
        if message.verdict.replaced:
            raise EngineReplaced(message.verdict.message)
        if not message.verdict.accepted:
            raise RegistrationRefused(message.verdict.message)

    def _unavailable(self, error: grpc.aio.AioRpcError) -> PlannerUnavailable:
        return unavailable(self.address, error.code(), error.details())


async def _engine_messages(
    description: EngineDescription, news: AsyncIterable[EngineNews]
) -> AsyncIterator[pb.EngineMessage]:
    yield pb.EngineMessage(registration=codec.description_to_wire(description))
    async for item in news:
        if isinstance(item, DrainingNotice):
            yield pb.EngineMessage(draining=item.draining)
        elif isinstance(item, Beat):
            yield pb.EngineMessage(beat=pb.Beat(overdue_s=item.overdue_s))
        else:
            reports = [codec.report_to_wire(report) for report in item]
            yield pb.EngineMessage(reports=pb.StepReports(reports=reports))


def _unknown_decision_message(decision_id: str, reply: pb.ExplainReply) -> str:
    return (
        f"The planner knows no decision {decision_id}: it keeps the latest "
        f"{reply.kept_decisions} decisions, none from before its own start. "
        "The id is in the `slo` object of the answer."
    )
