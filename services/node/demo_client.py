"""Sends requests of the demo over HTTP, as any client of the OpenAI API would."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import orjson

from services.node.demo_requests import DemoRequest

_ANSWER_LIMIT_S: Final = 120.0
_DONE: Final = "[DONE]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer. `report` is the gateway's `slo` object; `failure` is empty for a success."""

    request: DemoRequest
    text: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""


def make_client(url: str) -> httpx.AsyncClient:
    """A client that ignores proxies of the environment."""
    return httpx.AsyncClient(base_url=url, timeout=_ANSWER_LIMIT_S, trust_env=False)


async def ask(client: httpx.AsyncClient, request: DemoRequest, model: str) -> Answer:
    """Sends a request and reads the answer; failures of the gateway are in it, not raised."""
    try:
        async with client.stream(
            "POST", "/v1/chat/completions", json=request.body(model)
        ) as response:
            if response.status_code != httpx.codes.OK:
                return Answer(request=request, failure=_refusal(response, await response.aread()))
            return await _read(request, response.aiter_lines())
    except httpx.HTTPError as error:
        return Answer(request=request, failure=f"{type(error).__name__}: {error}")


async def _read(request: DemoRequest, lines: AsyncIterator[str]) -> Answer:
    words: list[str] = []
    report: dict[str, Any] = {}
    failure = ""
    async for line in lines:
        data = line.removeprefix("data: ")
        if data in ("", _DONE):
            continue
        event = orjson.loads(data)
        words += [choice["delta"].get("content") or "" for choice in event.get("choices", ())]
        report = event.get("slo", report)
        failure = event.get("error", {}).get("message", failure)
    return Answer(request=request, text="".join(words), report=report, failure=failure)


def _refusal(response: httpx.Response, body: bytes) -> str:
    try:
        message = orjson.loads(body)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = body[:200].decode(errors="replace")
    return f"HTTP {response.status_code}: {message}"
