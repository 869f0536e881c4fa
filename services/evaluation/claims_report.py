"""The paper's claims and its own comparison beside what was measured, as Markdown tables."""

import math
from collections.abc import Iterator

from services.evaluation.cells import mean_line, rate_cell, ratio_of, replicas_words, times_cell
from services.evaluation.markdown import NOT_RUN, table
from services.evaluation.results import Results, percent
from services.evaluation.study import Capacity, compare, geometric_mean
from services.evaluation.systems import OURS


def claims_table(results: Results) -> str:
    """Each claim of the paper beside what was measured here."""
    head = ["claim of the paper", "there", "measured here"]
    return table(head, [list(row) for row in _claims(results)])


def _claims(results: Results) -> Iterator[tuple[str, str, str]]:
    for replicas in (1, 4):
        for bar in (0.9, 0.98):
            compared = results.compared(replicas, bar)
            yield (
                f"capacity beside the best baseline, {percent(bar)}, {replicas_words(replicas)}",
                "not made",
                mean_line(compared) if compared else NOT_RUN,
            )
    compared = compare(_of_paper(results, 4), {})
    yield (
        "the same beside its baselines as it ran them, 4 replicas",
        "2.2 x",
        mean_line(compared) if compared else NOT_RUN,
    )
    for name, there, taken in (
        ("routing", "1.19 x (Coder 1.92)", "round robin"),
        ("adaptive speculation", "1.66 x", "no speculation"),
        ("burst handling (best effort)", "1.34 x", "no best effort"),
    ):
        yield f"what {name} is worth", there, _worth(results, taken)
    yield "4 replicas carry, as a multiple of one", "up to 6.2 (Coder), 4.6 ChatBot", _four(results)
    yield "a decision of the planner", "mostly < 2 ms, always < 10 ms", _decision(results)


def _worth(results: Results, taken: str) -> str:
    found: dict[str, dict[str, float]] = {}
    for one in results.ablations:
        found.setdefault(one.cell.system, {})[one.cell.scenario] = one.rate
    own, whole = found.get(f"{OURS}: {taken}"), found.get(OURS)
    if not own or not whole:
        return NOT_RUN
    ratios = {name: ratio_of(whole[name], own[name]) for name in own if name in whole}
    each = ", ".join(f"{name} {times_cell(ratio)}" for name, ratio in ratios.items())
    mean = geometric_mean(list(ratios.values()))
    return each if math.isnan(mean) else f"{times_cell(mean)} ({each})"


def _four(results: Results) -> str:
    rates = {(one.scenario, one.replicas): one.rate for one in results.scaling}
    shown = [
        f"{scenario} {times_cell(4 * rate / rates[scenario, 1])}"
        for (scenario, replicas), rate in rates.items()
        if replicas == 4 and rates.get((scenario, 1))
    ]
    return ", ".join(shown) or NOT_RUN


def _decision(results: Results) -> str:
    shown = [
        f"{one.replicas} x: {one.decision_ms[0]:.1f} / {one.decision_ms[1]:.1f} ms"
        for one in results.scaling
        if one.scenario == results.scaling[0].scenario
    ]
    return "rounds p50 / p99, " + ", ".join(shown) if shown else NOT_RUN


def paper_tables(results: Results) -> str:
    """Ours beside the paper's baselines as the paper ran them, one table for each fleet."""
    sizes = sorted({one.cell.replicas for one in results.as_in_paper})
    return "\n\n".join(_paper_table(results, size) for size in sizes) or NOT_RUN


def _paper_table(results: Results, replicas: int) -> str:
    rows = _of_paper(results, replicas)
    systems = list(dict.fromkeys(one.cell.system for one in rows))
    rates = {(one.cell.scenario, one.cell.system): one.rate for one in rows}
    compared = compare(rows, {})
    body = [
        [
            one.scenario,
            *(rate_cell(rates.get((one.scenario, system))) for system in systems),
            f"{times_cell(one.ratio)} ({one.baseline_name})",
        ]
        for one in compared
    ]
    title = f"**{replicas_words(replicas)}, programs/s for each GPU**"
    head = ["scenario", *systems, "ours / best of them"]
    return f"{title}\n\n{table(head, body)}\n\n{mean_line(compared)}"


def _of_paper(results: Results, replicas: int) -> list[Capacity]:
    return [one for one in results.as_in_paper if one.cell.replicas == replicas]
