"""Surveys the machine before a node starts: its model, its cores, memory and GPUs."""

import os
import subprocess
from pathlib import Path
from typing import Final

from rich.console import Console

from services.node.config import NodeOptions
from services.node.gpu_shares import GpuShare, share_gpus
from services.node.gpus import read_gpus
from services.node.machine import answered_device, ask_device, memory_gib
from services.node.plan import Surroundings
from services.node.shares import CpuShare, share_cpu
from shared.cluster_secret import IDENTITY_VARIABLE
from shared.engine.environment import CPU
from shared.errors import ConfigError
from shared.models import is_local, resolve_model

CONFIG_VARIABLE: Final = "SLOS_CONFIG"


def unsurveyed(options: NodeOptions, config: str | None) -> Surroundings:
    """What is known before the machine is read: enough for all options but cores and memory."""
    return Surroundings(
        model=options.model,
        model_is_local=False,
        shares=[],
        run_dir=run_dir_of(options),
        environ=_part_environment(config, options.cluster_secret_file),
    )


def survey(options: NodeOptions, config: str | None, console: Console) -> Surroundings:
    """Reads the machine and prepares the model, which is slow at a first start."""
    run_dir = run_dir_of(options)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"Cannot make {run_dir} ({error.strerror}): name another folder with --run-dir."
        ) from error
    asked = ask_device()  # runs while the model is prepared
    model = resolve_model(
        options.model, say=lambda line: console.print(line, highlight=False, soft_wrap=True)
    )
    device = answered_device(asked)
    return Surroundings(
        model=model,
        model_is_local=is_local(model),
        shares=_cpu_shares(options) if device == CPU else [],
        gpu_shares=_gpu_shares(options, device, console),
        run_dir=run_dir,
        environ=_part_environment(config, options.cluster_secret_file),
    )


def run_dir_of(options: NodeOptions) -> Path:
    return Path(options.run_dir).expanduser().resolve()


def _part_environment(config: str | None, secret_file: str) -> dict[str, str]:
    """Variables of every part; files as absolute paths."""
    named = {CONFIG_VARIABLE: config, IDENTITY_VARIABLE: secret_file}
    return {key: str(Path(path).expanduser().resolve()) for key, path in named.items() if path}


def _cpu_shares(options: NodeOptions) -> list[CpuShare]:
    if options.gpus_per_engine:
        raise ConfigError(
            "vLLM computes on CPU here, so that --gpus-per-engine has no GPU to give: see "
            "`slos-serve doctor`, or leave it out."
        )
    cores = sorted(os.sched_getaffinity(0))
    return share_cpu(cores, memory_gib(), options.engines, options.kv_cache_gib)


def _gpu_shares(options: NodeOptions, device: str, console: Console) -> list[GpuShare]:
    """GPUs of each engine. Empty on CPU and on GPUs other than NVIDIA's, which engines choose."""
    if device == CPU:
        return []
    try:
        gpus = read_gpus(os.environ)
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"nvidia-smi: {error}: see `slos-serve doctor`.") from error
    if not device:
        raise ConfigError(
            "vLLM finds no GPU here, and its build for CUDA does not compute on CPU: see "
            "`slos-serve doctor`, or make ENGINE=engine-cpu."
        )
    if not gpus:
        return []
    each = options.gpus_of_an_engine
    shares = share_gpus(gpus, options.engines, each, options.gpu_memory_utilization)
    idle = {one.index for one in gpus} - {number for share in shares for number in share.gpus}
    if idle:
        console.print(
            f"{len(idle)} of {len(gpus)} GPUs stay idle: more engines with --prefill and --decode, "
            "larger ones with --gpus-per-engine.",
            highlight=False,
            soft_wrap=True,
        )
    return shares
