"""The ASGI layers around the app: request ids, and the scope of each generation."""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway import http_errors
from services.gateway.answer_gate import AnswerGate
from services.gateway.api_keys import account_of
from services.gateway.http_errors import send_error
from services.gateway.input_faults import OF_BAD_INPUT, as_invalid
from services.gateway.lifecycle import Lifecycle
from services.gateway.metrics import GatewayMetrics
from services.gateway.request_body import model_of, replay, take_slo, with_length
from services.gateway.scope import RequestScope, current_scope
from services.gateway.slo_inputs import Catalogue, read_inputs
from services.gateway.tenant_account import Account, Tenant
from shared.clock import Clock
from shared.errors import EngineDraining, InvalidRequest, NotAllowed, OverLimit, SlosError

GENERATION_PATHS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/inference/v1/generate",
        "/generative_scoring",
        "/invocations",
    }
)
LONGEST_REQUEST_ID: Final = 128
CLIENT_ID: Final = "slos.client_id"  # key of the ASGI scope
_REQUEST_ID: Final = b"x-request-id"


class RequestIds:
    """Gives every request a unique id, and answers with the client's `x-request-id`.

    The client's id is for logs only, since two clients may send the same one. One that is not fit
    for logs is replaced by ours.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(_REQUEST_ID, b"")
        ours = uuid.uuid4().hex.encode()
        named = given if _is_fit(given) else ours
        others = [pair for pair in scope["headers"] if pair[0] != _REQUEST_ID]
        inner = {**scope, "headers": [*others, (_REQUEST_ID, ours)], CLIENT_ID: named.decode()}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (_REQUEST_ID, named)]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(inner, receive, send_with_id)


def client_id(scope: Scope) -> str:
    """The client's id of its request; for logs only."""
    named: str = scope.get(CLIENT_ID, "")
    return named


def _is_fit(request_id: bytes) -> bool:
    visible = all(0x21 <= byte <= 0x7E for byte in request_id)
    return 0 < len(request_id) <= LONGEST_REQUEST_ID and visible


class LastAnswers:
    """Ends each connection with its next answer once the gateway is told to stop.

    A client that keeps its connection would otherwise go on sending requests here.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._lifecycle.stopping:
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_last)


@dataclass(slots=True, kw_only=True)
class GenerationContext:
    """The collaborators of the generation layer."""

    catalogue: Catalogue
    lifecycle: Lifecycle
    metrics: GatewayMetrics
    clock: Clock
    model: str = ""  # of a request that names none


class Generations:
    """Opens a RequestScope around each generation, and turns its failure into an HTTP error."""

    def __init__(self, app: ASGIApp, context: GenerationContext) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _generates(scope):
            await self._pass(scope, receive, send)
            return
        path = _path(scope)
        if self._context.lifecycle.draining:
            await send_error(send, http_errors.draining(), path=path)
            return
        account = account_of(scope)
        try:
            with self._context.lifecycle.request(), account.request(self._context.clock.now()):
                await self._serve(scope, receive, send, account)
        except OverLimit as error:
            self._context.metrics.limited(account.tenant.name, error.limit)
            await send_error(send, http_errors.from_failure(error, None), path=path)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes other requests on without a scope; input that they cannot read is a 400."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except OF_BAD_INPUT as error:
            if started or scope["type"] != "http":
                raise
            invalid = http_errors.from_failure(as_invalid(error), None)
            await send_error(send, invalid, path=_path(scope))

    async def _serve(self, scope: Scope, receive: Receive, send: Send, account: Account) -> None:
        arrived_at_s = self._context.clock.now()
        message = await receive()  # the body as a whole, which `Bodies` has read
        if message["type"] == "http.disconnect":
            return
        body = message["body"]
        try:
            inner_body, slo = take_slo(body)
            request = self._open(scope, slo, account, arrived_at_s)
            self._check_rights(account.tenant, request, body)
        except (InvalidRequest, NotAllowed) as error:
            await send_error(send, http_errors.from_failure(error, None), path=_path(scope))
            return
        inner = scope if inner_body is body else with_length(scope, inner_body)
        await self._run(inner, replay(inner_body, receive), send, request)

    def _check_rights(self, tenant: Tenant, request: RequestScope, body: bytes) -> None:
        """Raises NotAllowed."""
        tenant.check_class(request.targets.class_name)
        if tenant.models is not None:
            tenant.check_model(model_of(body) or self._context.model)

    def _open(
        self, scope: Scope, slo: object, account: Account, arrived_at_s: float
    ) -> RequestScope:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        inputs = read_inputs(slo, headers, self._context.catalogue)
        return RequestScope(
            request_id=headers.get(_REQUEST_ID.decode()) or uuid.uuid4().hex,
            client_id=client_id(scope),
            arrived_at_s=arrived_at_s,
            targets=inputs.targets,
            forced_way=inputs.forced_way,
            session_id=inputs.session_id,
            wants_report=inputs.wants_report,
            account=account,
        )

    async def _run(self, scope: Scope, receive: Receive, send: Send, request: RequestScope) -> None:
        gate = AnswerGate(scope=request, send=send, path=_path(scope))
        watched = _Watched(receive, gate)
        token = current_scope.set(request)
        self._context.metrics.started()
        try:
            await self._app(scope, watched, gate)
        except asyncio.CancelledError:
            if self._context.lifecycle.draining:
                await gate.fail(EngineDraining("this gateway was stopped; send the request again"))
            raise
        except Exception as error:
            failure = request.failure or error
            if isinstance(error, OF_BAD_INPUT) and not request.sequences:
                failure = request.failure or as_invalid(error)
            if not isinstance(failure, SlosError):
                raise
            await gate.fail(failure)
        finally:
            current_scope.reset(token)
            self._context.metrics.ended(request, _outcome(request, gate, watched.client_gone))


class _Watched:
    """A `receive` that remembers whether the client left before its answer was whole."""

    def __init__(self, receive: Receive, gate: AnswerGate) -> None:
        self.client_gone = False
        self._receive = receive
        self._gate = gate

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._gate.finished:
            self.client_gone = True
        return message


def _outcome(request: RequestScope, gate: AnswerGate, client_gone: bool) -> str:
    if client_gone:
        return "aborted"
    if gate.status == 429 or (gate.status == 400 and request.failure is not None):
        return "refused"
    if request.failure is not None or not gate.finished or (gate.status or 500) >= 500:
        return "failed"
    return "invalid" if (gate.status or 0) >= 400 else "ok"


def _generates(scope: Scope) -> bool:
    return (
        scope["type"] == "http" and scope["method"] == "POST" and _path(scope) in GENERATION_PATHS
    )


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
