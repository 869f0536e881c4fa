"""ASGI layers that limit requests and connections, and answer unhandled exceptions."""

import logging
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway import http_errors
from services.gateway.api_keys import OPEN_PATHS
from services.gateway.http_errors import send_error
from services.gateway.middleware import client_id

_LOG = logging.getLogger(__name__)
_CLOSE: Final = (b"connection", b"close")


class Capacity:
    """Refuses requests above a limit in flight or of open connections, except on OPEN_PATHS."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        request_limit: int,
        connection_limit: int,
        connections: Callable[[], int],
    ) -> None:
        self.inflight_requests = 0
        self._app = app
        self._request_limit = request_limit
        self._connection_limit = connection_limit
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif self._connections() > self._connection_limit:
            error = http_errors.full(f"{self._connection_limit} connections")
            await send_error(send, error, path=scope["path"], headers=[_CLOSE])
        elif self.inflight_requests >= self._request_limit:
            error = http_errors.full(f"{self._request_limit} requests in flight")
            await send_error(send, error, path=scope["path"])
        else:
            self.inflight_requests += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self.inflight_requests -= 1


class Faults:
    """Turns an exception that no layer below has answered into a 500, and logs it once.

    The connection stays open if the answer is complete; without this layer the server closes it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = finished = False

        async def watched(message: Message) -> None:
            nonlocal started, finished
            started = True
            finished = finished or (
                message["type"] == "http.response.body" and not message.get("more_body", False)
            )
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http" or (started and not finished):
                raise
            _LOG.exception(
                "%s %s failed by an internal error (request id of its client: %s)",
                scope["method"],
                scope["path"],
                client_id(scope),
            )
            if not started:
                await send_error(send, http_errors.fault(), path=scope["path"])
