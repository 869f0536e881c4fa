"""Systems, their settings and ablations of ours, by the names that a task carries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from services.evaluation.planned import Planned, Settings
from services.evaluation.settings import Setting, TuningCase
from services.evaluation.systems import OURS, SYSTEMS, SystemSpec
from shared.batch_time import StepTable
from shared.batch_time.table import HEADER, WIDTH
from shared.errors import ConfigError
from shared.hardware import Hardware
from shared.hardware.profile import paper_form, profiled
from shared.requests import PlacementMode
from shared.simulation.engine import SimEngine
from shared.simulation.system import System
from shared.spelling import nearest
from shared.workloads.calls import Load

_WITHOUT: Final = f"{OURS}: "  # the prefix of an ablation's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """Ours with a part removed or misconfigured. `model_factor`: its step times are so many times
    the fitted ones. `paper_model`: they are fitted by the paper's form. `learns`: engines learn
    them from their steps.
    """

    settings: Settings = field(default_factory=Settings)
    paper_model: bool = False
    model_factor: float = 1.0
    learns: bool = True


ABLATIONS: Final[Mapping[str, Ablation]] = MappingProxyType(
    {
        "no program": Ablation(settings=Settings(admission_dp=False)),
        "no speculation": Ablation(settings=Settings(speculation=False)),
        "no best effort": Ablation(settings=Settings(best_effort=False)),
        "steps of 512 tokens": Ablation(settings=Settings(max_step_tokens=512)),
        "round robin": Ablation(settings=Settings(round_robin=True)),
        "always co-located": Ablation(settings=Settings(way=PlacementMode.COLOCATED)),
        "always disaggregated": Ablation(settings=Settings(way=PlacementMode.DISAGGREGATED)),
        "no class affinity": Ablation(settings=Settings(same_pace_first=False)),
        "the paper's model": Ablation(paper_model=True, learns=False),
        "step times are not learned": Ablation(learns=False),
        "answers taken for half": Ablation(settings=Settings(length_factor=0.5)),
        "answers taken for double": Ablation(settings=Settings(length_factor=2.0)),
        "step times x 0.7": Ablation(model_factor=0.7, learns=False),
        "step times x 0.85": Ablation(model_factor=0.85, learns=False),
        "step times x 1.2": Ablation(model_factor=1.2, learns=False),
        "step times x 1.4": Ablation(model_factor=1.4, learns=False),
    }
)


def ablated(name: str) -> str:
    """The name of this ablation in a task."""
    return _WITHOUT + name


def is_ours(system: str) -> bool:
    return system == OURS or system.startswith(_WITHOUT)


def spec_of(system: str) -> SystemSpec:
    """The system of this name. Raises ConfigError with the nearest name."""
    name = OURS if is_ours(system) else system
    if name not in SYSTEMS:
        known = ", ".join(SYSTEMS)
        raise ConfigError(f"unknown system {system}{nearest(system, SYSTEMS)}; there are {known}")
    return SYSTEMS[name]


def settings_of(system: str, case: TuningCase) -> dict[str, Setting]:
    """All settings of a system for a case, by label."""
    return {setting.label: setting for setting in spec_of(system).settings(case)}


def setting_of(system: str, label: str, case: TuningCase) -> Setting:
    """The setting with this label. Raises ConfigError where there is none."""
    known = settings_of(system, case)
    if label not in known:
        raise ConfigError(f"{system} has no setting {label!r}; there are {'; '.join(known)}")
    return known[label]


def closest(wanted: Setting, settings: Iterable[Setting]) -> Setting:
    """The setting that equals `wanted` but for the nearest threshold: thresholds depend on the
    load. Raises ValueError where there is none.
    """
    everywhere = replace(wanted, threshold_tokens=None)
    alike = [one for one in settings if replace(one, threshold_tokens=None) == everywhere]
    tokens = wanted.threshold_tokens or 0
    return min(alike, key=lambda one: abs((one.threshold_tokens or 0) - tokens))


def build(system: str, setting: Setting, engines: Sequence[SimEngine], load: Load) -> System:
    """One system over one fleet, for one run. Raises ConfigError for an unknown name."""
    if system.startswith(_WITHOUT):
        ablation = _ablation(system)
        drafts = ablation.settings.speculation and setting.drafts > 0
        make = Planned.learning if ablation.learns else Planned
        return make(replace(ablation.settings, speculation=drafts), engines)
    return spec_of(system).build(setting, engines, load)


def table_of(system: str, hardware: Hardware) -> StepTable:
    """The step times that this system uses."""
    ablation = _ablation(system) if system.startswith(_WITHOUT) else Ablation()
    table = paper_form(hardware) if ablation.paper_model else profiled(hardware)
    numbers = table.numbers.copy()
    pieces = numbers[HEADER:].reshape(-1, WIDTH)
    pieces[:, 1:] *= ablation.model_factor
    return StepTable(numbers)


def _ablation(system: str) -> Ablation:
    name = system.removeprefix(_WITHOUT)
    if name not in ABLATIONS:
        raise ConfigError(f"unknown ablation {name}{nearest(name, ABLATIONS)}")
    return ABLATIONS[name]
