"""Draws the results of an evaluation as SVG text."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from services.evaluation.observed import BATCH_EDGES
from services.evaluation.results import Burst, Load, Results, percent
from services.evaluation.scenarios import shown_name
from services.evaluation.systems import OURS

_FIELD: Final = (4.4, 3.2)  # inches
_COLUMNS: Final = 3
_OURS_COLOUR: Final = "#c0392b"
_COLOURS: Final = (
    "#1f77b4",
    "#2ca02c",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
    "#17becf",
    "#393b79",
)
_OUTCOMES: Final = {
    "admitted": "#2ca02c",
    "held": "#1f77b4",
    "best_effort": "#ff9f40",
    "refused": "#d62728",
}


def figures(results: Results) -> dict[str, str]:
    """SVG texts by name, for the parts that have been run."""
    drawn = {
        "capacity": (results.capacities, _capacity),
        "attainment": (results.loads, _attainment),
        "bursts": (results.bursts, _bursts),
        "batches": (results.loads, _batches),
        "ablations": (results.ablations, _ablations),
        "scaling": (results.scaling, _scaling),
        "overload": (results.overloads, _overload),
    }
    return {name: draw(results) for name, (there, draw) in drawn.items() if there}


def _capacity(results: Results) -> str:
    groups = results.tables
    figure, fields = _fields(len(groups), columns=1, size=(9.5, 3.0))
    for field, (replicas, bar) in zip(fields, groups, strict=True):
        rows = results.at(replicas, bar)
        scenarios = list(dict.fromkeys(one.cell.scenario for one in rows))
        systems = list(dict.fromkeys(one.cell.system for one in rows))
        rates = {(one.cell.scenario, one.cell.system): one.rate for one in rows}
        _bars(field, scenarios, systems, rates)
        field.set_xticks(range(len(scenarios)), [shown_name(one) for one in scenarios])
        for place, scenario in enumerate(scenarios):
            bound = results.bound(scenario, replicas, bar)
            if not math.isnan(bound):
                field.plot([place - 0.45, place + 0.45], [bound, bound], color="black", lw=1)
        field.set_title(f"{replicas} x, {percent(bar)}; black: upper bound")
        field.set_ylabel("programs/s for each GPU")
        field.set_yscale("log")
    fields[0].legend(fontsize=7, ncols=4)
    return _svg(figure)


def _bars(
    field: Any,
    groups: Sequence[str],
    systems: Sequence[str],
    rates: Mapping[tuple[str, str], float],
) -> None:
    width = 0.9 / len(systems)
    for number, system in enumerate(systems):
        places = [place - 0.45 + width * (number + 0.5) for place in range(len(groups))]
        heights = [rates.get((group, system), 0.0) for group in groups]
        field.bar(places, heights, width, label=system, color=_colour(system, systems))


def _attainment(results: Results) -> str:
    return _by_scenario(results, partial(_attainment_field, rule=results.rule))


def _attainment_field(
    field: Any, loads: Sequence[Load], systems: Sequence[str], *, rule: str
) -> None:
    for system in systems:
        own = sorted((one for one in loads if one.system == system), key=lambda one: one.rate)
        shares = [100 * one.attained[rule] for one in own]
        rates = [one.rate for one in own]
        width = 2.2 if system == OURS else 1.2
        field.plot(
            rates, shares, "o-", ms=3, lw=width, label=system, color=_colour(system, systems)
        )
    field.axhline(90, color="grey", ls="--", lw=1)
    field.set_xlabel("programs/s for each GPU")
    field.set_ylim(0, 103)
    field.set_ylabel("kept, %")


def _batches(results: Results) -> str:
    return _by_scenario(results, _batches_field)


def _batches_field(field: Any, loads: Sequence[Load], systems: Sequence[str]) -> None:
    """Draws the middle rate of ours, which is nearest to our capacity."""
    rates = sorted({one.rate for one in loads if one.system == OURS}) or [0.0]
    middle = rates[len(rates) // 2]
    for system in systems:
        own = [one for one in loads if one.system == system]
        if not own:
            continue
        shown = min(own, key=lambda one: abs(one.rate - middle))
        whole = sum(shown.batches) or 1
        shares = [100 * count / whole for count in shown.batches]
        field.step(BATCH_EDGES, shares, where="post", label=system, color=_colour(system, systems))
    field.set_xscale("log", base=2)
    field.set_xlabel("tokens of a step")
    field.set_ylabel("steps, %")


def _by_scenario(
    results: Results, draw: Callable[[Any, Sequence[Load], Sequence[str]], None]
) -> str:
    scenarios = list(dict.fromkeys(one.scenario for one in results.loads))
    systems = list(dict.fromkeys(one.system for one in results.loads))
    figure, fields = _fields(len(scenarios), columns=_COLUMNS)
    for field, scenario in zip(fields, scenarios, strict=True):
        draw(field, [one for one in results.loads if one.scenario == scenario], systems)
        field.set_title(shown_name(scenario))
    fields[0].legend(fontsize=7)
    return _svg(figure)


def _bursts(results: Results) -> str:
    figure, fields = _fields(len(results.bursts), columns=1, size=(9.5, 2.0))
    for field, burst in zip(fields, results.bursts, strict=True):
        _burst(field, burst)
    fields[0].legend(fontsize=7, ncols=4)
    fields[-1].set_xlabel("s")
    return _svg(figure)


def _burst(field: Any, burst: Burst) -> None:
    times = [one.from_s for one in burst.timeline]
    edges = [*times, times[-1] + burst.bin_s]
    bottom = [0.0] * len(times)
    for outcome, colour in _OUTCOMES.items():
        heights = [getattr(one, outcome) / burst.bin_s for one in burst.timeline]
        top = [low + high for low, high in zip(bottom, heights, strict=True)]
        label = outcome.replace("_", " ")
        field.stairs(top, edges, baseline=bottom, fill=True, color=colour, label=label)
        bottom = top
    kept = [one.kept / burst.bin_s for one in burst.timeline]
    field.step(times, kept, where="post", color="black", lw=0.8, label="kept")
    field.set_title(f"{burst.system}: {burst.attained:.0%} of programs kept", fontsize=9)
    field.set_ylabel("requests/s")


def _ablations(results: Results) -> str:
    scenarios = list(dict.fromkeys(one.cell.scenario for one in results.ablations))
    figure, fields = _fields(len(scenarios), columns=2, size=(5.6, 4.2))
    for field, scenario in zip(fields, scenarios, strict=True):
        own = [one for one in results.ablations if one.cell.scenario == scenario]
        names = [one.cell.system.partition(": ")[2] or "all of it" for one in own]
        colours = [_OURS_COLOUR if one.cell.system == OURS else _COLOURS[0] for one in own]
        field.barh(names[::-1], [one.rate for one in own][::-1], color=colours[::-1])
        field.set_title(scenario)
        field.set_xlabel("programs/s for each GPU")
        field.tick_params(axis="y", labelsize=7)
    return _svg(figure)


def _scaling(results: Results) -> str:
    figure, (left, right) = _fields(2, columns=2)
    for scenario in dict.fromkeys(one.scenario for one in results.scaling):
        own = [one for one in results.scaling if one.scenario == scenario]
        sizes = [one.replicas for one in own]
        left.plot(sizes, [one.rate for one in own], "o-", label=scenario)
        right.plot(sizes, [one.decision_ms[1] for one in own], "o-", label=f"{scenario}, p99")
        right.plot(sizes, [one.decision_ms[0] for one in own], "o--", label=f"{scenario}, p50")
    left.set_ylabel("programs/s for each GPU")
    right.set_ylabel("a round of decisions, ms")
    right.set_yscale("log")
    for field in (left, right):
        field.set_xscale("log", base=2)
        field.set_xlabel("replicas")
        field.legend(fontsize=7)
    return _svg(figure)


def _overload(results: Results) -> str:
    scenarios = list(dict.fromkeys(one.scenario for one in results.overloads))
    systems = list(dict.fromkeys(one.system for one in results.overloads))
    figure, fields = _fields(len(scenarios), columns=2, size=(5.6, 3.6))
    for field, scenario in zip(fields, scenarios, strict=True):
        loads = [one for one in results.overloads if one.scenario == scenario]
        for system in systems:
            own = [one for one in loads if one.system == system]
            field.plot(
                [one.multiple for one in own],
                [one.goodput for one in own],
                "o-",
                ms=3,
                lw=2.2 if system == OURS else 1.2,
                label=system,
                color=_colour(system, systems),
            )
        field.set_title(shown_name(scenario))
        field.set_xlabel("offered, times our capacity")
        field.set_ylabel("in time, programs/s for each GPU")
        field.set_ylim(bottom=0)
    fields[0].legend(fontsize=7)
    return _svg(figure)


def _fields(
    count: int, *, columns: int, size: tuple[float, float] = _FIELD
) -> tuple[Any, list[Any]]:
    # imported here because matplotlib takes a second to load
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for empty in grid[count:]:
        empty.set_axis_off()
    return figure, grid[:count]


def _svg(figure: Any) -> str:
    """SVG text that is reproducible: without a date, and with fixed ids."""
    # imported here as above
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "slos-serve", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def _colour(system: str, systems: Sequence[str]) -> str:
    if system == OURS:
        return _OURS_COLOUR
    return _COLOURS[systems.index(system) % len(_COLOURS)]
