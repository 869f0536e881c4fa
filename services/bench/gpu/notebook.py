"""Findings of a step on disk, one a line, so that a step that is cut off leaves what it found."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from services.bench.gpu.findings import Finding, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Notebook:
    """The findings of one step in `path`, which need not exist yet."""

    path: Path

    def note(self, finding: Finding) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(finding)) + "\n")

    def read(self) -> list[Finding]:
        """Whole lines only: the last may have been cut off."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return [Finding(**{**one, "verdict": Verdict(one["verdict"])}) for one in whole]
