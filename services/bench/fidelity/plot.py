"""Plots simulated over measured times: each request, and the percentiles of each point."""

from itertools import chain
from pathlib import Path
from typing import Any, Final

from services.bench.fidelity.compare import TIMES, TIMES_WITHIN, Compared
from services.bench.fidelity.run import FidelityRun
from shared.errors import ConfigError

_FIELD_SIZE: Final = (5.0, 4.6)  # inches
_MARKS: Final = {"p50": "o", "p99": "s"}


def draw(run: FidelityRun, path: Path) -> None:
    """Writes an SVG or PNG file, by its name. Raises ConfigError if it cannot."""
    # matplotlib takes a second to load and is used only here
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * _FIELD_SIZE[0], _FIELD_SIZE[1]), layout="constrained")
    for field, measure in zip(figure.subplots(1, 2), ("ttft", "tpot"), strict=True):
        for number, system in enumerate(run.requests):
            colour = f"C{number}"
            _requests(field, run, system, measure, colour)
            points = [one for one in run.compared if one.system == system]
            _percentiles(field, points, measure, colour)
        _dress(field, measure)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {path} cannot be written: {error}") from error


def _requests(field: Any, run: FidelityRun, system: str, measure: str, colour: str) -> None:
    pairs = run.requests[system]
    real_ms = [1000 * getattr(real, f"{measure}_s") for real, _ in pairs]
    simulated_ms = [1000 * getattr(simulated, f"{measure}_s") for _, simulated in pairs]
    field.scatter(real_ms, simulated_ms, s=4, color=colour, alpha=0.25, linewidths=0, label=system)


def _percentiles(field: Any, points: list[Compared], measure: str, colour: str) -> None:
    for one in points:
        for name in (one for one in TIMES if one.startswith(measure)):
            at = 1000 * one.real.times_s[name], 1000 * one.simulated.times_s[name]
            mark = _MARKS[name.removeprefix(f"{measure}_")]
            field.plot(*at, marker=mark, color=colour, markeredgecolor="black", linestyle="")


def _dress(field: Any, measure: str) -> None:
    field.set_xscale("log")
    field.set_yscale("log")
    low, high = chain(field.get_xlim())
    for factor, style in ((1, "-"), (1 + TIMES_WITHIN, ":"), (1 / (1 + TIMES_WITHIN), ":")):
        field.plot([low, high], [low * factor, high * factor], color="grey", linestyle=style)
    field.set_title(f"{measure.upper()}, ms; circles: p50, squares: p99")
    field.set_xlabel("measured")
    field.set_ylabel("simulated")
    field.legend(loc="upper left")
