"""Assigns a port to each part and checks that these ports are free."""

import hashlib
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.node.config import HIGHEST_PORT, NodeOptions
from shared.errors import ConfigError
from shared.ports import LOOPBACK, FreePorts


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePorts:
    """The ports of one engine; its worker n listens for KV on `kv + n`."""

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
    """The ports of the options; with `auto_ports`, free ones for those that are not named.

    A port counts as named where it is not the option's default. Raises ConfigError, with port and
    option, when a port of the options is taken.
    """
    ports = _fixed(options)
    named = {flag for _, _, flag in _uses(ports, options) if _is_named(flag, options)}
    for port, host, flag in _uses(ports, options):
        if flag in named or not options.auto_ports:
            _check(port, host, flag)
    return _picked(ports, named, options) if options.auto_ports else ports


class Claims:
    """What one node has for itself on this machine until `close`: its ports, also while its parts
    still start, and its run folder.

    A claim is the name of an abstract Unix socket: the kernel frees it with the process.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def ports(self, ports: NodePorts, options: NodeOptions) -> None:
        """Raises ConfigError for a port that another node has claimed."""
        for port, _, flag in _uses(ports, options):
            if not self._claim(f"port/{port}"):
                raise ConfigError(
                    f"Port {port} is that of another node that runs or starts on this machine: end "
                    f"it, name another port with {flag}, or say --auto-ports."
                )

    def run_dir(self, folder: Path) -> None:
        """Raises ConfigError where another node has its logs there."""
        if not self._claim(f"run/{hashlib.sha256(bytes(folder)).hexdigest()}"):
            raise ConfigError(
                f"Another node runs or starts in {folder}: end it, or name another folder with "
                "--run-dir."
            )

    def close(self) -> None:
        for one in self._sockets:
            one.close()

    def _claim(self, name: str) -> bool:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sockets.append(claim)
        try:
            claim.bind(f"\0slos-serve/{name}")
        except OSError:
            return False
        return True


def _is_named(flag: str, options: NodeOptions) -> bool:
    name = flag.removeprefix("--").replace("-", "_")
    return bool(getattr(options, name) != getattr(NodeOptions(), name))


def _fixed(options: NodeOptions) -> NodePorts:
    return NodePorts(
        gateway=options.port,
        planner=options.planner_port,
        planner_metrics=options.planner_metrics_port,
        engines=tuple(
            EnginePorts(
                rpc=options.engine_port + number,
                metrics=options.engine_metrics_port + number,
                kv=options.kv_port + number * _workers(options),
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
        for worker in range(_workers(options)):
            yield engine.kv + worker, LOOPBACK, "--kv-port"
        yield engine.nixl, LOOPBACK, "--nixl-port"


def _workers(options: NodeOptions) -> int:
    """Workers of each engine."""
    return options.tensor_parallel or 1


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


def _picked(fixed: NodePorts, named: Collection[str], options: NodeOptions) -> NodePorts:
    """`fixed` where its flag is `named`, free ports elsewhere."""
    with FreePorts() as ports:

        def port(flag: str, own: int, host: str = LOOPBACK, count: int = 1) -> int:
            return own if flag in named else ports.pick(host, count)

        return NodePorts(
            gateway=port("--port", fixed.gateway, options.host),
            planner=port("--planner-port", fixed.planner),
            planner_metrics=port("--planner-metrics-port", fixed.planner_metrics),
            engines=tuple(
                EnginePorts(
                    rpc=port("--engine-port", one.rpc),
                    metrics=port("--engine-metrics-port", one.metrics),
                    kv=port("--kv-port", one.kv, count=_workers(options)),
                    nixl=port("--nixl-port", one.nixl),
                )
                for one in fixed.engines
            ),
        )
