"""Plans the processes of a node and their options."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from services.node.config import NodeOptions
from services.node.gpu_shares import GpuShare
from services.node.ports import EnginePorts, NodePorts
from services.node.shares import CpuShare
from shared.cluster_secret import IDENTITY_VARIABLE
from shared.ports import LOOPBACK

_ENGINE_NICE = 5
# gRPC would write a line for each handshake that fails; our log names each peer once.
_QUIET = {"GRPC_VERBOSITY": "ERROR"}


class Rank(StrEnum):
    """The kind of a part. Parts of one rank stop together; the ranks stop in this order."""

    GATEWAY = "gateway"
    ENGINE = "engine"
    PLANNER = "planner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the node.

    Attributes:
        environ: Variables in addition to those of the parent.
        address: Where it answers health checks.
        nice: Added to the parent's.
        cores: The CPUs that it may use; empty for all of the parent's.
        after: The part that must be ready before this one starts; empty for none.
    """

    name: str
    rank: Rank
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    address: str
    log: Path
    stop_limit_s: float
    nice: int = 0
    cores: tuple[int, ...] = ()
    after: str = ""

    @property
    def secret_file(self) -> str:
        """The file of the cluster secret; empty without one."""
        return self.environ.get(IDENTITY_VARIABLE, "")


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
    """What the plan depends on, beside the options.

    Attributes:
        model: The resolved model: a folder or a hub name.
        shares: Cores and memory of each engine where vLLM computes on CPU; empty on GPUs.
        gpu_shares: GPUs of each engine; empty on CPU.
        environ: Variables of every part.
    """

    model: str
    model_is_local: bool
    shares: Sequence[CpuShare]
    gpu_shares: Sequence[GpuShare] = ()
    run_dir: Path
    environ: Mapping[str, str] = field(default_factory=dict)


def plan_node(options: NodeOptions, ports: NodePorts, around: Surroundings) -> NodePlan:
    planner = f"{LOOPBACK}:{ports.planner}"
    engines = [
        _engine(options, ports, around, number, role) for number, role in enumerate(_roles(options))
    ]
    parts = (
        planner_part(around, host=LOOPBACK, port=ports.planner, metrics_port=ports.planner_metrics),
        *engines,
        gateway_part(options, around, host=options.host, port=ports.gateway, planner=planner),
    )
    return NodePlan(
        parts=parts,
        url=parts[-1].address,
        planner=planner,
        model_name=options.api_model_name,
    )


def _roles(options: NodeOptions) -> list[str]:
    return ["prefill"] * options.prefill + ["decode"] * options.decode


def _engine(
    options: NodeOptions, ports: NodePorts, around: Surroundings, number: int, role: str
) -> Part:
    gpus = around.gpu_shares[number] if around.gpu_shares else None
    part = engine_part(
        options,
        around,
        name=_engine_name(options, number),
        role=role,
        host=LOOPBACK,
        own=ports.engines[number],
        share=around.shares[number] if around.shares else None,
        gpu_share=gpus,
        planner=f"{LOOPBACK}:{ports.planner}",
    )
    if gpus is None:
        return part
    return replace(
        part,
        environ={**part.environ, **gpus.environ},
        cores=gpus.cores,
        # vLLM measures free memory while it starts: one engine at a time on a GPU.
        after=_engine_name(options, number - 1) if gpus.shared and number else "",
    )


def _engine_name(options: NodeOptions, number: int) -> str:
    """The role and the engine's number within it."""
    if number < options.prefill:
        return f"prefill-{number}"
    return f"decode-{number - options.prefill}"


def planner_part(around: Surroundings, *, host: str, port: int, metrics_port: int) -> Part:
    return _part(
        around,
        name="planner",
        rank=Rank.PLANNER,
        module="services.planner",
        flags={"host": host, "port": port, "metrics_port": metrics_port},
        address=f"{host}:{port}",
        stop_limit_s=10.0,
    )


def engine_part(
    options: NodeOptions,
    around: Surroundings,
    *,
    name: str,
    role: str,
    host: str,
    own: EnginePorts,
    share: CpuShare | None,
    gpu_share: GpuShare | None = None,
    planner: str,
) -> Part:
    """One engine. All its ports are on `host`, where other processes reach it."""
    return _part(
        around,
        name=name,
        rank=Rank.ENGINE,
        module=f"services.{role}",
        flags={
            **_addresses(host, own, planner),
            **_engine_flags(options, around, share, gpu_share),
            "name": name,
        },
        address=f"{host}:{own.rpc}",
        stop_limit_s=options.drain_limit_s + 15.0,
    )


def _addresses(host: str, own: EnginePorts, planner: str) -> dict[str, object]:
    return {
        "host": host,
        "port": own.rpc,
        "planner": planner,
        "metrics_host": None if host == LOOPBACK else host,  # loopback is the default
        "metrics_port": own.metrics,
        "kv_host": host,
        "kv_port": own.kv,
        "nixl_port": own.nixl,
    }


def _engine_flags(
    options: NodeOptions,
    around: Surroundings,
    share: CpuShare | None,
    gpu_share: GpuShare | None,
) -> dict[str, object]:
    return {
        "kv_transport": options.kv_transport,
        "model": around.model,
        "served_model_name": options.api_model_name,
        "dtype": _dtype(options, around),
        "max_model_len": options.max_model_len,
        "max_step_tokens": options.max_step_tokens,
        "max_running_requests": options.max_running_requests,
        "tensor_parallel_size": options.tensor_parallel,
        "gpu_memory_utilization": gpu_share.memory_utilization
        if gpu_share
        else options.gpu_memory_utilization,
        "kv_cache_gib": share.kv_cache_gib if share else options.kv_cache_gib,
        "cores": share.cores if share else None,
        "drain_limit_s": options.drain_limit_s,
    }


def gateway_part(
    options: NodeOptions, around: Surroundings, *, host: str, port: int, planner: str
) -> Part:
    flags = {
        "host": host,
        "port": port,
        "planner": planner,
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
        address=f"http://{_reachable(host)}:{port}",
        stop_limit_s=options.drain_limit_s + 5.0,
    )


def _dtype(options: NodeOptions, around: Surroundings) -> str:
    """float32 on CPU, where bfloat16 rounds so coarsely that the batch's shape changes answers."""
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
    """Builds a part. Flags that are None are left to its defaults and its YAML section."""
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
        environ={**_QUIET, **around.environ, **offline},
        address=address,
        log=around.run_dir / "logs" / f"{name}.log",
        stop_limit_s=stop_limit_s,
        # Without a GPU, long steps take whole cores; messages must not wait for them.
        nice=_ENGINE_NICE if rank is Rank.ENGINE and around.shares else 0,
    )


def _reachable(host: str) -> str:
    """An address that reaches a part of this machine which listens on `host`."""
    reachable = {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "::1"}.get(host, host)
    return f"[{reachable}]" if ":" in reachable else reachable
