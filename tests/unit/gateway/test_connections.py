"""The server's protocol over sockets of this machine."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from services.gateway.connections import HeadLimits, LimitedProtocol
from services.gateway.listener import bind
from tests.unit.gateway.http_fakes import send_json

REQUEST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n"
SOON_S = 10.0


async def body_then_answer(_scope: Scope, receive: Receive, send: Send) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send_json(send, {"size": len(body)})


async def answer_first(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send_json(send, {}, status=413)


@asynccontextmanager
async def served(
    app: Any = body_then_answer,
    *,
    size_bytes: int = 1000,
    time_s: float = 10.0,
    unread_limit_s: float = 60.0,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server of ours."""
    protocol: Any = partial(
        LimitedProtocol, limits=HeadLimits(size_bytes=size_bytes, time_s=time_s)
    )
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    listener = bind("127.0.0.1", 0, unread_limit_s)
    listener.listen()
    serving = asyncio.create_task(server._serve([listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await serving
        listener.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    async with asyncio.timeout(SOON_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split(" ")[1]), headers, orjson.loads(body)


async def ended(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(SOON_S):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


async def test_requests_follow_each_other_on_one_connection() -> None:
    async with served() as (reader, writer):
        for _ in range(3):
            writer.write(REQUEST + b"\r\n{}")
            assert (await read_answer(reader))[::2] == (200, {"size": 2})


@pytest.mark.parametrize("sent", [b"POST / HTTP/1.1\r\nhos", b"P", b"\r\n"])
async def test_half_a_head_is_answered_with_a_408_and_closed(sent: bytes) -> None:
    async with served(time_s=0.05) as (reader, writer):
        writer.write(sent)
        status, headers, body = await read_answer(reader)

        assert (status, headers["connection"]) == (408, "close")
        assert body["error"]["code"] == "headers_too_slow"
        assert await ended(reader)


async def test_a_head_that_trickles_in_has_no_more_time() -> None:
    async with served(time_s=0.2) as (reader, writer):
        for sign in REQUEST[:20]:
            writer.write(bytes([sign]))
            await asyncio.sleep(0.02)

        assert (await read_answer(reader))[0] == 408


async def test_the_head_of_a_later_request_has_the_same_time() -> None:
    async with served(time_s=0.05) as (reader, writer):
        writer.write(REQUEST + b"\r\n{}" + b"GET")
        assert (await read_answer(reader))[0] == 200

        assert (await read_answer(reader))[0] == 408


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with served(time_s=0.05) as (reader, _):
        assert await ended(reader)


async def test_a_body_that_takes_longer_than_a_head_may_is_left_alone() -> None:
    async with served(time_s=0.05) as (reader, writer):
        writer.write(REQUEST + b"\r\n{")
        await asyncio.sleep(0.15)
        writer.write(b"}")

        assert (await read_answer(reader))[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * 2000,
        b"GET / HTTP/1.1\r\nx: " + b"a" * 2000 + b"\r\n\r\n",
        b"GET /" + b"a" * 2000,
        b"GET / HTTP/1.1\r\n" + b"x: 1\r\n" * 400 + b"\r\n",
        REQUEST[:-19] + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"x: 1\r\n" * 400 + b"\r\n",
    ],
)
async def test_a_head_past_the_limit_is_a_431(head: bytes) -> None:
    async with served() as (reader, writer):
        writer.write(head)
        status, headers, body = await read_answer(reader)

        assert (status, headers["connection"]) == (431, "close")
        assert body["error"]["code"] == "headers_too_large"
        assert await ended(reader)


async def test_what_is_no_http_is_a_400_in_the_openai_shape() -> None:
    async with served() as (reader, writer):
        writer.write(b"\x16\x03\x01 no http\r\n\r\n")
        status, _, body = await read_answer(reader)

        assert (status, body["error"]["code"]) == (400, "invalid_http")


async def test_an_early_answer_reaches_a_client_that_still_sends() -> None:
    async with served(answer_first) as (reader, writer):
        writer.write(REQUEST.replace(b": 2", b": 3000000") + b"\r\n" + b"x" * 2_000_000)

        assert (await read_answer(reader))[0] == 413


async def test_a_client_that_was_answered_may_not_go_on_sending_for_ever() -> None:
    async with served(answer_first, time_s=0.1) as (reader, writer):
        writer.write(REQUEST.replace(b": 2", b": 30000") + b"\r\n")
        await read_answer(reader)
        for _ in range(5):
            writer.write(b"x")
            await asyncio.sleep(0.03)

        assert await ended(reader)


async def test_an_upgrade_is_served_as_a_plain_request() -> None:
    async with served() as (reader, writer):
        asks = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        writer.write(asks)

        assert (await read_answer(reader))[0] == 200


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel must know it")
async def test_a_client_that_never_reads_is_given_up_and_costs_little_until_then() -> None:
    sent_bytes, gone = 0, asyncio.Event()

    async def endless(_scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent_bytes
        await send({"type": "http.response.start", "status": 200, "headers": []})
        left = asyncio.create_task(client_left(receive))
        while not left.done():
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            sent_bytes += 65_536
        gone.set()

    async def client_left(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with served(endless, unread_limit_s=0.5) as (reader, writer):
        transport: Any = reader._transport  # type: ignore[attr-defined] # streams read by themselves
        transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")

        async with asyncio.timeout(30):
            await gone.wait()

    assert sent_bytes < 32 * 1024 * 1024  # what the kernel takes on a loopback connection
