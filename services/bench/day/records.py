"""What is kept of a day: the planner's decisions and what the clients saw, as lines of JSON, and
which belong together. Judges nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

from services.bench.capacity.judge import Judged
from shared.errors import ConfigError
from shared.requests import Explanation

DECISIONS: Final = "decisions.jsonl"
ANSWERS: Final = "answers.jsonl"
_NAME: Final = re.compile(r"day-(\d+)")
_EXPLANATION: Final = TypeAdapter(Explanation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request as its client saw it, under the number that its name has."""

    number: int
    judged: Judged


_ANSWERED: Final = TypeAdapter(Answered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """One request from both sides; `record` is None where the planner's is missing."""

    judged: Judged
    record: Explanation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """All requests in the order of their sending. `others` counts decisions about requests that
    were not of the day: those that measured the idle node.
    """

    lived: Sequence[Lived]
    others: int = 0


def name_of(number: int) -> str:
    """The id under which a request is sent."""
    return f"day-{number}"


def keep_answers(folder: Path, judged: Sequence[Judged]) -> None:
    lines = (
        orjson.dumps(Answered(number=number, judged=one)) + b"\n"
        for number, one in enumerate(judged)
    )
    (folder / ANSWERS).write_bytes(b"".join(lines))


def read_day(folder: Path) -> Day:
    """Raises ConfigError when the folder holds no day."""
    answered = [_ANSWERED.validate_json(line) for line in _lines(folder / ANSWERS)]
    return matched({one.number: one.judged for one in answered}, read_decisions(folder))


def read_decisions(folder: Path) -> list[Explanation]:
    """What a planner kept there, the oldest first. Raises ConfigError when that is nothing."""
    return [_EXPLANATION.validate_json(line) for line in _decision_lines(folder)]


def matched(judged: Mapping[int, Judged], decisions: Sequence[Explanation]) -> Day:
    """Each answer with its decision. No answer is dropped."""
    by_number = {number_of(one): one for one in decisions}
    lived = [
        Lived(judged=one, record=by_number.get(number)) for number, one in sorted(judged.items())
    ]
    others = sum(number_of(one) not in judged for one in decisions)
    return Day(lived=lived, others=others)


def number_of(decision: Explanation) -> int | None:
    """None for a request that was not of the day."""
    found = _NAME.fullmatch(decision.query.client_id)
    return int(found[1]) if found else None


def _decision_lines(folder: Path) -> Iterator[bytes]:
    """With those of the file that was set aside when it was full."""
    older = folder / f"{DECISIONS}.1"
    if older.exists():
        yield from _lines(older)
    yield from _lines(folder / DECISIONS)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        yield from path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): name the folder of a day with --records."
        ) from error


def unreadable(folder: Path, error: ValidationError) -> ConfigError:
    return ConfigError(f"{folder} holds lines that are no records of a day: {error}")
