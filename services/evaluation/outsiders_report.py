"""Tables of the capacity of systems on loads published by others."""

from collections.abc import Iterator

from services.evaluation.cells import rate_cell
from services.evaluation.markdown import NOT_RUN, table
from services.evaluation.results import Outsider, Results, percent
from services.evaluation.scenarios import shown_name
from services.evaluation.study import compare


def outsiders_table(results: Results) -> str:
    """Capacities by each rule, ours beside the best of the others."""
    if not results.outsiders:
        return NOT_RUN
    systems = list(
        dict.fromkeys(one.cell.system for each in results.outsiders for one in each.capacities)
    )
    head = ["load", "prompts", "model, GPU", "requests in time", "rule", *systems]
    rows = [row for one in results.outsiders for row in _rows(one, systems)]
    title = "**1 replica, programs/s for each GPU**"
    return f"{title}\n\n{table([*head, 'ours / best baseline', 'upper bound'], rows)}"


def _rows(one: Outsider, systems: list[str]) -> Iterator[list[str]]:
    for rule in dict.fromkeys(each.cell.rule for each in one.capacities):
        own = [each for each in one.capacities if each.cell.rule == rule]
        rates = {each.cell.system: each.rate for each in own}
        compared = [f"{each.ratio:.2f} x ({each.baseline_name})" for each in compare(own, {})]
        yield [
            shown_name(one.scenario),
            "as published" if one.scale == 1 else f"x {one.scale:.3g}",
            one.hardware,
            percent(one.share),
            rule,
            *(rate_cell(rates.get(system)) for system in systems),
            *(compared or ["-"]),
            f"{one.bound:.3g}",
        ]
