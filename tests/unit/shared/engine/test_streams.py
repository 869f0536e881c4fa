import asyncio

import pytest

from shared.engine.streams import DuplicateRequest, RequestEnded, Streams
from shared.errors import EngineDraining, EngineLost


async def test_the_outputs_of_one_stream_are_taken_together_in_order() -> None:
    streams: Streams[int] = Streams()
    with streams.stream() as replies:
        streams.add("a", replies)
        streams.add("b", replies)
        for item, name in enumerate("abba"):
            assert streams.give(name, item)

        assert await replies.take() == [0, 1, 2, 3]


async def test_each_stream_gets_the_outputs_of_its_own_requests() -> None:
    streams: Streams[int] = Streams()
    with streams.stream() as one, streams.stream() as other:
        streams.add("a", one)
        streams.add("b", other)
        streams.give("a", 1)
        streams.give("b", 2)

        assert await one.take() == [1]
        assert await other.take() == [2]
        assert streams.of(one) == ["a"]


async def test_an_output_for_a_request_that_left_is_dropped() -> None:
    streams: Streams[int] = Streams()
    with streams.stream() as replies:
        streams.add("a", replies)
        streams.remove("a")

        assert not streams.give("a", 1)


async def test_a_dead_engine_ends_every_request_with_the_reason_after_its_outputs() -> None:
    streams: Streams[int] = Streams()
    gone = EngineLost("gone")
    with streams.stream() as one, streams.stream() as other:
        streams.add("a", one)
        streams.add("b", other)
        streams.give("a", 1)

        streams.fail_all(gone)

        assert await one.take() == [1, RequestEnded("a", gone)]
        assert await other.take() == [RequestEnded("b", gone)]
        assert streams.open == {}


async def test_a_draining_engine_refuses_new_requests_and_keeps_the_old() -> None:
    streams: Streams[int] = Streams()
    with streams.stream() as replies:
        streams.add("a", replies)
        streams.draining = True

        with pytest.raises(EngineDraining):
            streams.add("b", replies)

        assert streams.give("a", 7)


async def test_an_id_can_run_once_at_a_time() -> None:
    streams: Streams[int] = Streams()
    with streams.stream() as replies:
        streams.add("a", replies)

        with pytest.raises(DuplicateRequest):
            streams.add("a", replies)

        streams.remove("a")
        streams.add("a", replies)


async def test_waiting_for_empty_ends_with_the_last_request() -> None:
    streams: Streams[int] = Streams()
    with streams.stream() as replies:
        streams.add("a", replies)
        streams.add("b", replies)
        waiting = asyncio.create_task(streams.until_empty())

        streams.remove("a")
        await asyncio.sleep(0)
        assert not waiting.done()

        streams.remove("b")
        await asyncio.wait_for(waiting, 1)


async def test_an_engine_that_stops_sends_what_was_given_and_ends_its_streams() -> None:
    streams: Streams[int] = Streams()
    with streams.stream() as replies:
        streams.add("a", replies)
        streams.give("a", 1)

        streams.end()

        assert await replies.take() == [1]
        assert await replies.take() == []
