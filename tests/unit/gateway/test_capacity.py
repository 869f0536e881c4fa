import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from services.gateway.capacity import Capacity, Faults
from tests.unit.gateway.http_fakes import Answer, receiver, send_chunks, send_json, start_stream


async def ask(app: object, path: str = "/v1/completions") -> Answer:
    answer = Answer()
    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    await app(scope, receiver(b"{}"), answer.send)  # type: ignore[operator] # an ASGI app
    return answer


async def well(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send_json(send, {})


def limited(app: object, *, connections: int = 1) -> Capacity:
    return Capacity(
        app,  # type: ignore[arg-type] # an ASGI app
        request_limit=2,
        connection_limit=10,
        connections=lambda: connections,
    )


async def test_a_request_beyond_the_limit_is_a_503_to_retry_until_one_ends() -> None:
    leave = asyncio.Event()

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        await leave.wait()
        await send_json(send, {})

    layer = limited(slow)
    first = [asyncio.create_task(ask(layer)) for _ in range(2)]
    await asyncio.sleep(0)
    third = await ask(layer)
    leave.set()
    served = [answer.status for answer in await asyncio.gather(*first)]

    assert served == [200, 200]
    assert (third.status, third.headers["retry-after"]) == (503, "1")
    assert third.json["error"]["code"] == "gateway_full"
    assert (await ask(layer)).status == 200


async def test_a_request_that_fails_gives_its_place_back() -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise LookupError

    layer = limited(broken)
    for _ in range(5):
        with pytest.raises(LookupError):
            await ask(layer)

    assert layer.inflight_requests == 0


async def test_a_request_on_one_connection_too_many_is_a_503_that_ends_it() -> None:
    answer = await ask(limited(well, connections=11))

    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert (await ask(limited(well, connections=10))).status == 200


@pytest.mark.parametrize("path", ["/live", "/ready", "/metrics"])
async def test_what_watches_over_the_gateway_is_always_answered(path: str) -> None:
    assert (await ask(limited(well, connections=99), path)).status == 200


async def test_a_fault_is_a_500_in_the_openai_shape() -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise LookupError

    answer = await ask(Faults(broken))

    assert (answer.status, answer.json["error"]["code"]) == (500, "internal")


async def test_a_fault_after_a_whole_answer_leaves_the_connection_alone() -> None:
    async def answered(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, {}, status=500)
        raise LookupError

    assert (await ask(Faults(answered))).status == 500


async def test_a_fault_amid_a_stream_is_left_to_the_server_which_cuts_it() -> None:
    async def torn(_scope: Scope, _receive: Receive, send: Send) -> None:
        await start_stream(send)
        await send_chunks(send, b"data: 1\n\n")
        raise LookupError

    with pytest.raises(LookupError):
        await ask(Faults(torn))
