"""FairBatching (arXiv 2510.14392): deadlines for every token, steps as long as decodes can wait,
and prompts before decodes that are ahead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.evaluation.baselines import by_slack
from services.evaluation.baselines.baseline import Baseline, StepFormer
from services.evaluation.baselines.routers import LeastLoaded
from services.evaluation.settings import Setting, TuningCase, colocated
from shared.simulation.engine import SimEngine
from shared.workloads.calls import Load

_PACE_SHARES = (1.0, 2.0)  # the paper's, and one for paces that an engine can hardly keep
_DRAFTING_SHARES = (1.0, 1.5, 2.0)  # a step with drafts yields more tokens and may last longer


def settings(case: TuningCase) -> Iterator[Setting]:
    """Settings with deadlines from the arrival on, as in the paper, or from the first token on, as
    a mean TPOT is judged.
    """
    for setting in colocated(case):
        for share in _DRAFTING_SHARES if setting.drafts else _PACE_SHARES:
            yield replace(setting, pace_share=share, from_arrival=True)
            yield replace(setting, pace_share=share, from_arrival=False)


def build(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Baseline:  # noqa: ARG001 - as all builders
    """Least slack first, on the engine with the least to do."""
    assert setting.pace_share is not None
    return Baseline(
        LeastLoaded(by_deadlines=bool(setting.from_arrival)),
        least_slack(setting.pace_share),
        drafts=setting.drafts,
    )


def least_slack(pace_share: float) -> StepFormer:
    """Steps that are as long as the slack of decodes, or `pace_share` of the tightest pace."""
    return lambda rows, tokens, counts, table, limits, now: by_slack.form(
        rows, tokens, counts, table, limits, now, pace_share
    )
