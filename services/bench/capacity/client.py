"""Streams one completion over HTTP with its SLO, and reports its tokens as they come."""

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

import aiohttp
import orjson

from services.bench.capacity.judge import Ended

_DATA, _DONE = b"data: ", b"[DONE]"
_REFUSALS: Final = ("refused", "never_possible")
_SHOWN: Final = 300  # characters of an error

Note = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request. `slo` is None for a server without SLOs; `name` is its id, empty for any."""

    prompt: Sequence[int]
    output_tokens: int
    slo: Mapping[str, Any] | None = None
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How a request ended. `admission` and `reason` are the answer's, empty if it has none."""

    ended: Ended
    admission: str = ""
    reason: str = ""
    message: str = ""


class Client(Protocol):
    """A client of one server."""

    async def ask(self, ask: Ask, note: Note) -> Reply: ...

    async def tokenize(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClient:
    """A client of one server of the OpenAI API."""

    session: aiohttp.ClientSession
    url: str
    model: str

    async def ask(self, ask: Ask, note: Note) -> Reply:
        """Calls `note` with the number of tokens that came. A failing server raises nothing."""
        url, named = f"{self.url}/v1/completions", {"x-request-id": ask.name} if ask.name else {}
        try:
            async with self.session.post(url, json=self._body(ask), headers=named) as response:
                if response.status != HTTPStatus.OK:
                    return read_error(response.status, await response.read())
                return await read_stream(response.content, ask.output_tokens, note)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Reply(ended=Ended.FAILED, message=repr(error)[:_SHOWN])

    async def tokenize(self, text: str) -> list[int]:
        body = {"model": self.model, "prompt": text}
        async with self.session.post(f"{self.url}/tokenize", json=body) as response:
            tokens: list[int] = (await response.json())["tokens"]
            return tokens

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": ask.prompt,
            "max_tokens": ask.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,  # so that tokens can be counted
        }
        return body if ask.slo is None else {**body, "slo": {**ask.slo, "report": True}}


async def read_stream(lines: AsyncIterable[bytes], wanted_tokens: int, note: Note) -> Reply:
    """Reads server-sent events; an answer of a length other than `wanted_tokens` has failed."""
    tokens, slo = 0, dict[str, Any]()
    async for line in lines:
        if not line.startswith(_DATA) or line.startswith(_DONE, len(_DATA)):
            continue
        event = orjson.loads(line[len(_DATA) :])
        if "error" in event:
            return Reply(ended=Ended.FAILED, message=str(event["error"])[:_SHOWN])
        slo = event.get("slo") or slo
        if came := sum(len(choice.get("token_ids") or ()) for choice in event["choices"]):
            note(came)
            tokens += came
    if tokens != wanted_tokens:
        message = f"{tokens} tokens came where {wanted_tokens} were asked for"
        return Reply(ended=Ended.FAILED, message=message)
    admission, reason = slo.get("admission") or "", slo.get("reason") or ""
    return Reply(ended=Ended.DONE, admission=admission, reason=reason)


def read_error(status: int, body: bytes) -> Reply:
    """A refusal if the error has a code of ours for it; any other error is a failure."""
    try:
        error: dict[str, Any] = orjson.loads(body)["error"]
        code, reason = error["code"], (error.get("slo") or {}).get("reason", "")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code, reason = "", ""
    if code in _REFUSALS:
        return Reply(ended=Ended.REFUSED, admission="refused", reason=reason)
    text = body[:_SHOWN].decode(errors="replace")
    return Reply(ended=Ended.FAILED, message=f"HTTP {status}: {text}")
