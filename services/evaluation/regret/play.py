"""Plays one load through ours and all baselines, each of these in its best setting."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.evaluation.files import write
from services.evaluation.measure import measure_point
from services.evaluation.points import Task
from services.evaluation.regret.loads import RegretLoad, has_no_slo
from services.evaluation.scenarios import CLASSES
from services.evaluation.settings import Setting
from services.evaluation.systems import OURS
from services.evaluation.tuning_cases import tuning_case_of
from services.evaluation.variants import settings_of
from shared.simulation.judge import Rule

PLAIN_VLLM: Final = "vllm"
BASELINES: Final = (
    PLAIN_VLLM,
    "vllm-paper",
    "qoserve",
    "dynamo",
    "fairbatching",
    "slai",
    "jitserve",
)
_PILOT: Final = 0.34  # share of the programs on which settings are compared
_FINALISTS: Final = 2  # settings of each system that are tried on all programs


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The result of one system. `kept`: shares of programs in time, by rule. `by_class`: shares of
    requests in time, as asked; a single class is called `all`. `ended_s`: when the last request was
    served. `promised`: share of the requests; `promises_kept`: share of those promised.
    """

    system: str
    setting: str
    kept: Mapping[str, float]
    by_class: Mapping[str, float]
    ended_s: float
    promised: float = 1.0
    promises_kept: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """The results on a load: ours, and each baseline in the setting that kept most as asked."""

    load: RegretLoad
    ours: Played
    baselines: tuple[Played, ...]

    @property
    def best(self) -> Played:
        return max(self.baselines, key=lambda one: one.kept[Rule.ASKED])

    def points(self, rule: str = Rule.ASKED) -> float:
        """Share of programs kept by the best baseline less that of ours, in points."""
        best = max(one.kept[rule] for one in self.baselines)
        return 100 * (best - self.ours.kept[rule])

    @property
    def worst_class_points(self) -> float:
        """`points` for the class with a target on which ours is furthest behind the baseline that
        is best overall.
        """
        free = {name for name, one in self.load.classes.items() if has_no_slo(one)}
        ours, best = self.ours.by_class, self.best.by_class
        return 100 * max(
            (best[name] - ours[name] for name in ours if name not in free), default=0.0
        )

    @property
    def vllm(self) -> Played:
        return next(one for one in self.baselines if one.system == PLAIN_VLLM)

    @property
    def beside_vllm(self) -> float:
        """How many times as fast as plain vLLM ours served all of the load."""
        return self.vllm.ended_s / self.ours.ended_s


def play(load: RegretLoad, folder: Path) -> Regret:
    """Simulates all systems, and writes the load's classes into the folder as a file that replays
    it. Raises ConfigError where the file cannot be written.
    """
    ours, path = play_ours(load, folder), _path(load, folder)
    found = (_best(load, path, system) for system in BASELINES)
    return Regret(load=load, ours=ours, baselines=tuple(one for one in found if one is not None))


def play_ours(load: RegretLoad, folder: Path) -> Played:
    """`play` for ours alone."""
    path = _path(load, folder)
    write(path, load.classes_text)
    return _played(load, path, OURS, _our_setting(load, path))


def _path(load: RegretLoad, folder: Path) -> Path:
    return folder / f"{load.key}.yaml"


def _our_setting(load: RegretLoad, path: Path) -> str:
    """The setting with the load's fleet; ours decides draft lengths at run time."""
    for label, setting in _settings(load, path, OURS).items():
        if (setting.prefill, setting.decode) == (load.prefill, load.decode):
            return label
    raise ValueError(f"no setting of {OURS} has the fleet {load.fleet}")


def _settings(load: RegretLoad, path: Path, system: str) -> Mapping[str, Setting]:
    """Settings with the load's number of engines, with drafts only where the engines have them."""
    case = tuning_case_of(f"{CLASSES}:{path}", load.hardware, load.engines, load.seed)
    return {
        label: one
        for label, one in settings_of(system, case).items()
        if len(one.roles) == load.engines and (load.drafts or not one.drafts)
    }


def _best(load: RegretLoad, path: Path, system: str) -> Played | None:
    """The best of the settings that did best on a part of the load; None where no setting has this
    number of engines.
    """
    labels = list(_settings(load, path, system))
    if len(labels) > _FINALISTS:
        few = replace(load, programs=max(len(load.classes), round(_PILOT * load.programs)))
        tried = sorted((_played(few, path, system, label) for label in labels), key=_merit)
        labels = [one.setting for one in tried[-_FINALISTS:]]
    found = (_played(load, path, system, label) for label in labels)
    return max(found, key=_merit, default=None)


def _merit(one: Played) -> tuple[float, float, str]:
    """The share kept, then how early the run ended."""
    return one.kept[Rule.ASKED], -one.ended_s, one.setting


def _played(load: RegretLoad, path: Path, system: str, label: str) -> Played:
    point = measure_point(
        Task(
            scenario=f"{CLASSES}:{path}",
            hardware=load.hardware,
            system=system,
            setting=label,
            replicas=load.engines,
            engines=load.engines,
            rate=load.rate,
            programs=load.programs,
            seed=load.seed,
            rule=Rule.ASKED.value,
            bars=(),
        )
    )
    everyone, *classes = point.classes
    return Played(
        system=system,
        setting=label,
        kept={rule: low for rule, (low, _) in point.attained.items()},
        by_class={one.name: one.attained[Rule.ASKED] for one in classes or [everyone]},
        ended_s=point.ended_s,
        promised=everyone.admitted / max(1, everyone.requests),
        promises_kept=everyone.promises_kept / max(1, everyone.admitted),
    )
