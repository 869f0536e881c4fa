"""Plans the process of an actor on its node, its addresses, and what Ray reserves for it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.node.on_ray.config import FleetOptions
from services.node.plan import (
    Part,
    Surroundings,
    engine_part,
    gateway_part,
    planner_part,
)
from services.node.ports import EnginePorts
from services.node.shares import CpuShare
from shared.cluster_secret import IDENTITY_VARIABLE
from shared.listening import INSECURE_VARIABLE
from shared.models import EMBEDDED, TINY
from shared.ports import LOOPBACK, FreePorts

_SHUTDOWN_MARGIN_S = 10.0  # what an actor needs beyond its process
_EVERYWHERE = ("0.0.0.0", "::")
_PASSED_ON = "SLOS_"
_NOT_PASSED_ON = (
    *("SLOS_NODE_", "SLOS_CACHE", "SLOS_CONFIG"),
    *(IDENTITY_VARIABLE, INSECURE_VARIABLE),  # part of FleetOptions
)


class Service(StrEnum):
    """A unit of scaling: a Serve application with one deployment."""

    GATEWAY = "gateway"
    PREFILL = "prefill"
    DECODE = "decode"

    @property
    def application(self) -> str:
        return f"slos-serve-{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """What Ray reserves for one actor of a service and its process."""

    cpus: float
    gpus: int
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def bundle(self) -> dict[str, float]:
        """The bundle of a placement group."""
        return {"CPU": self.cpus} | ({"GPU": float(self.gpus)} if self.gpus else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The node of an actor; other nodes reach it at `address`."""

    address: str
    kv_cache_gib: float | None  # None: vLLM's default, on a GPU

    @property
    def share(self) -> CpuShare | None:
        if self.kv_cache_gib is None:
            return None
        return CpuShare(cores="", kv_cache_gib=self.kv_cache_gib)


def reserved(fleet: FleetOptions, service: Service) -> Reserved:
    if service is Service.GATEWAY:
        custom = fleet.up.gateway_resource
        return Reserved(cpus=0.0, gpus=0, others={custom: 1.0} if custom else {})
    return Reserved(cpus=fleet.up.cpus_per_engine, gpus=fleet.gpus_per_engine)


def placement(fleet: FleetOptions, service: Service) -> dict[str, Any]:
    """Placement options of Serve: one bundle for each engine, at most one gateway on a node.

    All gateways listen on the same port.
    """
    if service is Service.GATEWAY:
        return {"max_replicas_per_node": 1}
    bundle = reserved(fleet, service).bundle
    return {"placement_group_bundles": [bundle], "placement_group_strategy": "STRICT_PACK"}


def first_counts(fleet: FleetOptions) -> dict[Service, int]:
    up = fleet.up
    return {
        Service.GATEWAY: up.gateways,
        Service.PREFILL: up.prefill,
        Service.DECODE: up.decode,
    }


def stop_limit_s(fleet: FleetOptions) -> float:
    """How long an actor may take to end, with the drain of its process."""
    return fleet.up.drain_limit_s + 15.0 + _SHUTDOWN_MARGIN_S


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """The operator's variables that every node gets: options of parts, without folders."""
    return {
        key: value
        for key, value in environ.items()
        if key.startswith(_PASSED_ON) and not key.startswith(_NOT_PASSED_ON)
    }


def planner_on(fleet: FleetOptions, here: Here) -> Part:
    up = fleet.up
    port, metrics_port = up.planner_port, up.planner_metrics_port
    if up.auto_ports:
        with FreePorts() as ports:
            port, metrics_port = ports.pick(here.address), ports.pick(here.address)
    return planner_part(
        _around(fleet, here), host=here.address, port=port, metrics_port=metrics_port
    )


def part_on(fleet: FleetOptions, here: Here, service: Service, name: str, planner: str) -> Part:
    """The process of one actor of a service. Raises ConfigError where no port is free."""
    if service is Service.GATEWAY:
        return _gateway_on(fleet, here, name, planner)
    return engine_part(
        fleet.up,
        _around(fleet, here),
        name=name,
        role=service.value,
        host=here.address,
        own=_engine_ports(here, workers=fleet.up.tensor_parallel or 1),
        share=here.share,
        planner=planner,
    )


def _gateway_on(fleet: FleetOptions, here: Here, name: str, planner: str) -> Part:
    up, host = fleet.up, fleet.up.host or here.address
    port = up.port
    if up.auto_ports:
        with FreePorts() as ports:
            port = ports.pick(host)
    around = _around(fleet, here)
    part = gateway_part(up, around, host=host, port=port, planner=planner)
    return replace(part, name=name, log=around.run_dir / "logs" / f"{name}.log")


def _engine_ports(here: Here, *, workers: int) -> EnginePorts:
    """Free ports, since a node may run any number of engines of several fleets."""
    with FreePorts() as ports:
        rpc, metrics, nixl = (ports.pick(here.address) for _ in range(3))
        kv = ports.pick(here.address, workers)
    return EnginePorts(rpc=rpc, metrics=metrics, kv=kv, nixl=nixl)


def config_path(fleet: FleetOptions) -> Path:
    """Where a node keeps the configuration; the name has a digest of its text."""
    digest = hashlib.sha256(fleet.config.encode()).hexdigest()[:12]
    return run_dir(fleet) / f"config-{digest}.yaml"


def secret_path(fleet: FleetOptions) -> str:
    """The file of the secret on a node; empty without a secret."""
    if not fleet.secret:
        return fleet.up.cluster_secret_file
    digest = hashlib.sha256(fleet.secret.encode()).hexdigest()[:12]
    return str(run_dir(fleet) / f"cluster-secret-{digest}")


def run_dir(fleet: FleetOptions) -> Path:
    """The run folder on the actor's node, relative to the home folder there."""
    return Path.home() / Path(fleet.up.run_dir).expanduser()


def _around(fleet: FleetOptions, here: Here) -> Surroundings:
    up = fleet.up
    files = {"SLOS_CONFIG": str(config_path(fleet))} if fleet.config else {}
    if secret := secret_path(fleet):
        files[IDENTITY_VARIABLE] = secret
    insecure = {INSECURE_VARIABLE: "true"} if up.insecure else {}
    return Surroundings(
        model=up.model,  # each part finds it on its own node
        model_is_local=up.model in (EMBEDDED, TINY) or Path(up.model).expanduser().is_dir(),
        shares=[here.share] if here.share else [],
        run_dir=run_dir(fleet),
        environ={**fleet.environ, **files, **insecure},
    )


def reached_at(address: str, host: str, node: str) -> str:
    """Where other nodes reach a part that listens on `host`, which may be a wildcard."""
    return address.replace(LOOPBACK, node) if host in _EVERYWHERE else address
