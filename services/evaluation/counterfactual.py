"""Compares the planner's replay of other fleets with simulations of them.

`python -m services.evaluation.counterfactual` prints both. The replay sees only what the planner of
one fleet was asked (`--seen-by`).
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from services.evaluation.files import json_of
from services.evaluation.fleets import Fleet, make_engines, parse_fleet
from services.evaluation.options import CounterfactualOptions
from services.evaluation.planned import Planned, Settings
from services.evaluation.scenarios import drain_s, hardware_for, hardware_of, load_on
from services.planner.scaling.numbers import ScalingNumbers
from services.planner.scaling.replay import replay
from services.planner.scaling.scaler import Question, Scaler
from shared.clock import cpu_time_s
from shared.entry import exit_status
from shared.hardware.profile import profiled
from shared.options import load as load_options
from shared.simulation.judge import Rule, kept
from shared.simulation.record import Conditions
from shared.simulation.request_metrics import ARRIVES
from shared.simulation.run import Run

_HALF = 0.5  # share of the load that is judged: the later part


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The share that a fleet keeps of the same requests by simulation and by replay, and the CPU
    time of both. `replayed` uses only what the planner of another fleet was asked.
    """

    fleet: str
    simulated: float
    replayed: float
    simulated_cpu_s: float
    replayed_cpu_s: float


def main(argv: Sequence[str]) -> int:
    options = load_options(
        CounterfactualOptions,
        section="counterfactual",
        argv=argv,
        environ=os.environ,
        prog="python -m services.evaluation.counterfactual",
    )
    compared = list(compare(options))
    if options.json:
        print(json_of([asdict(one) for one in compared]))
    else:
        _print(compared, options)
    return 0


def compare(options: CounterfactualOptions) -> Iterator[Compared]:
    """Simulates each fleet and replays what the planner of `seen_by` was asked."""
    _, question, _ = _simulated(_fleet(options.seen_by), options)
    _replayed(_fleet(options.seen_by), question)  # compiles the code before it is timed
    for name in options.fleets:
        fleet = _fleet(name)
        simulated, _, simulated_cpu_s = _simulated(fleet, options)
        began_s = cpu_time_s()
        replayed = _replayed(fleet, question)
        yield Compared(
            fleet=name,
            simulated=simulated,
            replayed=replayed,
            simulated_cpu_s=simulated_cpu_s,
            replayed_cpu_s=cpu_time_s() - began_s,
        )


def _fleet(name: str) -> Fleet:
    """Parses `3`, or `1+2` for one prefill and two decode engines. Raises ConfigError."""
    prefill, plus, decode = name.partition("+")
    return parse_fleet(f"prefill={prefill},decode={decode}" if plus else name)


def _replayed(fleet: Fleet, question: Question) -> float:
    verdicts = replay(question.demands, question.site, fleet.prefill, fleet.decode, until_s=0.0)
    return verdicts.since(-question.window_s).share


def _simulated(fleet: Fleet, options: CounterfactualOptions) -> tuple[float, Question, float]:
    """The share kept in the later half, what the planner was asked, and the CPU seconds."""
    hardware = hardware_of(options.hardware or hardware_for(options.scenario))
    programs = round(options.rate * options.seconds)
    load = load_on(
        options.scenario, hardware, rate=options.rate, programs=programs, seed=options.seed
    )
    engines = make_engines(fleet.roles, hardware, profiled(hardware), seed=options.seed)
    system = Planned.learning(Settings(speculation=options.speculation), engines)
    began_s = cpu_time_s()
    record = Run(load, system, engines, Conditions(drain_s=drain_s(load, hardware))).record()
    took_s = cpu_time_s() - began_s
    end_s = max(program.arrives_s for program in load)
    window_s = _HALF * end_s
    later = record.metrics[:, ARRIVES] >= end_s - window_s
    numbers = ScalingNumbers(window_s=window_s, most_requests=len(record.metrics))
    question = Scaler(numbers=numbers, started_at_s=0.0).question(system.state, end_s)
    assert question is not None
    return float(kept(record.metrics, Rule.ASKED)[later].mean()), question, took_s


def _print(compared: Sequence[Compared], options: CounterfactualOptions) -> None:
    table = Table(
        title=f"{options.scenario} at {options.rate:g}/s: kept, simulated and replayed from what "
        f"{options.seen_by} was asked"
    )
    table.add_column("fleet")
    for name in ("simulated", "replayed", "CPU s simulated", "replayed"):
        table.add_column(name, justify="right")
    for one in compared:
        table.add_row(
            one.fleet,
            f"{one.simulated:.1%}",
            f"{one.replayed:.1%}",
            f"{one.simulated_cpu_s:.2f}",
            f"{one.replayed_cpu_s:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="services.evaluation.counterfactual"))
