import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.node.demo_client import ask, make_client
from services.node.demo_requests import demo_requests
from services.node.on_ray import scale
from services.node.on_ray.members import Member
from services.node.on_ray.place import Service
from tests.integration.node import wait_until
from tests.limits import ANSWER_LIMIT_S, START_LIMIT_S
from tests.processes import free_port, is_alive

pytest.importorskip("ray", reason="Ray is not installed: make env-test")
ray_cluster: Any = pytest.importorskip("services.node.on_ray.ray_cluster")

# Three Ray nodes, a gateway and five starts of engines, on a machine that may be busy.
pytestmark = [
    pytest.mark.engines,
    # What Ray leaves open and how it uses pydantic is its own.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]
BACK_LIMIT_S, STOP_LIMIT_S = 600.0, 180.0
NODES, CPUS_OF_A_NODE = 3, 3
PAUSE_S = 0.5
# With SLOS_TEST_ALL_CASES there are two engines of each role, and one is killed.
ALL_CASES = bool(os.environ.get("SLOS_TEST_ALL_CASES"))
PREFILL = DECODE = 2 if ALL_CASES else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet on Ray that serves, and the cluster below it."""

    url: str
    address: str  # of the cluster, for drivers on this machine
    process: "subprocess.Popen[str]"

    def members(self, service: Service | None = None) -> list[Member]:
        with connected(self.address):
            return [one for one in ray_cluster.members() if service in (None, one.service)]

    def is_complete(self, decode: int) -> bool:
        with connected(self.address):
            running = ray_cluster.states()[Service.DECODE].running
            return bool(running == decode and ray_cluster.is_complete())


@contextmanager
def connected(address: str) -> Iterator[None]:
    ray_cluster.connect(address)
    try:
        yield
    finally:
        ray_cluster.disconnect()


@contextmanager
def three_nodes() -> Iterator[tuple[str, int]]:
    """Their address and the port of Ray Client."""
    from ray.cluster_utils import Cluster

    client_port = free_port()
    node: dict[str, Any] = {
        "num_cpus": CPUS_OF_A_NODE,
        "object_store_memory": 100 << 20,
        "include_dashboard": False,
    }
    cluster = Cluster(
        initialize_head=True, head_node_args={**node, "ray_client_server_port": client_port}
    )
    try:
        for _ in range(NODES - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes(timeout=ANSWER_LIMIT_S)
        yield cluster.address, client_port
    finally:
        cluster.shutdown()


@contextmanager
def fleet_on_ray(run_dir: Path) -> Iterator[Fleet]:
    words = [f"--prefill={PREFILL}", f"--decode={DECODE}", "--model=tiny", "--auto-ports"]
    words += ["--kv-cache-gib=0.05", "--max-model-len=4096", f"--start-limit-s={START_LIMIT_S}"]
    words += [f"--run-dir={run_dir}", f"--config={files('services.node') / 'demo.yaml'}"]
    words += ["--max-running-requests=16"]
    with three_nodes() as (address, client_port):
        process = subprocess.Popen(
            [sys.executable, "-m", "services", f"--on=ray://127.0.0.1:{client_port}", *words],
            stdout=subprocess.PIPE,
            text=True,
            # A profile would be measured by each engine: it is not what this is about.
            env={**os.environ, "SLOS_PREFILL_PROFILE": "off", "SLOS_DECODE_PROFILE": "off"},
        )
        with process:
            try:
                yield Fleet(url=_url(process), address=address, process=process)
            finally:
                process.kill()


def _url(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"Serving tiny at (http://\S+)/v1", line):
            return found[1]
    raise AssertionError("".join(said))


@dataclass(slots=True)
class Load:
    """Requests from a few clients with short pauses, and what became of each.

    Without pauses they would take the cores from the engine that starts meanwhile.
    """

    url: str
    clients: int = 3
    outcomes: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._threads += [threading.Thread(target=self._send) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Waits until so many have ended from now on."""
        goal = len(self.outcomes) + count
        wait_until(lambda: len(self.outcomes) >= goal, BACK_LIMIT_S)

    def _send(self) -> None:
        body = {"model": "tiny", "prompt": "once upon a time", "max_tokens": 24, "temperature": 0}
        with httpx.Client(base_url=self.url, timeout=ANSWER_LIMIT_S, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/v1/completions", json={**body, "ignore_eos": True})
                    whole = answer.json().get("usage", {}).get("completion_tokens") == 24
                    self.outcomes.append("" if whole else f"{answer.status_code} {answer.text}")
                except httpx.HTTPError as error:
                    self.outcomes.append(repr(error))
                self._stop.wait(PAUSE_S)

    @property
    def failures(self) -> list[str]:
        return [one for one in self.outcomes if one]


def kill_an_engine(fleet: Fleet) -> None:
    """Its process ends with its actor, and another engine takes its place."""
    victim = fleet.members(Service.DECODE)[0]
    os.kill(victim.actor_process, signal.SIGKILL)
    wait_until(lambda: not is_alive(victim.process), BACK_LIMIT_S)
    wait_until(
        lambda: (
            victim.name not in {one.name for one in fleet.members()} and fleet.is_complete(DECODE)
        ),
        BACK_LIMIT_S,
    )


async def test_a_fleet_on_three_nodes_serves_heals_and_scales_without_a_failed_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)  # for Ray's workers
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "200")  # a busy machine
    with fleet_on_ray(tmp_path) as fleet:
        engines = [one for one in fleet.members() if one.service is not Service.GATEWAY]
        assert len(engines) == PREFILL + DECODE
        assert len({one.node for one in engines}) == min(NODES, len(engines))

        async with make_client(fleet.url) as client:
            answers = [await ask(client, request, "tiny") for request in demo_requests()]
        assert [one.failure for one in answers] == [""] * len(answers)
        assert {one.report["way"] for one in answers} == {"colocated", "disaggregated"}

        if ALL_CASES:
            kill_an_engine(fleet)
        with Load(fleet.url) as load:
            load.more(10)
            assert scale.main([f"decode={DECODE + 1}", f"--on={fleet.address}"]) == 0
            assert len(fleet.members(Service.DECODE)) == DECODE + 1
            load.more(15)
            assert scale.main([f"decode={DECODE}", f"--on={fleet.address}"]) == 0
            assert len(fleet.members(Service.DECODE)) == DECODE
            load.more(10)
        assert load.failures == []

        everything = fleet.members()
        fleet.process.send_signal(signal.SIGTERM)
        assert fleet.process.wait(STOP_LIMIT_S) == 0
        assert [one.name for one in everything if is_alive(one.process)] == []
