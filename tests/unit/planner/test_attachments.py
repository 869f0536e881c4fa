"""What streams get to send: the newest policy, and changes that are not too many."""

import asyncio

from services.planner.server.attachments import Attachment, Bell
from shared.clock import VirtualClock
from shared.engines import Policy
from tests.unit.planner.builders import make_cluster, make_engine


def make_attachment() -> Attachment:
    return Attachment(engine=make_cluster(make_engine()).engines["d0"])


async def test_the_first_policy_comes_at_once_and_leaves_the_engine_its_limits() -> None:
    attachment = make_attachment()

    first = await anext(attachment.policies())

    assert first == Policy(version=1, max_step_tokens=0, speculation_tokens=None)


async def test_only_the_newest_unsent_policy_is_sent_with_a_higher_version() -> None:
    attachment = make_attachment()
    policies = attachment.policies()
    await anext(policies)

    attachment.send(Policy(max_step_tokens=64))
    attachment.send(Policy(max_step_tokens=32))

    assert await anext(policies) == Policy(version=3, max_step_tokens=32)


async def test_an_end_ends_the_policies_and_keeps_the_first_reason() -> None:
    attachment = make_attachment()
    waiting = asyncio.create_task(_all(attachment))
    await asyncio.sleep(0)

    attachment.end("taken over")
    attachment.end("its stream ended")

    assert len(await asyncio.wait_for(waiting, 5)) == 1
    assert attachment.ended_because == "taken over"


async def test_many_rings_are_heard_as_one_after_a_pause() -> None:
    clock = VirtualClock()
    bell = Bell(clock, least_pause_s=0.1)
    listening = bell.listen()
    await anext(listening)

    for _ in range(50):
        bell.ring()
    await anext(listening)
    again = asyncio.ensure_future(anext(listening))
    await asyncio.sleep(0)

    assert clock.now() == 0.1
    assert not again.done()
    bell.ring()
    await asyncio.wait_for(again, 5)


async def test_a_silenced_bell_lets_every_listener_go() -> None:
    bell = Bell(VirtualClock(), least_pause_s=0.1)
    listening = bell.listen()
    await anext(listening)

    bell.silence()

    assert await anext(listening, "ended") == "ended"


async def _all(attachment: Attachment) -> list[Policy]:
    return [policy async for policy in attachment.policies()]
