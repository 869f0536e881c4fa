"""Converts a fit to plain data and back."""

from collections.abc import Mapping
from typing import Any

from shared.batch_time.curve import StepCurve
from shared.batch_time.fit import Fit
from shared.batch_time.forms import ADDITIVE, PAPER, RICH
from shared.batch_time.steps import Kind

_FORMS = {form.name: form for form in (PAPER, ADDITIVE, RICH)}


def to_plain(fit: Fit) -> dict[str, Any]:
    """Numbers, strings, lists and dicts only; `columns` guard against a form that changed."""
    form = fit.curve.form
    return {
        "form": form.name,
        "columns": [feature.name for feature in form.columns],
        "coefficients": list(fit.curve.coefficients),
        "steps": fit.steps,
        "levels": list(fit.levels),
        "margins": {kind.value: list(margins) for kind, margins in fit.margins.items()},
        "trust": list(fit.trust),
    }


def from_plain(plain: Mapping[str, Any]) -> Fit:
    """The inverse of `to_plain`. Raises ValueError where the data is no fit, or its form is unknown
    or has changed.
    """
    try:
        form = _FORMS[plain["form"]]
        if plain["columns"] != [feature.name for feature in form.columns]:
            raise ValueError(f"the form {form.name} has other columns now")
        return Fit(
            curve=StepCurve(form=form, coefficients=_floats(plain["coefficients"])),
            steps=int(plain["steps"]),
            levels=_floats(plain["levels"]),
            margins={Kind(kind): _floats(one) for kind, one in plain["margins"].items()},
            trust=_floats(plain["trust"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no fit of step times: {error!r}") from error


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(one) for one in values)
