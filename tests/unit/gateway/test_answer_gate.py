import orjson
import pytest
from starlette.types import Receive, Scope, Send

from services.gateway.answer_gate import AnswerGate
from services.gateway.scope import RequestScope
from shared.errors import (
    DeadlinePassed,
    EngineDraining,
    EngineLost,
    NoEngine,
    PlannerUnavailable,
    Refused,
    SlosError,
)
from shared.requests import Admission, Phase, Placement, Reason
from tests.unit.gateway.http_fakes import (
    Answer,
    add_sequence,
    call,
    give_tokens,
    request_scope,
    scope_now,
    send_chunks,
    send_json,
    start_stream,
)

FIRST, SECOND = b'data: {"id":"1"}\n\n', b'data: {"id":"2"}\n\n'
ERROR_EVENT = b'data: {"error": {"message": "?", "code": 500}}\n\n'
DONE = b"data: [DONE]\n\n"
NO = Placement(
    decision_id="d-9",
    admission=Admission.REFUSED,
    reason=Reason.COMPUTE,
    predicted_ttft_s=2.5,
    predicted_tpot_s=0.08,
    retry_after_s=1.2,
)


def gate_of(scope: RequestScope, path: str = "/v1/chat/completions") -> tuple[AnswerGate, Answer]:
    answer = Answer()
    return AnswerGate(scope=scope, send=answer.send, path=path), answer


def refused(reason: str, retry_after_s: float | None = 1.2) -> Refused:
    return Refused("no", reason=reason, decision_id="d-9", retry_after_s=retry_after_s)


async def test_a_streams_chunks_pass_one_by_one_and_byte_for_byte() -> None:
    scope = request_scope()
    gate, answer = gate_of(scope)
    give_tokens(add_sequence(scope))

    await start_stream(gate)
    await send_chunks(gate, FIRST, SECOND, DONE, more=False)

    assert (answer.status, answer.chunks) == (200, [FIRST, SECOND, DONE])
    assert answer.messages[-1]["more_body"] is False


async def test_nothing_leaves_before_the_first_token() -> None:
    scope = request_scope()
    gate, answer = gate_of(scope)
    record = add_sequence(scope)
    await start_stream(gate)
    await send_chunks(gate, FIRST)
    assert answer.messages == []

    give_tokens(record)
    await send_chunks(gate, SECOND)

    assert answer.chunks == [FIRST, SECOND]


async def test_an_answer_without_any_generation_leaves_at_its_end() -> None:
    gate, answer = gate_of(request_scope())

    await start_stream(gate)
    await send_chunks(gate, FIRST, more=False)

    assert (answer.status, answer.chunks) == (200, [FIRST])


async def test_decision_and_way_are_in_the_headers() -> None:
    scope = request_scope()
    gate, answer = gate_of(scope)
    give_tokens(add_sequence(scope))

    await start_stream(gate)
    await send_chunks(gate, FIRST)

    assert answer.headers["x-slo-decision-id"] == "d-1"
    assert answer.headers["x-slo-way"] == "disaggregated"


@pytest.mark.parametrize(
    ("failure", "status", "code", "retry_after"),
    [
        (refused("compute"), 429, "refused", "2"),
        (refused("memory", 0.01), 429, "refused", "1"),
        (refused("never", None), 400, "never_possible", None),
        (refused("no_engine"), 503, "no_engine", "2"),
        (NoEngine("none"), 503, "no_engine", None),
        (PlannerUnavailable("away"), 503, "planner_unavailable", None),
        (EngineDraining("stopping"), 503, "draining", "1"),
        (EngineLost("gone"), 502, "engine_lost", None),
        (DeadlinePassed("late"), 504, "deadline_passed", None),
        (SlosError("?"), 500, "internal", None),
    ],
)
@pytest.mark.parametrize("streams", [True, False])
async def test_a_failure_before_the_first_token_is_a_true_http_error(
    failure: SlosError, status: int, code: str, retry_after: str | None, *, streams: bool
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        scope_now().failure = failure
        if streams:
            await start_stream(send)
            await send_chunks(send, ERROR_EVENT, DONE, more=False)
        else:
            await send_json(send, {"error": {"message": "?"}}, status=500)

    answer = await call(app)

    assert answer.status == status
    assert answer.json["error"]["code"] == code
    assert answer.json["error"]["message"] == str(failure)
    assert answer.headers.get("retry-after") == retry_after
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.messages) == 2


async def test_a_failure_that_the_app_raises_is_answered_too() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await start_stream(send)
        raise EngineLost("gone")

    assert (await call(app)).status == 502


async def test_a_refusal_carries_the_planners_numbers() -> None:
    scope = request_scope()
    gate, answer = gate_of(scope)
    add_sequence(scope)
    add_sequence(scope, placement=NO, phase=Phase.FAILED)

    await gate.fail(refused("compute"))

    assert answer.json["error"]["slo"] == {
        "decision_id": "d-9",
        "admission": "refused",
        "reason": "compute",
        "predicted_ttft_ms": 2500.0,
        "predicted_tpot_ms": 80.0,
        "retry_after_ms": 1200.0,
    }
    assert answer.status == 429


async def test_an_engine_lost_carries_the_decision_of_the_sequence_that_failed() -> None:
    scope = request_scope()
    gate, answer = gate_of(scope)
    add_sequence(scope, placement=NO, phase=Phase.FAILED)
    add_sequence(scope)

    await gate.fail(EngineLost("gone"))

    assert answer.json["error"]["slo"]["decision_id"] == "d-9"


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/v1/chat/completions", b"data: "),
        ("/v1/responses", b"event: error\ndata: "),
        ("/v1/messages", b"event: error\ndata: "),
    ],
)
async def test_a_failure_amid_a_stream_is_its_error_event(path: str, prefix: bytes) -> None:
    scope = request_scope()
    gate, answer = gate_of(scope, path)
    give_tokens(add_sequence(scope))
    await start_stream(gate)
    await send_chunks(gate, FIRST)
    scope.failure = EngineLost("gone after 3 tokens")

    await send_chunks(gate, ERROR_EVENT, DONE, more=False)

    first, error, done = answer.chunks
    assert (first, done) == (FIRST, DONE)
    told = orjson.loads(error.removeprefix(prefix))
    assert told["error"]["code"] == "engine_lost"
    assert told["error"]["message"] == "gone after 3 tokens"


async def test_a_stream_that_breaks_off_ends_with_an_error_event() -> None:
    scope = request_scope()
    gate, answer = gate_of(scope, "/v1/responses")
    give_tokens(add_sequence(scope))
    await start_stream(gate)
    await send_chunks(gate, FIRST)

    await gate.fail(EngineLost("gone"))

    assert answer.chunks[1].startswith(b"event: error\n")
    assert answer.messages[-1]["more_body"] is False


async def test_the_anthropic_route_has_its_own_outer_type() -> None:
    gate, answer = gate_of(request_scope(), "/v1/messages")

    await gate.fail(NoEngine("none"))

    assert (answer.status, answer.json["type"]) == (503, "error")


async def test_vllms_own_errors_pass_untouched() -> None:
    gate, answer = gate_of(request_scope(wants_report=True))

    await send_json(gate, {"error": {"message": "no such model"}}, status=404)

    assert (answer.status, answer.json) == (404, {"error": {"message": "no such model"}})


async def test_a_json_answer_carries_the_report_when_asked_for() -> None:
    scope = request_scope(wants_report=True)
    gate, answer = gate_of(scope)
    give_tokens(add_sequence(scope))

    await send_json(gate, {"id": "1", "choices": []})

    assert answer.json["id"] == "1"
    assert answer.json["slo"]["met"] is True


async def test_a_stream_carries_the_report_when_asked_for() -> None:
    scope = request_scope(wants_report=True)
    gate, answer = gate_of(scope)
    give_tokens(add_sequence(scope))

    await start_stream(gate)
    await send_chunks(gate, FIRST, DONE, more=False)

    first, report, done = (one + b"\n\n" for one in answer.body.split(b"\n\n")[:-1])
    assert (first, done) == (FIRST, DONE)
    assert orjson.loads(report.removeprefix(b"data: "))["slo"]["class"] == "chat"
