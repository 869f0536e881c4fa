"""The scenarios of the evaluation: an application, its hardware, and how long it is simulated."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.evaluation.mix import read_mix
from shared.errors import ConfigError
from shared.hardware import Hardware, load, read
from shared.hardware.own import from_profile
from shared.requests import Pacing
from shared.simulation.zero_load import ttft_s
from shared.spelling import nearest
from shared.workloads.agent_sessions import SessionPlan, read_sessions
from shared.workloads.applications import APPLICATIONS, Application
from shared.workloads.calls import Call, Load, Program, at_rate
from shared.workloads.generate import generate
from shared.workloads.inference_perf import read_workload
from shared.workloads.mlperf import INTERACTIVE
from shared.workloads.trace_load import TracePlan, classes_of
from shared.workloads.traces import read_trace

# Prefixes of scenarios that are read from a file or published by others.
TRACE, CLASSES, CATALOG, SESSIONS, MLPERF = "trace", "classes", "catalog", "sessions", "mlperf"
_DRAIN_S: Final = 20.0  # as in SLOs-Serve: how long requests may run after the last arrival
_UNHURRIED_S: Final = 3600.0
_BEFORE: Final = 0.1
_AFTER: Final = 0.3
OF_CLASSES: Final = "llama-3-8b-h100-80gb"  # hardware for a user's classes
_SERVED: Final = "opt-7b-a100-40gb"
# Answers of the reasoning model take minutes: it is simulated for longer, for as many answers.
_LONG: Final = frozenset({"Reasoning"})
_MOST_OF_A_POINT: Final = 3000  # programs, for any number of engines
_LEAST_OF_AN_ENGINE: Final = 100
_BURSTY: Final = frozenset({"Coder"})  # one burst must not be most of a load
_OWN_MODEL: Final[Mapping[str, str]] = {
    "ToolLLM": "toolllama-2-7b-a100-40gb",
    "Reasoning": "r1-distill-qwen-1.5b-a100-40gb",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is simulated.

    Attributes:
        seconds: for how many seconds programs arrive, at half of the best possible rate.
        long_s: the same for answers that take minutes.
        least_programs: programs for each engine at least.
        most_programs: programs for each engine at most.
        ratio: how close a capacity is found.
        settings: how many settings of a system are tried; 0: all.
        regret_loads: on how many drawn loads ours is compared with the others.
        seeds: with how many seeds each load is played when a tuned number is left out.
    """

    name: str
    seconds: float
    long_s: float
    least_programs: int
    most_programs: int
    ratio: float
    settings: int
    regret_loads: int
    seeds: int


FULL: Final = Effort(
    name="full",
    seconds=180,
    long_s=1800,
    least_programs=350,
    most_programs=1000,
    ratio=1.07,
    settings=0,
    regret_loads=100,
    seeds=4,
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
    seeds=1,
)


def scenario_names() -> tuple[str, ...]:
    return tuple(APPLICATIONS)


def application_of(name: str) -> Application:
    """An application by its name in any case. Raises ConfigError with the nearest name."""
    found = {one.lower(): one for one in APPLICATIONS}.get(name.lower())
    if found is None:
        raise ConfigError(
            f"unknown scenario {name}{nearest(name, APPLICATIONS)}; "
            f"there are {', '.join(APPLICATIONS)}, or give --trace FILE"
        )
    return APPLICATIONS[found]


def hardware_of(name: str) -> Hardware:
    """A table of shared/hardware, a user's table (.toml), or the output of `slos-serve profile
    --json` (.json). Raises ConfigError.
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
    """The programs of a scenario, the same ones at every rate. Raises ConfigError for files that
    cannot be used.

    A scenario is an application, a trace (`trace:TARGETS:PATH`, with the targets of an application;
    rate 0: its own, 0 programs: all of it), a user's classes (`classes:PATH`) or a published load
    (`services.evaluation.outsiders`).
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
    """The name in tables and figures; for a file, its stem."""
    sort, rest = _source(scenario)
    if sort == MLPERF:
        return rest
    return Path(rest).stem if sort else scenario


def least_programs(scenario: str) -> int:
    """The fewest programs that make a load: one of each kind, but at least two."""
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
    """The sessions of `CONTEXT:TTFT_S:TPOT_S:PATH`."""
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
    """The prefix and the rest of a scenario; for an application, nothing and its name."""
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
    """A load as far as the model takes it: programs longer than its context are left out, as in
    SLOs-Serve, and the others arrive at the same rate. All calls have this `pacing`; None: each its
    own. Raises ConfigError where fewer than two programs are left.
    """
    load = load_of(scenario, rate=rate, programs=programs, seed=seed)
    if pacing is not None:
        load = tuple(replace(one, calls=_paced(one.calls, pacing)) for one in load)
    return fitting(load, hardware, rate=rate)


def _paced(calls: Sequence[Call], pacing: Pacing) -> tuple[Call, ...]:
    return tuple(one if one.pacing is pacing else replace(one, pacing=pacing) for one in calls)


def fitting(load: Load, hardware: Hardware, *, rate: float) -> Load:
    """`load_on` for a load that exists already."""
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
    """Whether the model's context is long enough for each call of the program."""
    most = hardware.max_model_len_tokens
    return all(call.prompt_tokens + call.output_tokens <= most for call in program.calls)


def _within(call: Call, most: int) -> Call:
    return replace(call, max_output_tokens=min(call.max_output_tokens, most - call.prompt_tokens))


def programs_for(scenario: str, effort: Effort, engines: int, best_rate: float) -> int:
    """The number of programs of a point, from the best possible rate of one engine."""
    seconds = effort.long_s if scenario in _LONG else effort.seconds
    wanted = min(effort.most_programs, max(effort.least_programs, seconds * best_rate / 2))
    programs = round(wanted) * (2 if scenario in _BURSTY else 1) * engines
    return min(programs, max(_MOST_OF_A_POINT, _LEAST_OF_AN_ENGINE * engines))


def counted_of(*, lasting: bool, programs: int) -> slice:
    """The programs that count. With `lasting` the first and the last ones are left out: they find
    or leave an idle fleet, and a load that is not sustainable may still be served if it ends soon.
    """
    if not lasting:
        return slice(None)
    return slice(int(_BEFORE * programs), max(1, int((1 - _AFTER) * programs)))


def drain_s(load: Load, hardware: Hardware) -> float:
    """How long a run may go on after the last arrival: as long as the slowest program's targets
    allow plus what the paper allows; an hour more where a program has no targets.
    """
    allowed = max(allowed_s(program, hardware) for program in load)
    return _DRAIN_S + (allowed if math.isfinite(allowed) else _UNHURRIED_S)


def allowed_s(program: Program, hardware: Hardware) -> float:
    """The longest time that its targets allow a program, with the time of tools and users."""
    return sum(call.after_s + call_allowed_s(call, hardware) for call in program.calls)


def call_allowed_s(call: Call, hardware: Hardware) -> float:
    """Seconds from the arrival of a call to the latest time of its last token; infinite where its
    targets leave that open.
    """
    if math.isinf(call.stages[0].tpot_s):
        return math.inf
    paces_s = sum(stage.output_tokens * stage.tpot_s for stage in call.stages)
    return ttft_s(call, hardware) + paces_s - call.stages[0].tpot_s
