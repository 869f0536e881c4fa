"""Has an engine export a cached prefix, so that the engine of a request pulls it over KV."""

import asyncio
from contextlib import aclosing

from vllm.v1.engine import EngineCoreRequest

from services.gateway.continuation import Prefilled, export_request, read_prefill
from services.gateway.engine_calls import Engines, Reply
from services.gateway.engine_health import EngineHealth
from services.gateway.moves import MOVABLE
from shared.errors import EngineLost, EngineUnreachable
from shared.requests import PrefixSource
from shared.rpc import slos_pb2 as pb


async def export_prefix(
    request: EngineCoreRequest,
    source: PrefixSource,
    terms: pb.EngineTerms,
    engines: Engines,
    health: EngineHealth,
) -> Prefilled | None:
    """Reserves the cached blocks of the request's prompt on `source.engine`.

    Returns where they are to be pulled from, or None if the engine fails, refuses, or takes longer
    than `source.limit_s`; the prefix is then computed. Blocks that are not pulled must be released.
    A call that is cancelled, or beyond its limit, releases them itself.
    """
    exporting = asyncio.create_task(_export(request, source, terms, engines, health))
    try:
        async with asyncio.timeout(source.limit_s):
            # Shielded: if it ends just when the engine has reserved the blocks, the reply that
            # names them must still arrive.
            return await asyncio.shield(exporting)
    except TimeoutError:
        engines.wind_up(source.engine, request.request_id, exporting)
        return None
    except asyncio.CancelledError:
        engines.wind_up(source.engine, request.request_id, exporting)
        raise


async def _export(
    request: EngineCoreRequest,
    source: PrefixSource,
    terms: pb.EngineTerms,
    engines: Engines,
    health: EngineHealth,
) -> Prefilled | None:
    last: Reply | None = None
    try:
        replies = engines.generate(source.engine, export_request(request, source.tokens), terms)
        async with aclosing(replies):
            async for reply in replies:
                last = reply
                if reply.outputs[-1].finish_reason is not None:
                    break
    except MOVABLE as error:
        if isinstance(error, EngineLost):
            health.failed(source.engine, at_once=isinstance(error, EngineUnreachable))
        return None
    return None if last is None else read_prefill(last.outputs[-1], last.weight_version)
