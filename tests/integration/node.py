"""A real node for tests: `slos-serve up` on known ports, and hands to look at its parts."""

import os
import random
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import psutil

from services.node.config import NodeOptions
from services.node.ports import NodePorts, assign_ports
from shared.errors import ConfigError
from shared.rpc import slos_pb2 as pb
from shared.rpc.slos_pb2_grpc import EngineStub
from tests.limits import POLL_LIMIT_S, START_LIMIT_S
from tests.processes import is_alive

LOOPBACK = "127.0.0.1"
STOP_LIMIT_S = 180.0
KV_CACHE_GIB = 0.05  # 50 of the tiny model's longest prompts; each engine fills it with zeros
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # loads no certificates, which takes long
_PORTS, _WORKERS = 50, 16  # ports of one node; workers that have bases of their own


@dataclass(frozen=True, slots=True)
class Node:
    """A running node. Part names are those of `up`: gateway, planner, prefill-0, decode-0."""

    process: subprocess.Popen[str]
    ports: NodePorts
    run_dir: Path
    model: str

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.gateway}"

    @property
    def planner(self) -> str:
        return f"{LOOPBACK}:{self.ports.planner}"

    @property
    def part_ports(self) -> dict[str, int]:
        prefill, *decodes = self.ports.engines
        return {
            "gateway": self.ports.gateway,
            "planner": self.ports.planner,
            "prefill-0": prefill.rpc,
            **{f"decode-{at}": decode.rpc for at, decode in enumerate(decodes)},
        }

    @property
    def engines(self) -> list[str]:
        return list(self.part_ports)[2:]

    @property
    def decodes(self) -> list[str]:
        return [one for one in self.engines if one.startswith("decode")]

    def host_pid(self, part: str) -> int:
        (pid,) = pids_of_part(part, self.part_ports[part])
        return pid

    def kill(self, part: str) -> None:
        """SIGKILL to the part alone, not to its group: what it leaves must end by itself."""
        (pid,) = pids_of_part(part, self.part_ports[part])
        os.kill(pid, signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        """Ends it by a signal; its exit status. Raises AssertionError where a process is left."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        status = self.process.wait(STOP_LIMIT_S)
        _, left = psutil.wait_procs(started, timeout=STOP_LIMIT_S)
        assert [one for one in left if is_alive(one.pid)] == []
        return status

    def engine_count(self) -> int:
        """Engines that the planner shows, of all roles; 0 while it does not answer."""
        url = f"http://{LOOPBACK}:{self.ports.planner_metrics}/metrics"
        try:
            page = httpx.get(url, timeout=POLL_LIMIT_S, verify=NO_TLS).text
        except httpx.HTTPError:
            return 0
        lines = [line for line in page.splitlines() if line.startswith("slos_planner_engines{")]
        return sum(round(float(line.split()[-1])) for line in lines)

    def core_pid(self, part: str) -> int:
        """The engine core of an engine host."""
        (host,) = pids_of_part(part, self.part_ports[part])
        (core,) = [one.pid for one in psutil.Process(host).children() if is_core(one)]
        return int(core)

    def health(self, engine: str) -> pb.HealthReply:
        with grpc.insecure_channel(f"{LOOPBACK}:{self.part_ports[engine]}") as channel:
            return EngineStub(channel).Health(
                pb.HealthRequest(), timeout=POLL_LIMIT_S, wait_for_ready=True
            )

    def at_rest(self) -> bool:
        """Nothing runs and every KV block is free, on all engines."""
        try:
            replies = [self.health(engine) for engine in self.engines]
        except grpc.RpcError:  # one is still starting
            return False
        return all(
            reply.running == reply.waiting == 0 and reply.free_kv_blocks == reply.kv_blocks
            for reply in replies
        )

    def answers(self, way: str) -> bool:
        """A short request goes this way, with both engines doing their part."""
        slo = {"way": way, "report": True}
        body = {"model": self.model, "prompt": "a b c", "max_tokens": 3, "slo": slo}
        try:
            url = f"{self.url}/v1/completions"
            answer = httpx.post(url, json=body, timeout=POLL_LIMIT_S, verify=NO_TLS)
        except httpx.HTTPError:
            return False
        if answer.status_code != httpx.codes.OK:
            return False
        report = answer.json()["slo"]
        return bool(report["way"] == way and not report["recomputed"])


def wait_until(holds: Callable[[], bool], limit_s: float) -> float:
    """Seconds until it held. Raises AssertionError past the limit."""
    started_s = time.monotonic()  # noqa: TID251 - real processes live in real time
    while not holds():
        waited_s = time.monotonic() - started_s  # noqa: TID251 - the same
        assert waited_s < limit_s, f"still not after {limit_s} s"
        time.sleep(min(0.05 + waited_s / 20, 0.5))  # each look takes of the cores that we wait for
    return time.monotonic() - started_s  # noqa: TID251 - the same


def is_core(process: psutil.Process) -> bool:
    """vLLM gives its engine core this name."""
    return any("EngineCor" in word for word in process.cmdline() or [process.name()])


def pids_of_part(part: str, port: int) -> list[int]:
    """The process that serves a part at this port; its forks carry another name."""
    role, _, _ = part.partition("-")
    module, flag = f"services.{role}\0".encode(), f"\0--port\0{port}\0".encode()
    return [pid for pid, line in _command_lines() if module in line and flag in line]


def pids_with_text(text: str) -> list[int]:
    return [pid for pid, line in _command_lines() if text.encode() in line]


def _command_lines() -> Iterator[tuple[int, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes()
            except OSError:  # it ended while we looked
                continue


@contextmanager
def running_node(
    model: str, run_dir: Path, *more: str, kv_cache_gib: float = KV_CACHE_GIB, decode: int = 1
) -> Iterator[Node]:
    """Starts a node, waits until it serves, and ends it unless the test has done so.

    Raises AssertionError where it does not end with 0 or leaves a process.
    """
    ports, flags = free_ports(decode)
    with (run_dir / "up.log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "services",
                *_flags(model, run_dir, kv_cache_gib),
                *flags,
                *more,
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
    node = Node(process, ports, run_dir, model)
    try:
        wait_until(lambda: _ready(node), START_LIMIT_S)
        yield node
    finally:
        status = node.end(signal.SIGTERM) if process.poll() is None else 0
    assert status == 0, (run_dir / "up.log").read_text()


def free_ports(decode: int = 1) -> tuple[NodePorts, list[str]]:
    """Free ports for a node with so many decode engines, and the flags that say so."""
    for base in _bases():
        numbers = {
            "port": base,
            "planner_port": base + 1,
            "planner_metrics_port": base + 2,
            "engine_port": base + 10,
            "engine_metrics_port": base + 20,
            "kv_port": base + 30,
            "nixl_port": base + 40,
            "decode": decode,
        }
        with suppress(ConfigError):
            ports = assign_ports(NodeOptions(**numbers))  # type: ignore[arg-type] # ports alone
            words = [(f"--{key.replace('_', '-')}", str(value)) for key, value in numbers.items()]
            return ports, [word for pair in words for word in pair]
    raise AssertionError("no free ports on this machine")


def _bases() -> list[int]:
    """Where the ports of a node may begin, below those of outgoing connections, in any order.

    No two workers of pytest share one: they would both find it free.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    bases = range(10_000 + worker % _WORKERS * _PORTS, 32_700, _WORKERS * _PORTS)
    return random.sample(bases, len(bases))


def _flags(model: str, run_dir: Path, kv_cache_gib: float) -> list[str]:
    flags = {"model": model, "run-dir": run_dir, "max-model-len": 2048}
    flags["kv-cache-gib"] = kv_cache_gib
    return [word for key, value in flags.items() for word in (f"--{key}", str(value))]


def _ready(node: Node) -> bool:
    log = (node.run_dir / "up.log").read_text()
    assert node.process.poll() is None, log
    return "Serving " in log
