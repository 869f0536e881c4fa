"""Which processes make a node, with which options. Pure: starts nothing."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from services.node.config import NodeOptions
from services.node.ports import EnginePorts, NodePorts
from services.node.shares import CpuShare
from shared.ports import LOOPBACK

_ENGINE_NICE = 5


class Rank(StrEnum):
    """Parts of one rank stop together; the ranks stop in this order."""

    GATEWAY = "gateway"
    ENGINE = "engine"
    PLANNER = "planner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the node. `address` is where it answers whether it is ready."""

    name: str
    rank: Rank
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)  # on top of our own
    address: str
    log: Path
    stop_limit_s: float
    nice: int = 0  # added to our own


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """All parts in the order in which they start."""

    parts: tuple[Part, ...]
    url: str
    planner: str
    model_name: str

    @property
    def engine_names(self) -> frozenset[str]:
        return frozenset(part.name for part in self.parts if part.rank is Rank.ENGINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the plan needs to know of the machine. `shares` is empty where vLLM has a GPU.

    `model` is the resolved one: a folder or a hub name.
    """

    model: str
    model_is_local: bool
    shares: Sequence[CpuShare]
    run_dir: Path
    environ: Mapping[str, str] = field(default_factory=dict)  # for every part


def plan_node(options: NodeOptions, ports: NodePorts, around: Surroundings) -> NodePlan:
    engines = [
        _engine(options, ports, around, number, role) for number, role in enumerate(_roles(options))
    ]
    parts = (_planner(ports, around), *engines, _gateway(options, ports, around))
    return NodePlan(
        parts=parts,
        url=f"http://{_reachable(options.host)}:{ports.gateway}",
        planner=f"{LOOPBACK}:{ports.planner}",
        model_name=options.api_model_name,
    )


def _roles(options: NodeOptions) -> list[str]:
    return ["prefill"] * options.prefill + ["decode"] * options.decode


def _planner(ports: NodePorts, around: Surroundings) -> Part:
    flags = {"host": LOOPBACK, "port": ports.planner, "metrics_port": ports.planner_metrics}
    return _part(
        around,
        name="planner",
        rank=Rank.PLANNER,
        module="services.planner",
        flags=flags,
        address=f"{LOOPBACK}:{ports.planner}",
        stop_limit_s=10.0,
    )


def _engine(
    options: NodeOptions, ports: NodePorts, around: Surroundings, number: int, role: str
) -> Part:
    own = ports.engines[number]
    name = f"{role}-{number if role == 'prefill' else number - options.prefill}"
    share = around.shares[number] if around.shares else None
    return _part(
        around,
        name=name,
        rank=Rank.ENGINE,
        module=f"services.{role}",
        flags=_engine_flags(options, ports, around, own, share) | {"name": name},
        address=f"{LOOPBACK}:{own.rpc}",
        stop_limit_s=options.drain_limit_s + 15.0,
    )


def _engine_flags(
    options: NodeOptions,
    ports: NodePorts,
    around: Surroundings,
    own: EnginePorts,
    share: CpuShare | None,
) -> dict[str, object]:
    return {
        "host": LOOPBACK,
        "port": own.rpc,
        "planner": f"{LOOPBACK}:{ports.planner}",
        "metrics_port": own.metrics,
        "kv_host": LOOPBACK,
        "kv_port": own.kv,
        "nixl_port": own.nixl,
        "kv_transport": options.kv_transport,
        "model": around.model,
        "served_model_name": options.api_model_name,
        "dtype": _dtype(options, around),
        "max_model_len": options.max_model_len,
        "max_step_tokens": options.max_step_tokens,
        "max_running_requests": options.max_running_requests,
        "kv_cache_gib": share.kv_cache_gib if share else options.kv_cache_gib,
        "cores": share.cores if share else None,
        "drain_limit_s": options.drain_limit_s,
    }


def _gateway(options: NodeOptions, ports: NodePorts, around: Surroundings) -> Part:
    flags = {
        "host": options.host,
        "port": ports.gateway,
        "planner": f"{LOOPBACK}:{ports.planner}",
        "model": around.model,
        "served_model_name": options.api_model_name,
        "dtype": _dtype(options, around),
        "max_model_len": options.max_model_len,
        "drain_limit_s": options.drain_limit_s,
    }
    return _part(
        around,
        name="gateway",
        rank=Rank.GATEWAY,
        module="services.gateway",
        flags=flags,
        address=f"http://{_reachable(options.host)}:{ports.gateway}",
        stop_limit_s=options.drain_limit_s + 5.0,
    )


def _dtype(options: NodeOptions, around: Surroundings) -> str:
    """On CPU bfloat16 rounds so coarsely that the batch's shape changes answers."""
    return "float32" if options.dtype == "auto" and around.shares else options.dtype


def _part(
    around: Surroundings,
    *,
    name: str,
    rank: Rank,
    module: str,
    flags: Mapping[str, object],
    address: str,
    stop_limit_s: float,
) -> Part:
    """A flag that is None stays away, so that the part's own default or YAML section holds."""
    words = [
        word
        for key, value in flags.items()
        if value is not None
        for word in (f"--{key.replace('_', '-')}", str(value))
    ]
    offline = {"HF_HUB_OFFLINE": "1"} if around.model_is_local else {}
    return Part(
        name=name,
        rank=rank,
        command=(sys.executable, "-m", module, *words),
        environ={**around.environ, **offline},
        address=address,
        log=around.run_dir / "logs" / f"{name}.log",
        stop_limit_s=stop_limit_s,
        # Without a GPU a step takes all of a core for long, and messages are not to wait for it.
        nice=_ENGINE_NICE if rank is Rank.ENGINE and around.shares else 0,
    )


def _reachable(host: str) -> str:
    """An address to reach ourselves at, for one that only says where to listen."""
    reachable = {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "::1"}.get(host, host)
    return f"[{reachable}]" if ":" in reachable else reachable
