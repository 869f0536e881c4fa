"""Rows of a few requests, and what a step former makes of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from services.evaluation.baselines.baseline import StepFormer
from services.evaluation.baselines.fairbatching import least_slack
from services.evaluation.baselines.jitserve import most_gain, predicted_lengths
from services.evaluation.baselines.qoserve import by_deadline
from services.evaluation.baselines.room import set_drafts
from services.evaluation.baselines.sarathi import paced_chunks
from services.evaluation.baselines.slai import LastMoment
from services.evaluation.baselines.vllm import chunks, whole_prompts
from shared.batch_time import PAPER, StepCurve, StepTable
from shared.batch_time.table import COUNTS, FloatArray
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import COLUMNS, NO_SLO, RESIDENT, Rows, new_row

BLOCK_TOKENS = 16
# 10 ms, and 0.1 ms for each token
TABLE = StepTable.of(StepCurve(form=PAPER, coefficients=(0.01, 1e-4, 0.0, 0.0, 0.0, 0.0)))


LENGTHS = predicted_lengths([[20], [20, 40], [60, 200]])

FORMERS: dict[str, StepFormer] = {
    "arrival": chunks(),
    "priority": chunks(by_priority=True),
    "prefill": whole_prompts(512),
    "paced": paced_chunks(1.0),
    "deadline": by_deadline(0.001),
    "drafting": chunks(drafts=3),
    "slack": least_slack(1.0),
    "late": LastMoment(1.0, shortest_first=False, tight_first=False),
    "shortest": LastMoment(5.0, shortest_first=True, tight_first=True),
    "gain": most_gain(LENGTHS),
    "request": most_gain(LENGTHS, by_request=True),
}


def prompt(tokens: int, computed: int = 0, *, runs: bool = False, **changed: Any) -> FloatArray:
    """With `computed` in the cache already; `runs`: the engine has begun it."""
    fields = {"due_s": 10.0, "tpot_s": 0.1} | changed
    row = new_row(tokens=tokens, computed=computed, left=100, kind=NO_SLO, **fields)
    row[RESIDENT] = float(runs)
    return row


def decode(context: int = 160, *, runs: bool = True, **changed: Any) -> FloatArray:
    """Has `context` tokens of KV and one to compute."""
    fields = {"due_s": 0.1, "tpot_s": 0.1, "left": 100} | changed
    row = new_row(tokens=context + 1, computed=context, produced=1, kind=NO_SLO, **fields)
    row[RESIDENT] = float(runs)
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Formed:
    tokens: list[int]
    counts: FloatArray
    rows: Rows
    lasts_s: float


def step(
    form: StepFormer,
    *requests: FloatArray,
    max_tokens: int = 512,
    free_blocks: float = 1000,
    max_resident: int = 64,
    drafts: int = 0,
) -> Formed:
    """At time 0; the requests are in order of arrival."""
    rows = np.array(requests, dtype=np.float64).reshape(-1, COLUMNS)
    limits = engine_limits(
        max_tokens=max_tokens,
        block_tokens=BLOCK_TOKENS,
        max_resident=max_resident,
        free_blocks=free_blocks,
    )
    tokens, counts = np.zeros(len(rows), dtype=np.int64), np.zeros(COUNTS)
    set_drafts(rows, float(drafts))
    lasts_s = form(rows, tokens, counts, TABLE.numbers, limits, 0.0)
    return Formed(tokens=tokens.tolist(), counts=counts, rows=rows, lasts_s=float(lasts_s))
