"""Adds the `slo` object and the correct last event to vLLM's answers.

It relies on vLLM's format: every event of a stream is one chunk, and its JSON is compact.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

Report = Callable[[], dict[str, Any]]

_DONE: Final = b"data: [DONE]\n\n"
_NO_CHOICES: Final = b'"choices":[]'
_COMPLETED: Final = b"event: response.completed\n"
_INCOMPLETE: Final = b"event: response.incomplete\n"
# Last events of the other protocols, with the key under which the object goes (None: the top).
_LAST_EVENTS: Final[tuple[tuple[bytes, str | None], ...]] = (
    (_COMPLETED, "response"),
    (_INCOMPLETE, "response"),
    (b"event: response.failed\n", "response"),
    (b"event: message_stop\n", None),
)


def add_to_json(body: bytes, report: Report) -> bytes:
    """The same object with `slo` at its top; anything but a JSON object comes back untouched."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    if not isinstance(answer, dict):
        return body
    return orjson.dumps(answer | {"slo": report()})


def name_incomplete(chunk: bytes) -> bytes:
    """Renames a last event `response.completed` if its status says that a limit cut the answer."""
    if not chunk.startswith(_COMPLETED):
        return chunk
    data = orjson.loads(chunk.split(b"data: ", 1)[1])
    if data["response"].get("status") != "incomplete":
        return chunk
    return _INCOMPLETE + _data(data | {"type": "response.incomplete"})


@dataclass(slots=True)
class StreamReporter:
    """Follows one stream and adds the `slo` object where its protocol ends.

    That is the chunk with the usage and no choices, an extra chunk before `[DONE]`, or the last
    event. Chunks that need no change come back as they are.
    """

    report: Report
    last_chunk: bytes = b""
    done: bool = False

    def rewrite(self, chunk: bytes) -> bytes:
        if self.done:
            return chunk
        if chunk.startswith(b"event: "):
            return self._on_event(chunk)
        if chunk.endswith(_DONE):
            return self._before_done(chunk)
        if _NO_CHOICES in chunk:
            return self._on_chunk(chunk)
        if chunk.startswith(b"data: {"):
            self.last_chunk = chunk
        return chunk

    def _on_event(self, chunk: bytes) -> bytes:
        for prefix, key in _LAST_EVENTS:
            if chunk.startswith(prefix):
                data = orjson.loads(chunk.split(b"data: ", 1)[1])
                (data[key] if key else data)["slo"] = self.report()
                self.done = True
                return prefix + _data(data)
        return chunk

    def _on_chunk(self, chunk: bytes) -> bytes:
        self.done = True
        return _data(_payload(chunk) | {"slo": self.report()})

    def _before_done(self, chunk: bytes) -> bytes:
        self.done = True
        if not self.last_chunk:
            return chunk
        last = _payload(self.last_chunk)
        if "error" in last:
            return chunk
        kept = {key: last[key] for key in ("id", "object", "created", "model") if key in last}
        ours = _data(kept | {"choices": [], "slo": self.report()})
        return chunk[: -len(_DONE)] + ours + _DONE


def _payload(chunk: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = orjson.loads(chunk.removeprefix(b"data: "))
    return payload


def _data(payload: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"
