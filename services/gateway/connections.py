"""uvicorn's HTTP/1.1 protocol with limits on request heads and on idle connections."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.gateway import http_errors
from services.gateway.http_errors import HttpError
from shared.alarm import Alarm

_LINGER_S: Final = 2.0  # for the client to read an error while it still sends
_PER_HEADER_BYTES: Final = 4  # colon, space, end of line
_PHRASES: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """Limits on a request's head, its first line and headers: size and time to arrive."""

    size_bytes: int = 64 * 1024
    time_s: float = 10.0


class _HeadTooLarge(Exception):
    """Stops the parser, which reports it like any parse error."""


class LimitedProtocol(HttpToolsProtocol):  # type: ignore[misc] # uvicorn is untyped here
    """One connection.

    Clients that never read are limited elsewhere: uvicorn pauses the app at 64 KiB unsent, and the
    kernel closes such a connection after a time (`listener`).
    """

    def __init__(self, *args: Any, limits: HeadLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._too_long = Alarm(self._too_slow)  # for a head, or the rest of an answered body
        self._idle = Alarm(self._idle_for_long)
        self._refused = False
        self._in_head = True
        self._begun = False  # a message has begun
        self._unparsed_bytes = 0  # of a head that is not whole yet
        self._head_bytes = 0  # of the headers of this message, its trailers included
        self._error: HttpError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._too_long.set(self._limits.time_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._too_long.stop()
        self._idle.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._idle.stop()
        if self._in_head:
            self._begun = True
            self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._refused:
            return
        if self._in_head and self._unparsed_bytes > self._limits.size_bytes:
            self._refuse(http_errors.head_too_large(self._limits.size_bytes))
        elif not self._too_long.is_set and self._owes_something:
            self._too_long.set(self._limits.time_s)

    @property
    def _owes_something(self) -> bool:
        """Whether the client must still send the rest of a head, or of a body answered already."""
        if self._in_head:
            return self._begun
        return self.cycle is not None and self.cycle.response_complete

    # ---- what the parser finds -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._begun, self._head_bytes = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + _PER_HEADER_BYTES)
        if self._in_head:  # trailers are ignored
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._too_long.stop()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._begun, self._unparsed_bytes = True, False, 0
        self._too_long.stop()
        super().on_message_complete()

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self._limits.size_bytes:
            self._error = http_errors.head_too_large(self._limits.size_bytes)
            raise _HeadTooLarge

    # ---- what is refused -------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._error or http_errors.not_http(msg))

    def timeout_keep_alive_handler(self) -> None:
        self._idle.set(0.0)

    def _idle_for_long(self) -> None:
        """Closes the connection, at once if the client has not read its last answer."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _too_slow(self) -> None:
        if self.transport.is_closing():
            return
        if self._answers:  # a pipelined request; the one before it is being answered
            self._too_long.set(self._limits.time_s)
        elif self._in_head and self._begun:
            self._refuse(http_errors.head_too_slow(self._limits.time_s))
        else:
            self.transport.close()

    @property
    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, error: HttpError) -> None:
        """Sends the error in place of the app, and closes after time for the client to read it."""
        self._refused = True
        self._too_long.stop()
        if self.transport.is_closing():
            return
        if self._answers and self.cycle.response_started:
            self.transport.close()  # another answer has begun, and no error fits into it
            return
        body = error.body_bytes()
        headers = [*error.headers(body), (b"connection", b"close")]
        lines = [b"%s: %s\r\n" % pair for pair in headers]
        first = b"HTTP/1.1 %d %s\r\n" % (error.status, _PHRASES[error.status])
        self.transport.write(b"".join([first, *lines, b"\r\n", body]))
        self.loop.call_later(_LINGER_S, self.transport.close)
