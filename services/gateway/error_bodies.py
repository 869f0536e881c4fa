"""Gives error answers of vLLM and FastAPI the shape of ours: OpenAI's, with `code` as text.

vLLM has the status as an integer `code`, and several names for one `type`; other handlers answer
`{"detail": ...}`, `{"error": "..."}`, text or nothing.
"""

from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.http_errors import HttpError, kind_of, send_error

_FIELDS: Final = {"message", "type", "param", "code"}
_OF_PARAM: Final[dict[tuple[int, str | None], str]] = {
    (404, "model"): "model_not_found",
    (400, "input_tokens"): "context_length_exceeded",
    (400, "input_text"): "context_length_exceeded",
}
_REPLACED: Final = (b"content-type", b"content-length")
_IN_BODY: Final = "body."  # FastAPI's path of a field; OpenAI names the field alone
_DATA: Final = b"data: "


class ErrorBodies:
    """Holds an answer with a status of 400 or more until it is complete, and rewrites its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == "HEAD":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        held = bytearray()

        async def rewrite(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
            elif start is None or message["type"] != "http.response.body":
                await send(message)
            else:
                held.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await _send_rewritten(send, start, bytes(held), scope["path"])

        await self._app(scope, receive, rewrite)


async def _send_rewritten(send: Send, start: Message, body: bytes, path: str) -> None:
    if _is_ours(_parsed(body)):
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": False})
        return
    headers = [pair for pair in start.get("headers", ()) if pair[0].lower() not in _REPLACED]
    error = read_error(body, start["status"])
    await send_error(send, error, path=path, headers=headers)


def read_error(body: bytes, status: int) -> HttpError:
    """The error that a body of any shape tells of; `code` is derived where it is no text."""
    parsed = _parsed(body)
    told = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    fields = told if isinstance(told, dict) else {"message": told}
    message = fields.get("message") or fields.get("detail") or HTTPStatus(status).phrase
    param = fields.get("param")
    param = param.removeprefix(_IN_BODY) if isinstance(param, str) else None
    slo = fields.get("slo")
    kind, code = kind_of(status)
    named = fields.get("code")
    return HttpError(
        status=status,
        type=kind,
        code=named if isinstance(named, str) else _OF_PARAM.get((status, param), code),
        message=message if isinstance(message, str) else orjson.dumps(message).decode(),
        param=param,
        slo=slo if isinstance(slo, dict) else None,
    )


def rewrite_event(event: bytes, path: str) -> bytes:
    """A server-sent event of vLLM that ends a stream with an error; any other as it is."""
    before, data, rest = event.partition(_DATA)
    line, end, after = rest.partition(b"\n\n")
    parsed = _parsed(line)
    if not data or not isinstance(parsed, dict) or not isinstance(parsed.get("error"), dict):
        return event
    code = parsed["error"].get("code")
    if _is_ours(parsed):
        return event
    status = code if isinstance(code, int) and 400 <= code <= 599 else 500
    body = read_error(line, status).body_bytes(path=path)
    return before + data + body + end + after


def _parsed(body: bytes) -> Any:
    """The body as JSON, or as text where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace").strip()


def _is_ours(parsed: Any) -> bool:
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return isinstance(error, dict) and error.keys() >= _FIELDS and isinstance(error["code"], str)
