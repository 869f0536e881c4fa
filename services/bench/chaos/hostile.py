"""Seeded malformed requests (fields, nesting, headers, framing), and a check of their answers."""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_INTERIM: Final = 200  # statuses below are interim responses
_BODY_BYTES: Final = 1 << 16
_LONG: Final = "a" * 5000


def _nested(depth: int) -> Any:
    value: Any = "x"
    for at in range(depth):
        value = [value] if at % 2 else {"a": value}
    return value


_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, 2**31, 2**63, -(2**63), 10**30, 10**400),
    *(1e308, -0.0, float("nan"), float("inf")),
    *("", "x", "\x00", "\ud800", "😀", "{", "null", "auto", "json_object", _LONG, "../../etc"),
    *([], {}, [[]], [{}], [None], [1, 2], [-1], [2**40], ["a", 1], ["\ud800"], [_LONG] * 3),
    *({"a": 1}, {"type": "json_object"}, {"type": "json_schema"}, {"json": {}}, {"regex": "("}),
    *({"type": "json_schema", "json_schema": {"name": "n", "schema": {"$ref": "#"}}},),
    *({"json": {"type": "nothing"}}, {"choice": []}, {"grammar": "root ::= root"}, {"": ""}),
    *([{"role": "user"}], [{"role": "user", "content": [{"type": "text"}]}], [{"role": 1}]),
    *([{"type": "function", "function": {"name": "f"}}], [{"name": "f", "input_schema": {}}]),
    *(_nested(20), _nested(100), _nested(400)),
)
_BASES: Final[Mapping[str, Mapping[str, Any]]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [5]},
}
_SLO: Final = ("ttft_ms", "tpot_ms", "stages", "class", "way", "value", "session", "pacing", "nope")
_RAW_BODIES: Final = (
    *(b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"{}" * 50, b'{"a":1}x', b"\x00" * 9),
    *(b"[" * 5000, b'{"a":' * 5000, b'{"prompt": "' + b"\\ud800" * 100 + b'"}', b"{" + b"," * 999),
    b'{"max_tokens": ' + b"9" * 5000 + b"}",
)
_HEADERS: Final = (
    *(b"content-type: text/plain", b"content-type: ;;;"),
    b"content-type: application/json; charset=x",
    *(b"accept-encoding: \xff", b"authorization: Bearer \xff\xfe", b"x-request-id: \xe9 \x80"),
    *(b"x-slo-ttft-ms: nan", b"x-slo-way: \xff", b"x-session-id: " + b"s" * 300, b"x-slo-class: a"),
    *(b"x-data-parallel-rank: -1", b"x-data-parallel-rank: a", b"traceparent: 00-zz-zz-01"),
    *(b"expect: 100-continue", b"connection: close", b"upgrade: websocket\r\nconnection: upgrade"),
    *(b"content-encoding: gzip", b"endpoint-load-metrics-format: \xff", b"cookie: " + b"c" * 9000),
    *(b"x-slo-value: 1e999", b"range: bytes=0-", b"origin: \x80", b"host: b"),
)
_HEADS: Final = (
    *(b"GET /%00 HTTP/1.1", b"GET /" + b"%2e" * 900 + b" HTTP/1.1"),
    b"PUT /v1/completions HTTP/1.1",
    *(b"BREW / HTTP/1.1", b"GET http://other/v1/models HTTP/1.1", b"GET /v1/models HTTP/1.0"),
    *(b"GET /v1/responses/%ff HTTP/1.1", b"OPTIONS * HTTP/1.1", b"HEAD /v1/models HTTP/1.1"),
    *(b"GET /v1/models/" + b"m" * 3000 + b" HTTP/1.1", b"DELETE /v1/responses/x HTTP/1.1"),
    *(b"\x16\x03\x01\x02", b"GET / HTTP/9.9", b"GET", b"\r\n\r\n", b"POST /tokenize HTTP/1.1"),
    *(b"TRACE / HTTP/1.1", b"POST /v1/responses/a/cancel HTTP/1.1", b"GET /docs?a=\xff HTTP/1.1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """A request: `sent` are its bytes on the wire, `path` is for messages."""

    path: str
    sent: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Draws requests. `fields` are the known ones of every route that takes a body."""

    model: str
    fields: Mapping[str, tuple[str, ...]]
    chance: random.Random

    def one(self) -> Hostile:
        kinds = (self._fields, self._fields, self._fields, self._slo, self._raw, self._head)
        return self.chance.choice(kinds)()

    def _fields(self) -> Hostile:
        path = self.chance.choice(sorted(self.fields))
        body = {"model": self.model} | dict(_BASES.get(path, {}))
        for _ in range(self.chance.randint(1, 3)):
            known = self.fields[path]
            name = self.chance.choice(known) if known else "x"
            body[name] = self.chance.choice(_VALUES)
        return _post(path, json.dumps(body).encode())

    def _slo(self) -> Hostile:
        path = self.chance.choice(sorted(_BASES))
        slo = {name: self.chance.choice(_VALUES) for name in self.chance.sample(_SLO, 2)}
        body = {"model": self.model, "slo": self.chance.choice((slo, slo, *_VALUES))}
        return _post(path, json.dumps(body | dict(_BASES[path])).encode(), *self._headers())

    def _raw(self) -> Hostile:
        path = self.chance.choice(sorted(self.fields))
        return _post(path, self.chance.choice(_RAW_BODIES), *self._headers())

    def _head(self) -> Hostile:
        first = self.chance.choice(_HEADS)
        lines = [first, b"host: a", *self._headers()]
        return Hostile(path=first[:40].decode("latin-1"), sent=b"\r\n".join(lines) + b"\r\n\r\n")

    def _headers(self) -> list[bytes]:
        return self.chance.sample(_HEADERS, self.chance.randint(0, 3))


def _post(path: str, body: bytes, *headers: bytes) -> Hostile:
    lines = [b"POST %s HTTP/1.1" % path.encode(), b"host: a", *headers]
    if not any(line.startswith(b"content-type") for line in headers):
        lines.append(b"content-type: application/json")
    lines.append(b"content-length: %d" % len(body))
    return Hostile(path=path, sent=b"\r\n".join(lines) + b"\r\n\r\n" + body)


async def answer_to(
    hostile: Hostile, address: tuple[str, int], limit_s: float
) -> tuple[int, bytes]:
    """The status, and an error's body (its first part); status 0 without an answer."""
    try:
        reader, writer = await asyncio.open_connection(*address)
    except OSError as error:
        return 0, repr(error).encode()
    try:
        async with asyncio.timeout(limit_s):
            writer.write(hostile.sent)
            return await _read_answer(reader, has_body=not hostile.sent.startswith(b"HEAD "))
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        return 0, repr(error).encode()
    finally:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader, *, has_body: bool) -> tuple[int, bytes]:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status >= _INTERIM:
            told = has_body and status >= 400 and b"content-length: 0" not in head.lower()
            return status, await reader.read(_BODY_BYTES) if told else b""


def is_right(status: int, body: bytes) -> bool:
    """Whether it was served, or answered by a 4xx in the OpenAI shape (HEAD has no body)."""
    if not 400 <= status < 500:
        return 200 <= status < 400
    if not body:
        return True
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(error, dict) and bool(error["message"])


def fields_of(description: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The fields of every route with a body, from an OpenAPI description."""
    return {
        path: tuple(sorted(_properties(methods["post"], description)))
        for path, methods in description["paths"].items()
        if "post" in methods and "{" not in path
    }


def _properties(described: Any, description: Mapping[str, Any]) -> set[str]:
    """The properties of all schemas of a body, through references and alternatives."""
    content = described.get("requestBody", {}).get("content", {})
    found: set[str] = set()
    waiting = [one.get("schema", {}) for one in content.values()]
    while waiting:
        schema = waiting.pop()
        name = schema.get("$ref", "").rpartition("/")[2]
        if name:
            schema = description["components"]["schemas"][name]
        found |= schema.get("properties", {}).keys()
        waiting += schema.get("anyOf", []) + schema.get("oneOf", [])
    return found
