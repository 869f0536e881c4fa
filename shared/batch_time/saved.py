"""A fit as plain data and back, for whoever keeps or sends it. Does neither itself."""

from collections.abc import Mapping
from typing import Any

from shared.batch_time.curve import StepCurve
from shared.batch_time.fit import Fit
from shared.batch_time.forms import ADDITIVE, PAPER, RICH
from shared.batch_time.steps import Kind

_FORMS = {form.name: form for form in (PAPER, ADDITIVE, RICH)}


def to_plain(fit: Fit) -> dict[str, Any]:
    """Of numbers, strings, lists and dicts alone; `columns` guard against a form that changed."""
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
    """Raises ValueError where it is no fit, or one of a form that is not ours (any more)."""
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
