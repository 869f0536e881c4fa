import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from services.gateway.error_bodies import ErrorBodies, read_error, rewrite_event

FIELDS = {"message", "type", "param", "code"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
errors = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("message", "detail", "type", "param", "code", "slo"), json_values),
)


def body_of(raw: bytes, status: int, path: str = "/v1/completions") -> Any:
    return json.loads(read_error(raw, status).body_bytes(path=path))


@given(
    raw=st.binary()
    | (json_values | errors | errors.map(lambda told: {"error": told})).map(
        lambda value: json.dumps(value).encode()
    ),
    status=st.sampled_from([400, 404, 422, 429, 500, 503]),
)
def test_any_body_becomes_an_error_of_one_shape(raw: bytes, status: int) -> None:
    error = body_of(raw, status)["error"]

    assert error.keys() - {"slo"} == FIELDS
    assert isinstance(error["code"], str)
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["param"] is None or isinstance(error["param"], str)


@pytest.mark.parametrize(
    ("raw", "status", "code", "message"),
    [
        (
            b'{"error": {"message": "no", "param": "model", "code": 404}}',
            404,
            "model_not_found",
            "no",
        ),
        (b'{"error": {"message": "no", "code": 404}}', 404, "not_found", "no"),
        (b'{"error": {"message": "no", "code": "own"}}', 400, "own", "no"),
        (b'{"error": "Unauthorized"}', 401, "invalid_api_key", "Unauthorized"),
        (b'{"detail": "gone"}', 410, "http_error", "gone"),
        (b'{"detail": [{"loc": 1}]}', 422, "invalid_request", '[{"loc":1}]'),
        (b"plain words", 500, "internal", "plain words"),
        (b"", 503, "unavailable", "Service Unavailable"),
    ],
)
def test_code_and_message_come_from_the_body_and_else_from_the_status(
    raw: bytes, status: int, code: str, message: str
) -> None:
    error = body_of(raw, status)["error"]
    assert (error["code"], error["message"]) == (code, message)


def test_an_event_of_a_stream_gets_the_shape_and_keeps_its_name() -> None:
    event = b'event: error\ndata: {"error": {"message": "no", "type": "x", "code": 400}}\n\nrest'

    head, _, rest = rewrite_event(event, "/v1/responses").partition(b"data: ")
    error = json.loads(rest.partition(b"\n\n")[0])["error"]

    assert (head, error["code"], error["type"]) == (
        b"event: error\n",
        "invalid_request",
        "BadRequestError",
    )
    assert rest.endswith(b"\n\nrest")


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices": []}\n\n',
        b'event: response.failed\ndata: {"response": {"error": {"code": "x"}}}\n\n',
        b'data: {"error": {"message": "", "type": "", "param": null, "code": "refused"}}\n\n',
    ],
)
def test_other_events_pass_as_they_are(event: bytes) -> None:
    assert rewrite_event(event, "/v1/completions") == event


def answer_of(status: int, chunks: list[bytes], method: str = "GET") -> list[Message]:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"1"), (b"x-own", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for index, chunk in enumerate(chunks):
            more = index < len(chunks) - 1
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    async def nothing() -> Message:
        raise AssertionError

    asyncio.run(ErrorBodies(app)({"type": "http", "method": method, "path": "/"}, nothing, keep))
    return sent


def test_an_error_in_several_chunks_is_one_answer_with_its_own_length_and_headers() -> None:
    start, body = answer_of(404, [b'{"error": ', b'{"message": "no", "code": 404}}'])

    assert json.loads(body["body"])["error"]["code"] == "not_found"
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert headers[b"x-own"] == b"1"


def test_a_success_passes_chunk_by_chunk_and_a_head_answer_as_it_is() -> None:
    assert [one.get("body") for one in answer_of(200, [b"a", b"b"])] == [None, b"a", b"b"]
    assert [one.get("body") for one in answer_of(404, [b""], "HEAD")] == [None, b""]
