"""`slos-serve evaluate`: runs all parts of the evaluation and writes its document."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from services.evaluation.as_in_paper import as_in_paper
from services.evaluation.capacity import count, show
from services.evaluation.leave_one_out.part import chosen_numbers, leave_one_out
from services.evaluation.measure import measure_point
from services.evaluation.options import EvaluateOptions
from services.evaluation.output import write_document, write_report
from services.evaluation.outsiders import outsiders
from services.evaluation.overload import overload, retries
from services.evaluation.parts import Evaluation, systems_of
from services.evaluation.point_store import PointStore
from services.evaluation.regret.part import drawn_loads
from services.evaluation.results import Results
from services.evaluation.scenarios import FULL, QUICK, scenario_names
from services.evaluation.stage import jobs_of, machine_line, progressing
from services.evaluation.workers import workers
from shared.errors import ConfigError
from shared.options import load
from shared.spelling import nearest

_BARS = (0.9, 0.98)
_REPLICAS = (1, 4)
_LEAVE_ONE_OUT = "leave-one-out"  # runs only by its name


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError before anything is simulated."""
    options = load(
        EvaluateOptions,
        section="evaluate",
        argv=argv,
        environ=os.environ,
        prog="slos-serve evaluate",
    )
    results = evaluate(options)
    show(results, Path(options.out))
    if options.document:
        write_document(results, Path(options.document))
    return 0


def evaluate(options: EvaluateOptions) -> Results:
    """Runs part by part and writes the report after each, so that it can be read during the run."""
    effort = QUICK if options.quick else FULL
    for part in options.parts:
        if part not in PARTS:
            raise ConfigError(f"--parts {part}: unknown{nearest(part, PARTS)}")
    chosen_numbers(options.numbers)
    if options.code_trace and not Path(options.code_trace).is_file():
        raise ConfigError(f"--code-trace {options.code_trace}: there is no such file")
    if options.data and not Path(options.data).is_dir():
        raise ConfigError(f"--data {options.data}: there is no such folder")
    store = PointStore(Path(options.out), older=options.older)
    results = Results(effort=effort.name, seed=options.seed, machine=machine_line())
    with workers(jobs_of(options.jobs), measure_point) as pool, progressing() as shown:
        evaluation = Evaluation(
            effort=effort,
            seed=options.seed,
            pool=pool,
            points=store,
            results=results,
            folder=Path(options.out),
            hear=shown.hear,
            show=shown.show,
            code_trace=options.code_trace,
            data=options.data,
            numbers=options.numbers,
            older=options.older,
        )
        for name, run in PARTS.items():
            if name in options.parts or (not options.parts and name != _LEAVE_ONE_OUT):
                run(evaluation)
                count(results, store)
                write_report(results, Path(options.out))
    return results


def _capacity(evaluation: Evaluation) -> None:
    evaluation.capacity(scenario_names(), systems_of(()), _REPLICAS, _BARS)


def _rules(evaluation: Evaluation) -> None:
    evaluation.rules(scenario_names(), systems_of(()), _BARS[0])


def _curves(evaluation: Evaluation) -> None:
    evaluation.curves(scenario_names(), systems_of(()), _BARS[0])


def _ablations(evaluation: Evaluation) -> None:
    evaluation.ablations(_BARS[0])


def _bursts(evaluation: Evaluation) -> None:
    evaluation.bursts(systems_of(()), _BARS[0])


def _scaling(evaluation: Evaluation) -> None:
    evaluation.scaling(_BARS[0])


def _overload(evaluation: Evaluation) -> None:
    overload(evaluation, systems_of(()), _BARS[0])
    retries(evaluation, _BARS[0])


def _paper(evaluation: Evaluation) -> None:
    as_in_paper(evaluation, scenario_names(), _REPLICAS, _BARS[0])


def _leave_one_out(evaluation: Evaluation) -> None:
    leave_one_out(evaluation, _BARS[0])


def _outsiders(evaluation: Evaluation) -> None:
    outsiders(evaluation, systems_of(()))


PARTS: dict[str, Callable[[Evaluation], None]] = {
    "capacity": _capacity,
    "paper": _paper,
    "curves": _curves,
    "ablations": _ablations,
    "bursts": _bursts,
    "scaling": _scaling,
    "overload": _overload,
    "regret": drawn_loads,
    "outsiders": _outsiders,
    "rules": _rules,
    _LEAVE_ONE_OUT: _leave_one_out,
}
