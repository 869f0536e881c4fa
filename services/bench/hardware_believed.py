"""Errors of the planner's step-time model, fitted to a noisy profile of a simulated engine.

They are measured on random steps that the profile has not seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.batch_time import Kind, Step, StepTable
from shared.batch_time.table import counts_of
from shared.hardware import Hardware, exact, noisy_s, paper_form, profiled, true_s

Floats = NDArray[np.float64]
_STEPS, _SEED = 2000, 11
_LEAST_CONTEXT, _LEAST_CHUNK, _MOST_CHUNK = 32, 16, 2048
_MOST_CHUNKS, _CONTINUED = 3, 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """One kind of step: relative errors in percent against true times without noise.

    `within` is the share of noisy steps within the model's bound (`sure_s`).
    """

    steps: int
    p50: float
    p95: float
    within: float


def believed(hardware: Hardware, seed: int = 0) -> dict[str, Mapping[Kind, Believed]]:
    """Errors by table (`ours`, `paper`, `exact`), then by kind of step."""
    tables = {
        "ours": profiled(hardware, seed),
        "paper": paper_form(hardware, seed),
        "exact": exact(hardware),
    }
    steps = list(random_steps(hardware, _STEPS))
    return {name: _of(hardware, table, steps) for name, table in tables.items()}


def random_steps(hardware: Hardware, count: int, seed: int = _SEED) -> list[Step]:
    """Random steps of all kinds that the engine can hold; sizes are log-uniform."""
    random, found = np.random.default_rng(seed), list[Step]()
    while len(found) < count:
        step = _random_step(hardware, random)
        held = step.decode_context_tokens + step.earlier_tokens + step.prefill_tokens
        if step.tokens <= hardware.max_step_tokens and held <= hardware.kv_tokens and step.tokens:
            found.append(step)
    return found


def _random_step(hardware: Hardware, random: np.random.Generator) -> Step:
    kind, longest = random.choice(list(Kind)), hardware.max_model_len_tokens
    decodes = 0 if kind == Kind.PREFILL else _log_uniform(random, 1, hardware.max_running_requests)
    most = random.uniform(_LEAST_CONTEXT, longest)
    contexts = random.uniform(_LEAST_CONTEXT / 2, most, size=decodes)
    step = Step(
        decodes=decodes,
        decode_context_tokens=float(contexts.sum()),
        longest_context_tokens=float(contexts.max()) if decodes else None,
    )
    chunks = 0 if kind == Kind.DECODE else int(random.integers(1, _MOST_CHUNKS + 1))
    for _ in range(chunks):
        tokens = _log_uniform(random, _LEAST_CHUNK, min(_MOST_CHUNK, longest))
        continued = random.random() < _CONTINUED
        step = step.with_chunk(tokens, random.uniform(0, longest - tokens) if continued else 0)
    return step


def _log_uniform(random: np.random.Generator, least: int, most: int) -> int:
    return int(np.exp(random.uniform(np.log(least), np.log(most + 1))))


def _of(hardware: Hardware, table: StepTable, steps: list[Step]) -> dict[Kind, Believed]:
    numbers, random = hardware.step.numbers, np.random.default_rng(_SEED)
    counts = [counts_of(step) for step in steps]
    real = np.array([true_s(numbers, one) for one in counts])
    noisy = np.array([noisy_s(numbers, one, random.standard_normal()) for one in counts])
    off = 100 * np.abs(np.array([table.expected_s(step) for step in steps]) / real - 1)
    kept = noisy <= np.array([table.sure_s(step) for step in steps])
    kinds = np.array([step.kind for step in steps])
    return {kind: _summary(off[kinds == kind], kept[kinds == kind]) for kind in Kind}


def _summary(off: Floats, kept: NDArray[np.bool_]) -> Believed:
    p50, p95 = np.quantile(off, [0.5, 0.95])
    return Believed(steps=len(off), p50=float(p50), p95=float(p95), within=float(kept.mean()))
