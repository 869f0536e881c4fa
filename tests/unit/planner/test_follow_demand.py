"""What runs beside the rounds holds nothing up and hides nothing."""

import asyncio
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from services.planner.server import follow_demand
from services.planner.server.follow_demand import beside


async def test_what_a_thread_returns_or_raises_is_what_the_caller_gets() -> None:
    def fails() -> int:
        raise ValueError("no")

    assert await beside(lambda: 7) == 7
    with pytest.raises(ValueError, match="no"):
        await beside(fails)


async def test_the_thread_is_none_that_a_process_waits_for_at_its_end() -> None:
    thread = await beside(threading.current_thread)

    assert thread.daemon
    assert thread is not threading.current_thread()


async def test_a_caller_that_went_away_does_no_harm() -> None:
    may_end = threading.Event()
    waiting = asyncio.create_task(beside(lambda: may_end.wait(10)))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    threads = [one for one in threading.enumerate() if one.name == "desired-engines"]
    may_end.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


async def test_a_compiling_process_ends_with_the_task_that_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = tmp_path / "pid"
    script = (
        f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    monkeypatch.setattr(follow_demand, "_COMPILE", (sys.executable, "-c", script))
    compiling = asyncio.create_task(follow_demand._compile())
    async with asyncio.timeout(30):
        while not started.exists() or not started.read_text():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    compiling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await compiling
    assert not psutil.pid_exists(int(started.read_text()))


async def test_a_compiling_process_that_takes_too_long_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        follow_demand, "_COMPILE", (sys.executable, "-c", "import time; time.sleep(600)")
    )
    monkeypatch.setattr(follow_demand, "_COMPILE_LIMIT_S", 0.2)

    await asyncio.wait_for(follow_demand._compile(), 30)

    assert not any(map(_sleeps, psutil.Process().children()))


def _sleeps(child: psutil.Process) -> bool:
    """Whether it is the process that compiles, and still runs."""
    with suppress(psutil.NoSuchProcess):  # another child, that has ended
        return "time.sleep(600)" in child.cmdline()
    return False
