"""Fits an engine's profile: its measured steps without those that something else held up."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from shared.batch_time.fit import Fit, fit_curve
from shared.batch_time.forms import ADDITIVE, RICH, Form
from shared.batch_time.steps import Kind, Step
from shared.batch_time.tuning import FEW_STEPS, HELD_UP, MOST_ARE_USUAL, TOO_FEW_STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStep:
    """A step of an engine and the seconds that it took."""

    step: Step
    seconds: float

    @property
    def plain(self) -> dict[str, float]:
        """The step as in a profile's file, with the counts that are not 0."""
        counts = {name: count for name, count in asdict(self.step).items() if count}
        return {"seconds": self.seconds, **counts}

    @classmethod
    def of_plain(cls, plain: Mapping[str, float]) -> "MeasuredStep":
        """The inverse of `plain`. Raises KeyError or TypeError where the data is no step."""
        counts = {name: count for name, count in plain.items() if name != "seconds"}
        return cls(step=Step(**counts), seconds=plain["seconds"])


def fit_of(steps: Sequence[MeasuredStep]) -> Fit | None:
    """Fits the rich form where there are enough steps and all kinds, else the additive one. Returns
    None for too few steps.
    """
    if len(steps) < TOO_FEW_STEPS:
        return None
    steps = _undisturbed(steps)
    kinds = {one.step.kind for one in steps}
    form = RICH if len(steps) >= FEW_STEPS and len(kinds) == len(Kind) else ADDITIVE
    return _fit(form, steps)


def _fit(form: Form, steps: Sequence[MeasuredStep]) -> Fit:
    return fit_curve(form, [one.step for one in steps], [one.seconds for one in steps])


def _undisturbed(steps: Sequence[MeasuredStep]) -> Sequence[MeasuredStep]:
    """Drops the few steps that something else on the machine held up: one of them would widen the
    margins of all promises for long.
    """
    curve = _fit(ADDITIVE, steps).curve
    usual = [one for one in steps if one.seconds <= HELD_UP * curve.step_time(one.step)]
    return usual if len(usual) >= MOST_ARE_USUAL * len(steps) else steps
