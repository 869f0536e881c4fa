"""Asks clients for an API key, where the operator set any. Knows no accounts and no rights.

vLLM's own check covers a few prefixes; text is generated outside of them as well.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.answer_gate import send_error
from services.gateway.http_errors import HttpError

# What watches over the gateway sends no key, and learns nothing of any request.
OPEN_PATHS: Final = frozenset(
    {"/live", "/ready", "/health", "/ping", "/version", "/metrics", "/load"}
)
_UNKNOWN_KEY: Final = HttpError(
    status=401,
    type="AuthenticationError",
    code="invalid_api_key",
    message="This gateway asks for an API key; send one that it knows as `Authorization: Bearer`.",
)


class ApiKeys:
    """Refuses what comes without one of `keys`, but for OPEN_PATHS; with no keys, refuses nothing.

    A key counts only as `Authorization: Bearer KEY`, as OpenAI's clients send it.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._digests or scope["type"] == "lifespan" or self._may_pass(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await send_error(send, _UNKNOWN_KEY, path=scope["path"])

    def _may_pass(self, scope: Scope) -> bool:
        # A browser asks by OPTIONS, without a key, what it may send at all.
        is_open = scope["path"] in OPEN_PATHS or scope.get("method") == "OPTIONS"
        return is_open or self._knows(dict(scope["headers"]).get(b"authorization", b""))

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, key = authorization.partition(b" ")
        digest = _digest(key)
        # All are compared, and by digest, so that the time taken tells nothing of a key.
        fits = [secrets.compare_digest(digest, one) for one in self._digests]
        return scheme.lower() == b"bearer" and any(fits)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
