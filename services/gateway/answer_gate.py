"""Delays the start of an HTTP answer until its first token, its end or a failure is known."""

from collections.abc import Callable
from typing import Any, Final

from starlette.types import Message, Send

from services.gateway.answer_report import StreamReporter, add_to_json, name_incomplete
from services.gateway.error_bodies import rewrite_event
from services.gateway.http_errors import HttpError, RawHeaders, from_failure, send_error
from services.gateway.input_faults import of_answer
from services.gateway.report import decision_ids, slo_report
from services.gateway.scope import RequestScope
from shared.errors import SlosError

_ERROR_EVENTS: Final = (b'data: {"error"', b"event: error", b"event: response.failed")


class AnswerGate:
    """The `send` that the app gets.

    vLLM starts a stream's answer (200) before the request is placed. Here the start waits for the
    first token, the end of the answer, or a failure, which then is a true HTTP error. Later chunks
    pass as they are.
    """

    def __init__(self, *, scope: RequestScope, send: Send, path: str) -> None:
        self.status: int | None = None  # None: the client has seen nothing yet
        self.finished = False
        self._scope = scope
        self._send = send
        self._path = path
        self._start: Message | None = None
        self._held: list[bytes] = []
        self._rewrite: Callable[[bytes], bytes] | None = None

    async def __call__(self, message: Message) -> None:
        if self.finished:
            return  # the app still reports a failure that was answered already
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self.status is None:
            await self._hold(message.get("body", b""), message.get("more_body", False))
        else:
            await self._forward(message)

    async def fail(self, failure: SlosError) -> None:
        """Ends the answer: as an HTTP error if nothing has left yet, else with a last event."""
        if self.finished:
            return
        error = from_failure(failure, self._scope)
        if self.status is None:
            self.finished, self.status = True, error.status
            await send_error(self._send, error, path=self._path, headers=self._slo_headers())
        elif self._is_stream:
            self.finished = True
            await self._send_body(_error_event(error, self._path), more=False)

    async def _hold(self, chunk: bytes, more: bool) -> None:
        if self._scope.failure is not None:
            await self.fail(self._scope.failure)
            return
        self._held.append(chunk)
        if more and not self._has_token:
            return
        chunks, self._held = self._held, []
        unread = None if self._scope.sequences else self._fault_of_input(chunks)
        if unread is not None:
            await self.fail(unread)
            return
        if not self._is_stream and not more:
            chunks = [self._whole(b"".join(chunks))]
        await self._release()
        for index, one in enumerate(chunks):
            last = index == len(chunks) - 1
            await self._forward({"body": one, "more_body": more or not last})

    def _fault_of_input(self, chunks: list[bytes]) -> SlosError | None:
        """The error for a 500 of vLLM before any placement: vLLM could not read the request."""
        assert self._start is not None
        return of_answer(self._start["status"], b"".join(chunks))

    def _whole(self, body: bytes) -> bytes:
        """Adds the report to a complete JSON answer and corrects its `content-length`."""
        assert self._start is not None
        is_json = _header(self._start, b"content-type").startswith(b"application/json")
        if not (self._scope.wants_report and is_json and self._start["status"] == 200):
            return body
        body = add_to_json(body, self._report)
        kept = [pair for pair in self._start["headers"] if pair[0].lower() != b"content-length"]
        self._start["headers"] = [*kept, (b"content-length", str(len(body)).encode())]
        return body

    async def _release(self) -> None:
        assert self._start is not None
        self.status = self._start["status"]
        if self._is_stream and self._scope.wants_report:
            self._rewrite = StreamReporter(self._report).rewrite
        headers = [*self._start.get("headers", ()), *self._slo_headers()]
        await self._send({**self._start, "headers": headers})

    async def _forward(self, message: Message) -> None:
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if self._scope.failure is None and body.startswith(_ERROR_EVENTS):
            body = rewrite_event(body, self._path)
        if self._scope.failure is not None and body.startswith(_ERROR_EVENTS):
            body = _error_event(from_failure(self._scope.failure, self._scope), self._path)
        else:
            body = name_incomplete(body)
            if self._rewrite is not None:
                body = self._rewrite(body)
        self.finished = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    @property
    def _is_stream(self) -> bool:
        return self._start is not None and _header(self._start, b"content-type").startswith(
            b"text/event-stream"
        )

    @property
    def _has_token(self) -> bool:
        sequences = self._scope.sequences.values()
        return any(one.first_token_at_s is not None for one in sequences)

    def _report(self) -> dict[str, Any]:
        return slo_report(self._scope)

    def _slo_headers(self) -> RawHeaders:
        """Headers known when the answer starts; the report has the ids of all decisions."""
        headers = [(b"x-slo-decision-id", one.encode()) for one in decision_ids(self._scope)[:1]]
        placements = (one.placement for one in self._scope.sequences.values())
        ways = {placement.way.value for placement in placements if placement and placement.runs}
        if ways:
            headers.append((b"x-slo-way", ", ".join(sorted(ways)).encode()))
        return headers


def _error_event(error: HttpError, path: str) -> bytes:
    """The error inside a stream, as a named event where the protocol names its events."""
    named = b"event: error\n" if path in {"/v1/messages", "/v1/responses"} else b""
    return named + b"data: " + error.body_bytes(path=path) + b"\n\n"


def _header(start: Message, name: bytes) -> bytes:
    for key, value in start.get("headers", ()):
        if key.lower() == name:
            return bytes(value)
    return b""
