"""What is tried on the running project, one function each. A step that fails raises Failed."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from deploy.compose_test.dashboard import MAY_BE_EMPTY, ask, unanswered
from deploy.compose_test.docker import Compose, Failed, run
from deploy.compose_test.load import Client
from services.node.demo_requests import DemoRequest
from services.node.demo_table import print_answers, problems
from shared.clock import Clock
from shared.engines import KV_USED
from shared.requests import PlacementMode

_START_S: Final = 900.0
_SCALE_S: Final = 600.0
_POLL_S: Final = 1.0
_IN_FLIGHT: Final = 4
_SETTLED_S: Final = 10.0
_INTERVAL: Final = "2m"
_SAMPLE: Final = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
# Ports that the page names, and nothing else beyond loopback.
_GRPC, _METRICS, _KV, _NIXL = 8200, 8300, 8400, 8500
_NIXL_DATA: Final = range(8600, 8700)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The project, a client of its gateway, and where its steps are told."""

    compose: Compose
    client: Client
    clock: Clock
    prometheus: str
    say: Callable[[str], None]

    async def up(self, transport: str, *scales: str) -> None:
        """Starts or changes what runs; waits until every container is healthy."""
        words = [word for scale in scales for word in ("--scale", scale)]
        insecure = str(transport != "zmq").lower()  # NIXL asks for no secret
        environ = {**self.compose.environ, "TRANSPORT": transport, "INSECURE": insecure}
        compose = Compose(project=self.compose.project, environ=environ, observed=True)
        command = ["up", "-d", "--no-build", "--wait", "--wait-timeout", str(int(_START_S)), *words]
        services = ["gateway", "planner", "prefill", "decode", "prometheus"]
        began_s = self.clock.now()
        await asyncio.to_thread(compose, *command, *services, limit_s=_START_S + 60)
        self.say(f"{transport}: up and healthy after {self.clock.now() - began_s:.0f} s")

    async def demo_over(self, transport: str) -> None:
        """The demo's requests, both ways, and KV that moved over the transport."""
        answers = await self.client.demo()
        print_answers(answers, Console(width=120))
        found = problems(answers)
        moved = self._sum(
            "decode", 8300, "slos_kv_transfers_total", transport=transport, outcome=KV_USED
        )
        if found or not moved:
            raise Failed(f"{transport}: {found or 'no KV moved'}\n{self.compose.log('decode')}")
        size = self._sum("decode", 8300, "slos_kv_transfer_bytes_total", transport=transport)
        self.say(
            f"{transport}: {len(answers)} answers, both ways; "
            f"{moved:.0f} transfers, {size / 1e6:.1f} MB of KV"
        )

    def listens_only_where_documented(self, transport: str) -> None:
        allowed = {_GRPC, _METRICS, _KV}
        if transport != "zmq":
            allowed |= {_NIXL, *_NIXL_DATA}
        for service in ("prefill", "decode"):
            for container in self.compose.containers(service):
                open_ports = listening_ports(
                    run(["docker", "exec", container, "cat", "/proc/net/tcp"])
                )
                if stray := sorted(open_ports - allowed):
                    raise Failed(f"{container} listens on {stray}, which no page names")
                self.say(f"{container} listens on {sorted(open_ports)}")

    async def scale_decode_under_load(self, transport: str) -> None:
        """One engine, two, one; every request that was sent is answered in full."""
        async with self.client.under_load(_IN_FLIGHT) as load:
            await self.clock.sleep(_SETTLED_S)
            await self.up(transport, "decode=2")
            await self._until(
                lambda: self._attached("decode") == 2, "two decode engines at the planner"
            )
            self.say(
                f"decode 1 -> 2: {len(load.answers)} answers so far, {len(load.failures)} failed"
            )
            await self.clock.sleep(_SETTLED_S)
            tokens = [
                self._sum_of(one, 8300, "slos_engine_tokens_total")
                for one in self.compose.containers("decode")
            ]
            began_s = self.clock.now()
            await self.up(transport, "decode=1")
            took_s = self.clock.now() - began_s
            self.say(f"decode 2 -> 1 took {took_s:.0f} s; tokens of the two: {tokens}")
            await self.clock.sleep(_SETTLED_S)
        if load.failures:
            raise Failed(
                f"{len(load.failures)} of {len(load.answers)} requests failed: {load.failures[0]}"
            )
        if not all(tokens):
            raise Failed(f"a decode engine got no work: {tokens}")
        self.say(f"scaled decode 1 -> 2 -> 1 under load: {len(load.answers)} requests, none failed")

    async def dashboard_has_answers(self) -> None:
        """Every expression, asked of the Prometheus that scraped all this."""
        empty = {one.panel for one in unanswered(self.prometheus, _INTERVAL)} - MAY_BE_EMPTY
        if empty:
            raise Failed(f"panels without a number: {', '.join(sorted(empty))}")
        up = ask(self.prometheus, "count by (job) (up == 1)")
        self.say(f"dashboard: every panel has numbers; {up} targets up, by job")

    async def recovers(self, service: str) -> None:
        """Kills the service's process; Docker starts it again and requests go both ways again."""
        (container,) = self.compose.containers(service)
        restarts = self.compose.inspect(container)["RestartCount"]
        began_s = self.clock.now()
        run(["docker", "exec", container, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"])
        await self._until(
            lambda: self.compose.inspect(container)["RestartCount"] > restarts,
            f"a restart of {container}",
        )
        await self._until(
            lambda: all(self._attached(role) == 1 for role in ("prefill", "decode")),
            "both engines at the planner",
        )
        for way in PlacementMode:
            request = DemoRequest(class_name="chat", prompt="Say hello.", answer_tokens=4, way=way)
            await self._until_answered(request)
        self.say(
            f"killed {service}: serving both ways again after {self.clock.now() - began_s:.0f} s"
        )

    async def _until_answered(self, request: DemoRequest) -> None:
        limit_s = self.clock.now() + _START_S
        while (answer := await self.client.one(request)).failure or answer.report["recomputed"]:
            if self.clock.now() > limit_s:
                raise Failed(f"no answer {request.way}: {answer.failure}")
            await self.clock.sleep(_POLL_S)

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        limit_s = self.clock.now() + _SCALE_S
        while not await asyncio.to_thread(holds):
            if self.clock.now() > limit_s:
                raise Failed(f"not within {_SCALE_S:.0f} s: {what}")
            await self.clock.sleep(_POLL_S)

    def _attached(self, role: str) -> float:
        """How many engines of a role the planner counts; none while it does not answer."""
        with suppress(Failed):
            return self._sum("planner", 8101, "slos_planner_engines", role=role)
        return 0.0

    def _sum(self, service: str, port: int, metric: str, **labels: str) -> float:
        return sum(
            self._sum_of(one, port, metric, **labels) for one in self.compose.containers(service)
        )

    def _sum_of(self, container: str, port: int, metric: str, **labels: str) -> float:
        page = self.compose.page(container, f"http://127.0.0.1:{port}/metrics")
        return sum(sample_values(page, metric, **labels))


def sample_values(page: str, metric: str, **labels: str) -> list[float]:
    """The values of a metric on a page of Prometheus's text format."""
    wanted = [f'{name}="{value}"' for name, value in labels.items()]
    matches = (_SAMPLE.match(line) for line in page.splitlines())
    return [
        float(match["value"])
        for match in matches
        if match
        and match["name"] == metric
        and all(one in (match["labels"] or "") for one in wanted)
    ]


def listening_ports(proc_net_tcp: str) -> set[int]:
    """Ports of /proc/net/tcp that are open beyond loopback."""
    ports = set()
    for line in proc_net_tcp.splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        address, _, port = local.partition(":")
        if state == "0A" and not address.endswith("7F"):
            ports.add(int(port, 16))
    return ports
