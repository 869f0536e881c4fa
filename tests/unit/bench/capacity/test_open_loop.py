import asyncio

from services.bench.capacity.client import Note, Reply
from services.bench.capacity.judge import Ended
from services.bench.capacity.open_loop import OpenLoop
from services.bench.capacity.workload import Offered
from shared.clock import VirtualClock


def offered(*at_s: float) -> list[Offered]:
    return [Offered(at_s=at, class_name="chat", prompt_tokens=1, output_tokens=2) for at in at_s]


async def test_requests_are_sent_when_due_though_none_is_answered() -> None:
    clock, sent_at_s = VirtualClock(), []

    async def send(_: Offered, note: Note) -> Reply:
        sent_at_s.append(clock.now())
        note(1)
        await asyncio.Event().wait()
        return Reply(ended=Ended.DONE)

    loop = OpenLoop(send=send, clock=clock)
    seen = await loop.run(offered(0.0, 1.0, 3.0), 5.0, 0.01)

    assert [round(at_s) for at_s in sent_at_s] == [0, 1, 3]
    assert [one.ended for one in seen] == [Ended.CUT] * 3
    assert [one.cut_at_s for one in seen] == [5.0, 4.0, 2.0]
    assert [len(one.token_times_s) for one in seen] == [1, 1, 1]


async def test_times_count_from_the_intended_sending() -> None:
    clock = VirtualClock()

    async def send(_: Offered, note: Note) -> Reply:
        note(1)
        clock.at_s += 0.5
        note(2)
        return Reply(ended=Ended.DONE, admission="admitted")

    class LateClock(VirtualClock):
        """Wakes a quarter of a second too late."""

        async def sleep(self, seconds: float) -> None:
            clock.at_s += max(0.0, seconds) + 0.25
            await asyncio.sleep(0)

        def now(self) -> float:
            return clock.now()

    seen = await OpenLoop(send=send, clock=LateClock()).run(offered(1.0), 1.0, 0.01)

    assert [one.ended for one in seen] == [Ended.DONE]
    assert seen[0].sent_late_s == 0.25
    assert seen[0].token_times_s == (0.25, 0.75, 0.75)
    assert seen[0].was_admitted
