import asyncio
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

import grpc
import pytest

import shared.rpc.multiplex as module
from shared.rpc.multiplex import Multiplexer, Outbox, converse


async def test_items_that_wait_together_are_taken_together_in_order() -> None:
    outbox: Outbox[int] = Outbox()
    for item in range(3):
        outbox.put(item)

    assert await outbox.take() == [0, 1, 2]


async def test_taking_waits_for_an_item() -> None:
    outbox: Outbox[int] = Outbox()
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert not taking.done()

    outbox.put(1)

    assert await asyncio.wait_for(taking, 1) == [1]


async def test_what_waits_at_the_end_is_still_taken_and_nothing_after_it() -> None:
    outbox: Outbox[int] = Outbox()
    outbox.put(1)
    outbox.end()
    outbox.put(2)

    assert await outbox.take() == [1]
    assert await outbox.take() == []


async def test_a_peer_that_reads_too_slowly_ends_the_outbox_and_frees_what_waits() -> None:
    outbox: Outbox[int] = Outbox(limit=2)
    for item in range(3):
        outbox.put(item)

    assert outbox.overfull
    assert await outbox.take() == []


class Peer:
    """Keeps what is written; gives what the test puts in, until None."""

    def __init__(self) -> None:
        self.written: list[list[int]] = []
        self.messages: asyncio.Queue[int | None] = asyncio.Queue()
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def write(self, message: list[int]) -> None:
        await self.may_write.wait()
        self.written.append(message)

    async def __aiter__(self) -> AsyncIterator[int]:
        while (message := await self.messages.get()) is not None:
            yield message


def together(items: list[int]) -> Iterable[list[int]]:
    yield items


async def ignore(message: int) -> None:
    del message


async def test_items_that_come_during_a_write_share_the_next_message() -> None:
    peer, outbox = Peer(), Outbox[int]()
    peer.may_write.clear()
    talking = asyncio.create_task(converse(outbox, together, peer.write, peer, ignore))
    for item in range(4):
        outbox.put(item)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    peer.may_write.set()
    outbox.end()
    await asyncio.wait_for(talking, 1)

    assert peer.written == [[0], [1, 2, 3]]


async def test_a_stream_that_the_peer_ends_is_over_once_what_waits_is_written() -> None:
    peer, outbox = Peer(), Outbox[int]()
    heard: list[int] = []

    async def hear(message: int) -> None:
        heard.append(message)
        outbox.put(-message)

    for message in (1, 2, None):
        peer.messages.put_nowait(message)
    await asyncio.wait_for(converse(outbox, together, peer.write, peer, hear), 1)

    assert heard == [1, 2]
    assert [item for message in peer.written for item in message] == [-1, -2]


async def test_a_message_that_cannot_be_taken_in_fails_the_stream() -> None:
    peer, outbox = Peer(), Outbox[int]()

    async def refuse(message: int) -> None:
        raise ValueError(message)

    peer.messages.put_nowait(7)

    with pytest.raises(ValueError, match="7"):
        await asyncio.wait_for(converse(outbox, together, peer.write, peer, refuse), 1)


class Call(Peer):
    """A stream of gRPC that goes on until the test, or its caller, ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self.cancelled = False

    async def code(self) -> grpc.StatusCode:
        await self.ended.wait()
        return grpc.StatusCode.OK

    async def details(self) -> str:
        return ""

    def cancel(self) -> None:
        self.cancelled = True


class Caller:
    """A multiplexer with a new call for each stream."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.lost: list[grpc.StatusCode] = []
        self.heard: list[int] = []
        self.multiplexer: Multiplexer[int, list[int], int] = Multiplexer(
            self.open, together, self.heard.append, lambda code, _: self.lost.append(code)
        )

    def open(self, _: None) -> Any:
        self.calls.append(Call())
        return self.calls[-1]


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_stream_opens_when_first_needed_and_again_after_it_has_ended() -> None:
    caller = Caller()
    assert caller.calls == []

    caller.multiplexer.send(1)
    caller.multiplexer.send(2)
    await turns()
    caller.calls[0].ended.set()
    caller.calls[0].messages.put_nowait(None)
    await turns()
    caller.multiplexer.send(3)
    await turns()

    assert [call.written for call in caller.calls] == [[[1, 2]], [[3]]]
    assert caller.lost == [grpc.StatusCode.UNAVAILABLE]
    await caller.multiplexer.close()


async def test_a_peer_that_takes_nothing_is_given_up_beyond_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "Outbox", partial(Outbox, limit=3))
    caller = Caller()
    caller.multiplexer.send(0)
    await turns()
    caller.calls[0].may_write.clear()

    for item in range(6):
        caller.multiplexer.send(item)
        await turns()

    assert caller.lost == [grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert caller.calls[0].cancelled
    assert len(caller.calls) == 2  # the last items open the next stream
    await caller.multiplexer.close()


@pytest.mark.parametrize("begun", [True, False])
async def test_closing_fails_what_was_sent_also_before_the_stream_has_begun(begun: bool) -> None:
    caller = Caller()
    caller.multiplexer.send(1)
    if begun:
        await turns()

    await asyncio.wait_for(caller.multiplexer.close(), 1)

    assert caller.lost == [grpc.StatusCode.CANCELLED]


async def test_a_message_that_cannot_be_read_ends_the_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caller = Caller()

    def refuse(message: int) -> None:
        raise KeyError(message)

    caller.multiplexer._take_in = refuse
    caller.multiplexer.send(1)
    await turns()

    caller.calls[0].messages.put_nowait(7)
    await turns()

    assert caller.lost == [grpc.StatusCode.INTERNAL]
    assert caller.calls[0].cancelled
    assert "cannot be read" in caplog.text
