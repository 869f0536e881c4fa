from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from services.bench.capacity.client import Reply, read_error, read_stream
from services.bench.capacity.judge import Ended


def tokens(*token_ids: int) -> dict[str, Any]:
    return {"choices": [{"token_ids": list(token_ids)}]}


async def read(*events: dict[str, Any]) -> tuple[Reply, list[int]]:
    async def lines() -> AsyncIterator[bytes]:
        for event in events:
            yield b"data: " + orjson.dumps(event) + b"\n"
            yield b"\n"
        yield b"data: [DONE]\n"

    noted: list[int] = []
    return await read_stream(lines(), 3, noted.append), noted


async def test_tokens_are_counted_as_they_come_several_in_one_event_too() -> None:
    reply, noted = await read(tokens(7), tokens(8, 9), {"choices": [{"token_ids": None}]})

    assert reply == Reply(ended=Ended.DONE)
    assert noted == [1, 2]


async def test_the_last_event_says_whether_there_was_a_promise() -> None:
    slo = {"admission": "best_effort", "reason": "compute"}
    reply, _ = await read(tokens(7, 8, 9), {"choices": [], "slo": slo})

    assert (reply.admission, reply.reason) == ("best_effort", "compute")


@pytest.mark.parametrize("events", [[tokens(7)], [tokens(7, 8, 9), {"error": {"message": "x"}}]])
async def test_an_answer_that_is_short_or_breaks_off_has_failed(
    events: list[dict[str, Any]],
) -> None:
    reply, _ = await read(*events)

    assert reply.ended is Ended.FAILED


@pytest.mark.parametrize(("status", "code"), [(429, "refused"), (400, "never_possible")])
def test_a_refusal_is_known_by_its_code(status: int, code: str) -> None:
    error = {"code": code, "slo": {"reason": "compute"}}
    reply = read_error(status, orjson.dumps({"error": error}))

    assert (reply.ended, reply.reason) == (Ended.REFUSED, "compute")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error": {"code": "no_engine"}}', b"oops"])
def test_any_other_error_has_failed(body: bytes) -> None:
    assert read_error(503, body).ended is Ended.FAILED
