"""A link passes bytes on, holds them back, delays them, or ends the connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import pytest_asyncio

from services.bench.chaos.links import Link
from shared.ports import LOOPBACK, FreePorts

LIMIT_S = 30.0
QUIET_S = 0.2  # in which nothing comes


@dataclass
class Pair:
    """A client behind the link and an echo before it."""

    link: Link

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.link.here)

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"hello")
        async with asyncio.timeout(LIMIT_S):
            return await reader.readexactly(5)


async def ends(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(100):
                writer.write(piece)
        writer.close()

    with FreePorts() as ports:
        port = ports.pick()
    server = await asyncio.start_server(answer, LOOPBACK, 0)
    link = Link(name="a", here=(LOOPBACK, port), there=server.sockets[0].getsockname()[:2])
    await link.open()
    yield Pair(link)
    await link.close()
    server.close()
    await server.wait_closed()


async def test_what_is_sent_comes_through_both_ways(pair: Pair) -> None:
    reader, writer = await pair.connect()

    assert await pair.echo(reader, writer) == b"hello"
    writer.close()


async def test_what_a_silent_link_holds_back_arrives_when_it_is_mended(pair: Pair) -> None:
    reader, writer = await pair.connect()
    await pair.echo(reader, writer)

    pair.link.silence()
    asked = asyncio.create_task(pair.echo(reader, writer))
    await asyncio.sleep(QUIET_S)
    assert not asked.done()
    pair.link.mend()

    assert await asked == b"hello"
    writer.close()


async def test_a_cut_ends_connections_and_new_ones_until_it_is_mended(pair: Pair) -> None:
    reader, writer = await pair.connect()
    await pair.echo(reader, writer)

    pair.link.cut()
    new_reader, new_writer = await pair.connect()
    await ends(reader)
    await ends(new_reader)
    pair.link.mend()
    mended_reader, mended_writer = await pair.connect()

    assert await pair.echo(mended_reader, mended_writer) == b"hello"
    for one in (writer, new_writer, mended_writer):
        one.close()


async def test_a_late_link_keeps_the_order_of_what_it_passes(pair: Pair) -> None:
    reader, writer = await pair.connect()
    pair.link.delay_s = 0.01

    sent = b"".join(b"%05d" % number for number in range(100))
    for at in range(0, len(sent), 50):
        writer.write(sent[at : at + 50])
        await writer.drain()
    async with asyncio.timeout(LIMIT_S):
        assert await reader.readexactly(len(sent)) == sent
    writer.close()


async def test_a_link_to_a_closed_port_ends_connections(pair: Pair) -> None:
    with FreePorts() as ports:
        closed = ports.pick()
    pair.link.there = (LOOPBACK, closed)

    reader, writer = await pair.connect()

    await ends(reader)
    writer.close()
