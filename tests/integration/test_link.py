"""The link between scheduler and host, over its real socket."""

import asyncio
from itertools import count
from pathlib import Path

from shared.engine.link import HostEnd, Instructions, SchedulerEnd
from shared.engines import Policy
from tests.unit.shared.engine.test_state import make_report


async def test_reports_arrive_whole_and_in_order(tmp_path: Path) -> None:
    host = HostEnd.bind(tmp_path / "link")
    scheduler = SchedulerEnd(f"ipc://{tmp_path / 'link'}")
    sent = [make_report(step=step, finished=("a", "b")) for step in range(50)]

    for first in range(0, len(sent), 5):
        scheduler.report(sent[first : first + 5])

    async with asyncio.timeout(60):
        arrived = [await host.next_reports() for _ in range(10)]
    assert [report for some in arrived for report in some] == sent
    scheduler.close()
    host.close()


async def test_of_several_policies_the_scheduler_takes_the_newest(tmp_path: Path) -> None:
    host = HostEnd.bind(tmp_path / "link")
    scheduler = SchedulerEnd(f"ipc://{tmp_path / 'link'}")
    assert scheduler.news() is None
    wanted = Policy(version=2, max_step_tokens=8, speculation_by_class={"chat": 1})

    await host.send_policy(Policy(version=1))
    await host.send_policy(wanted)
    await asyncio.sleep(0.2)

    assert scheduler.news() == Instructions(policy=wanted)
    assert scheduler.news() is None
    scheduler.close()
    host.close()


async def test_a_profile_and_a_policy_sent_together_both_arrive(tmp_path: Path) -> None:
    host = HostEnd.bind(tmp_path / "link")
    scheduler = SchedulerEnd(f"ipc://{tmp_path / 'link'}")

    await host.send_profile({"form": "rich", "coefficients": [0.5, 1.0]})
    await host.send_policy(Policy(version=3))
    await asyncio.sleep(0.2)

    assert scheduler.news() == Instructions(
        policy=Policy(version=3), profile={"form": "rich", "coefficients": [0.5, 1.0]}
    )
    scheduler.close()
    host.close()


async def test_a_host_that_does_not_read_never_blocks_a_step(tmp_path: Path) -> None:
    scheduler = SchedulerEnd(f"ipc://{tmp_path / 'nobody'}")

    for step in range(20_000):
        scheduler.report([make_report(step=step)])

    assert scheduler.dropped_reports > 0
    scheduler.close()


async def test_a_core_without_work_shows_that_it_lives_until_it_has_some(tmp_path: Path) -> None:
    host = HostEnd.bind(tmp_path / "link")
    scheduler = SchedulerEnd(f"ipc://{tmp_path / 'link'}")
    signs, idle, ticks = [0], [True], count(step=10)
    host.on_sign = lambda: signs.__setitem__(0, signs[0] + 1)
    reading = asyncio.create_task(host.next_reports())

    scheduler.beat_while(lambda: idle[0], lambda: float(next(ticks)))
    async with asyncio.timeout(20):
        while signs[0] < 3:  # noqa: ASYNC110 - the signs come from a thread
            await asyncio.sleep(0.01)
    idle[0] = False
    assert not reading.done()
    scheduler.report([make_report(step=7)])

    async with asyncio.timeout(20):
        assert [one.step for one in await reading] == [7]
    scheduler.close()
    host.close()
