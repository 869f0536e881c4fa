"""Plots the day: the results of requests over time, and predicted beside real TTFT."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from services.bench.day.causes import was_promised
from services.bench.day.records import Day, Lived
from services.bench.day.summary import by_way, start_times
from shared.errors import ConfigError

_SIZE: Final = (12.0, 4.2)  # inches
_CELLS: Final = 40  # bins over the day


def draw(day: Day, path: Path) -> None:
    """Writes an SVG or PNG file, by its name. Raises ConfigError if it cannot."""
    # matplotlib takes a second to load and is used only here
    from matplotlib.figure import Figure

    if not day.lived:
        raise ConfigError("--plot has nothing to draw: the day had no requests.")
    figure = Figure(figsize=_SIZE, layout="constrained")
    over_time, beside = figure.subplots(1, 2)
    _draw_time(over_time, day.lived)
    _draw_beside(beside, day)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {path} cannot be written: {error}") from error


def ends(lived: Sequence[Lived]) -> dict[str, list[float]]:
    """Arrival times by result, in seconds of the day."""
    found: dict[str, list[float]] = {"kept": [], "broken": [], "not promised": []}
    for one in lived:
        seen = one.judged.seen
        word = "kept" if one.judged.is_met else "broken" if was_promised(one) else "not promised"
        found[word].append(seen.offered.at_s)
    return found


def _draw_time(field: Any, lived: Sequence[Lived]) -> None:
    found = ends(lived)
    field.hist(list(found.values()), bins=_CELLS, stacked=True, label=list(found))
    field.set_xlabel("seconds of the day")
    field.set_ylabel("requests")
    field.legend()


def _draw_beside(field: Any, day: Day) -> None:
    longest_s = 0.0
    for group in by_way(day):
        times = [start_times(one) for one in group.lived if was_promised(one)]
        known = [one for one in times if one is not None]
        if known:
            predicted_s, real_s, _ = zip(*known, strict=True)
            field.plot(predicted_s, real_s, ".", label=group.name)
            longest_s = max(longest_s, *predicted_s, *real_s)
    field.plot([0, longest_s], [0, longest_s], color="grey", linestyle="--", linewidth=1)
    field.set_xlabel("predicted TTFT, s")
    field.set_ylabel("real TTFT, s")
    if longest_s:
        field.legend()
