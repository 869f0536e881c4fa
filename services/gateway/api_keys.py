"""Asks clients for an API key, where the operator set any. Knows no accounts and no rights.

vLLM's own check covers a few prefixes; text is generated outside of them as well.
"""

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.answer_gate import send_error
from services.gateway.http_errors import HttpError
from shared.errors import ConfigError

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


def all_keys(keys: Sequence[str], path: str) -> tuple[str, ...]:
    """`keys` and those of the file at `path`, one a line; an empty `path` names no file.

    A file without a key is an error: it would open the gateway to all. Raises ConfigError.
    """
    if not path:
        return tuple(keys)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_key_file: cannot read {path}: {error}") from error
    read = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not read:
        raise ConfigError(f"api_key_file: {path} holds no key; write one a line, or name no file")
    return (*keys, *read)


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
