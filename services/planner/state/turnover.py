"""The steady turnover of an engine: new prompts come as other requests end."""

import math

from shared.batch_time import Step, StepTable
from shared.scheduling.rows import COMPUTED, DRAFT, GENERATED, REMAINING, TOTAL, Rows
from shared.scheduling.simulate import Flags


def decoding(rows: Rows) -> Flags:
    """The rows that have given a token and have at most one token to compute for the next one."""
    missing = rows[:, TOTAL] - rows[:, COMPUTED]
    decodes: Flags = (rows[:, GENERATED] > 0) & (rows[:, REMAINING] > 0) & (missing <= 1)
    return decodes


def prompt_tokens_each(decodes: Rows) -> float:
    """Prompt tokens that come per produced token: the rows' own ratio of prompt to answer, taking
    them to be half through their answers. Infinite where they have produced none.
    """
    produced = float(decodes[:, GENERATED].sum())
    if not produced:
        return math.inf
    return float((decodes[:, TOTAL] - decodes[:, GENERATED]).sum()) / (2 * produced)


def usual_step_s(rows: Rows, table: StepTable) -> float:
    """A bound in seconds of a steady-state step: all decodes of these rows, and one chunk of the
    prompt tokens that come meanwhile. 0 where nothing decodes.
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
