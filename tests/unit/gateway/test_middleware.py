import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from services.gateway.lifecycle import Lifecycle
from services.gateway.middleware import GENERATION_PATHS, Generations, LastAnswers, RequestIds
from services.gateway.scope import current_scope
from shared.requests import PlacementMode
from tests.unit.gateway.http_fakes import (
    Answer,
    add_sequence,
    call,
    context,
    receiver,
    scope_now,
    send_json,
    start_stream,
)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body that reached it and what the layers made of it."""
    message = await receive()
    seen = scope_now()
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    told = {
        "body": message["body"].decode(),
        "length": headers["content-length"],
        "id": headers["x-request-id"],
        "scope_id": seen.request_id,
        "client_id": seen.client_id,
        "class": seen.targets.class_name,
        "ttft_s": seen.targets.ttft_s,
        "way": seen.forced_way,
        "session": seen.session_id,
        "arrived_at_s": seen.arrived_at_s,
    }
    await send_json(send, told)


async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pytest.fail("the request reached the app")


@given(body=st.binary(max_size=200).filter(lambda body: b'"slo"' not in body))
async def test_a_body_without_our_key_reaches_the_app_byte_for_byte(body: bytes) -> None:
    seen: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        await send_json(send, {})

    await call(app, body)

    assert seen[0]["body"] == body


async def test_our_key_is_taken_out_and_the_length_mended() -> None:
    body = {"model": "m", "slo": {"class": "chat", "ttft_ms": 100}, "n": 2}

    told = (await call(echo, body)).json

    assert orjson.loads(told["body"]) == {"model": "m", "n": 2}
    assert int(told["length"]) == len(told["body"])
    assert (told["class"], told["ttft_s"]) == ("chat", 0.1)


async def test_the_word_slo_inside_a_prompt_changes_nothing() -> None:
    body = {"prompt": ["slo"], "metadata": {"slo": 1}}

    assert orjson.loads((await call(echo, body)).json["body"]) == body


async def test_headers_reach_the_scope() -> None:
    headers = {"x-slo-way": "colocated", "x-session-id": "s", "x-slo-ttft-ms": "250"}

    told = (await call(echo, headers=headers)).json

    assert (told["way"], told["session"], told["ttft_s"]) == (PlacementMode.COLOCATED, "s", 0.25)
    assert told["arrived_at_s"] == 10.0


async def test_a_clients_request_id_is_echoed_and_is_no_key_inside() -> None:
    answers = [await call(echo, headers={"x-request-id": "mine-1"}) for _ in range(2)]

    assert {answer.headers["x-request-id"] for answer in answers} == {"mine-1"}
    assert {answer.json["client_id"] for answer in answers} == {"mine-1"}
    assert len({answer.json["id"] for answer in answers} - {"mine-1"}) == 2
    assert all(answer.json["id"] == answer.json["scope_id"] for answer in answers)


@pytest.mark.parametrize("given_id", ["", "two words", "x" * 129, "line\nbreak"])
async def test_an_id_unfit_for_logs_is_replaced_by_ours(given_id: str) -> None:
    answer = await call(echo, headers={"x-request-id": given_id})

    assert answer.headers["x-request-id"] == answer.json["id"] == answer.json["client_id"]
    assert answer.json["id"] != given_id
    assert len(answer.json["id"]) == 32


async def test_an_invalid_slo_is_a_400_that_names_the_field() -> None:
    answer = await call(never, {"slo": {"tftt_ms": 1}})

    assert answer.status == 400
    assert answer.json["error"]["param"] == "slo.tftt_ms"
    assert "ttft_ms" in answer.json["error"]["message"]
    assert answer.headers["x-request-id"]


async def test_broken_json_that_seems_to_carry_our_key_is_a_400() -> None:
    answer = await call(never, b'{"slo": {"ttft_ms": NaN}}')

    assert (answer.status, answer.json["error"]["param"]) == (400, "body")


async def test_a_client_that_leaves_amid_its_body_gets_nothing() -> None:
    answer = Answer()
    parts = receiver(b"{", b"")
    await parts()  # the rest of the body never comes: the client leaves
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}

    async def left() -> Message:
        return {"type": "http.disconnect"}

    await Generations(never, context())(scope, left, answer.send)

    assert answer.messages == []


async def test_while_draining_generation_is_a_503_to_retry() -> None:
    lifecycle = Lifecycle()
    await lifecycle.drain(1.0)

    answer = await call(never, within=context(lifecycle=lifecycle))

    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json["error"]["code"] == "draining"


@pytest.mark.parametrize("stopping", [False, True])
async def test_once_told_to_stop_every_answer_ends_its_connection(*, stopping: bool) -> None:
    lifecycle = Lifecycle()
    lifecycle.stopping = stopping

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, {})

    answer = await call(LastAnswers(app, lifecycle))

    assert answer.headers.get("connection") == ("close" if stopping else None)


async def test_a_drain_waits_for_what_is_in_flight() -> None:
    lifecycle, leave = Lifecycle(), asyncio.Event()

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        await leave.wait()
        await send_json(send, {})

    request = asyncio.create_task(call(slow, within=context(lifecycle=lifecycle)))
    await asyncio.sleep(0)
    assert lifecycle.inflight_requests == 1
    assert not await lifecycle.drain(0.01)
    leave.set()

    assert await lifecycle.drain(1.0)
    assert (await request).status == 200


async def test_what_outlives_the_drain_is_told_so() -> None:
    lifecycle, answer = Lifecycle(), Answer()

    async def stuck(_scope: Scope, _receive: Receive, send: Send) -> None:
        await start_stream(send)
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    layer = Generations(stuck, context(lifecycle=lifecycle))
    request = asyncio.create_task(layer(scope, receiver(b"{}"), answer.send))
    await asyncio.sleep(0.01)
    await lifecycle.drain(0.01)
    request.cancel()
    await asyncio.wait([request])

    assert request.cancelled()
    assert (answer.status, answer.json["error"]["code"]) == (503, "draining")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/completions"), ("POST", "/tokenize"), ("GET", "/metrics")]
)
async def test_other_routes_get_no_scope_but_a_request_id(method: str, path: str) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        assert current_scope.get() is None
        await send_json(send, {})

    answer = Answer()
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    await RequestIds(Generations(app, context()))(scope, receiver(b""), answer.send)

    assert answer.status == 200
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", sorted(GENERATION_PATHS))
async def test_every_generation_route_has_a_scope_that_ends_with_it(path: str) -> None:
    assert (await call(echo, path=path)).status == 200
    assert current_scope.get() is None


async def test_what_is_no_http_passes_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)

    scope = {"type": "lifespan"}
    await RequestIds(Generations(app, context()))(scope, receiver(), Answer().send)

    assert seen == [scope]


async def test_an_error_that_no_input_can_cause_is_left_to_the_server() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - it says nothing
        await call(app)


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
@pytest.mark.parametrize("error", [AttributeError, KeyError, RecursionError, OverflowError])
async def test_input_of_an_unforeseen_shape_is_a_400_and_a_line_in_the_log(
    path: str,
    error: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error("no get")

    answer = await call(app, path=path)

    assert (answer.status, answer.json["error"]["param"]) == (400, "body")
    assert "no get" in answer.json["error"]["message"]
    assert f"{error.__name__}: " in caplog.text
    assert "test_middleware.py:" in caplog.text


async def test_vllms_500_before_anything_is_placed_is_a_400() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, {"error": {"message": "no get"}}, status=500)

    answer = await call(app)

    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
    assert "no get" in answer.json["error"]["message"]


async def test_a_fault_after_something_was_placed_stays_a_fault() -> None:
    async def raises(_scope: Scope, _receive: Receive, _send: Send) -> None:
        add_sequence(scope_now())
        raise AttributeError

    async def answers(_scope: Scope, _receive: Receive, send: Send) -> None:
        add_sequence(scope_now())
        await send_json(send, {"error": {"message": "?"}}, status=500)

    with pytest.raises(AttributeError):
        await call(raises)
    assert (await call(answers)).status == 500
