"""Reads a request body within limits and takes our `slo` key out of it. Judges nothing in it."""

import asyncio

import orjson
from starlette.types import Message, Receive, Scope

from services.gateway.http_errors import HttpError, too_large, too_slow
from shared.errors import InvalidRequest


async def read_body(
    receive: Receive, *, limit_bytes: int, limit_s: float
) -> bytes | HttpError | None:
    """The whole body; an error past a limit; None when the client went away before its end."""
    try:
        async with asyncio.timeout(limit_s):
            return await _read_within(receive, limit_bytes)
    except TimeoutError:
        return too_slow(limit_s)


async def _read_within(receive: Receive, limit_bytes: int) -> bytes | HttpError | None:
    parts: list[bytes] = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > limit_bytes:
            return too_large(limit_bytes)
        if not message.get("more_body", False):
            return b"".join(parts)


def take_slo(body: bytes) -> tuple[bytes, object]:
    """The body without its top-level `slo`, and what stood there (None without one).

    A body that has no such key comes back byte for byte. One that is not JSON is left to vLLM to
    refuse, unless it seems to carry our key: then it raises InvalidRequest, lest targets be dropped
    silently.
    """
    if b'"slo"' not in body:
        return body, None
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the request body is not JSON: {error}", param="body") from error
    if not isinstance(request, dict) or "slo" not in request:
        return body, None
    slo = request.pop("slo")
    return orjson.dumps(request), slo


def with_length(scope: Scope, body: bytes) -> Scope:
    """The ASGI scope with the `content-length` that `body` has."""
    length = (b"content-length", str(len(body)).encode())
    headers = [
        length if name == b"content-length" else (name, value) for name, value in scope["headers"]
    ]
    return {**scope, "headers": headers}


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` first and then what the server says: that the client left."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_next() -> Message:
        return pending.pop() if pending else await receive()

    return receive_next
