import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.gateway.lifecycle import Lifecycle
from services.gateway.listener import bind
from services.gateway.server import serve_until_told
from shared.errors import ConfigError


class FakeServer:
    """Serves until it is told to exit."""

    def __init__(self, fails_with: Exception | None = None) -> None:
        self.should_exit = False
        self.fails_with = fails_with

    async def serve(self, sockets: list[socket.socket]) -> None:
        assert len(sockets) == 1
        while not self.should_exit:
            if self.fails_with:
                raise self.fails_with
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    lifecycle: Lifecycle, *, drain_limit_s: float, drain_quiet_s: float = 0.0
) -> AsyncIterator[FakeServer]:
    """Leaves once the server has ended."""
    server = FakeServer()
    with socket.socket() as listener:
        serve = serve_until_told(
            server,
            listener,
            lifecycle,
            drain_limit_s=drain_limit_s,
            drain_quiet_s=drain_quiet_s,
        )
        task = asyncio.create_task(serve)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        yield server
        await asyncio.wait_for(task, 5)
    assert server.should_exit


def told() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def until_draining(lifecycle: Lifecycle) -> None:
    while not lifecycle.draining:  # noqa: ASYNC110 - it tells nobody of the change
        await asyncio.sleep(0.001)


async def test_an_idle_server_ends_when_told() -> None:
    lifecycle = Lifecycle()
    async with serving(lifecycle, drain_limit_s=60):
        told()
    assert lifecycle.draining


async def test_requests_in_flight_may_finish() -> None:
    lifecycle = Lifecycle()
    async with serving(lifecycle, drain_limit_s=60) as server:
        with lifecycle.request():
            told()
            await until_draining(lifecycle)
            await asyncio.sleep(0.02)
            assert not server.should_exit


async def test_the_drain_has_a_limit() -> None:
    lifecycle = Lifecycle()
    with lifecycle.request():
        async with serving(lifecycle, drain_limit_s=0.01) as server:
            told()
        assert server.should_exit


async def until_stopping(lifecycle: Lifecycle) -> None:
    while not lifecycle.stopping:  # noqa: ASYNC110 - it tells nobody of the change
        await asyncio.sleep(0.001)


async def test_new_requests_are_served_while_the_quiet_time_lasts() -> None:
    lifecycle = Lifecycle()
    async with serving(lifecycle, drain_limit_s=60, drain_quiet_s=60) as server:
        told()
        await until_stopping(lifecycle)
        for _ in range(5):
            with lifecycle.request():
                await asyncio.sleep(0.005)
        assert not lifecycle.draining
        assert not server.should_exit
        told()


async def test_a_quiet_gateway_ends_long_before_the_limit() -> None:
    lifecycle = Lifecycle()
    async with serving(lifecycle, drain_limit_s=60, drain_quiet_s=0.01):
        told()
    assert lifecycle.draining


async def test_requests_that_never_cease_do_not_prolong_the_drain_beyond_its_limit() -> None:
    lifecycle = Lifecycle()
    async with serving(lifecycle, drain_limit_s=0.05, drain_quiet_s=60) as server:
        told()
        while not server.should_exit:
            with lifecycle.request():
                await asyncio.sleep(0.001)
    assert lifecycle.draining


async def test_a_second_signal_cuts_the_drain_short() -> None:
    lifecycle = Lifecycle()
    with lifecycle.request():
        async with serving(lifecycle, drain_limit_s=60) as server:
            told()
            await until_draining(lifecycle)
            assert not server.should_exit
            told()
        assert server.should_exit


async def test_a_server_that_fails_says_so() -> None:
    server = FakeServer(fails_with=OSError("no"))
    with socket.socket() as listener, pytest.raises(OSError, match="no"):
        await serve_until_told(server, listener, Lifecycle(), drain_limit_s=1)


def test_a_port_that_is_taken_is_one_line_with_the_cure() -> None:
    with bind("127.0.0.1", 0, 60.0) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match="SLOS_GATEWAY_PORT"):
            bind("127.0.0.1", taken.getsockname()[1], 60.0)
