"""All systems by name: ours and its baselines, with the settings that are tried."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.evaluation.baselines import (
    distserve,
    dynamo,
    fairbatching,
    jitserve,
    qoserve,
    routed,
    sarathi,
    slai,
    vllm,
)
from services.evaluation.planned import Planned, Settings
from services.evaluation.settings import Setting, TuningCase
from shared.simulation.engine import SimEngine
from shared.simulation.system import System
from shared.workloads.calls import Load

OURS: Final = "slos-serve"
VLLM_IN_TURN: Final = "vllm-round-robin"
VLLM_BY_REQUESTS: Final = "vllm-fewest-requests"
DYNAMO_KV: Final = "dynamo-kv"
LLMD: Final = "llm-d"
# Systems that differ from `vllm` in the choice of engines alone.
ROUTERS: Final = (VLLM_IN_TURN, VLLM_BY_REQUESTS, DYNAMO_KV, LLMD)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemSpec:
    """One serving system. `settings` yields all ways to run it that are worth a try in a case, a
    good default first; `build` makes it anew for one run over fresh engines of the setting's roles.
    """

    name: str
    settings: Callable[[TuningCase], Iterator[Setting]]
    build: Callable[[Setting, Sequence[SimEngine], Load], System]


def _our_settings(case: TuningCase) -> Iterator[Setting]:
    """Settings with drafts where there is a draft model, and without. Draft lengths are decided at
    run time, and so is which requests go to the prefill engines of a fleet.
    """
    most = case.drafts[-1]
    for drafts in sorted({most, 0}, reverse=True):
        yield Setting(decode=case.replicas, drafts=drafts)
        for prefill, decode in case.splits:
            yield Setting(prefill=prefill, decode=decode, drafts=drafts)


def _build_ours(setting: Setting, engines: Sequence[SimEngine], load: Load) -> Planned:  # noqa: ARG001 - as all builders
    return Planned.learning(Settings(speculation=setting.drafts > 0), engines)


SYSTEMS: Final[Mapping[str, SystemSpec]] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            SystemSpec(name=OURS, settings=_our_settings, build=_build_ours),
            SystemSpec(name="vllm-paper", settings=vllm.paper_settings, build=vllm.build_paper),
            SystemSpec(name="vllm", settings=vllm.settings, build=vllm.build),
            SystemSpec(name="sarathi", settings=sarathi.settings, build=sarathi.build),
            SystemSpec(name="distserve", settings=distserve.settings, build=distserve.build),
            SystemSpec(name="qoserve", settings=qoserve.settings, build=qoserve.build),
            SystemSpec(name="dynamo", settings=dynamo.settings, build=dynamo.build),
            SystemSpec(
                name="fairbatching", settings=fairbatching.settings, build=fairbatching.build
            ),
            SystemSpec(name="slai", settings=slai.settings, build=slai.build),
            SystemSpec(name="jitserve", settings=jitserve.settings, build=jitserve.build),
            SystemSpec(name=VLLM_IN_TURN, settings=routed.settings, build=routed.build_in_turn),
            SystemSpec(
                name=VLLM_BY_REQUESTS, settings=routed.settings, build=routed.build_by_requests
            ),
            SystemSpec(name=DYNAMO_KV, settings=routed.dynamo_settings, build=routed.build_dynamo),
            SystemSpec(name=LLMD, settings=routed.llmd_settings, build=routed.build_llmd),
        )
    }
)
