"""Forty requests with answers that must not depend on how they are served; how answers compare."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

LOGPROB_TOLERANCE = 1e-3
_TEXT = (
    "A river town grew around an old stone bridge. Every spring the water rose and the millers "
    "counted the days until it fell. The children learned the names of the boats before they "
    "learned to read, and the baker rang a bell when the first one came home. "
)
_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 20}},
                "required": ["city"],
            },
        },
    }
]


@dataclass(frozen=True, slots=True)
class Case:
    """One request to the OpenAI API, without its model."""

    kind: str
    path: str
    body: Json


def cases(vocabulary_tokens: int) -> list[Case]:
    """The forty. Prompts of the completions are token ids below `vocabulary_tokens`."""
    return [
        *(_completion("greedy", n, vocabulary_tokens, temperature=0) for n in _LENGTHS),
        *(
            _completion("seeded", n, vocabulary_tokens, temperature=0.8, seed=n)
            for n in (1, 17, 32, 90, 200, 450, 900, 1400)
        ),
        *_several(vocabulary_tokens),
        *_stopped(),
        *_with_logprobs(vocabulary_tokens),
        *_structured(),
        *_with_tools(),
    ]


_LENGTHS = (1, 2, 15, 16, 31, 32, 33, 64, 127, 300, 700, 1500)


def _prompt_ids(tokens: int, vocabulary_tokens: int) -> list[int]:
    # Any ids will do, so long as no two prompts share a prefix.
    return [(tokens * 977 + i * 31 + 100) % (vocabulary_tokens - 200) + 100 for i in range(tokens)]


def _completion(kind: str, tokens: int, vocabulary_tokens: int, **sampling: Any) -> Case:
    prompt = _prompt_ids(tokens, vocabulary_tokens)
    return Case(kind, "/v1/completions", {"prompt": prompt, "max_tokens": 20, **sampling})


def _chat(kind: str, text: str, **more: Any) -> Case:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 24, **more}
    return Case(kind, "/v1/chat/completions", body)


def _several(vocabulary_tokens: int) -> Iterator[Case]:
    yield _completion("n=2", 40, vocabulary_tokens, temperature=0.8, seed=1, n=2)
    yield _completion("n=2", 350, vocabulary_tokens, temperature=0.8, seed=2, n=2)
    yield _chat("n=2", "Name two colours.", temperature=0.9, seed=3, n=2)
    yield _chat("n=2", _TEXT * 6 + "What did the baker do?", temperature=0.7, seed=4, n=2)


def _stopped() -> Iterator[Case]:
    yield _chat("stop", "Count from one to ten in words.", temperature=0, stop=["four", "five"])
    yield _chat("stop", "List three fruits.", temperature=0, stop=["\n"])
    yield _chat("stop", _TEXT * 4 + "Who are the children?", temperature=0, stop=[".", "!"])
    yield _chat("stop", "Say hello.", temperature=0, stop=["e"], include_stop_str_in_output=True)


def _with_logprobs(vocabulary_tokens: int) -> Iterator[Case]:
    yield _completion("logprobs", 25, vocabulary_tokens, temperature=0, logprobs=3)
    yield _completion("logprobs", 500, vocabulary_tokens, temperature=0, logprobs=2)
    yield _chat("logprobs", "What is rain?", temperature=0, logprobs=True, top_logprobs=4)
    yield _chat("logprobs", "What is snow?", temperature=0.8, seed=5, logprobs=True)


def _structured() -> Iterator[Case]:
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": _SCHEMA}}
    for seed, text in enumerate(("Invent a person.", "Describe Ada, 36.", _TEXT * 3, "Who am I?")):
        sampling = {"temperature": 0} if seed % 2 == 0 else {"temperature": 0.7, "seed": seed}
        yield _chat("json schema", text, response_format=wanted, **sampling)


def _with_tools() -> Iterator[Case]:
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("auto", "required", named, "none"):
        yield _chat(
            "tools", "How is the weather in Oslo?", temperature=0, tools=_TOOLS, tool_choice=choice
        )


def differences(expected: Json, got: Json) -> list[str]:
    """What differs in text, tool calls, finish reasons, usage and logprobs."""
    found = [
        f"choice {index}: {expected_part} became {got_part}"
        for index, (one, other) in enumerate(zip(_choices(expected), _choices(got), strict=True))
        for expected_part, got_part in [(one, other)]
        if one != other
    ]
    if _usage(expected) != _usage(got):
        found.append(f"usage: {_usage(expected)} became {_usage(got)}")
    if not _same_logprobs(_logprobs(expected), _logprobs(got)):
        found.append("logprobs differ")
    return found


def _choices(answer: Json) -> list[Json]:
    chosen = []
    for choice in sorted(answer["choices"], key=lambda choice: choice["index"]):
        message = choice.get("message") or {}
        calls = [call["function"] for call in message.get("tool_calls") or []]
        text = choice.get("text", message.get("content"))
        chosen.append(
            {
                "text": text,
                "calls": calls,
                "finish": choice["finish_reason"],
                "stop": choice.get("stop_reason"),
            }
        )
    return chosen


def _usage(answer: Json) -> tuple[int, ...]:
    usage = answer["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]


def _logprobs(answer: Json) -> list[float]:
    values: list[float] = []
    for choice in answer["choices"]:
        given = choice.get("logprobs") or {}
        values += [token["logprob"] for token in given.get("content") or []]
        values += [value for value in given.get("token_logprobs") or [] if value is not None]
    return values


def _same_logprobs(expected: list[float], got: list[float]) -> bool:
    return len(expected) == len(got) and all(
        math.isclose(one, other, abs_tol=LOGPROB_TOLERANCE)
        for one, other in zip(expected, got, strict=True)
    )
