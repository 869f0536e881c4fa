"""Plays a load through one system: hit rate, TTFT, and the share of programs in time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.evaluation.attainment import Attainment
from services.evaluation.fleets import make_engines
from services.evaluation.planned import Planned, Settings
from services.evaluation.scenarios import drain_s, hardware_of
from services.evaluation.settings import Setting, TuningCase
from services.evaluation.shared_prefixes.loads import PrefixLoad
from services.evaluation.systems import (
    DYNAMO_KV,
    LLMD,
    OURS,
    SYSTEMS,
    VLLM_BY_REQUESTS,
    VLLM_IN_TURN,
)
from shared.hardware.profile import profiled
from shared.simulation.engine import SimEngine
from shared.simulation.judge import Rule, ttfts_s
from shared.simulation.record import Conditions
from shared.simulation.request_metrics import FIRST
from shared.simulation.run import Run
from shared.simulation.system import System
from shared.workloads.calls import Load

WITHOUT: Final = f"{OURS} without knowledge of prefixes"
NAMES: Final = (OURS, WITHOUT, VLLM_IN_TURN, VLLM_BY_REQUESTS, DYNAMO_KV, LLMD)
_PILOT: Final = 0.34  # share of the programs on which settings are compared
_PILOT_ENGINES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The result of one system. `hit_rate`: prompt tokens found in caches, of all. `could_hit`:
    those that an earlier request had computed. `ttft_s`: p50 and p95 of all served requests.
    `kept`: share of the programs with all their requests in time.
    """

    load: str
    engines: int
    system: str
    setting: str
    hit_rate: float
    could_hit: float
    ttft_s: tuple[float, float]
    kept: float


def play(load: PrefixLoad, sizes: Sequence[int], hardware: str, seed: int) -> Iterator[Played]:
    """Each system on each fleet. Settings of baselines are those that keep most of a shorter load
    on four engines.
    """
    for system in NAMES:
        setting = _best(load, system, hardware, seed)
        for size in sizes:
            yield play_one(load, system, setting, size, hardware, seed)


def _best(load: PrefixLoad, system: str, hardware: str, seed: int) -> Setting:
    settings = _settings(load, system, hardware, seed)
    if len(settings) == 1:
        return settings[0]
    return max(
        settings,
        key=lambda one: _merit(play_one(load, system, one, _PILOT_ENGINES, hardware, seed, _PILOT)),
    )


def _merit(one: Played) -> tuple[float, float]:
    return one.kept, -one.ttft_s[1]


def _settings(load: PrefixLoad, system: str, hardware: str, seed: int) -> list[Setting]:
    """Settings without drafts, so that routing alone makes the difference."""
    if system in (OURS, WITHOUT):
        return [Setting()]
    sample = load.on(hardware_of(hardware), 1, seed, _PILOT)
    case = TuningCase(hardware=hardware_of(hardware), replicas=1, load=sample)
    return [one for one in SYSTEMS[system].settings(case) if not one.drafts]


def play_one(
    load: PrefixLoad,
    name: str,
    setting: Setting,
    size: int,
    hardware: str,
    seed: int,
    share: float = 1.0,
) -> Played:
    """One system in one setting; the setting's roles are those of each engine of the fleet."""
    table = hardware_of(hardware)
    programs = load.on(table, size, seed, share)
    roles = setting.roles * size
    engines = make_engines(roles, table, profiled(table), seed=seed)
    system = _system(name, setting, engines, programs)
    conditions = Conditions(drain_s=drain_s(programs, table))
    record = Run(programs, system, engines, conditions).record()
    prompts = sum(request.prompt_tokens for request in record.requests)
    ttft_s = ttfts_s(record.metrics[~np.isnan(record.metrics[:, FIRST])])
    p50_s, p95_s = np.quantile(ttft_s, (0.5, 0.95)).tolist()
    bounds = Attainment(programs).bounds(record.requests, record.metrics, Rule.ASKED, math.inf)
    return Played(
        load=load.name,
        engines=size,
        system=name,
        setting=setting.label,
        hit_rate=sum(engine.found_tokens for engine in engines) / prompts,
        could_hit=sum(request.call.prefix_tokens for request in record.requests) / prompts,
        ttft_s=(p50_s, p95_s),
        kept=bounds.at_least,
    )


def _system(name: str, setting: Setting, engines: Sequence[SimEngine], load: Load) -> System:
    if name in (OURS, WITHOUT):
        settings = Settings(speculation=False, names_sessions=False, knows_prefixes=name == OURS)
        return Planned.learning(settings, engines)
    return SYSTEMS[name].build(setting, engines, load)
