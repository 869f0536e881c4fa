"""What an engine with nothing else to do takes for a request: the measure of slowdowns."""

import numpy as np

from shared.batch_time.table import CHUNKS, COUNTS, EARLIER, LONGEST_PROMPT, PAIRS, PREFILL
from shared.hardware import Hardware
from shared.hardware.truth import true_s


def first_token_s(hardware: Hardware, prompt_tokens: int) -> float:
    """Steps as long as the engine allows, one after the other, without noise."""
    done, seconds = 0, 0.0
    while done < prompt_tokens:
        size = min(hardware.max_step_tokens, prompt_tokens - done)
        counts = np.zeros(COUNTS)
        counts[CHUNKS], counts[PREFILL], counts[EARLIER] = 1.0, size, done
        counts[PAIRS] = size * (done + size / 2)
        counts[LONGEST_PROMPT] = done + size
        seconds += float(true_s(hardware.step.numbers, counts))
        done += size
    return seconds
