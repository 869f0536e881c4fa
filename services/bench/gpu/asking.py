"""Asks a node for whole answers as token ids, and compares them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from services.bench.answers import AnswerFailed

_LIMIT_S: Final = 120.0
_SHOWN: Final = 300  # characters of an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer. `report` is the gateway's `slo` object."""

    tokens: Sequence[int]
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeClient:
    """A client of one gateway, which gives answers of a fixed length without streaming."""

    http: httpx.AsyncClient
    model: str

    @classmethod
    def of(cls, url: str, model: str) -> "WholeClient":
        """Close its `http` at the end. Proxies of the environment are ignored."""
        http = httpx.AsyncClient(base_url=url, timeout=_LIMIT_S, trust_env=False)
        return cls(http=http, model=model)

    async def tokenize(self, text: str) -> list[int]:
        body = {"model": self.model, "prompt": text}
        answer = await self.http.post("/tokenize", json=body)
        tokens: list[int] = answer.raise_for_status().json()["tokens"]
        return tokens

    async def ask(
        self, prompt: Sequence[int], tokens: int, *, salt: str, slo: Mapping[str, Any]
    ) -> Told:
        """Raises AnswerFailed. The salt keeps one way from the prefixes that another cached."""
        body = {
            "model": self.model,
            "prompt": list(prompt),
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            "cache_salt": salt,
            "slo": {**slo, "report": True},
        }
        try:
            answer = await self.http.post("/v1/completions", json=body)
        except httpx.HTTPError as error:
            raise AnswerFailed(f"The gateway gave no answer: {error!r}") from error
        if answer.status_code != httpx.codes.OK:
            raise AnswerFailed(f"HTTP {answer.status_code}: {answer.text[:_SHOWN]}")
        found = answer.json()
        return Told(tokens=found["choices"][0]["token_ids"], report=found.get("slo") or {})

    async def all(
        self,
        prompts: Sequence[Sequence[int]],
        tokens: int,
        *,
        salt: str,
        slo: Mapping[str, Any],
        in_flight: int = 4,
    ) -> list[Told]:
        """The answers to all prompts, in their order. Raises AnswerFailed."""
        places = asyncio.Semaphore(in_flight)

        async def one(prompt: Sequence[int]) -> Told:
            async with places:
                return await self.ask(prompt, tokens, salt=salt, slo=slo)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(prompt)) for prompt in prompts]
        return [task.result() for task in tasks]


def same(expected: Sequence[Told], got: Sequence[Told]) -> tuple[int, list[int]]:
    """How many answers are the same, and of each other one how many tokens are up to the first
    that differs.
    """
    until = []
    for one, other in zip(expected, got, strict=True):
        if list(one.tokens) != list(other.tokens):
            pairs = zip(one.tokens, other.tokens, strict=False)
            until.append(next((n for n, (a, b) in enumerate(pairs) if a != b), len(other.tokens)))
    return len(expected) - len(until), until
