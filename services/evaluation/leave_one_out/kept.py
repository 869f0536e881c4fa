"""Outcomes on disk, one line of JSON each, so that no trial runs twice."""

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from services.evaluation.json_lines import append_result, results_of
from services.evaluation.leave_one_out.change import Change
from services.evaluation.leave_one_out.trials import Outcome
from services.evaluation.systems import OURS
from services.evaluation.version import version_of
from shared.errors import ConfigError

FILE: Final = "leave-one-out.jsonl"
_NAME: Final = "outcome"
_OUTCOMES: Final = TypeAdapter(Outcome)


class KeptOutcomes:
    """The outcomes of one folder. Truncated lines and those of other versions of the code are
    skipped, unless `older` allows them.
    """

    def __init__(self, folder: Path, *, older: bool) -> None:
        self._path, self._version = folder / FILE, version_of(OURS)
        results = results_of(self._path, _NAME, _OUTCOMES, None if older else self._version)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._kept = {(one.key, one.change): one.kept for one in results}
        except OSError as error:
            raise ConfigError(f"--out {folder} cannot be used: {error}") from error

    def find(self, key: str, change: Change | None) -> float | None:
        """The share kept in this trial; None where it has not run."""
        return self._kept.get((key, str(change) if change else ""))

    def add(self, outcome: Outcome) -> None:
        """Adds an outcome and writes it to disk at once. Raises ConfigError where it cannot."""
        append_result(self._path, _NAME, outcome, self._version)
        self._kept[outcome.key, outcome.change] = outcome.kept
