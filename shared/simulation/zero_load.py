"""Zero-load TTFT of a request, the unit of slowdowns."""

import math
from functools import lru_cache

import numpy as np

from shared.batch_time.table import (
    CHUNKS,
    COUNTS,
    EARLIER,
    LONGEST_PROMPT,
    PAIRS,
    PREFILL,
    FloatArray,
)
from shared.compiled import compiled
from shared.hardware import Hardware
from shared.hardware.truth import true_s
from shared.workloads.calls import Call


def ttft_s(call: Call, hardware: Hardware) -> float:
    """The TTFT target in seconds, the same for every system; infinite without one."""
    if call.ttft_s is not None:
        return call.ttft_s
    if call.ttft_slowdown is None:
        return math.inf
    return call.ttft_slowdown * first_token_s(hardware, call.prompt_tokens)


@lru_cache(maxsize=65536)
def first_token_s(hardware: Hardware, prompt_tokens: int) -> float:
    """Seconds of a prompt in steps of the engine's full token budget, without noise."""
    numbers, longest = hardware.step.numbers, hardware.max_step_tokens
    return float(_prompt_s(numbers, float(prompt_tokens), float(longest)))


@compiled
def _prompt_s(numbers: FloatArray, prompt_tokens: float, longest: float) -> float:
    done, seconds = 0.0, 0.0
    counts = np.zeros(COUNTS)
    while done < prompt_tokens:
        size = min(longest, prompt_tokens - done)
        counts[CHUNKS], counts[PREFILL], counts[EARLIER] = 1.0, size, done
        counts[PAIRS] = size * (done + size / 2)
        counts[LONGEST_PROMPT] = done + size
        seconds += true_s(numbers, counts)
        done += size
    return seconds
