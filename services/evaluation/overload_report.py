"""Tables of what each system still serves under overload, and of retries."""

from collections.abc import Iterator, Sequence

from services.evaluation.markdown import NOT_RUN, table
from services.evaluation.overload import CALM, FIXED_S
from services.evaluation.points import RetryCounts
from services.evaluation.results import Overload, Results
from services.evaluation.scenarios import shown_name
from services.evaluation.systems import OURS


def overload_tables(results: Results) -> str:
    """Goodput, overall and by class, our promises, and retries, as far as they were measured."""
    parts = [
        *(_goodput_table(results.overloads, scenario) for scenario in _scenarios(results)),
        *(_class_table(results.overloads, scenario) for scenario in _scenarios(results)),
        *_told("**Promises of ours**", promises_table(results)),
        *_told("**Refused requests that come again once**", retries_table(results)),
    ]
    return "\n\n".join(parts) or NOT_RUN


def _told(title: str, text: str) -> Iterator[str]:
    if text != NOT_RUN:
        yield f"{title}\n\n{text}"


def _scenarios(results: Results) -> list[str]:
    return list(dict.fromkeys(one.scenario for one in results.overloads))


def _multiples(loads: Sequence[Overload]) -> list[str]:
    return [f"{one:g} x" for one in dict.fromkeys(load.multiple for load in loads)]


def _goodput_table(overloads: Sequence[Overload], scenario: str) -> str:
    loads = [one for one in overloads if one.scenario == scenario]
    rows = []
    for system in dict.fromkeys(one.system for one in loads):
        own = [one for one in loads if one.system == system]
        most = max(one.goodput for one in own)
        left = f"{own[-1].goodput / most:.0%}" if most else "-"
        rows.append([system, *(f"{one.goodput:.3g}" for one in own), left, own[0].setting])
    head = ["system", *_multiples(loads), "at the last, of its most", "setting"]
    what = "programs in time/s for each GPU, by multiple of our capacity"
    title = f"**{shown_name(scenario)}: {what}**"
    return f"{title}\n\n{table(head, rows)}"


def _class_table(overloads: Sequence[Overload], scenario: str) -> str:
    loads = [one for one in overloads if one.scenario == scenario]
    rows = []
    for name in [one.name for one in loads[0].classes[1:]]:
        for system in dict.fromkeys(one.system for one in loads):
            own = [one for one in loads if one.system == system]
            rows.append([name, system, *(_class_cell(one, name) for one in own)])
    title = f"**{shown_name(scenario)}: requests in time/s for each GPU (share of them), by class**"
    return f"{title}\n\n{table(['class', 'system', *_multiples(loads)], rows)}"


def _class_cell(load: Overload, name: str) -> str:
    one = next(each for each in load.classes if each.name == name)
    goodput = load.goodput_of(one)
    return f"{goodput:.3g} ({goodput * load.programs / load.rate / one.requests:.0%})"


def promises_table(results: Results) -> str:
    """Ours at each multiple: the share promised, and the share of these kept."""
    rows = []
    for one in results.overloads:
        if one.system != OURS:
            continue
        every = one.classes[0]
        rows.append(
            [
                shown_name(one.scenario),
                f"{one.multiple:g} x",
                f"{every.admitted / every.requests:.1%}",
                f"{every.promises_kept / every.admitted:.1%}" if every.admitted else "-",
                f"{every.ttft_s[1]:.2f}",
                f"{every.ttft_share:.2f}",
                f"{1e3 * every.tpot_s[1]:.1f}",
                f"{every.tpot_share:.2f}",
            ]
        )
    head = ["scenario", "load", "promised", "of these kept", "TTFT p99 s", "of its target"]
    return table([*head, "TPOT p99 ms", "of its target"], rows) if rows else NOT_RUN


def retries_table(results: Results) -> str:
    """How many refused requests are promised when they retry, by the time of the retry."""
    rows = [
        [
            shown_name(one.scenario),
            f"{one.multiple:g} x{f', then {CALM:g} x' if one.ends else ''}",
            f"{1 - one.named.refused / one.named.first:.0%}",
            str(one.named.refused),
            f"{one.named.named_s[0]:.1f} / {one.named.named_s[1]:.1f}",
            _again(one.named),
            _again(one.fixed),
        ]
        for one in results.retries
    ]
    head = ["scenario", "load", "first tries promised", "refused", "named wait p50 / p90 s"]
    more = ["again after it, promised", f"again after {FIXED_S:g} s, promised"]
    return table([*head, *more], rows) if rows else NOT_RUN


def _again(counts: RetryCounts) -> str:
    if not counts.again:
        return "none came"
    return f"{counts.admitted / counts.again:.0%} of {counts.again}"
