"""Plots simulated over measured times: each request, and the percentiles of each point."""

from itertools import chain
from pathlib import Path
from typing import Any, Final

from services.bench.reality.compare import TIMES, TIMES_WITHIN, Compared
from services.bench.reality.course import Course
from shared.errors import ConfigError

_FIELD_SIZE: Final = (5.0, 4.6)  # inches
_MARKS: Final = {"p50": "o", "p99": "s"}


def draw(course: Course, path: Path) -> None:
    """Writes an SVG or PNG file, by its name. Raises ConfigError if it cannot."""
    # matplotlib takes a second to load and is used only here
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * _FIELD_SIZE[0], _FIELD_SIZE[1]), layout="constrained")
    for field, measure in zip(figure.subplots(1, 2), ("ttft", "tpot"), strict=True):
        for number, system in enumerate(course.requests):
            colour = f"C{number}"
            _requests(field, course, system, measure, colour)
            points = [one for one in course.compared if one.system == system]
            _percentiles(field, points, measure, colour)
        _dress(field, measure)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {path} cannot be written: {error}") from error


def _requests(field: Any, course: Course, system: str, measure: str, colour: str) -> None:
    pairs = course.requests[system]
    real_ms = [1000 * getattr(real, f"{measure}_s") for real, _ in pairs]
    twin_ms = [1000 * getattr(twin, f"{measure}_s") for _, twin in pairs]
    field.scatter(real_ms, twin_ms, s=4, color=colour, alpha=0.25, linewidths=0, label=system)


def _percentiles(field: Any, points: list[Compared], measure: str, colour: str) -> None:
    for one in points:
        for name in (one for one in TIMES if one.startswith(measure)):
            at = 1000 * one.real.times_s[name], 1000 * one.twin.times_s[name]
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
