"""Hostile requests over sockets, a polite client beside them: all are answered, none by a 5xx.

SLOS_TEST_ALL_CASES=1 sends a hundred thousand of them; `-s` prints the counts.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from services.bench.chaos.hostile import Draw, Hostile, answer_to, fields_of, is_right
from services.gateway.connections import HeadLimits
from services.gateway.listener import bind
from services.gateway.server import make_server
from shared.clock import MonotonicClock
from tests.contracts.fake_gateway import FakeFleet, gateway_app
from tests.limits import ANSWER_LIMIT_S

ALL_CASES = bool(os.environ.get("SLOS_TEST_ALL_CASES"))
REQUESTS = 100_000 if ALL_CASES else 400
CLIENTS = 8
MODEL = "tiny"
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(7200 if ALL_CASES else 1800),
]


@dataclass
class Server:
    address: tuple[str, int]
    http: httpx.AsyncClient


@dataclass
class Seen:
    """What came of the requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    polite_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.polite_s)
        worst_s = ordered[int(0.99 * (len(ordered) - 1))]
        return (
            f"{sum(self.statuses.values())} answers: {dict(sorted(self.statuses.items()))}; "
            f"{len(ordered)} polite requests, 99th percentile {1000 * worst_s:.0f} ms"
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with gateway_app(FakeFleet(), Path(tmp_path_factory.mktemp("tiny"))) as app:
        listener = bind("127.0.0.1", 0, 60.0)
        listener.listen()
        uvicorn = make_server(
            app,
            access_log=False,
            head_limits=HeadLimits(time_s=1.0),
            idle_limit_s=2 * ANSWER_LIMIT_S,
        )
        serving = asyncio.create_task(uvicorn.serve(sockets=[listener]))
        host, port = listener.getsockname()
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=60) as http:
            yield Server(address=(host, port), http=http)
        uvicorn.should_exit = True
        await serving


async def test_hostile_requests_are_answered_and_hurt_nobody_else(server: Server) -> None:
    description = (await server.http.get("/openapi.json")).json()
    draw = Draw(model=MODEL, fields=fields_of(description), chance=random.Random(17))
    before, seen = Seen(), Seen()
    await polite(server, before, asyncio.create_task(asyncio.sleep(2)))
    waiting = [draw.one() for _ in range(REQUESTS)]

    async def client() -> None:
        while waiting:
            await send(server, waiting.pop(), seen)

    clients = asyncio.gather(*(client() for _ in range(CLIENTS)))
    await polite(server, seen, clients)

    print(f"\nundisturbed: {before}\nbeside hostile clients: {seen}")
    print("\n".join(seen.wrong[:40]))
    assert not seen.wrong
    assert sum(seen.statuses.values()) == REQUESTS
    assert (await server.http.get("/ready")).status_code == 200


async def polite(server: Server, seen: Seen, others: "asyncio.Future[Any]") -> None:
    """Asks on while the others are at it."""
    clock = MonotonicClock()
    while not others.done():
        began_s = clock.now()
        body = {"model": MODEL, "prompt": "hi", "max_tokens": 3}
        answer = await server.http.post("/v1/completions", json=body)
        seen.polite_s.append(clock.now() - began_s)
        if answer.status_code != httpx.codes.OK:
            seen.wrong.append(f"polite: {answer.status_code} {answer.text[:200]}")
        await asyncio.sleep(0.02)
    await others


async def send(server: Server, hostile: Hostile, seen: Seen) -> None:
    status, body = await answer_to(hostile, server.address, ANSWER_LIMIT_S)
    seen.statuses[status] += 1
    if not is_right(status, body):
        seen.wrong.append(f"{hostile.path}: {status} {body[:300]!r} on {hostile.sent[-400:]!r}")


async def test_the_head_of_an_answer_to_head_is_all_of_it(server: Server) -> None:
    asked = Hostile(path="/v1/models", sent=b"HEAD /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")

    status, body = await answer_to(asked, server.address, ANSWER_LIMIT_S)

    assert (status, body) == (405, b"")
