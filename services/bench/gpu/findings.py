"""What the steps of a check found, and how it is told. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What became of one finding. SKIPPED: there was no time, or what it needs is not there."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        words: What was found, in one line.
        figures: The numbers behind it, as plain data.
    """

    name: str
    verdict: Verdict
    words: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, passed: bool, words: str, **figures: Any) -> "Finding":
        verdict = Verdict.PASSED if passed else Verdict.FAILED
        return cls(name=name, verdict=verdict, words=words, figures=figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step. `took_s` counts from the start of its process to its end."""

    step: str
    took_s: float
    findings: Sequence[Finding]

    @property
    def is_good(self) -> bool:
        return all(one.verdict is Verdict.PASSED for one in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuResult:
    """All steps in order. `device` names what vLLM computed on; `machine` is `Machine.as_json`."""

    device: str
    machine: Mapping[str, Any]
    options: Mapping[str, Any]
    results: Sequence[StepResult]

    @property
    def is_good(self) -> bool:
        return all(one.is_good for one in self.results)

    def rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Step, finding, verdict, seconds of the step (at its first finding) and words."""
        for result in self.results:
            for number, one in enumerate(result.findings):
                took = "" if number else f"{result.took_s:.0f}"
                yield result.step, one.name, str(one.verdict), took, one.words

    def as_json(self) -> dict[str, Any]:
        return {
            "bench": "gpu",
            "device": self.device,
            "machine": self.machine,
            "options": self.options,
            "passed": self.is_good,
            "steps": [asdict(one) for one in self.results],
        }

    def as_markdown(self) -> str:
        """A page: the table, then the figures of each finding."""
        lines = ["# GPU check", "", f"Device: {self.device}. CPU: {self.machine['cpu']}.", ""]
        lines += ["| step | finding | verdict | s | |", "|---|---|---|--:|---|"]
        lines += [f"| {' | '.join(_cell(one) for one in row)} |" for row in self.rows()]
        for result in self.results:
            for one in result.findings:
                lines += _figures(one)
        return "\n".join([*lines, ""])


def _figures(one: Finding) -> list[str]:
    if not one.figures:
        return []
    rows = [f"| {_cell(key)} | {_cell(_plain(value))} |" for key, value in one.figures.items()]
    return ["", f"## {one.name}", "", "| figure | |", "|---|---|", *rows]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
