"""Engines and the requests on them, drawn at random for the laws of step forming."""

import random

import numpy as np

from shared.batch_time import ADDITIVE, PAPER, RICH, Form, StepCurve, StepTable
from shared.batch_time.table import FloatArray
from shared.scheduling.former import engine_limits
from shared.scheduling.rows import COLUMNS, COMPUTED, PROMISED, RESIDENT, Rows, new_row

BLOCK_TOKENS = 16
_FORMS: tuple[tuple[Form, tuple[float, ...]], ...] = (
    (PAPER, (2.48e-2, 6.878e-5, 0.0, 3.033e-3, 7.523e-5, 0.0)),
    (ADDITIVE, (1e-2, 5e-5, 5e-4, 1e-7)),
    (
        RICH,
        (0.014, 5.1e-5, 0.018, 4.2e-5, 0.022, 2e-5, 1.7e-5, 3e-3, 9e-8, 1.2e-9, 2e-8, 1e-9, 1e-6),
    ),
)
TABLES = tuple(StepTable.of(StepCurve(form=form, coefficients=numbers)) for form, numbers in _FORMS)


def limits(chance: random.Random, **changed: float) -> FloatArray:
    """Room for all unless it is said otherwise."""
    fields = {
        "max_tokens": chance.choice((512, 2048, 8192)),
        "block_tokens": BLOCK_TOKENS,
        "max_resident": 256,
        "free_blocks": 1e6,
        "longest_s": chance.choice((0.0, 0.1, 0.3)),
    }
    return engine_limits(**(fields | changed))  # type: ignore[arg-type] # floats for all counts


def requests(chance: random.Random, number: int, kind: float = PROMISED) -> Rows:
    """In three paces, a third of them with a prompt to compute."""
    paces_s = [chance.uniform(0.03, 0.4) for _ in range(3)]
    rows = [_request(chance, kind, chance.choice(paces_s)) for _ in range(number)]
    return np.array(rows).reshape(-1, COLUMNS)


def _request(chance: random.Random, kind: float, tpot_s: float) -> FloatArray:
    tokens, prompt = chance.randint(10, 1500), chance.random() < 1 / 3
    row = new_row(
        tokens=tokens,
        computed=chance.choice((0, tokens // 2)) if prompt else tokens - 1,
        produced=0 if prompt else 3,
        left=chance.randint(1, 200),
        due_s=chance.uniform(0.1, 2) if prompt else chance.uniform(0.02, 1) * tpot_s,
        tpot_s=tpot_s,
        kind=kind,
    )
    row[RESIDENT] = float(row[COMPUTED] > 0)
    return row
