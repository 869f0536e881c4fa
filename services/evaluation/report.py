"""The results of an evaluation as Markdown tables; parts that were not run say so."""

import math
from pathlib import Path
from typing import Final

from services.evaluation.cells import mean_line, rate_cell, ratio_of, replicas_words, times_cell
from services.evaluation.claims_report import claims_table, paper_tables
from services.evaluation.leave_one_out.report import effects_table
from services.evaluation.markdown import NOT_RUN, table
from services.evaluation.outsiders_report import outsiders_table
from services.evaluation.overload_report import overload_tables
from services.evaluation.regret.report import whole
from services.evaluation.results import EVALUATE, RULES, Results, percent
from services.evaluation.scenarios import shown_name
from services.evaluation.study import Comparison, geometric_mean
from services.evaluation.systems import OURS
from shared.simulation.judge import Rule

_BY_RULE: Final = {
    Rule.WINDOWS: " by windows",
    Rule.DEADLINES: " by deadlines",
    Rule.ASKED: " as asked",
}


def capacity_tables(results: Results) -> str:
    """One table for each number of replicas and bar, by the rule that decides."""
    parts = [_capacity_table(results, replicas, bar) for replicas, bar in results.tables]
    return "\n\n".join(parts) or NOT_RUN


def _capacity_table(results: Results, replicas: int, bar: float) -> str:
    rows = results.at(replicas, bar)
    systems = list(dict.fromkeys(one.cell.system for one in rows))
    scenarios = list(dict.fromkeys(one.cell.scenario for one in rows))
    rates = {(one.cell.scenario, one.cell.system): one.rate for one in rows}
    compared = {one.scenario: one for one in results.compared(replicas, bar)}
    head = ["scenario", *systems, "ours / best baseline", "upper bound", "ours of it"]
    body = [
        [
            shown_name(scenario),
            *(rate_cell(rates.get((scenario, system))) for system in systems),
            *_beside(compared.get(scenario), results.bound(scenario, replicas, bar)),
        ]
        for scenario in scenarios
    ]
    kept = f"{percent(bar)} of programs kept{_BY_RULE.get(results.rule, '')}"
    title = f"**{replicas_words(replicas)}, {kept}, programs/s for each GPU**"
    return f"{title}\n\n{table(head, body)}\n\n{mean_line(list(compared.values()))}"


def _beside(found: Comparison | None, bound: float) -> list[str]:
    shown = "" if math.isnan(bound) else f"{bound:.2f}"
    if found is None:
        return ["", shown, ""]
    share = "" if math.isnan(bound) else f"{found.ours / bound:.0%}"
    return [f"{times_cell(found.ratio)} ({found.baseline_name})", shown, share]


def settings_table(results: Results) -> str:
    """The best setting of each system, as the search named it."""
    rows = [one for one in results.capacities if one.cell.rule == results.rule]
    body = [
        [
            shown_name(one.cell.scenario),
            one.cell.system,
            str(one.cell.replicas),
            percent(one.cell.bar),
            rate_cell(one.rate),
            rate_cell(one.failed),
            one.setting,
        ]
        for one in rows
    ]
    head = ["scenario", "system", "replicas", "bar", "passed", "failed", "best setting"]
    return table(head, body) if body else NOT_RUN


def rules_table(results: Results) -> str:
    """Ours and the best baseline by each of the three rules, on one replica."""
    bars = sorted({one.cell.bar for one in results.capacities if one.cell.rule != results.rule})
    body: list[list[str]] = []
    for bar in bars:
        for rule in RULES:
            body += [_rule_row(one, rule) for one in results.compared(1, bar, rule)]
    head = ["scenario", "rule", "ours", "best baseline", "which", "ratio"]
    return table(head, sorted(body, key=lambda row: row[0])) if body else NOT_RUN


def _rule_row(one: Comparison, rule: str) -> list[str]:
    rates = (rate_cell(one.ours), rate_cell(one.baseline))
    return [shown_name(one.scenario), rule, *rates, one.baseline_name, times_cell(one.ratio)]


def ablation_table(results: Results) -> str:
    """The capacity of each ablation, and that of ours as a multiple of it."""
    if not results.ablations:
        return NOT_RUN
    scenarios = list(dict.fromkeys(one.cell.scenario for one in results.ablations))
    systems = list(dict.fromkeys(one.cell.system for one in results.ablations))
    rates = {(one.cell.system, one.cell.scenario): one.rate for one in results.ablations}
    body: list[list[str]] = []
    for system in systems:
        own = [rates.get((system, scenario), math.nan) for scenario in scenarios]
        whole = [rates.get((OURS, scenario), math.nan) for scenario in scenarios]
        ratios = [ratio_of(all_, one) for all_, one in zip(whole, own, strict=True)]
        cells = [f"{rate_cell(one)} ({times_cell(r)})" for one, r in zip(own, ratios, strict=True)]
        name = "all of it" if system == OURS else system.partition(": ")[2]
        mean = geometric_mean(ratios)
        body.append([name, *cells, "" if math.isnan(mean) else times_cell(mean)])
    return table(["taken away", *scenarios, "all of it as a multiple"], body)


def scaling_table(results: Results) -> str:
    """Capacity per GPU by replicas, as a multiple of one replica, and decision times."""
    if not results.scaling:
        return NOT_RUN
    alone = {one.scenario: one.rate for one in results.scaling if one.replicas == 1}
    body = [
        [
            one.scenario,
            str(one.replicas),
            rate_cell(one.rate),
            times_cell(ratio_of(one.rate * one.replicas, alone.get(one.scenario, math.nan))),
            *(f"{value:.2f}" for value in one.decision_ms),
        ]
        for one in sorted(results.scaling, key=lambda each: (each.scenario, each.replicas))
    ]
    head = ["scenario", "replicas", "programs/s for each GPU", "of one replica's, together"]
    return table([*head, "round p50 ms", "round p99 ms", "ms for each request"], body)


def burst_table(results: Results) -> str:
    """What became of the requests of a bursty load."""
    if not results.bursts:
        return NOT_RUN
    body = [
        [
            one.system,
            rate_cell(one.rate),
            f"{one.attained:.1%}",
            *(str(sum(getattr(each, name) for each in one.timeline)) for name in _FATES),
            f"{one.ttft_share:.2f}",
            f"{one.tpot_share:.2f}",
        ]
        for one in results.bursts
    ]
    head = ["system", "programs/s for each GPU", "attained", "admitted", "admitted after a wait"]
    more = ["best effort", "refused", "p99 TTFT / target", "p99 TPOT / target"]
    return table([*head, *more], body)


_FATES: Final = ("admitted", "held", "best_effort", "refused")


def regret_tables(results: Results) -> str:
    """How much more others keep on drawn loads, and the worst of these loads."""
    return whole(results.regrets, Path(results.regret_loads)) if results.regrets else NOT_RUN


def whole_report(results: Results) -> str:
    """All tables of one evaluation."""
    sections = [("Capacity", capacity_tables(results))]
    if results.command == EVALUATE:
        sections += [
            ("By the three rules", rules_table(results)),
            ("The paper's claims", claims_table(results)),
            ("The paper's baselines as it ran them", paper_tables(results)),
            ("Ablations", ablation_table(results)),
            ("Bursts", burst_table(results)),
            ("Scaling", scaling_table(results)),
            ("Overload", overload_tables(results)),
            ("Regret", regret_tables(results)),
            ("Loads of others", outsiders_table(results)),
            ("Leave one out", effects_table(results.effects)),
        ]
    sections += [
        ("Best settings", settings_table(results)),
        ("How it was made", made_line(results)),
    ]
    return "\n\n".join(f"## {name}\n\n{text}" for name, text in sections) + "\n"


def made_line(results: Results) -> str:
    return (
        f"`{results.command}{' --quick' if results.effort == 'quick' else ''}`, "
        f"seed {results.seed}: "
        f"{results.points} points, {results.measured_s / 60:.0f} minutes of one core's time. "
        f"{results.machine}"
    )
