"""Renders the result of `bench fit` as a JSON object or a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as Shown

from services.bench.fit_measure import KINDS, Errors, Measured
from services.bench.fit_tables import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Several forms on one table."""

    table: Table
    measured: Sequence[Measured]


def as_json(compared: Sequence[Compared], skipped: str | None) -> dict[str, Any]:
    """The result as JSON; `skipped` says why there is nothing to show, if so."""
    return {
        "bench": "fit",
        "errors": "relative, on steps held out of the fit",
        "skipped": skipped,
        "tables": [table_json(one) for one in compared],
    }


def table_json(one: Compared) -> dict[str, Any]:
    """The result for one table."""
    return {
        "table": one.table.name,
        "times": one.table.note,
        "steps": len(one.table.rows),
        "forms": {form.form.name: _form_json(form) for form in one.measured},
    }


def _form_json(one: Measured) -> dict[str, Any]:
    columns = one.form.columns
    return {
        "errors": {kind: errors.as_json() for kind, errors in one.errors.items()},
        "coefficients_us": [
            {feature.name.lower(): round(1e6 * weight, 7)}
            for feature, weight in zip(columns, one.fit.curve.coefficients, strict=True)
        ],
    }


def make_table(compared: Sequence[Compared]) -> Shown:
    """A row for each kind of step; R², then p50, p95 and max of the relative error in percent."""
    shown = Shown(title="Relative errors on steps held out of the fit: R², p50/p95/max %")
    shown.add_column("table")
    shown.add_column("kind")
    shown.add_column("steps", justify="right")
    for form in compared[0].measured:
        shown.add_column(form.form.name, justify="right")
    for one in compared:
        for kind in KINDS:
            found = [form.errors[kind] for form in one.measured if kind in form.errors]
            if found:
                name = one.table.name if kind == KINDS[0] else ""
                shown.add_row(name, kind, str(found[0].steps), *map(_cell, found))
        shown.add_section()
    return shown


def _cell(errors: Errors) -> str:
    r2 = "-" if errors.r2 is None else f"{errors.r2:.3f}"
    return f"{r2}  {errors.p50:.1f}/{errors.p95:.1f}/{errors.worst:.0f}"
