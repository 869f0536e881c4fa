import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = pytest.mark.engines
START_LIMIT_S = 280


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A node of the tiny model that serves."""

    process: asyncio.subprocess.Process
    url: str

    def descendants(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def named(self, name: str) -> psutil.Process:
        return next(one for one in self.descendants() if name in one.cmdline())

    async def until_said(self, word: str) -> str:
        """The line of our output that holds it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(START_LIMIT_S):
            while line := (await self.process.stdout.readline()).decode():
                if word in line:
                    return line
        raise AssertionError(f"ended without saying {word!r}")


@asynccontextmanager
async def node(run_dir: Path, *words: str) -> AsyncIterator[Up]:
    command = [sys.executable, "-m", "services", "--model=tiny", "--auto-ports", *words]
    process = await asyncio.create_subprocess_exec(
        *command,
        f"--run-dir={run_dir}",
        "--max-model-len=2048",
        "--kv-cache-gib=0.25",
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        up = Up(process=process, url="")
        line = await up.until_said("Serving")
        found = re.search(r"http://[^/]+", line)
        assert found
        yield Up(process=process, url=found[0])
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def answer(url: str) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        body = {"model": "tiny", "prompt": "once", "max_tokens": 8, "temperature": 0}
        reply = await client.post("/v1/completions", json=body)
        return str(reply.raise_for_status().json()["choices"][0]["text"])


async def until_serving(url: str) -> str:
    async with asyncio.timeout(START_LIMIT_S):
        while True:
            with suppress(httpx.HTTPError):
                return await answer(url)
            await asyncio.sleep(0.5)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    gone, left = psutil.wait_procs(processes, timeout=10)
    del gone
    return [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


async def test_a_killed_engine_comes_back_and_a_stopped_node_leaves_nothing(tmp_path: Path) -> None:
    async with node(tmp_path) as up:
        before = await answer(up.url)
        up.named("services.decode").kill()
        await up.until_said("decode-0 was killed by signal 9; starting it again")

        assert await until_serving(up.url) == before

        everything = up.descendants()
        up.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(up.process.wait(), 90) == 0
        assert alive(everything) == []


async def test_a_node_that_is_killed_outright_leaves_nothing(tmp_path: Path) -> None:
    async with node(tmp_path) as up:
        everything = up.descendants()
        assert len(everything) > 5  # keeper, planner, gateway, two hosts with a core each

        os.kill(up.process.pid, signal.SIGKILL)

        assert alive(everything) == []


async def test_a_part_that_cannot_start_ends_the_node_with_its_last_words(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "services", "--model=tiny", "--auto-ports"],
        *[f"--run-dir={tmp_path}", "--kv-cache-gib=0.0001"],
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )

    said, _ = await asyncio.wait_for(process.communicate(), START_LIMIT_S)

    assert process.returncode == 1
    assert re.search(r"(prefill|decode)-0 ended with status \d+. The end of its log", said.decode())
