"""How long an engine step takes, and how much fits into a given time."""

from shared.batch_time.curve import MOST_TOKENS, StepCurve
from shared.batch_time.fit import Fit, fit_curve
from shared.batch_time.forms import ADDITIVE, PAPER, RICH, Feature, Form
from shared.batch_time.online import BatchTimeModel, StepCost
from shared.batch_time.saved import from_plain, to_plain
from shared.batch_time.steps import Kind, Step, step_of
from shared.batch_time.table import StepTable

__all__ = [
    "ADDITIVE",
    "MOST_TOKENS",
    "PAPER",
    "RICH",
    "BatchTimeModel",
    "Feature",
    "Fit",
    "Form",
    "Kind",
    "Step",
    "StepCost",
    "StepCurve",
    "StepTable",
    "fit_curve",
    "from_plain",
    "step_of",
    "to_plain",
]
