"""Checks API keys, if the operator set any, and finds the tenant's account of a key.

vLLM's own check covers a few URL prefixes; other paths generate text as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.http_errors import HttpError, send_error
from services.gateway.tenant_account import Account
from services.gateway.tenants import Tenants
from shared.errors import ConfigError

# Probes and scrapers send no key, and these pages show nothing of a request.
OPEN_PATHS: Final = frozenset(
    {"/live", "/ready", "/health", "/ping", "/version", "/metrics", "/load"}
)
ACCOUNT: Final = "slos.account"  # key of the ASGI scope
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
    """Refuses requests without a key of `tenants`, except on OPEN_PATHS; with no keys, all pass.

    Requests that pass have the account of their tenant in the ASGI scope.

    A key counts only as `Authorization: Bearer KEY`, as OpenAI's clients send it.
    """

    def __init__(self, app: ASGIApp, tenants: Tenants) -> None:
        self._app = app
        self._tenants = tenants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        account = self._account(scope)
        if account is not None:
            await self._app({**scope, ACCOUNT: account}, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await send_error(send, _UNKNOWN_KEY, path=scope["path"])

    def _account(self, scope: Scope) -> Account | None:
        # A browser's CORS preflight, an OPTIONS request, carries no key.
        is_open = scope["path"] in OPEN_PATHS or scope.get("method") == "OPTIONS"
        if is_open or self._tenants.is_open:
            return self._tenants.default
        authorization = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = authorization.partition(b" ")
        return self._tenants.of_key(key) if scheme.lower() == b"bearer" else None


def account_of(scope: Scope) -> Account:
    """The account of the request's tenant."""
    account: Account = scope.get(ACCOUNT) or Account()
    return account
