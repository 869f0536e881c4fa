"""Loads published by others, with their published SLOs, through all systems.

Their files are read from a folder: `workloads/inference-perf_NAME.json` of inference-perf's catalog
and `traces/agent_sessions.csv.gz` of kv-cache-tester. MLPerf's Llama-3.1-8B needs none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.evaluation.drive import drive
from services.evaluation.parts import Evaluation
from services.evaluation.results import Outsider
from services.evaluation.scenarios import CATALOG, MLPERF, OF_CLASSES, SESSIONS, hardware_of
from services.evaluation.stage import say
from services.evaluation.study import Place, campaign
from services.evaluation.too_long import too_long
from shared.simulation.judge import Rule
from shared.workloads.agent_sessions import scale_of, sessions_of
from shared.workloads.inference_perf import read_workload
from shared.workloads.mlperf import INTERACTIVE, SHARE

RULES: Final = (Rule.WINDOWS.value, Rule.DEADLINES.value)
_CATALOG_FILES: Final = "workloads/inference-perf_*.json"
_SESSIONS_FILE: Final = "traces/agent_sessions.csv.gz"
_THINKS: Final = "reasoning"  # the catalog's load that needs a model with a long context
_THINKING_MODEL: Final = "r1-distill-qwen-1.5b-a100-40gb"
# Recorded sessions have no targets; these are the catalog's for code generation.
_SESSIONS_TTFT_S: Final = 30.0
_SESSIONS_TPOT_S: Final = 0.1
_SESSIONS_SHARE: Final = 0.95
_LONGER: Final = 4  # times the loads of the applications


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published load on one engine of `hardware`. A `share` of requests must be in time; prompts
    are `scale` times those published.
    """

    scenario: str
    hardware: str
    share: float
    scale: float = 1.0


def outsiders(evaluation: Evaluation, systems: Sequence[str]) -> None:
    """Finds the capacity of every system on each, by windows of ten tokens and by deadlines."""
    published = list(loads_of(evaluation.data))
    for one in published:
        for line in too_long(one.scenario, one.hardware, evaluation.seed):
            say(line)
    searches = {
        f"{one.scenario}, {system}, {rule}": campaign(
            system, [_place(evaluation, one)], [one.share], rule
        )
        for one in published
        for system in systems
        for rule in RULES
    }
    found = drive(searches, evaluation.pool, evaluation.points, evaluation.hear("outsiders"))
    for one in published:
        bound = _place(evaluation, one).bound(one.share) / hardware_of(one.hardware).gpus
        own = [
            capacity
            for system in systems
            for rule in RULES
            for capacity in found[f"{one.scenario}, {system}, {rule}"]
        ]
        evaluation.results.outsiders.append(
            Outsider(
                scenario=one.scenario,
                hardware=one.hardware,
                share=one.share,
                scale=one.scale,
                bound=bound,
                capacities=tuple(own),
            )
        )


def loads_of(folder: str) -> Iterator[Published]:
    """MLPerf's load and those with a file; a printed line names each that is left out. Raises
    ConfigError for a file that cannot be read.
    """
    yield Published(scenario=f"{MLPERF}:{INTERACTIVE.name}", hardware=OF_CLASSES, share=SHARE)
    files = sorted(Path(folder).glob(_CATALOG_FILES)) if folder else []
    if not files:
        say(f"left out: inference-perf's catalog, there is no {_CATALOG_FILES} in {_told(folder)}")
    for path in files:
        hardware = _THINKING_MODEL if path.stem.endswith(_THINKS) else OF_CLASSES
        context = hardware_of(hardware).max_model_len_tokens
        workload = read_workload(path, context)
        if workload is None:
            say(f"left out: {path.stem}, which has no SLOs on both TTFT and inter-token latency")
            continue
        yield Published(
            scenario=f"{CATALOG}:{context}:{path}",
            hardware=hardware,
            share=workload.ttft.share,
            scale=workload.scale,
        )
    sessions = Path(folder) / _SESSIONS_FILE
    if not folder or not sessions.is_file():
        say(f"left out: agent sessions, there is no {_SESSIONS_FILE} in {_told(folder)}")
        return
    context = hardware_of(OF_CLASSES).max_model_len_tokens
    yield Published(
        scenario=f"{SESSIONS}:{context}:{_SESSIONS_TTFT_S:g}:{_SESSIONS_TPOT_S:g}:{sessions}",
        hardware=OF_CLASSES,
        share=_SESSIONS_SHARE,
        scale=scale_of(sessions_of(sessions), context),
    )


def _told(folder: str) -> str:
    return folder or "--data, which was not given"


def _place(evaluation: Evaluation, one: Published) -> Place:
    """The published load as a place of the evaluation. Requests are counted, because published SLOs
    are those of requests. The load lasts longer than others: answers may take minutes, and a short
    load would not fill an engine.
    """
    effort = replace(
        evaluation.effort,
        seconds=_LONGER * evaluation.effort.seconds,
        most_programs=_LONGER * evaluation.effort.most_programs,
    )
    return Place(one.scenario, 1, effort, evaluation.seed, one.hardware, by_request=True)
