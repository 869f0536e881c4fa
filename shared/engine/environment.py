"""What vLLM, OpenMP and NIXL read from the environment.

OpenMP reads its variables when torch is loaded, so they must be set before vLLM is imported; yet
only vLLM knows whether it computes on CPU, where alone they count. They are set first, and taken
back on a GPU.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from shared.engine.config import EngineOptions
from shared.engine.core_list import core_numbers
from shared.engine.network import ucx_devices

CPU: Final = "cpu"


def computes_on_cpu() -> bool:
    """Whether vLLM computes on CPU here. Imports vLLM and with it torch, which takes seconds."""
    from shared.engine.vllm_platform import device

    return device() == CPU


def set_environment(
    options: EngineOptions,
    environ: MutableMapping[str, str],
    on_cpu: Callable[[], bool] = computes_on_cpu,
) -> frozenset[int]:
    """Sets what this engine needs; what the operator set stays as it is. Raises ConfigError.

    Returns the cores that this process may use now: OpenMP binds it to the engine's when it loads.
    Does not return but starts this process anew where OpenMP is loaded already.
    """
    threads = thread_environment(options.cores, len(os.sched_getaffinity(0)))
    too_late = missed_by_openmp(threads, environ)
    added = {key: value for key, value in threads.items() if key not in environ}
    environ.update(added)
    if too_late:
        os.execve(sys.executable, sys.orig_argv, environ)  # noqa: S606 - it is this very process
    cores = frozenset(os.sched_getaffinity(0))
    cpu = on_cpu()
    if not cpu:
        for key in added:
            del environ[key]
    for key, value in engine_environment(options, cpu=cpu).items():
        environ.setdefault(key, value)
    return cores


def missed_by_openmp(wanted: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Whether a preloaded OpenMP has read an environment without its variables.

    vLLM advises to preload one, and sets LD_PRELOAD itself for processes below one of its own.
    """
    unset = any(key.startswith("OMP_") and key not in environ for key in wanted)
    return unset and "omp" in environ.get("LD_PRELOAD", "")


def free_threads(cores: Iterable[int]) -> None:
    """Lets every thread of this process run on all of `cores` again.

    The host only hands things on: bound to its engine core's cores it would take their time.
    """
    allowed = set(cores)
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(task.name), allowed)


def engine_environment(options: EngineOptions, *, cpu: bool) -> Mapping[str, str]:
    """The variables of one engine host beside those of its threads. Raises ConfigError."""
    # torch's process groups listen at this machine's name otherwise; all of an engine's workers
    # are on one machine.
    wanted = {"GLOO_SOCKET_IFNAME": "lo"}
    if "nixl" in options.kv_carriers:
        wanted |= _nixl_environment(options, cpu=cpu)
    if not cpu:
        return wanted | {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    return wanted | worker_environment(options, sorted(os.sched_getaffinity(0)))


def _nixl_environment(options: EngineOptions, *, cpu: bool) -> dict[str, str]:
    kv_host = options.kv_listen_host
    wanted = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": kv_host,
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(options.nixl_port),
        "UCX_NET_DEVICES": ",".join(ucx_devices(kv_host)),
    }
    if options.nixl_data_ports:
        wanted["UCX_TCP_PORT_RANGE"] = options.nixl_data_ports
    return wanted | ({"UCX_TLS": "tcp,sm,self"} if cpu else {})


def thread_environment(cores: str, allowed_cores: int) -> dict[str, str]:
    """One thread per core, bound to `cores` (`0-3,6`); where empty, unbound on all but one.

    That one is for the rest of the machine, as vLLM leaves it. Raises ConfigError when `cores` is
    no such list.
    """
    if not cores:
        return {"OMP_NUM_THREADS": str(max(1, allowed_cores - 1))}
    numbers = core_numbers(cores)
    return {
        "OMP_NUM_THREADS": str(len(numbers)),
        "OMP_PLACES": f"{{{','.join(map(str, numbers))}}}",
        "OMP_PROC_BIND": "true",
    }


def worker_environment(options: EngineOptions, allowed: Sequence[int]) -> dict[str, str]:
    """How vLLM lays out an engine on CPU: in one process, or in one for each tensor-parallel rank.

    A worker process of its own, vLLM's default on CPU, takes half again as long to start, 0.7 GB
    more, and a hop for every step. With tensor parallelism each worker gets a part of `cores`, or
    of `allowed`: vLLM's own choice is a NUMA node for each, and an error where there are fewer.
    Workers share a core only where they outnumber the cores. Raises ConfigError.
    """
    workers = options.tensor_parallel_size
    if workers == 1:
        return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    cores = core_numbers(options.cores) if options.cores else list(allowed)
    parts = [cores[at::workers] or [cores[at % len(cores)]] for at in range(workers)]
    lists = "|".join(",".join(map(str, part)) for part in parts)
    return {"VLLM_CPU_OMP_THREADS_BIND": lists}
