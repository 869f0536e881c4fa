"""A client, a clock and a scope for tests of the HTTP layer. No sockets."""

from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.lifecycle import Lifecycle
from services.gateway.metrics import GatewayMetrics
from services.gateway.middleware import GenerationContext, Generations, RequestIds
from services.gateway.request_body import Bodies, BodyLimits
from services.gateway.scope import RequestScope, SequenceRecord, current_scope
from services.gateway.slo_inputs import Catalogue
from shared.clock import VirtualClock
from shared.requests import Admission, EngineRef, Placement, PlacementMode, Reason, SloTargets

LIMITS = BodyLimits(size_bytes=1000, time_s=1.0, values=100, keys=50)
CHAT = SloTargets(class_name="chat", ttft_s=0.5, tpot_s=0.05)
CATALOGUE = Catalogue(classes={"chat": CHAT}, default=SloTargets())
PREFILL = EngineRef(name="prefill-0", engine_id="p", address="127.0.0.1:1")
DECODE = EngineRef(name="decode-0", engine_id="d", address="127.0.0.1:2")
PLACED = Placement(
    decision_id="d-1",
    admission=Admission.ADMITTED,
    reason=Reason.NONE,
    way=PlacementMode.DISAGGREGATED,
    prefill=PREFILL,
    decode=DECODE,
    predicted_ttft_s=0.2,
    predicted_tpot_s=0.02,
)


@dataclass
class Answer:
    """What the client got."""

    messages: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def chunks(self) -> list[bytes]:
        return [one["body"] for one in self.messages[1:] if one["body"]]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        assert int(self.headers["content-length"]) == len(self.body)
        return orjson.loads(self.body)


def context(**changes: Any) -> GenerationContext:
    usual = GenerationContext(
        catalogue=CATALOGUE,
        lifecycle=Lifecycle(),
        metrics=GatewayMetrics({"chat"}, CollectorRegistry()),
        clock=VirtualClock(at_s=10.0),
    )
    return replace(usual, **changes)


async def call(
    app: ASGIApp,
    body: bytes | object = b"{}",
    *,
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    within: GenerationContext | None = None,
) -> Answer:
    """Posts to `app` inside our layers; the client stays until its answer is whole."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {"content-length": str(len(content))} | (headers or {})
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": raw}
    answer = Answer()
    layers = RequestIds(Bodies(Generations(app, within or context()), LIMITS))
    await layers(scope, receiver(content), answer.send)
    return answer


def receiver(*parts: bytes) -> Receive:
    """Gives the body in parts, then says that the client left."""
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
        for index, part in enumerate(parts)
    ]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive


def scope_now() -> RequestScope:
    scope = current_scope.get()
    assert scope is not None
    return scope


def request_scope(targets: SloTargets = CHAT, **changes: Any) -> RequestScope:
    """A request that arrived at 10 s."""
    return RequestScope(request_id="r", arrived_at_s=10.0, targets=targets, **changes)


def add_sequence(scope: RequestScope, **changes: Any) -> SequenceRecord:
    """A sequence in `scope`: placed, without a token yet."""
    request_id = f"s-{len(scope.sequences)}"
    record = SequenceRecord(request_id=request_id, prompt_tokens=3, placement=PLACED)
    for name, value in changes.items():
        setattr(record, name, value)
    scope.sequences[request_id] = record
    return record


def give_tokens(
    record: SequenceRecord, first_at_s: float = 10.1, last_at_s: float = 10.2, tokens: int = 11
) -> None:
    record.first_token_at_s, record.last_token_at_s = first_at_s, last_at_s
    record.output_tokens = tokens


async def start_stream(send: Send) -> None:
    kind = (b"content-type", b"text/event-stream; charset=utf-8")
    await send({"type": "http.response.start", "status": 200, "headers": [kind]})


async def send_chunks(send: Send, *chunks: bytes, more: bool = True) -> None:
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if not more:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_json(send: Send, answer: object, status: int = 200) -> None:
    body = orjson.dumps(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
