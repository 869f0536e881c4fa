"""The requests that are sent repeatedly: all routes, and all kinds that must continue exactly."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_WORDS: Final = "([a-f]{3} ){20,40}"
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
_TIGHT: Final = {"ttft_ms": 4000, "tpot_ms": 400, "on_refuse": "best_effort"}
_ANSWER_TOKENS: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of the catalogue. Its answer must be the same each time."""

    number: int
    kind: str
    path: str
    body: Mapping[str, Any]

    def once(self, salt: str) -> dict[str, Any]:
        """The body, with a cache salt so that it reuses no cached KV; an empty salt adds none."""
        return {**self.body, "cache_salt": salt} if salt else dict(self.body)


def catalogue(model: str, count: int, seed: int) -> list[Request]:
    """`count` requests; kinds come in turn, prompts have 20 to 400 tokens."""
    chance = random.Random(seed)  # noqa: S311 - chance, not a secret
    return [_request(model, number, chance) for number in range(count)]


def _request(model: str, number: int, chance: random.Random) -> Request:
    length = chance.randint(20, 400)
    tokens = [chance.randrange(3, 250) for _ in range(length)]
    text = " ".join(chance.choice(("ab", "cd", "ef", "gh")) for _ in range(length // 4))
    prompt = {"prompt": tokens, "max_tokens": _ANSWER_TOKENS, "ignore_eos": True}
    chat = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": _ANSWER_TOKENS,
        "temperature": 0,
    }
    sampled = {"temperature": 0.8, "seed": number}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "greedy": ("/v1/completions", {**prompt, "temperature": 0}),
        "seeded": ("/v1/completions", {**prompt, **sampled}),
        "chat": ("/v1/chat/completions", {**chat, "ignore_eos": True}),
        "penalty": ("/v1/completions", {**prompt, "temperature": 0, "presence_penalty": 0.3}),
        "grammar": (
            "/v1/completions",
            {
                **prompt,
                "temperature": 0,
                "ignore_eos": False,
                "structured_outputs": {"regex": _WORDS},
            },
        ),
        "several": ("/v1/completions", {**prompt, **sampled, "n": 2}),
        "tool": (
            "/v1/chat/completions",
            {
                **chat,
                "tools": [_TOOL],
                "tool_choice": {"type": "function", "function": {"name": "look_up"}},
            },
        ),
        "response": (
            "/v1/responses",
            {"input": text, "max_output_tokens": _ANSWER_TOKENS, "temperature": 0},
        ),
        "message": ("/v1/messages", chat),
        "whole": ("/v1/completions", {**prompt, "temperature": 0, "stream": False}),
    }
    kind = list(kinds)[number % len(kinds)]
    path, fields = kinds[kind]
    targets = _TIGHT if number // len(kinds) % 2 else {}
    body = {"model": model, "stream": True, **fields, "slo": {**targets, "report": True}}
    if body["stream"] and "prompt" in body:
        body["stream_options"] = {"include_usage": True}
    return Request(number=number, kind=kind, path=path, body=body)
