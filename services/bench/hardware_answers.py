"""Compares published times of vLLM for whole static batches with simulated ones.

Each prompt of a batch is as long as its answer. The measured A100s behave as those of 40 GB.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.bench.fit_tables import Timed, read_rows
from services.bench.hardware_facts import A100_40GB, H100_80GB, Gpu, Model
from services.bench.hardware_fit import true_times_s
from shared.batch_time import Step
from shared.batch_time.table import counts_of
from shared.hardware import KvMemory, TrueStep

_FILE = "llm_inference_bench_nvidia.csv.gz"
_FRAMEWORK = "vLLM"
_HARDWARE = {
    "a100-80gb": ("Nvidia A100 GPU", A100_40GB),
    "h100-80gb": ("Nvidia H100 GPU", H100_80GB),
}
_MODELS = {
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama-2-70b": "meta-llama/Llama-2-70b-hf",
}
_HELD = 0.75  # share of the KV; above it, requests were preempted
_STEP_TOKENS = 8192
_ACTIVATION_BYTES = 2.0e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """`batch` requests at once, each with a prompt and an answer of `tokens`."""

    batch: int
    tokens: int
    seconds: float


def answers(folder: Path, gpu: Gpu, model: Model, gpus: int) -> list[Answers]:
    """The published batches that fit into the KV cache; none if such an engine was not measured."""
    path = folder / _FILE
    if gpu.name not in _HARDWARE or model.name not in _MODELS or not path.exists():
        return []
    hardware, real = _HARDWARE[gpu.name]
    wanted = hardware, str(gpus), _FRAMEWORK, _MODELS[model.name]
    names = "Hardware", "Num of Hardware", "Framework", "Model"
    found = [
        Answers(
            batch=int(row["Batch Size"]),
            tokens=int(row["Input Output Length"]),
            seconds=float(row["Latency"]),
        )
        for row in read_rows(path)
        if tuple(row[name] for name in names) == wanted
    ]
    held = _HELD * _kv_tokens(real, model, gpus)
    return [one for one in found if 2 * one.batch * one.tokens <= held]


def simulated_s(step: TrueStep, one: Answers) -> float:
    """Simulated seconds of a batch: all prompts, then all decodes."""
    return prompts_s(step, one) + float(_times_s(step, list(_decodes(one))).sum())


def prompts_s(step: TrueStep, one: Answers) -> float:
    at_once = max(1, _STEP_TOKENS // one.tokens)
    sizes = [min(at_once, one.batch - first) for first in range(0, one.batch, at_once)]
    return float(_times_s(step, [_prompts(size, one.tokens) for size in sizes]).sum())


def decode_rows(step: TrueStep, found: Sequence[Answers]) -> tuple[Timed, ...]:
    """The mean decode step of each batch, at its mean context, less its prompts by `step`."""
    return tuple(
        Timed(
            step=_decode(one.batch, 1.5 * one.tokens),
            seconds=(one.seconds - prompts_s(step, one)) / (one.tokens - 1),
        )
        for one in found
    )


def _decodes(one: Answers) -> Iterator[Step]:
    return (_decode(one.batch, one.tokens + place) for place in range(1, one.tokens))


def _decode(batch: int, context_tokens: float) -> Step:
    return Step(
        decodes=batch,
        decode_context_tokens=batch * context_tokens,
        longest_context_tokens=context_tokens,
    )


def _prompts(count: int, tokens: int) -> Step:
    step = Step()
    for _ in range(count):
        step = step.with_chunk(tokens)
    return step


def _times_s(step: TrueStep, steps: list[Step]) -> NDArray[np.float64]:
    return np.asarray(true_times_s(step.numbers, np.array([counts_of(one) for one in steps])))


def _kv_tokens(gpu: Gpu, model: Model, gpus: int) -> int:
    return KvMemory(
        gpus=gpus,
        gpu_bytes=gpu.usable_bytes,
        weight_bytes=model.weight_bytes,
        activation_bytes=_ACTIVATION_BYTES,
        kv_bytes_per_token=model.kv_bytes_per_token,
    ).blocks(1)
