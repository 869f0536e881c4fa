"""Assembles one answer at its client from stream events or from one body."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_REFUSALS: Final = frozenset({429, 503})
_SHOWN: Final = 300  # characters of an error


@dataclass(slots=True, kw_only=True)
class Answer:
    """One answer. Times are the clock's; `longest_pause_s` is the longest gap between events."""

    number: int
    kind: str
    gateway: int
    began_at_s: float
    ended_at_s: float = 0.0
    heard_at_s: float = 0.0
    longest_pause_s: float = 0.0
    texts: dict[int, str] = field(default_factory=dict)
    finishes: dict[int, str] = field(default_factory=dict)
    tokens: int = 0
    moves: list[Mapping[str, Any]] = field(default_factory=list)
    refusal: str = ""
    fault: str = ""
    disconnected: bool = False

    @property
    def content(self) -> tuple[dict[int, str], dict[int, str], int]:
        """The parts that must be equal each time that a request is sent."""
        return self.texts, self.finishes, self.tokens

    def note(self, now_s: float) -> None:
        """Notes that data came."""
        self.longest_pause_s = max(self.longest_pause_s, now_s - self.heard_at_s)
        self.heard_at_s = now_s

    def take(self, event: Mapping[str, Any]) -> None:
        """Reads one event of a stream of any route, or a whole body."""
        if event.get("error"):
            self.fault = str(event["error"])[:_SHOWN]
            return
        for choice in event.get("choices") or ():
            self._take_choice(choice)
        kind = event.get("type")
        if kind == "response.output_text.delta":
            self._say(0, event["delta"])
        elif kind in ("response.completed", "response.incomplete"):
            self._end(0, event["response"]["status"])
            self.tokens = event["response"]["usage"]["output_tokens"]
        elif kind == "content_block_delta":
            self._say(0, event["delta"].get("text", ""))
        elif kind == "message_delta":
            self._end(0, event["delta"]["stop_reason"])
            self.tokens = event["usage"]["output_tokens"]
        elif event.get("usage"):
            self.tokens = event["usage"]["completion_tokens"]
        self._take_report(event)

    def refuse(self, status: int, body: Mapping[str, Any]) -> None:
        """Reads an answer other than 200; `body` is empty if it is no JSON object."""
        error = body.get("error")
        clear = isinstance(error, Mapping) and error.get("message") and error.get("code")
        told = f"{status} {str(body)[:_SHOWN]}"
        if clear and status in _REFUSALS:
            self.refusal = told
        else:
            self.fault = told

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta") or {}
        self._say(choice["index"], choice.get("text") or delta.get("content") or "")
        for call in delta.get("tool_calls") or ():
            self._say(choice["index"], (call.get("function") or {}).get("arguments") or "")
        if choice.get("finish_reason"):
            self._end(choice["index"], choice["finish_reason"])

    def _say(self, index: int, text: str) -> None:
        if text:
            self.texts[index] = self.texts.get(index, "") + text

    def _end(self, index: int, finish: str) -> None:
        self.finishes[index] = finish

    def _take_report(self, event: Mapping[str, Any]) -> None:
        report = event.get("slo") or (event.get("response") or {}).get("slo") or {}
        self.moves = list(report.get("moves", self.moves))
