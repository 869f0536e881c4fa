"""Asks for completions over HTTP, streaming or not, as any client of the OpenAI API would."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from services.bench.answers import Answer, AnswerFailed, Stopwatch

_DATA, _DONE = b"data: ", b"[DONE]"


@asynccontextmanager
async def http_session(limit_s: float) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that keeps connections open, as many as there are requests in flight."""
    timeout = aiohttp.ClientTimeout(total=limit_s)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield session


async def read_metric(session: aiohttp.ClientSession, page: str, name: str) -> float | None:
    """A metric from the page at this URL, as `metric_in`."""
    async with session.get(page) as response:
        return metric_in(await response.text(), name)


def metric_in(text: str, name: str) -> float | None:
    """A metric of a page, named with its labels; None where the page lacks it."""
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpClient:
    """One server. `now` is a clock in seconds."""

    session: aiohttp.ClientSession
    url: str
    model: str
    now: Callable[[], float]

    async def stream(self, prompt: str | Sequence[int], tokens: int) -> Answer:
        """The times at which the first and the last token came. Raises AnswerFailed."""
        watch = Stopwatch(self.now())
        async with self._post(self._body(prompt, tokens, stream=True)) as response:
            async for line in response.content:
                if line.startswith(_DATA) and not line.startswith(_DONE, len(_DATA)):
                    watch.note(_tokens_in(orjson.loads(line[len(_DATA) :])), self.now())
        return watch.answer(tokens)

    async def whole(self, prompt: str | Sequence[int], tokens: int) -> Answer:
        """Asks without streaming: first and last token come together. Raises AnswerFailed."""
        watch = Stopwatch(self.now())
        async with self._post(self._body(prompt, tokens, stream=False)) as response:
            usage = orjson.loads(await response.read())["usage"]
            watch.note(usage["completion_tokens"], self.now())
        return watch.answer(tokens)

    async def tokenize(self, prompt: str) -> list[int]:
        body = {"model": self.model, "prompt": prompt}
        async with self.session.post(f"{self.url}/tokenize", json=body) as response:
            tokens: list[int] = (await response.json())["tokens"]
            return tokens

    async def cpu_seconds(self) -> float | None:
        """CPU seconds that the server's process has used, from its metrics page."""
        return await self.metric("process_cpu_seconds_total")

    async def metric(self, name: str) -> float | None:
        """A metric without labels from the server's metrics page."""
        return await read_metric(self.session, f"{self.url}/metrics", name)

    async def get_alone(self, path: str) -> None:
        """Reads a page on a connection of its own."""
        async with self.session.get(f"{self.url}{path}", headers={"connection": "close"}) as page:
            await page.read()

    def _body(self, prompt: str | Sequence[int], tokens: int, *, stream: bool) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": stream,
            "return_token_ids": True,  # so that tokens can be counted
        }

    @asynccontextmanager
    async def _post(self, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self.session.post(f"{self.url}/v1/completions", json=body) as response:
                if response.status != 200:
                    text = await response.text()
                    raise AnswerFailed(f"{self.url} answered {response.status}: {text[:300]}")
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AnswerFailed(f"{self.url} gave no answer: {error!r}") from error


def _tokens_in(event: dict[str, Any]) -> int:
    if "error" in event:
        raise AnswerFailed(f"The stream broke off: {event['error']}")
    return sum(len(choice.get("token_ids") or ()) for choice in event["choices"])
