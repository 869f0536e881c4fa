"""Stores and reads the records of a soak test, and matches answers with decisions.

The records are JSON lines: the planner's decisions, and the answers at the clients.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

from services.bench.capacity.judge import Judged
from services.bench.kept_run import DECISIONS
from shared.errors import ConfigError
from shared.requests import Explanation

ANSWERS: Final = "answers.jsonl"
_NAME: Final = re.compile(r"(?:soak|day)-(\d+)")  # day: of earlier releases
_EXPLANATION: Final = TypeAdapter(Explanation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request at its client; `number` is the one in its id."""

    number: int
    judged: Judged


_ANSWERED: Final = TypeAdapter(Answered)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One request at client and planner; `record` is None if the planner has none."""

    judged: Judged
    record: Explanation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakResult:
    """All requests in the order of sending.

    `others` counts decisions about other requests: those that measured the idle node.
    """

    requests: Sequence[RecordedRequest]
    others: int = 0


def name_of(number: int) -> str:
    """The id under which a request is sent."""
    return f"soak-{number}"


def keep_answers(folder: Path, judged: Sequence[Judged]) -> None:
    lines = (
        orjson.dumps(Answered(number=number, judged=one)) + b"\n"
        for number, one in enumerate(judged)
    )
    (folder / ANSWERS).write_bytes(b"".join(lines))


def read_soak(folder: Path) -> SoakResult:
    """The soak test in a folder. Raises ConfigError if it holds none."""
    answered = [_ANSWERED.validate_json(line) for line in _lines(folder / ANSWERS)]
    return matched({one.number: one.judged for one in answered}, read_decisions(folder))


def read_decisions(folder: Path) -> list[Explanation]:
    """The recorded decisions, oldest first. Raises ConfigError if there is no file."""
    return [_EXPLANATION.validate_json(line) for line in _decision_lines(folder)]


def matched(judged: Mapping[int, Judged], decisions: Sequence[Explanation]) -> SoakResult:
    """Matches each answer with its decision; answers without one are kept."""
    by_number = {number_of(one): one for one in decisions}
    requests = [
        RecordedRequest(judged=one, record=by_number.get(number))
        for number, one in sorted(judged.items())
    ]
    others = sum(number_of(one) not in judged for one in decisions)
    return SoakResult(requests=requests, others=others)


def number_of(decision: Explanation) -> int | None:
    """The number of a request; None for one that the soak test did not send."""
    found = _NAME.fullmatch(decision.query.client_id)
    return int(found[1]) if found else None


def _decision_lines(folder: Path) -> Iterator[bytes]:
    """The lines of the log, those of its rotated file first."""
    older = folder / f"{DECISIONS}.1"
    if older.exists():
        yield from _lines(older)
    yield from _lines(folder / DECISIONS)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        yield from path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): name the folder of a run with --records."
        ) from error


def unreadable(folder: Path, error: ValidationError) -> ConfigError:
    return ConfigError(f"{folder} holds lines that are no records of a soak test: {error}")
