"""Parses the lines of published traces: arrival, lengths and prompt blocks."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from shared.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request. `blocks` number the contents of its prompt, in blocks of fixed size."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value of a trace, and its place, for messages."""

    trace: str
    line: int
    column: str
    value: object

    def wrong(self, wanted: str) -> ConfigError:
        read = "nothing" if self.value in (None, "") else repr(self.value)
        return ConfigError(
            f"{self.trace} line {self.line}, {self.column}: read {read}, expected {wanted}"
        )

    def text(self) -> str:
        return str(self.value if self.value is not None else "").strip()

    def number(self, wanted: str = "a number of at least 0") -> float:
        try:
            number = float(self.text())
        except ValueError as error:
            raise self.wrong(wanted) from error
        if not 0 <= number < float("inf"):
            raise self.wrong(wanted)
        return number

    def tokens(self) -> int:
        wanted = "a whole number of tokens, at least 0"
        number = self.number(wanted)
        if number != int(number):
            raise self.wrong(wanted)
        return int(number)

    def blocks(self) -> tuple[int, ...]:
        found = self.value if isinstance(self.value, list) else self.text().split()
        try:
            return tuple(int(one) for one in found)
        except (TypeError, ValueError) as error:
            raise self.wrong("whole numbers of prompt blocks") from error

    def moment(self) -> float:
        """A date and time in seconds of the epoch; UTC if it names no zone."""
        try:
            moment = datetime.fromisoformat(self.text())
        except ValueError as error:
            raise self.wrong("a date and time as 2023-11-16 18:15:46.68") from error
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()

    def milliseconds(self) -> float:
        return self.number("milliseconds, at least 0") / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a trace, its values by column."""

    trace: str
    number: int
    values: Mapping[str, object]

    def cell(self, column: str) -> Cell:
        value = self.values.get(column)
        return Cell(trace=self.trace, line=self.number, column=column, value=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """The columns of a trace format."""

    name: str
    arrival: str
    arrival_s: Callable[[Cell], float]
    prompt: str
    output: str
    blocks: str | None = None
    dated: bool = False  # arrivals are dates; rows count from the first one

    @property
    def columns(self) -> tuple[str, ...]:
        named = (self.arrival, self.prompt, self.output)
        return named if self.blocks is None else (*named, self.blocks)

    def row(self, line: Line) -> Row:
        """The request of a line. Raises ConfigError that names line and column."""
        return Row(
            arrival_s=self.arrival_s(line.cell(self.arrival)),
            prompt_tokens=line.cell(self.prompt).tokens(),
            output_tokens=line.cell(self.output).tokens(),
            blocks=line.cell(self.blocks).blocks() if self.blocks else (),
        )


MOONCAKE: Final = Format(
    name="mooncake",
    arrival="timestamp",
    arrival_s=Cell.milliseconds,
    prompt="input_length",
    output="output_length",
    blocks="hash_ids",
)
CSV_FORMATS: Final = (
    Format(
        name="azure",
        arrival="TIMESTAMP",
        arrival_s=Cell.moment,
        prompt="ContextTokens",
        output="GeneratedTokens",
        dated=True,
    ),
    Format(
        name="compact",
        arrival="arrival_s",
        arrival_s=Cell.number,
        prompt="input_tokens",
        output="output_tokens",
    ),
    Format(
        name="mooncake, compact",
        arrival="timestamp_ms",
        arrival_s=Cell.milliseconds,
        prompt="input_tokens",
        output="output_tokens",
        blocks="hash_ids",
    ),
    Format(
        name="burstgpt",
        arrival="Timestamp",
        arrival_s=Cell.number,
        prompt="Request tokens",
        output="Response tokens",
    ),
)
MOONCAKE_BLOCK_TOKENS: Final = 512


def rows(lines: Iterable[str], trace: str) -> Iterator[Row]:
    """The requests of a trace, in its order; its first line determines the format.

    Raises ConfigError for an unknown format, and for an invalid value, with line and column.
    """
    ahead = iter(lines)
    first = next(ahead, "").lstrip("\ufeff")
    if first.lstrip().startswith("{"):
        yield from _json_rows(first, ahead, trace)
    else:
        columns = [name.strip() for name in next(csv.reader([first]), [])]
        found = _csv_format(columns, trace)
        table = csv.DictReader(ahead, fieldnames=columns)
        read = (
            found.row(Line(trace=trace, number=table.line_num + 1, values=values))
            for values in table
        )
        yield from _from_first(read) if found.dated else read


def _from_first(read: Iterator[Row]) -> Iterator[Row]:
    start_s: float | None = None
    for row in read:
        start_s = row.arrival_s if start_s is None else start_s
        yield replace(row, arrival_s=row.arrival_s - start_s)


def _json_rows(first: str, rest: Iterable[str], trace: str) -> Iterator[Row]:
    yield _json_row(first, trace, 1)
    for line, text in enumerate(rest, start=2):
        if text.strip():
            yield _json_row(text, trace, line)


def _json_row(text: str, trace: str, line: int) -> Row:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{trace} line {line} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{trace} line {line}: an object with {', '.join(MOONCAKE.columns)}")
    return MOONCAKE.row(Line(trace=trace, number=line, values=values))


def _csv_format(columns: Iterable[str], trace: str) -> Format:
    there = set(columns)
    for one in CSV_FORMATS:
        if there.issuperset(one.columns):
            return one
    known = "; ".join(f"{one.name}: {_listed(one.columns)}" for one in CSV_FORMATS)
    raise ConfigError(
        f"{trace} line 1: read the columns {', '.join(sorted(there)) or 'nothing'}; known are "
        f"{known}; servegen: its client windows; and Mooncake's JSON lines"
    )


def _listed(columns: Sequence[str]) -> str:
    return f"{', '.join(columns[:-1])} and {columns[-1]}"
