"""Draws a profile: fitted against measured times, and times over tokens and over context."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from services.bench.fit_tables import Table, Timed
from shared.batch_time import Fit, Kind

_COLORS = {Kind.DECODE: "#1f77b4", Kind.PREFILL: "#d62728", Kind.MIXED: "#7f7f7f"}
_SIZE_INCHES = (14.0, 4.5)


def draw(table: Table, fit: Fit, path: Path) -> None:
    """Writes the picture in the format that the file's name ends in. Raises OSError."""
    mpl.rcParams["svg.hashsalt"] = "slos"  # makes files reproducible
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    against, tokens, context = figure.subplots(1, 3)
    _against(against, table, fit)
    _over(tokens, table.rows, fit, "tokens in the step", lambda row: row.step.tokens)
    decodes = [row for row in table.rows if row.step.kind is Kind.DECODE]
    label = "KV tokens read by a decode step"
    _over(context, decodes, fit, label, lambda row: row.step.decode_context_tokens)
    figure.suptitle(f"{table.name}: {len(table.rows)} steps, {fit.curve.form.name} form")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _against(axes: Any, table: Table, fit: Fit) -> None:
    times_ms = [1e3 * row.seconds for row in table.rows]
    line = [min(times_ms), max(times_ms)]
    axes.plot(line, line, color="black", linewidth=0.8)
    for kind, color in _COLORS.items():
        rows = [row for row in table.rows if row.step.kind is kind]
        fitted_ms = [1e3 * fit.curve.step_time(row.step) for row in rows]
        measured_ms = [1e3 * row.seconds for row in rows]
        axes.scatter(fitted_ms, measured_ms, s=10, color=color, label=kind.value)
    axes.set(xscale="log", yscale="log", xlabel="fitted, ms", ylabel="measured, ms")
    axes.legend()


def _over(
    axes: Any, rows: Sequence[Timed], fit: Fit, label: str, size: Callable[[Timed], float]
) -> None:
    """Measured times as points, the fit's as crosses at the same steps."""
    for kind, color in _COLORS.items():
        own = [row for row in rows if row.step.kind is kind]
        sizes = [size(row) for row in own]
        axes.scatter(sizes, [1e3 * row.seconds for row in own], s=10, color=color)
        fitted_ms = [1e3 * fit.curve.step_time(row.step) for row in own]
        axes.scatter(sizes, fitted_ms, s=14, color=color, marker="x", linewidths=0.8)
    axes.set(xlabel=label, ylabel="ms (points measured, crosses fitted)")
