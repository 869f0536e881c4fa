"""Renders the result of `bench hardware` as a JSON object, or prints its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as Shown

from services.bench.hardware_answers import Answers, simulated_s
from services.bench.hardware_believed import Believed
from services.bench.hardware_fit import true_times_s
from services.bench.hardware_made import Made
from shared.batch_time import Kind
from shared.batch_time.table import counts_of
from shared.tables import for_tables

Known = Mapping[str, Mapping[str, Mapping[Kind, Believed]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Off:
    """Relative errors in percent."""

    steps: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The errors of a table by kind, on the steps it was fitted to (or `checked` with).

    The cost of mixing is left out: the measured steps are sums of parts measured alone.
    """

    name: str
    checked: bool
    by_kind: Mapping[Kind, Off]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Simulated over measured time of whole answers to static batches."""

    name: str
    batches: int
    least: float
    median: float
    most: float


def answered(made: Made, found: Sequence[Answers]) -> Answered:
    """The ratios of at least one batch."""
    ratios = [simulated_s(made.step, one) / one.seconds for one in found]
    return Answered(
        name=made.name,
        batches=len(ratios),
        least=min(ratios),
        median=float(np.median(ratios)),
        most=max(ratios),
    )


def fitted(made: Made) -> Fitted:
    if not made.rows:
        return Fitted(name=made.name, checked=made.checked, by_kind={})
    numbers = replace(made.step, mixed_share=0.0).numbers
    times = true_times_s(numbers, np.array([counts_of(row.step) for row in made.rows]))
    off = 100 * np.abs(times / np.array([row.seconds for row in made.rows]) - 1)
    kinds = np.array([row.step.kind for row in made.rows])
    by_kind = {}
    for kind in (one for one in Kind if (kinds == one).any()):
        p50, p95 = np.quantile(off[kinds == kind], [0.5, 0.95])
        by_kind[kind] = Off(steps=int((kinds == kind).sum()), p50=float(p50), p95=float(p95))
    return Fitted(name=made.name, checked=made.checked, by_kind=by_kind)


def as_json(found: Sequence[Fitted], whole: Sequence[Answered], known: Known) -> dict[str, Any]:
    return {
        "bench": "hardware",
        "fitted": [asdict(one) for one in found],
        "answers_simulated_over_measured": [asdict(one) for one in whole],
        "believed": {
            name: {
                form: {kind: asdict(one) for kind, one in by_kind.items()}
                for form, by_kind in forms.items()
            }
            for name, forms in known.items()
        },
    }


def show(found: Sequence[Fitted], whole: Sequence[Answered], known: Known) -> None:
    console = Console()
    wide = for_tables(console)
    if found:
        wide.print(_fitted_table(found))
        wide.print(_answered_table(whole))
    else:
        wide.print("no measurements here: give their folder with --data")
    wide.print(_known_table(known))


def _fitted_table(found: Sequence[Fitted]) -> Shown:
    shown = _table("True steps against measured ones: p50/p95 of the error in percent (steps)")
    for one in found:
        cells = [_off(one.by_kind.get(kind)) for kind in Kind]
        shown.add_row(one.name + (" (not fitted to)" if one.checked else ""), "", *cells)
    return shown


def _answered_table(whole: Sequence[Answered]) -> Shown:
    shown = Shown(title="Whole answers of vLLM to static batches: simulated over measured time")
    for name in ("hardware", "batches", "least", "median", "most"):
        shown.add_column(name, justify="left" if name == "hardware" else "right")
    for one in whole:
        ratios = (f"{ratio:.2f}" for ratio in (one.least, one.median, one.most))
        shown.add_row(one.name, str(one.batches), *ratios)
    return shown


def _known_table(known: Known) -> Shown:
    shown = _table(
        "What a profile tells of true steps: p50/p95 of the error in percent (share within promise)"
    )
    for name, forms in known.items():
        for place, (form, by_kind) in enumerate(forms.items()):
            cells = [_cell(by_kind[kind]) for kind in Kind]
            shown.add_row("" if place else name, form, *cells)
    return shown


def _table(title: str) -> Shown:
    shown = Shown(title=title)
    shown.add_column("hardware")
    shown.add_column("form")
    for kind in Kind:
        shown.add_column(kind.value, justify="right")
    return shown


def _off(one: Off | None) -> str:
    return "-" if one is None else f"{one.p50:.1f}/{one.p95:.1f} ({one.steps})"


def _cell(one: Believed) -> str:
    return f"{one.p50:.1f}/{one.p95:.1f} ({100 * one.within:.0f} %)"
