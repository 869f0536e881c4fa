"""The scenarios of the evaluation: an application, the hardware that it runs on, how long it is
watched. Simulates nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.evaluation.mix import read_mix
from shared.errors import ConfigError
from shared.hardware import Hardware, load, read
from shared.hardware.own import from_profile
from shared.option_values import nearest
from shared.requests import Pacing
from shared.simulation.zero_load import ttft_s
from shared.workloads.agent_sessions import SessionPlan, read_sessions
from shared.workloads.applications import APPLICATIONS, Application
from shared.workloads.calls import Call, Load, Program, at_rate
from shared.workloads.generate import generate
from shared.workloads.inference_perf import read_workload
from shared.workloads.mlperf import INTERACTIVE
from shared.workloads.trace_load import TracePlan, classes_of
from shared.workloads.traces import read_trace

# How a scenario begins that is read from a file, or is made by others.
TRACE, CLASSES, CATALOG, SESSIONS, MLPERF = "trace", "classes", "catalog", "sessions", "mlperf"
_DRAIN_S: Final = 20.0  # of SLOs-Serve: what is left over may take so long after the last arrival
_UNHURRIED_S: Final = 3600.0
_BEFORE: Final = 0.1
_AFTER: Final = 0.3
OF_CLASSES: Final = "llama-3-8b-h100-80gb"  # hardware for classes of one's own
_SERVED: Final = "opt-7b-a100-40gb"
# An answer of the reasoning model takes minutes; it is watched for as many of them as the others.
_LONG: Final = frozenset({"Reasoning"})
_MOST_OF_A_POINT: Final = 3000  # programs, however many engines there are
_LEAST_OF_AN_ENGINE: Final = 100
_BURSTY: Final = frozenset({"Coder"})  # one burst must not be most of a load
_OWN_MODEL: Final[Mapping[str, str]] = {
    "ToolLLM": "toolllama-2-7b-a100-40gb",
    "Reasoning": "r1-distill-qwen-1.5b-a100-40gb",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is simulated: seconds of arrivals at half the load that could at best be served
    (`long_s` for answers of minutes), programs at least and at most for each engine, how close (as
    a ratio) a capacity is found, how many settings of a system are tried (0: all), and on how many
    drawn loads ours is compared with the others.
    """

    name: str
    seconds: float
    long_s: float
    least_programs: int
    most_programs: int
    ratio: float
    settings: int
    regret_loads: int


FULL: Final = Effort(
    name="full",
    seconds=180,
    long_s=1800,
    least_programs=350,
    most_programs=1000,
    ratio=1.07,
    settings=0,
    regret_loads=100,
)
QUICK: Final = Effort(
    name="quick",
    seconds=35,
    long_s=500,
    least_programs=60,
    most_programs=120,
    ratio=1.3,
    settings=4,
    regret_loads=6,
)


def scenario_names() -> tuple[str, ...]:
    return tuple(APPLICATIONS)


def application_of(name: str) -> Application:
    """By its name in any case. Raises ConfigError with the nearest name."""
    found = {one.lower(): one for one in APPLICATIONS}.get(name.lower())
    if found is None:
        raise ConfigError(
            f"unknown scenario {name}{nearest(name, APPLICATIONS)}; "
            f"there are {', '.join(APPLICATIONS)}, or give --trace FILE"
        )
    return APPLICATIONS[found]


def hardware_of(name: str) -> Hardware:
    """A table that ships, a table of one's own (.toml), or what `slos-serve profile --json` told of
    an engine (.json). Raises ConfigError.
    """
    if name.endswith(".toml"):
        return read(Path(name))
    return from_profile(Path(name)) if name.endswith(".json") else load(name)


def hardware_for(scenario: str) -> str:
    """The name of the paper's model and GPU for this scenario, or for the targets of a trace."""
    sort, rest = _source(scenario)
    if sort == CLASSES:
        return OF_CLASSES
    if sort in (CATALOG, SESSIONS, MLPERF):
        return OF_CLASSES
    return _OWN_MODEL.get(rest.partition(":")[0] if sort == TRACE else scenario, _SERVED)


def load_of(scenario: str, *, rate: float, programs: int, seed: int) -> Load:
    """The same programs at every rate: of an application, of a trace (`trace:TARGETS:PATH`, with
    the targets of an application; its own rate for 0, all of it for 0 programs), of classes of
    one's own (`classes:PATH`) or of what others published (`services.evaluation.outsiders`). Raises
    ConfigError for files that cannot be used.
    """
    sort, rest = _source(scenario)
    if sort == SESSIONS:
        return _sessions(rest, rate=rate, programs=programs, seed=seed)
    if sort == TRACE:
        targets, _, path = rest.partition(":")
        classes = classes_of(application_of(targets))
        plan = TracePlan(classes=classes, requests=programs or None, rate=rate or None, seed=seed)
        try:
            return read_trace(Path(path), plan)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error
    return generate(_application(scenario), rate=rate, requests=programs, seed=seed)


def shown_name(scenario: str) -> str:
    """As tables and figures call it: of a file its name."""
    sort, rest = _source(scenario)
    if sort == MLPERF:
        return rest
    return Path(rest).stem if sort else scenario


def least_programs(scenario: str) -> int:
    """So many at least make a load of it: two, and one of each kind."""
    return (
        2
        if _source(scenario)[0] in (TRACE, SESSIONS)
        else max(2, len(_application(scenario).kinds))
    )


def _application(scenario: str) -> Application:
    sort, rest = _source(scenario)
    if sort == MLPERF:
        return INTERACTIVE
    if sort == CATALOG:
        context, _, path = rest.partition(":")
        workload = read_workload(Path(path), int(context))
        if workload is None:
            raise ConfigError(f"{path}: no SLOs on both TTFT and inter-token latency")
        return workload.application
    return read_mix(Path(rest)) if sort == CLASSES else application_of(scenario)


def _sessions(rest: str, *, rate: float, programs: int, seed: int) -> Load:
    """Of `CONTEXT:TTFT_S:TPOT_S:PATH`."""
    context, ttft_s, tpot_s, path = rest.split(":", 3)
    plan = SessionPlan(
        context_tokens=int(context),
        programs=programs,
        rate=rate,
        seed=seed,
        ttft_s=float(ttft_s),
        tpot_s=float(tpot_s),
    )
    return read_sessions(Path(path), plan)


def is_of_classes(scenario: str) -> bool:
    return _source(scenario)[0] == CLASSES


def _source(scenario: str) -> tuple[str, str]:
    """How it begins and what stands behind it; of an application, nothing and its name."""
    sort, _, rest = scenario.partition(":")
    known = (TRACE, CLASSES, CATALOG, SESSIONS, MLPERF)
    return (sort, rest) if sort in known and rest else ("", scenario)


def load_on(
    scenario: str,
    hardware: Hardware,
    *,
    rate: float,
    programs: int,
    seed: int,
    pacing: Pacing | None = None,
) -> Load:
    """What the model takes of a load: programs that are longer than it can be are left out, as
    SLOs-Serve does, and the others come at the same rate. All calls ask for this `pacing`; None:
    each for its own. Raises ConfigError where no program is left.
    """
    load = load_of(scenario, rate=rate, programs=programs, seed=seed)
    if pacing is not None:
        load = tuple(replace(one, calls=_paced(one.calls, pacing)) for one in load)
    return fitting(load, hardware, rate=rate)


def _paced(calls: Sequence[Call], pacing: Pacing) -> tuple[Call, ...]:
    return tuple(one if one.pacing is pacing else replace(one, pacing=pacing) for one in calls)


def fitting(load: Load, hardware: Hardware, *, rate: float) -> Load:
    """The same for a load that is at hand."""
    most = hardware.max_model_len_tokens
    kept = tuple(
        replace(program, calls=tuple(_within(call, most) for call in program.calls))
        for program in load
        if takes(hardware, program)
    )
    if len(kept) < 2:
        raise ConfigError(f"{hardware.name} takes {most} tokens, all programs have more")
    return at_rate(kept, rate)


def takes(hardware: Hardware, program: Program) -> bool:
    """Whether the model is long enough for each of its calls."""
    most = hardware.max_model_len_tokens
    return all(call.prompt_tokens + call.output_tokens <= most for call in program.calls)


def _within(call: Call, most: int) -> Call:
    return replace(call, max_output_tokens=min(call.max_output_tokens, most - call.prompt_tokens))


def programs_for(scenario: str, effort: Effort, engines: int, best_rate: float) -> int:
    """How many programs a point has, from the rate that one engine could serve at best."""
    seconds = effort.long_s if scenario in _LONG else effort.seconds
    wanted = min(effort.most_programs, max(effort.least_programs, seconds * best_rate / 2))
    programs = round(wanted) * (2 if scenario in _BURSTY else 1) * engines
    return min(programs, max(_MOST_OF_A_POINT, _LEAST_OF_AN_ENGINE * engines))


def counted_of(*, lasting: bool, programs: int) -> slice:
    """Who comes before and after the others finds an idle fleet, or leaves one behind: a load that
    would be too much for ever may yet be served when it ends soon.
    """
    if not lasting:
        return slice(None)
    return slice(int(_BEFORE * programs), max(1, int((1 - _AFTER) * programs)))


def drain_s(load: Load, hardware: Hardware) -> float:
    """How long after the last arrival a run may go on: as long as the slowest program's own targets
    allow, and what the paper allows besides; an hour where a program asks for no time.
    """
    allowed = max(allowed_s(program, hardware) for program in load)
    return _DRAIN_S + (allowed if math.isfinite(allowed) else _UNHURRIED_S)


def allowed_s(program: Program, hardware: Hardware) -> float:
    """How long its targets let a program take, tools and users included."""
    return sum(call.after_s + call_allowed_s(call, hardware) for call in program.calls)


def call_allowed_s(call: Call, hardware: Hardware) -> float:
    """From the arrival of a call to the latest moment of its last token; infinite where its targets
    leave that open.
    """
    if math.isinf(call.stages[0].tpot_s):
        return math.inf
    paces_s = sum(stage.output_tokens * stage.tpot_s for stage in call.stages)
    return ttft_s(call, hardware) + paces_s - call.stages[0].tpot_s
