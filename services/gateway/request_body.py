"""Reads request bodies within limits of size, time and content, and takes our `slo` out of them."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway import http_errors
from services.gateway.http_errors import HttpError, send_error
from services.gateway.json_shape import JsonShape, at_most, shape_of
from shared.alarm import time_limit
from shared.errors import InvalidRequest

MOST_DEPTH: Final = 128  # twice what vLLM lets a schema nest; Python's parser ends near 1,000
LARGEST_AT_ONCE: Final = 64
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SURROGATES: Final = (b"\\ud", b"\\uD")


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What a client may send in one body.

    `values` and `keys` bound the time for which parsing and validating stop the event loop: about
    0.5 us for a value and 7 us for a key of an object. Bodies live as long as their requests;
    `largest_at_once` is how many of the largest size may be held at once.
    """

    size_bytes: int = 8 * 1024 * 1024
    time_s: float = 60.0
    values: int = 250_000
    keys: int = 10_000
    largest_at_once: int = LARGEST_AT_ONCE


class Bodies:
    """Reads each body as a whole before the app sees its request, and refuses it above a limit."""

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        if isinstance(body, bytes):
            error = await judge(body, self._limits)
            body = error if error is not None else body
        if isinstance(body, HttpError):
            await send_error(send, body, path=scope["path"])
        elif body is not None:
            await self._serve(scope, receive, send, body)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | HttpError | None:
        if self._held_bytes > self._limits.largest_at_once * self._limits.size_bytes:
            return http_errors.full("bodies of requests in flight")
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > self._limits.size_bytes:
            return http_errors.too_large(self._limits.size_bytes)
        return await read_body(
            receive, limit_bytes=self._limits.size_bytes, limit_s=self._limits.time_s
        )

    async def _serve(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        self._held_bytes += len(body)
        try:
            await self._app(scope, replay(body, receive), send)
        finally:
            self._held_bytes -= len(body)


async def read_body(
    receive: Receive, *, limit_bytes: int, limit_s: float
) -> bytes | HttpError | None:
    """The whole body; an error past a limit; None when the client went away before its end."""
    try:
        async with time_limit(limit_s):
            return await _read_within(receive, limit_bytes)
    except TimeoutError:
        return http_errors.too_slow(limit_s)


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
            return http_errors.too_large(limit_bytes)
        if not message.get("more_body", False):
            return b"".join(parts)


async def judge(body: bytes, limits: BodyLimits) -> HttpError | None:
    """The error of a body before it is parsed; None if it is within all limits."""
    error = _too_much(at_most(body), limits)
    if error is not None:  # the bound may be too high: count exactly
        error = _too_much(await asyncio.to_thread(shape_of, body), limits)
    if error is None and any(sign in body for sign in _SURROGATES):
        return _lone_surrogate(body)
    return error


def _too_much(shape: JsonShape, limits: BodyLimits) -> HttpError | None:
    counted = (
        (shape.depth, MOST_DEPTH, "levels of arrays and objects"),
        (shape.values, limits.values, "values"),
        (shape.keys, limits.keys, "keys of objects"),
    )
    for count, limit, what in counted:
        if count > limit:
            return http_errors.too_complex(count, limit, what)
    return None


def _lone_surrogate(body: bytes) -> HttpError | None:
    """The error for text without a UTF-8 form, which would fail wherever it is encoded."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None  # the next parser reports it
    for path, text in _texts(parsed):
        try:
            text.encode()
        except UnicodeEncodeError:
            return http_errors.not_unicode(path)
    return None


def _texts(parsed: Any) -> Iterator[tuple[str, str]]:
    """All texts with their places, as in `stop[0]`; keys with the place of their object."""
    waiting: list[tuple[str, Any]] = [("", parsed)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path or "body", value
        elif isinstance(value, list):
            waiting += [(f"{path}[{at}]", one) for at, one in enumerate(value)]
        elif isinstance(value, dict):
            for key, one in value.items():
                yield path or "body", key
                waiting.append((f"{path}.{key}" if path else key, one))


def take_slo(body: bytes) -> tuple[bytes, object]:
    """The body without its top-level `slo`, and what stood there (None without one).

    A body that has no such key comes back byte for byte. One that is not JSON is left to vLLM to
    refuse. If it seems to carry our key, it raises InvalidRequest, so that no target is dropped
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


def model_of(body: bytes) -> str | None:
    """The model that a body names; None where it names none, or is not JSON."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    named = request.get("model") if isinstance(request, dict) else None
    return named if isinstance(named, str) else None


def with_length(scope: Scope, body: bytes) -> Scope:
    """The ASGI scope with the `content-length` that `body` has."""
    length = (b"content-length", str(len(body)).encode())
    headers = [
        length if name == b"content-length" else (name, value) for name, value in scope["headers"]
    ]
    return {**scope, "headers": headers}


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns `body` first, then the server's messages (a disconnect)."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_next() -> Message:
        return pending.pop() if pending else await receive()

    return receive_next
