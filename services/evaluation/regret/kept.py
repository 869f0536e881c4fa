"""Results of loads on disk, one line of JSON each, so that no load is played twice."""

from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from services.evaluation.json_lines import append_result, results_of
from services.evaluation.regret.play import BASELINES, Regret
from services.evaluation.systems import OURS
from services.evaluation.version import version_of
from shared.errors import ConfigError

FILE: Final = "regrets.jsonl"
_NAME: Final = "regret"
_REGRETS: Final = TypeAdapter(Regret)


class KeptRegrets:
    """The results of one folder. Truncated lines and those of other versions of the code are
    skipped.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._version = folder / FILE, _version()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = list(results_of(self._path, _NAME, _REGRETS, self._version))
        except OSError as error:
            raise ConfigError(f"--out {folder} cannot be used: {error}") from error
        self._regrets = {one.load.key: one for one in found}

    def find(self, key: str) -> Regret | None:
        return self._regrets.get(key)

    def add(self, regret: Regret) -> None:
        """Adds a result and writes it to disk at once. Raises ConfigError where it cannot."""
        append_result(self._path, _NAME, regret, self._version)
        self._regrets[regret.load.key] = regret


def _version() -> str:
    """A digest of the versions of all systems that are played."""
    versions = " ".join(version_of(system) for system in (OURS, *BASELINES))
    return sha256(versions.encode()).hexdigest()[:12]
