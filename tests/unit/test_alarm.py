"""Limits on silence, of loops that stood still as well."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from shared.alarm import Alarm, time_limit

LIMIT_S = 0.05
# Waits for a line with an alarm set, on the event loop that is named.
CHILD = """
import asyncio, sys, uvloop
from shared.alarm import Alarm

async def wait():
    loop, told = asyncio.get_running_loop(), asyncio.Future()
    alarm = Alarm(lambda: told.set_result("rang"))
    loop.add_reader(sys.stdin, lambda: (alarm.stop(), loop.remove_reader(sys.stdin),
                                        told.done() or told.set_result("heard")))
    alarm.set(1.0)
    print("waits", flush=True)
    print(await told, flush=True)

{run}(wait())
"""


@pytest.mark.parametrize("run", ["asyncio.run", "uvloop.run"])
def test_what_came_while_the_process_was_stopped_came_in_time(run: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(run=run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "waits\n"
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        time.sleep(1.5)
        child.stdin.write("a line\n")
        child.stdin.flush()
        child.send_signal(signal.SIGCONT)
        assert child.stdout.readline() == "heard\n"


async def test_an_alarm_rings_once_and_after_it_was_set_anew() -> None:
    rang: list[float] = []
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    alarm = Alarm(lambda: rang.append(loop.time() - began_s))
    alarm.set(0.01)
    alarm.set(3 * LIMIT_S)
    assert alarm.is_set

    await asyncio.sleep(8 * LIMIT_S)

    assert len(rang) == 1
    assert rang[0] >= 3 * LIMIT_S
    assert not alarm.is_set


async def test_what_takes_longer_than_its_limit_ends_with_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with time_limit(0.01):
            await asyncio.Event().wait()


async def test_what_ends_within_its_limit_rings_no_alarm_later() -> None:
    async with time_limit(0.01) as alarm:
        pass

    assert not alarm.is_set
