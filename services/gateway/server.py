"""Serves an ASGI app until a signal, then drains requests in flight and cuts off the rest."""

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from vllm.entrypoints.launchers.launcher import NoSignalServer

from services.gateway.connections import HeadLimits, LimitedProtocol
from services.gateway.lifecycle import Lifecycle

_LOG = logging.getLogger(__name__)
_CUT_S: Final = 1  # how long uvicorn waits for answers after the drain
_LAST_WAIT_S: Final = 10.0


def make_server(
    app: ASGIApp, *, access_log: bool, head_limits: HeadLimits, idle_limit_s: float
) -> uvicorn.Server:
    """A uvicorn server that installs no signal handlers."""
    protocol: Any = partial(LimitedProtocol, limits=head_limits)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        log_level="info" if access_log else "warning",
        access_log=access_log,
        timeout_keep_alive=idle_limit_s,
        timeout_graceful_shutdown=_CUT_S,
    )
    return NoSignalServer(config)


async def serve_until_told(
    server: uvicorn.Server,
    listener: socket.socket,
    lifecycle: Lifecycle,
    *,
    drain_limit_s: float,
    drain_quiet_s: float = 0.0,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal cuts the drain short."""
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        with _signals() as (first, second):
            await _first_of(serving, first.wait())
            if not serving.done():
                _LOG.info("draining: %d requests in flight", lifecycle.inflight_requests)
                drain = lifecycle.drain(drain_limit_s, drain_quiet_s)
                await _first_of(serving, drain, second.wait())
    finally:
        server.should_exit = True
        await _end(serving)
    if lifecycle.inflight_requests:
        _LOG.warning("cut off %d requests", lifecycle.inflight_requests)


@contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Events for the first and for the second SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    first, second = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (second if first.is_set() else first).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    try:
        yield first, second
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _first_of(serving: asyncio.Task[None], *events: Coroutine[Any, Any, object]) -> None:
    """Waits until one of them is done, then cancels all but `serving`."""
    waits = [asyncio.create_task(event) for event in events]
    try:
        await asyncio.wait([serving, *waits], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _end(serving: asyncio.Task[None]) -> None:
    """Waits for the server, which was told to exit; raises what it failed with."""
    await asyncio.wait([serving], timeout=_LAST_WAIT_S)
    if not serving.done():
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    elif not serving.cancelled():
        serving.result()
