"""Asks the parts of a node whether they are ready, over HTTP or gRPC."""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.node.plan import NodePlan, Part, Rank
from shared.clock import Clock
from shared.errors import PlannerUnavailable
from shared.rpc.channels import PlannerClient, open_channel
from shared.rpc.identity import Identity, identity_from, own_identity

_ANSWER_LIMIT_S: Final = 2.0
_ASK_EVERY_S: Final = 0.25
# Parts answer in plain HTTP; httpx would load the system's certificates at each question, which
# takes a tenth of a core while a node starts.
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

IsReady = Callable[[Part], Awaitable[bool]]


def identity_of(part: Part) -> Identity | None:
    """The part's TLS identity, from its own secret or that of this process, which it inherits.
    Raises ConfigError.
    """
    return identity_from(part.secret_file) or own_identity()


async def is_ready(part: Part) -> bool:
    """Asks the gateway at `/ready`, other parts by the standard gRPC health service."""
    if part.rank is Rank.GATEWAY:
        return await http_ok(f"{part.address}/ready")
    return await _grpc_ready(part)


async def is_alive(part: Part) -> bool:
    """As `is_ready`, but a gateway is alive without engines, too."""
    if part.rank is Rank.GATEWAY:
        return await http_ok(f"{part.address}/live")
    return await _grpc_ready(part)


async def wait_until_ready(part: Part, clock: Clock, ask: IsReady = is_ready) -> float:
    """Waits without a limit of its own; returns the seconds that it took."""
    started_at_s = clock.now()
    while not await ask(part):
        await clock.sleep(_ASK_EVERY_S)
    return clock.now() - started_at_s


async def wait_until_attached(plan: NodePlan, clock: Clock) -> None:
    """Waits until every engine has attached to the planner."""
    client = PlannerClient(plan.planner, identity_of(plan.parts[0]))
    try:
        while not await _attached(client, plan.engine_names):
            await clock.sleep(_ASK_EVERY_S)
    finally:
        await client.close()


async def _attached(client: PlannerClient, names: frozenset[str]) -> bool:
    try:
        async with aclosing(client.watch()) as views:
            async for view in views:
                if names <= {engine.description.name for engine in view}:
                    return True
    except PlannerUnavailable:
        pass
    return False


async def http_ok(url: str) -> bool:
    """Whether a URL of plain HTTP answers with 200."""
    try:
        async with httpx.AsyncClient(
            trust_env=False, timeout=_ANSWER_LIMIT_S, verify=_NO_TLS
        ) as client:
            return (await client.get(url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


async def _grpc_ready(part: Part) -> bool:
    async with open_channel(part.address, identity_of(part)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_LIMIT_S)
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
