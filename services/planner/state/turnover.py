"""How an engine's requests turn over: prompts that come as others end their answers."""

import math

from shared.batch_time import Step, StepTable
from shared.scheduling.rows import COMPUTED, DRAFT, LEFT, PRODUCED, TOTAL, Rows
from shared.scheduling.simulate import Flags


def decoding(rows: Rows) -> Flags:
    """The rows that have given a token and have no more than the next one to compute."""
    missing = rows[:, TOTAL] - rows[:, COMPUTED]
    decodes: Flags = (rows[:, PRODUCED] > 0) & (rows[:, LEFT] > 0) & (missing <= 1)
    return decodes


def prompt_tokens_each(decodes: Rows) -> float:
    """Prompt tokens that come for each token that these rows produce: as many as they had
    themselves, if they are half through their answers. Infinite where they have produced none.
    """
    produced = float(decodes[:, PRODUCED].sum())
    if not produced:
        return math.inf
    return float((decodes[:, TOTAL] - decodes[:, PRODUCED]).sum()) / (2 * produced)


def usual_step_s(rows: Rows, table: StepTable) -> float:
    """Seconds that a step of an engine with these rows surely takes in the long run: all its
    decodes, and one chunk of the prompt tokens that come meanwhile. 0 where nothing decodes.
    """
    decodes = rows[decoding(rows)]
    if not len(decodes):
        return 0.0
    step = Step(
        decodes=len(decodes),
        speculated_tokens=float(decodes[:, DRAFT].sum()),
        speculation_steps=float(decodes[:, DRAFT].max()),
        decode_context_tokens=float(decodes[:, TOTAL].sum()),
        longest_context_tokens=float(decodes[:, TOTAL].max()),
    )
    return table.sure_s(step.with_chunk(len(decodes) * prompt_tokens_each(decodes)))
