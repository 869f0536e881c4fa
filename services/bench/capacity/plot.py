"""Plots attainment over the rate, one line per system, one panel per load."""

from pathlib import Path
from typing import Any, Final

from services.bench.capacity.result import CapacityResult, Searched
from shared.errors import ConfigError

_FIELD_SIZE: Final = (6.4, 4.2)  # inches


def draw(result: CapacityResult, path: Path) -> None:
    """Writes an SVG or PNG file, by its name. Raises ConfigError if it cannot."""
    # matplotlib takes a second to load and is used only here
    from matplotlib.figure import Figure

    loads = list(dict.fromkeys(one.load for one in result.searched))
    if not loads:
        raise ConfigError("--plot has nothing to draw: no load was measured.")
    figure = Figure(figsize=(_FIELD_SIZE[0] * len(loads), _FIELD_SIZE[1]), layout="constrained")
    fields = figure.subplots(1, len(loads), squeeze=False, sharey=True)[0]
    for field, load in zip(fields, loads, strict=True):
        for one in result.searched:
            if one.load == load:
                _line(field, result, one)
        _dress(field, load, result.needed)
    fields[0].set_ylabel("requests that got what they asked for, %")
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {path} cannot be written: {error}") from error


def _line(field: Any, result: CapacityResult, one: Searched) -> None:
    points = result.best_points(one, overload=True)
    shares = [100 * point.attainment for point in points.values()]
    bounds = [[100 * bound for bound in point.interval] for point in points.values()]
    below = [share - low for share, (low, _) in zip(shares, bounds, strict=True)]
    above = [high - share for share, (_, high) in zip(shares, bounds, strict=True)]
    field.errorbar(
        list(points), shares, yerr=[below, above], marker="o", capsize=3, label=one.contender
    )


def _dress(field: Any, load: str, needed: float) -> None:
    field.axhline(100 * needed, color="grey", linestyle="--", linewidth=1)
    field.set_title(load)
    field.set_xlabel("offered load, requests/s")
    field.set_ylim(0, 103)
    field.set_xlim(left=0)
    field.legend()
