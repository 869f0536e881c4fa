"""The pace that an answer with a deadline for each token needs from now on.

Where its next token is due later than a pace from now, it can wait, and the time is spread over the
tokens that are still to come: a short answer that may start late needs a slower pace than its TPOT.
"""

import numpy as np

from services.planner.estimators.kv_forecast import ClassIndices
from services.planner.estimators.survival import BIN_TOKENS
from shared.batch_time.table import FloatArray
from shared.compiled import compiled
from shared.scheduling.rows import DEADLINE, GENERATED, GRACE, REMAINING, TPOT, Rows


def with_mean_paces(
    rows: Rows, class_indices: ClassIndices, later_tokens: FloatArray, now: float
) -> Rows:
    """A copy of the rows in which TPOT is the mean time for each token until the last one is due,
    for answers with a deadline for each token.

    `class_indices` are their rows in `later_tokens`, see `Classes`; a request with -1 is taken to
    use up REMAINING.
    """
    paced = rows.copy()
    _spread_leads(paced, class_indices, later_tokens, now)
    return paced


@compiled
def _spread_leads(
    rows: Rows, class_indices: ClassIndices, later_tokens: FloatArray, now: float
) -> None:
    for i in range(len(rows)):
        lead_s = rows[i, DEADLINE] - now - rows[i, TPOT]
        if rows[i, GRACE] < np.inf or not 0.0 < lead_s < np.inf:
            continue
        later = rows[i, REMAINING]
        if class_indices[i] >= 0:
            last = later_tokens.shape[1] - 1
            bin_ = min(last, int(rows[i, GENERATED] // BIN_TOKENS))
            later = min(later, later_tokens[class_indices[i], bin_])
        rows[i, TPOT] += lead_s / max(1.0, later)
