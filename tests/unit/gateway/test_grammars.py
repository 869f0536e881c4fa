import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from services.gateway.grammar_limits import GrammarLimits
from services.gateway.grammars import GrammarChecks
from shared.errors import InvalidRequest, Overloaded

ASKED = {"choice": ["a"]}


@dataclass
class FakeServer:
    """Hands out connections; a test answers at their other ends."""

    ends: list[socket.socket] = field(default_factory=list)
    is_gone: bool = False

    def connect(self) -> socket.socket:
        if self.is_gone:
            raise BrokenPipeError
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.ends.append(theirs)
        return ours

    async def answer(self, at: int, answer: object = None) -> None:
        """Closes the connection, after an answer if there is one."""
        loop = asyncio.get_running_loop()
        await loop.sock_recv(self.ends[at], 1 << 16)
        if answer is not None:
            await loop.sock_sendall(self.ends[at], orjson.dumps(answer))
        self.ends[at].close()

    async def is_closed(self, at: int) -> bool:
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(self.ends[at], 1 << 16):
            pass
        return True


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    for end in fake.ends:
        end.close()


@pytest.fixture
def checks(server: FakeServer) -> GrammarChecks:
    fake: Any = server
    return GrammarChecks(server=fake, limits=GrammarLimits(), size_limit_bytes=100)


def start(checks: GrammarChecks, fields: dict[str, Any] | None = None) -> "asyncio.Task[object]":
    return asyncio.create_task(checks.check(fields or ASKED))


async def begun(server: FakeServer, count: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(server.ends) < count:  # noqa: ASYNC110 - the fake tells nobody
            await asyncio.sleep(0)


async def test_what_the_server_says_is_remembered(
    checks: GrammarChecks, server: FakeServer
) -> None:
    first = start(checks)
    await begun(server)
    await server.answer(0, {"params": {"grammar": "g"}})

    assert await first == await checks.check(ASKED) == {"grammar": "g"}
    assert len(server.ends) == 1


async def test_all_that_ask_for_one_grammar_wait_for_one_compilation(
    checks: GrammarChecks, server: FakeServer
) -> None:
    asked = [start(checks) for _ in range(5)]
    await begun(server)
    asked[0].cancel()
    await server.answer(0, {"params": {}})

    assert await asyncio.gather(*asked[1:]) == [{}] * 4
    assert len(server.ends) == 1


async def test_a_grammar_that_nobody_waits_for_is_let_go(
    checks: GrammarChecks, server: FakeServer
) -> None:
    asked = start(checks)
    await begun(server)
    asked.cancel()

    async with asyncio.timeout(5):
        assert await server.is_closed(0)


@pytest.mark.parametrize("answer", [{"error": "no text fits this"}, None])
async def test_a_grammar_that_cannot_be_had_is_an_invalid_field(
    checks: GrammarChecks, server: FakeServer, answer: object
) -> None:
    asked = start(checks)
    await begun(server)
    await server.answer(0, answer)

    with pytest.raises(InvalidRequest, match=r"no text fits|more to compile") as error:
        await asked
    assert error.value.param == "structured_outputs"


async def test_a_grammar_past_the_size_limit_is_not_compiled(
    checks: GrammarChecks, server: FakeServer
) -> None:
    with pytest.raises(InvalidRequest, match="allowed are 100"):
        await checks.check({"regex": "a" * 100})
    assert not server.ends


async def test_more_grammars_than_may_wait_are_sent_away(
    checks: GrammarChecks,
) -> None:
    asked = [start(checks, {"regex": str(at)}) for at in range(70)]
    await asyncio.sleep(0)

    failed = [one for one in asked if one.done()]
    assert len(failed) == 70 - 64
    assert all(isinstance(one.exception(), Overloaded) for one in failed)
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_without_a_server_a_grammar_is_no_fault_of_its_client(
    checks: GrammarChecks, server: FakeServer
) -> None:
    server.is_gone = True

    with pytest.raises(Overloaded, match="restart"):
        await checks.check(ASKED)
