"""A fleet with TCP proxies (links) between its processes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.bench.chaos.faults import Targets
from services.bench.chaos.links import Link
from services.node.plan import NodePlan, Part, Rank
from services.node.ports import NodePorts
from shared.kv_transfer.settings import KvTransport
from shared.ports import LOOPBACK, FreePorts

_BESIDE: Final = "127.0.0.2"  # where the links to engines listen, at the engines' own ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """`plan` lists the processes to start once the links are open."""

    plan: NodePlan
    links: Sequence[Link]

    @property
    def gateways(self) -> list[Part]:
        return [part for part in self.plan.parts if part.rank is Rank.GATEWAY]

    @property
    def engines(self) -> list[Part]:
        return [part for part in self.plan.parts if part.rank is Rank.ENGINE]

    @property
    def targets(self) -> Targets:
        return Targets(
            parts=[part.name for part in self.plan.parts],
            engines=[part.name for part in self.engines],
            links=[link.name for link in self.links],
        )

    def part(self, name: str) -> Part:
        return next(part for part in self.plan.parts if part.name == name)

    def metrics_page(self, part: Part) -> str:
        """The URL of its metrics, which passes no link."""
        if part.rank is Rank.GATEWAY:
            return f"{part.address}/metrics"
        port = part.command[part.command.index("--metrics-port") + 1]
        return f"http://{LOOPBACK}:{port}/metrics"

    def link(self, name: str) -> Link:
        return next(link for link in self.links if link.name == name)


def linked(plan: NodePlan, ports: NodePorts, gateways: int, transport: KvTransport) -> Fleet:
    """The node of `plan` with this many gateways, and with links.

    Each process reaches the planner over a separate link. Each engine is reached over one link for
    requests and, with ZMQ, over one for KV.
    """
    *others, gateway = plan.parts
    with FreePorts() as free:
        parts = [*others, *_gateways(gateway, gateways, free)]
        links = list(_links(parts, plan.planner, ports, transport, free))
    to_planner = {link.name: link for link in links}
    disturbed = [
        part if part.rank is Rank.PLANNER else _over(part, to_planner[_to_planner(part)], transport)
        for part in parts
    ]
    return Fleet(plan=replace(plan, parts=tuple(disturbed)), links=links)


def _gateways(first: Part, count: int, free: FreePorts) -> Iterator[Part]:
    for number in range(count):
        name = f"gateway-{number}"
        log = first.log.with_name(f"{name}.log")
        if not number:
            yield replace(first, name=name, log=log)
            continue
        port = free.pick()
        yield replace(
            first,
            name=name,
            log=log,
            command=_told(first.command, {"--port": str(port)}),
            address=f"http://{LOOPBACK}:{port}",
        )


def _links(
    parts: Sequence[Part],
    planner: str,
    ports: NodePorts,
    transport: KvTransport,
    free: FreePorts,
) -> Iterator[Link]:
    host, _, port = planner.rpartition(":")
    for part in parts:
        if part.rank is not Rank.PLANNER:
            here = (LOOPBACK, free.pick())
            yield Link(name=_to_planner(part), here=here, there=(host, int(port)))
    engines = [part for part in parts if part.rank is Rank.ENGINE]
    for part, own in zip(engines, ports.engines, strict=True):
        yield _beside(f"to {part.name}", own.rpc)
        if transport is KvTransport.ZMQ:
            yield _beside(f"to the KV of {part.name}", own.kv)


def _beside(name: str, port: int) -> Link:
    return Link(name=name, here=(_BESIDE, port), there=(LOOPBACK, port))


def _to_planner(part: Part) -> str:
    return f"{part.name} to planner"


def _over(part: Part, link: Link, transport: KvTransport) -> Part:
    host, port = link.here
    flags = {"--planner": f"{host}:{port}"}
    if part.rank is Rank.ENGINE:
        flags["--advertise-host"] = _BESIDE
        if transport is KvTransport.ZMQ:
            flags["--kv-advertise-host"] = _BESIDE
    return replace(part, command=_told(part.command, flags))


def _told(command: Sequence[str], flags: Mapping[str, str]) -> tuple[str, ...]:
    """The command with the values of these flags replaced or added."""
    words = list(command)
    for flag, value in flags.items():
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return tuple(words)
