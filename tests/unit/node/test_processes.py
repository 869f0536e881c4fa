import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from services.node.keeper import left_over
from services.node.plan import Part, Rank
from services.node.processes import Keeper, Processes, tail
from shared.clock import MonotonicClock
from tests.processes import is_alive

ENDS_WELL = "import time\nprint('here', flush=True)\ntime.sleep(60)"
DEAF = "import signal\nsignal.signal(15, signal.SIG_IGN)\n" + ENDS_WELL
DIES = "import sys\nprint('one', flush=True)\nsys.exit('because')"
# Starts a process of its own that does not listen to SIGTERM, and writes its id.
HAS_A_CHILD = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {DEAF!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print("child", child.pid, flush=True)
time.sleep(60)
"""
DIES_BEFORE_ITS_CHILD = HAS_A_CHILD.replace("time.sleep(60)\n", "")


def part(script: str, folder: Path, *, stop_limit_s: float = 5.0) -> Part:
    return Part(
        name="it",
        rank=Rank.ENGINE,
        command=(sys.executable, "-c", script),
        address="",
        log=folder / "logs" / "it.log",
        stop_limit_s=stop_limit_s,
    )


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


async def until_gone(process: int) -> None:
    async with asyncio.timeout(10):
        while is_alive(process):  # noqa: ASYNC110 - nothing tells us of another's child
            await asyncio.sleep(0.02)


async def until_said(log: Path, word: str, *, times: int = 1) -> str:
    async with asyncio.timeout(10):
        while content(log).count(word) < times:  # noqa: ASYNC110 - nor of what it writes
            await asyncio.sleep(0.02)
    return content(log)


def content(log: Path) -> str:
    return log.read_text() if log.exists() else ""


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    with Keeper() as started:
        yield started


@pytest.fixture
async def processes(keeper: Keeper) -> AsyncIterator[Processes]:
    made = Processes(
        clock=MonotonicClock(), keeper=keeper, say=lambda _: None, first_back_off_s=0.05
    )
    yield made
    made.kill()
    await made.stop(["it"])


async def test_what_a_part_writes_is_in_its_log(processes: Processes, tmp_path: Path) -> None:
    one = part(ENDS_WELL, tmp_path)

    await processes.start(one)

    assert "here" in await until_said(one.log, "here")


async def test_a_part_that_dies_is_reported_with_its_status_and_last_words(
    processes: Processes, tmp_path: Path
) -> None:
    await processes.start(part(DIES, tmp_path))

    death = await processes.death()

    assert str(death) == "it ended with status 1"
    assert tail(death.log).splitlines() == ["one", "because"]


async def test_a_killed_part_is_reported_with_its_signal(
    processes: Processes, tmp_path: Path
) -> None:
    one = part("import os\nos.kill(os.getpid(), 9)", tmp_path)

    await processes.start(one)

    assert str(await processes.death()) == "it was killed by signal 9"


async def test_a_part_that_dies_is_started_again_with_back_off(
    keeper: Keeper, tmp_path: Path
) -> None:
    said: list[str] = []
    processes = Processes(
        clock=MonotonicClock(),
        keeper=keeper,
        say=said.append,
        restarts=True,
        first_back_off_s=0.05,
    )
    one = part(DIES, tmp_path)

    await processes.start(one)
    processes.stands("it")
    await until_said(one.log, "because", times=4)  # so three restarts were told
    await processes.stop(["it"])

    waits = [line.split(" in ")[1].split(" s ")[0] for line in said]
    assert waits[:3] == ["0.05", "0.1", "0.2"]


async def test_a_part_that_never_stood_is_not_started_again(keeper: Keeper, tmp_path: Path) -> None:
    processes = Processes(clock=MonotonicClock(), keeper=keeper, say=lambda _: None, restarts=True)

    await processes.start(part(DIES, tmp_path))

    async with asyncio.timeout(10):
        assert (await processes.death()).name == "it"


async def test_a_part_runs_on_the_cores_that_it_was_given(
    processes: Processes, tmp_path: Path
) -> None:
    core = max(os.sched_getaffinity(0))
    script = "import os\nprint('on', sorted(os.sched_getaffinity(0)), flush=True)"
    one = replace(part(script, tmp_path), cores=(core, 10_000))

    await processes.start(one)

    assert f"on [{core}]" in await until_said(one.log, "on")


async def test_cores_of_another_machine_are_no_reason_not_to_run(
    processes: Processes, tmp_path: Path
) -> None:
    one = replace(part(ENDS_WELL, tmp_path), cores=(10_000,))

    await processes.start(one)

    assert "here" in await until_said(one.log, "here")


async def test_a_part_that_waits_to_be_started_again_stops_at_once(
    keeper: Keeper, tmp_path: Path
) -> None:
    processes = Processes(
        clock=MonotonicClock(),
        keeper=keeper,
        say=lambda _: None,
        restarts=True,
        first_back_off_s=50.0,
    )
    one = part(DIES, tmp_path)
    await processes.start(one)
    processes.stands("it")
    await until_said(one.log, "because")

    async with asyncio.timeout(40):  # less than the wait for its next start
        await processes.stop(["it"])

    assert one.log.read_text().count("because") == 1


async def test_a_part_that_does_not_listen_is_killed_after_its_limit(
    processes: Processes, tmp_path: Path
) -> None:
    one = part(DEAF, tmp_path, stop_limit_s=0.2)
    await processes.start(one)
    await until_said(one.log, "here")

    async with asyncio.timeout(40):
        await processes.stop(["it"])


async def test_stopping_twice_or_what_was_never_started_is_no_error(
    processes: Processes, tmp_path: Path
) -> None:
    one = part(HAS_A_CHILD, tmp_path)
    await processes.start(one)
    child = int((await until_said(one.log, "child")).split()[1])

    await processes.stop(["it", "another"])
    await processes.stop(["it"])

    await until_gone(child)
    assert not is_alive(child)


@pytest.mark.parametrize("script", [HAS_A_CHILD, DIES_BEFORE_ITS_CHILD])
async def test_what_a_part_started_ends_with_it(
    processes: Processes, tmp_path: Path, script: str
) -> None:
    one = part(script, tmp_path)
    await processes.start(one)
    grandchild = int((await until_said(one.log, "child")).split()[1])

    await processes.stop(["it"])

    await until_gone(grandchild)


UP = """
import asyncio, sys
from pathlib import Path
from services.node.plan import Part, Rank
from services.node.processes import Processes, Keeper
from shared.clock import MonotonicClock

async def main():
    with Keeper() as keeper:
        processes = Processes(clock=MonotonicClock(), keeper=keeper, say=print)
        command = (sys.executable, "-c", sys.argv[2])
        part = Part(name="it", rank=Rank.ENGINE, command=command, address="", log=Path(sys.argv[1]),
                    stop_limit_s=5.0)
        await processes.start(part)
        print("started", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_parent_that_is_killed_outright_leaves_no_process(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    command = [sys.executable, "-c", UP, str(log), HAS_A_CHILD]
    parent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        grandchild = int((await until_said(log, "child")).split()[1])
        child = parent_of(grandchild)

        parent.kill()
        await parent.wait()

        await until_gone(child)
        await until_gone(grandchild)
    finally:
        with suppress(ProcessLookupError):
            parent.kill()


def test_the_keeper_kills_only_what_was_not_taken_back() -> None:
    assert left_over(["+1\n", "+2\n", "-1\n", "+3\n", "-4\n"]) == {2, 3}


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(str(number) for number in range(10_000)))

    assert tail(log, 2) == "9998\n9999"
    assert tail(tmp_path / "none").startswith("(no log")
