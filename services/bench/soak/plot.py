"""Plots a soak test: the results of requests over time, and predicted beside real TTFT."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from services.bench.soak.causes import was_promised
from services.bench.soak.records import RecordedRequest, SoakResult
from services.bench.soak.summary import by_way, start_times
from shared.errors import ConfigError

_SIZE: Final = (12.0, 4.2)  # inches
_CELLS: Final = 40  # bins over the run


def draw(soak: SoakResult, path: Path) -> None:
    """Writes an SVG or PNG file, by its name. Raises ConfigError if it cannot."""
    # matplotlib takes a second to load and is used only here
    from matplotlib.figure import Figure

    if not soak.requests:
        raise ConfigError("--plot has nothing to draw: the run had no requests.")
    figure = Figure(figsize=_SIZE, layout="constrained")
    over_time, beside = figure.subplots(1, 2)
    _draw_time(over_time, soak.requests)
    _draw_beside(beside, soak)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {path} cannot be written: {error}") from error


def ends(requests: Sequence[RecordedRequest]) -> dict[str, list[float]]:
    """Arrival times by result, in seconds of the run."""
    found: dict[str, list[float]] = {"kept": [], "broken": [], "not promised": []}
    for one in requests:
        seen = one.judged.seen
        word = "kept" if one.judged.is_met else "broken" if was_promised(one) else "not promised"
        found[word].append(seen.offered.at_s)
    return found


def _draw_time(field: Any, requests: Sequence[RecordedRequest]) -> None:
    found = ends(requests)
    field.hist(list(found.values()), bins=_CELLS, stacked=True, label=list(found))
    field.set_xlabel("seconds of the run")
    field.set_ylabel("requests")
    field.legend()


def _draw_beside(field: Any, soak: SoakResult) -> None:
    longest_s = 0.0
    for group in by_way(soak):
        times = [start_times(one) for one in group.requests if was_promised(one)]
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
