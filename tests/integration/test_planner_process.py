"""The planner as its own process: what it prints, how it ends, peers that die wordlessly."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from shared.cluster_secret import new_secret, write_secret
from shared.errors import PlannerUnavailable
from shared.requests import Admission
from shared.rpc.channels import PlannerClient
from shared.rpc.identity import identity_from
from tests.limits import ANSWER_LIMIT_S, START_LIMIT_S
from tests.processes import free_port
from tests.unit.planner.builders import make_query

ROOT = Path(__file__).parents[2]
ENGINE = """
import asyncio, sys
from contextlib import aclosing
from shared.rpc.channels import PlannerClient
from tests.unit.planner.builders import make_engine

async def nothing():
    await asyncio.sleep(60)
    yield []

async def main():
    client = PlannerClient(sys.argv[1])
    async with aclosing(client.attach(make_engine(), nothing())) as policies:
        async for policy in policies:
            print("attached", flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def process(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python of ours; killed at the end if it still runs."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await asyncio.wait_for(child.communicate(), ANSWER_LIMIT_S)


@asynccontextmanager
async def planner(
    port: int, metrics_port: int, *more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    words = ("-m", "services.planner", "--port", str(port), "--metrics-port", str(metrics_port))
    async with process(*words, *more) as child:
        assert child.stderr is not None
        line = await asyncio.wait_for(child.stderr.readline(), START_LIMIT_S)
        assert f"listens on 127.0.0.1:{port}" in line.decode()
        yield child


async def attached(client: PlannerClient) -> int:
    """How many engines the planner shows now as such that serve."""
    async with aclosing(client.watch()) as views:
        return sum(view.serves for view in await anext(views))


async def test_told_to_stop_while_it_still_compiles_it_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # nothing is compiled yet
    metrics_port = free_port()
    words = ("--port", str(free_port()), "--metrics-port", str(metrics_port))
    async with process("-m", "services.planner", *words) as child:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while not await answers(metrics_port):  # noqa: ASYNC110 - another process opens it
                await asyncio.sleep(0.05)
        child.terminate()
        _, log = await asyncio.wait_for(child.communicate(), ANSWER_LIMIT_S)

    assert child.returncode == 0
    assert b"listens on" not in log
    assert b"Traceback" not in log


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_it_explains_itself_shows_metrics_and_ends_cleanly() -> None:
    port, metrics_port = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    async with planner(port, metrics_port) as child:
        client = PlannerClient(address)
        placement = await client.place(make_query(), ANSWER_LIMIT_S)
        await client.close()
        ask = ("-m", "services.planner", "--planner", address, "--json", "--explain")

        told = await _finished(*ask, placement.decision_id)
        unknown = await _finished(*ask, "d-none-1")
        metrics = await asyncio.to_thread(_read, f"http://127.0.0.1:{metrics_port}/metrics")
        child.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(child.wait(), ANSWER_LIMIT_S)

    assert json.loads(told[1])["placement"]["admission"] == placement.admission
    assert (told[0], status) == (0, 0)
    assert unknown[0] != 0
    assert "keeps the latest 4096 decisions" in unknown[2]
    assert 'slos_planner_decisions_total{admission="deferred"' in metrics


async def test_the_secret_is_in_no_command_line_log_metric_or_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOS_LOG_LEVEL", "DEBUG")
    port, metrics_port, address = free_port(), free_port(), "127.0.0.1"
    file, secret = tmp_path / "secret", new_secret()
    write_secret(file, secret)
    option = ("--cluster-secret-file", str(file))
    async with planner(port, metrics_port, *option) as child:
        client = PlannerClient(f"{address}:{port}", identity_from(str(file)))
        placement = await client.place(make_query(), ANSWER_LIMIT_S)
        await client.close()
        ask = ("-m", "services.planner", "--planner", f"{address}:{port}", *option, "--explain")
        told = await _finished(*ask, placement.decision_id)
        metrics = await asyncio.to_thread(_read, f"http://{address}:{metrics_port}/metrics")
        process_files = [Path(f"/proc/{child.pid}/{name}") for name in ("cmdline", "environ")]
        seen = [one.read_text() for one in process_files]
        child.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(child.communicate(), ANSWER_LIMIT_S)

    assert told[0] == 0
    assert placement.decision_id in told[1]
    for text in (*seen, log.decode(), metrics, *told[1:]):
        assert secret not in text


async def test_a_planner_that_strangers_could_reach_does_not_start_and_says_what_to_do() -> None:
    words = ("-m", "services.planner", "--host", "0.0.0.0", "--port", str(free_port()))
    status, _, said = await _finished(*words)

    assert status == 2
    assert said.count("\n") == 1
    assert "--cluster-secret-file" in said
    assert "--insecure" in said


def _read(url: str) -> str:
    with urlopen(url, timeout=ANSWER_LIMIT_S) as answer:
        text: str = answer.read().decode()
        return text


async def _finished(*words: str) -> tuple[int | None, str, str]:
    async with process(*words) as child:
        out, err = await asyncio.wait_for(child.communicate(), ANSWER_LIMIT_S)
        return child.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("which", ["--port", "--metrics-port"])
async def test_a_taken_port_is_one_line_with_the_cure(which: str) -> None:
    other = {"--port": "--metrics-port", "--metrics-port": "--port"}[which]
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = str(holder.getsockname()[1])

        status, _, err = await _finished("-m", "services.planner", which, taken, other, "0")

    assert status != 0
    assert len(err.strip().splitlines()) == 1
    assert f"127.0.0.1:{taken}" in err
    assert f"another with {which}" in err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_an_engine_that_dies_or_freezes_is_gone_within_seconds(how: signal.Signals) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    async with planner(port, free_port()), process("-c", ENGINE, address) as engine:
        assert engine.stdout is not None
        await asyncio.wait_for(engine.stdout.readline(), START_LIMIT_S)
        client = PlannerClient(address)
        before = await attached(client)

        engine.send_signal(how)
        began_s = asyncio.get_running_loop().time()
        while await attached(client):
            await asyncio.sleep(0.1)
            assert asyncio.get_running_loop().time() - began_s < START_LIMIT_S
        placement = await client.place(make_query(), ANSWER_LIMIT_S)
        await client.close()

    assert before == 1
    assert placement.admission is Admission.DEFERRED


async def test_a_killed_planner_is_reached_again_over_the_same_client() -> None:
    port, metrics_port = free_port(), free_port()
    client = PlannerClient(f"127.0.0.1:{port}")
    async with planner(port, metrics_port) as child:
        await client.place(make_query(), ANSWER_LIMIT_S)
        child.kill()
        await child.wait()
        with pytest.raises(PlannerUnavailable):
            await client.place(make_query(), ANSWER_LIMIT_S)
    async with planner(port, metrics_port):
        began_s = asyncio.get_running_loop().time()
        while not await _answers(client):
            await asyncio.sleep(0.1)
            assert asyncio.get_running_loop().time() - began_s < START_LIMIT_S
        await client.close()


async def _answers(client: PlannerClient) -> bool:
    try:
        await client.place(make_query(), 1.0)
    except PlannerUnavailable:
        return False
    return True
