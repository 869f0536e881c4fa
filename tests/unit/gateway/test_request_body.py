import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from services.gateway.request_body import MOST_DEPTH, Bodies, BodyLimits
from tests.unit.gateway.http_fakes import LIMITS, Answer, receiver, send_json

PATHS = ["/v1/completions", "/tokenize", "/detokenize", "/v1/messages/count_tokens", "/nothing"]


async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pytest.fail("the request reached the app")


async def post(
    app: Any,
    body: bytes = b"{}",
    *,
    path: str = "/tokenize",
    limits: BodyLimits = LIMITS,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    receive: Receive | None = None,
) -> Answer:
    answer = Answer()
    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    await Bodies(app, limits)(scope, receive or receiver(body), answer.send)
    return answer


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_past_the_limit_is_a_413_in_the_openai_shape_on_every_route(path: str) -> None:
    answer = await post(never, b"x" * 1001, path=path)

    assert answer.status == 413
    assert answer.json["error"].keys() == {"message", "type", "param", "code"}


async def test_a_body_that_says_that_it_is_too_large_is_not_read() -> None:
    async def unread() -> Message:
        pytest.fail("the body was read")

    answer = await post(never, headers=((b"content-length", b"1001"),), receive=unread)

    assert answer.status == 413


@pytest.mark.parametrize("length", [b"", b"-1", b"abc", b"9" * 5000])
async def test_any_content_length_is_answered(length: bytes) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, {})

    answer = await post(app, headers=((b"content-length", length),))

    assert answer.status == (413 if length.startswith(b"9") else 200)


async def test_a_body_that_does_not_come_is_a_408() -> None:
    async def stuck() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    answer = await post(never, limits=replace(LIMITS, time_s=0.01), receive=stuck)

    assert answer.status == 408


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ([1] * 200, "values"),
        ({f"k{at}": 1 for at in range(51)}, "keys"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "levels"),
    ],
)
async def test_a_body_that_would_take_long_to_parse_is_a_400_that_says_so(
    body: object, what: str
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)

    answer = await post(never, text.encode())

    assert answer.status == 400
    assert answer.json["error"]["code"] == "body_too_complex"
    assert what in answer.json["error"]["message"]


@pytest.mark.parametrize("text", ["a,b:" * 100, "[{" * 150, '"\\' * 100 + ",:" * 100])
async def test_what_a_text_holds_counts_as_one_value(text: str) -> None:
    body, seen = json.dumps({"prompt": text}).encode(), []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["body"])
        await send_json(send, {})

    await post(app, body)

    assert seen == [body]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (rb'{"stop": ["a", "\ud800"]}', "stop[1]"),
        (rb'{"a": {"b": "\uDFFFx"}}', "a.b"),
        (rb'{"\ud800": 1}', "body"),
        (rb'"\udc00\ud800"', "body"),
    ],
)
async def test_half_a_surrogate_pair_is_a_400_that_names_the_field(body: bytes, param: str) -> None:
    answer = await post(never, body)

    assert (answer.status, answer.json["error"]["param"]) == (400, param)


@pytest.mark.parametrize("body", [rb'"\ud83d\ude00"', rb'"\\ud800"', rb"\ud800", rb'{"a": "\ud8'])
async def test_whole_pairs_and_what_is_no_json_are_left_to_the_app(body: bytes) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, {})

    assert (await post(app, body)).status == 200


async def test_bodies_in_flight_are_bounded_in_bytes() -> None:
    leave, answers = asyncio.Event(), []

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        await leave.wait()
        await send_json(send, {})

    async def ask(layer: Bodies) -> None:
        answer = Answer()
        answers.append(answer)
        scope = {"type": "http", "method": "POST", "path": "/tokenize", "headers": []}
        await layer(scope, receiver(b"x" * 1000), answer.send)

    layer = Bodies(slow, LIMITS)
    asked = [asyncio.create_task(ask(layer)) for _ in range(80)]
    await asyncio.sleep(0)
    leave.set()
    await asyncio.gather(*asked)
    await ask(layer)

    statuses = [answer.status for answer in answers]
    assert statuses.count(503) == 80 - 65
    assert statuses[-1] == 200


async def test_a_body_in_parts_is_one_message() -> None:
    seen = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        await send_json(send, {})

    await post(app, receive=receiver(b"ab", b"", b"c"))

    assert seen == [{"type": "http.request", "body": b"abc", "more_body": False}]
