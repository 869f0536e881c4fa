"""Which part listens where, and whether those ports are free. Starts nothing."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from services.node.config import HIGHEST_PORT, NodeOptions
from shared.errors import ConfigError
from shared.ports import LOOPBACK, FreePorts


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePorts:
    """The ports of one engine."""

    rpc: int
    metrics: int
    kv: int
    nixl: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePorts:
    """The ports of all parts; engines in the order prefill, then decode."""

    gateway: int
    planner: int
    planner_metrics: int
    engines: tuple[EnginePorts, ...]


def assign_ports(options: NodeOptions) -> NodePorts:
    """Free ports of the system's choice, or the ones that the options name.

    Raises ConfigError, naming port and option, when one of those is taken.
    """
    if options.auto_ports:
        return _picked(options)
    ports = _fixed(options)
    for port, host, flag in _uses(ports, options):
        _check(port, host, flag)
    return ports


def _fixed(options: NodeOptions) -> NodePorts:
    return NodePorts(
        gateway=options.port,
        planner=options.planner_port,
        planner_metrics=options.planner_metrics_port,
        engines=tuple(
            EnginePorts(
                rpc=options.engine_port + number,
                metrics=options.engine_metrics_port + number,
                kv=options.kv_port + number,
                nixl=options.nixl_port + number,
            )
            for number in range(options.engines)
        ),
    )


def _uses(ports: NodePorts, options: NodeOptions) -> Iterator[tuple[int, str, str]]:
    yield ports.gateway, options.host, "--port"
    yield ports.planner, LOOPBACK, "--planner-port"
    yield ports.planner_metrics, LOOPBACK, "--planner-metrics-port"
    for engine in ports.engines:
        yield engine.rpc, LOOPBACK, "--engine-port"
        yield engine.metrics, LOOPBACK, "--engine-metrics-port"
        yield engine.kv, LOOPBACK, "--kv-port"
        yield engine.nixl, LOOPBACK, "--nixl-port"


def _check(port: int, host: str, flag: str) -> None:
    if port > HIGHEST_PORT:
        raise ConfigError(f"{flag} leaves no room for all engines: port {port} does not exist.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"Port {port} on {host} cannot be had ({error.strerror}): "
                f"free it, name another with {flag}, or say --auto-ports."
            ) from error


def _picked(options: NodeOptions) -> NodePorts:
    with FreePorts() as ports:
        return NodePorts(
            gateway=ports.pick(options.host),
            planner=ports.pick(),
            planner_metrics=ports.pick(),
            engines=tuple(
                EnginePorts(
                    rpc=ports.pick(), metrics=ports.pick(), kv=ports.pick(), nixl=ports.pick()
                )
                for _ in range(options.engines)
            ),
        )
