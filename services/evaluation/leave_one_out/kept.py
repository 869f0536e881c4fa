"""Outcomes on disk, one line of JSON each, so that no trial runs twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

from services.evaluation.files import json_of
from services.evaluation.json_lines import append_line, lines_of
from services.evaluation.leave_one_out.change import Change
from services.evaluation.leave_one_out.trials import Outcome
from services.evaluation.systems import OURS
from services.evaluation.version import version_of
from shared.errors import ConfigError

FILE: Final = "leave-one-out.jsonl"
_OUTCOMES: Final = TypeAdapter(Outcome)


class KeptOutcomes:
    """The outcomes of one folder. Truncated lines and those of other versions of the code are
    skipped, unless `older` allows them.
    """

    def __init__(self, folder: Path, *, older: bool) -> None:
        self._path, self._version, self._older = folder / FILE, version_of(OURS), older
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._kept = {(one.key, one.change): one.kept for one in self._read()}
        except OSError as error:
            raise ConfigError(f"--out {folder} cannot be used: {error}") from error

    def find(self, key: str, change: Change | None) -> float | None:
        """The share kept in this trial; None where it has not run."""
        return self._kept.get((key, str(change) if change else ""))

    def add(self, outcome: Outcome) -> None:
        """Adds an outcome and writes it to disk at once. Raises ConfigError where it cannot."""
        append_line(self._path, json_of({"version": self._version, "outcome": outcome}))
        self._kept[outcome.key, outcome.change] = outcome.kept

    def _read(self) -> Iterator[Outcome]:
        for line in lines_of(self._path):
            try:
                plain = orjson.loads(line)
                if self._older or plain["version"] == self._version:
                    yield _OUTCOMES.validate_python(plain["outcome"])
            except (ValueError, KeyError, TypeError, ValidationError):
                continue
