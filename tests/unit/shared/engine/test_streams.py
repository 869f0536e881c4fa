import asyncio

import pytest

from shared.engine.streams import DuplicateRequest, Streams
from shared.errors import EngineDraining, EngineLost


async def test_outputs_that_wait_are_taken_together_in_order() -> None:
    streams: Streams[int] = Streams()
    stream = streams.add("a")

    streams.give("a", 1)
    streams.give("a", 2)
    assert await stream.take() == [1, 2]

    streams.give("a", 3)
    assert await stream.take() == [3]


async def test_with_nothing_given_taking_waits() -> None:
    streams: Streams[int] = Streams()
    stream = streams.add("a")
    streams.give("a", 1)
    await stream.take()

    taking = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    assert not taking.done()

    streams.give("a", 2)
    assert await asyncio.wait_for(taking, 1) == [2]


async def test_what_came_before_an_error_is_taken_before_it() -> None:
    streams: Streams[int] = Streams()
    stream = streams.add("a")
    streams.give("a", 1)
    stream.fail(EngineLost("gone"))

    assert await stream.take() == [1]
    for _ in range(2):
        with pytest.raises(EngineLost, match="gone"):
            await stream.take()


async def test_an_output_for_a_request_that_left_is_dropped() -> None:
    streams: Streams[int] = Streams()
    streams.add("a")
    streams.remove("a")

    streams.give("a", 1)

    assert streams.open == {}


async def test_a_dead_engine_ends_every_stream_with_the_reason() -> None:
    streams: Streams[int] = Streams()
    both = [streams.add("a"), streams.add("b")]

    streams.fail_all(EngineLost("gone"))

    for stream in both:
        with pytest.raises(EngineLost, match="gone"):
            await stream.take()


async def test_a_draining_engine_refuses_new_requests_and_keeps_the_old() -> None:
    streams: Streams[int] = Streams()
    old = streams.add("a")
    streams.draining = True

    with pytest.raises(EngineDraining):
        streams.add("b")

    streams.give("a", 7)
    assert await old.take() == [7]


async def test_an_id_can_run_once_at_a_time() -> None:
    streams: Streams[int] = Streams()
    streams.add("a")

    with pytest.raises(DuplicateRequest):
        streams.add("a")

    streams.remove("a")
    streams.add("a")


async def test_waiting_for_empty_ends_with_the_last_request() -> None:
    streams: Streams[int] = Streams()
    streams.add("a")
    streams.add("b")
    waiting = asyncio.create_task(streams.until_empty())

    streams.remove("a")
    await asyncio.sleep(0)
    assert not waiting.done()

    streams.remove("b")
    await asyncio.wait_for(waiting, 1)


async def test_requests_that_name_a_reader_give_to_it_in_order_and_end_by_themselves() -> None:
    streams: Streams[int] = Streams()
    with streams.reader("gateway") as reader:
        one, other = streams.add("a", "gateway"), streams.add("b", "gateway")
        for item, name in enumerate("abba"):
            streams.give(name, item)
        streams.end("a")

        assert await reader.take() == [0, 1, 2, 3]
        await asyncio.wait_for(one.until_ended(), 1)
        ending = asyncio.create_task(other.until_ended())
        await asyncio.sleep(0)
        assert not ending.done()
        streams.end("b")
        await asyncio.wait_for(ending, 1)


async def test_a_reader_that_leaves_ends_who_gave_to_it_and_nobody_else() -> None:
    streams: Streams[int] = Streams()
    alone = streams.add("alone")
    with streams.reader("gateway"):
        read = streams.add("read", "gateway")

    with pytest.raises(EngineLost):
        await read.until_ended()
    with pytest.raises(EngineLost, match="has left"):
        streams.add("later", "gateway")
    streams.give("alone", 1)
    assert await alone.take() == [1]


async def test_an_engine_that_stops_lets_its_readers_take_what_was_given() -> None:
    streams: Streams[int] = Streams()
    with streams.reader("gateway") as reader:
        streams.add("a", "gateway")
        streams.give("a", 1)
        streams.end_readers()

        assert await reader.take() == [1]
        with pytest.raises(EngineDraining):
            await reader.take()
