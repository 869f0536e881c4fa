"""Identifies the code of a result by a digest of the sources that it depends on."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_SIMULATOR: Final = (
    "shared/batch_time",
    "shared/hardware",
    "shared/scheduling",
    "shared/simulation",
    "shared/workloads",
    "services/evaluation/attainment.py",
    "services/evaluation/measure.py",
    "services/evaluation/scenarios.py",
    "services/evaluation/tuning_cases.py",
)
_OURS: Final = (
    "services/planner",
    "services/evaluation/engine_reports.py",
    "services/evaluation/engine_side.py",
    "services/evaluation/gateway_side.py",
    "services/evaluation/planned.py",
    "services/evaluation/scaled_lengths.py",
    "services/evaluation/reported_prefixes.py",
    "shared/engine/step_ledger.py",
    "shared/engine/step_times.py",
)
_BASELINES: Final = ("services/evaluation/baselines", "services/evaluation/settings.py")


@cache
def version_of(system: str) -> str:
    """The digest for a system. A change of our planner leaves the baselines' results valid."""
    own = _OURS if system.startswith("slos-serve") else _BASELINES
    digest = hashlib.sha256()
    for name in (*_SIMULATOR, *own):
        for path in _sources(_ROOT / name):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _sources(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(one for one in path.rglob("*") if one.suffix in (".py", ".toml"))
