"""Draws requests from ServeGen's client windows and lengths.

ServeGen (Alibaba, Apache-2.0) gives for each client and each 600 s its request rate, the
distribution of gaps (Gamma or Weibull of shape `p1`), and quantiles of its lengths.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.workloads.lengths import Lengths, Tokens, even, picked
from shared.workloads.trace_rows import Cell, Line, Row

WINDOW_COLUMNS: Final = ("client", "t_s", "rate_rps", "pattern", "p1")
_WINDOW_S: Final = 600.0
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_PATTERNS: Final = ("Gamma", "Weibull")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The requests of one client for 600 s."""

    client: str
    start_s: float
    rate_rps: float
    pattern: str
    shape: float

    def times(self, draw: np.random.Generator) -> NDArray[np.float64]:
        """Arrival times at the rate; the fractional request is drawn."""
        count = int(self.rate_rps * _WINDOW_S + draw.random())
        gaps = self._gaps(draw, count + 1)
        ends = np.cumsum(np.maximum(gaps, 1e-12))
        times: NDArray[np.float64] = self.start_s + _WINDOW_S * ends[:-1] / ends[-1]
        return times

    def _gaps(self, draw: np.random.Generator, count: int) -> NDArray[np.float64]:
        if self.pattern == "Gamma":
            return draw.gamma(self.shape, size=count)
        return draw.weibull(self.shape, size=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLengths:
    """Lengths of a client's requests from `start_s` on, measured on `requests` requests."""

    client: str
    start_s: float
    requests: float
    prompt: Lengths
    output: Lengths


def windows(lines: Iterable[str], trace: str) -> list[Window]:
    """The windows of a file. Raises ConfigError that names line and column."""
    return [_window(line) for line in _lines(lines, trace)]


def lengths(lines: Iterable[str], trace: str) -> list[ClientLengths]:
    """The lengths of a file. Raises ConfigError that names line and column."""
    return [_lengths(line) for line in _lines(lines, trace)]


def rows(
    of_clients: Sequence[Window], known: Sequence[ClientLengths], *, start_s: float, seed: int
) -> Iterator[Row]:
    """Requests of all clients in the order of arrival, window after window.

    `start_s` counts from the first window. A client of unknown lengths gets those of the others,
    weighted by their requests.
    """
    draw = np.random.default_rng(seed)
    ordered = sorted(of_clients, key=lambda window: (window.start_s, window.client))
    begin_s = ordered[0].start_s + start_s
    for at, together in groupby(ordered, key=lambda window: window.start_s):
        if at + _WINDOW_S > begin_s:
            parts = [_drawn(one, _own(one, known), draw) for one in together]
            times, prompts, outputs = (
                np.concatenate(column) for column in zip(*parts, strict=True)
            )
            for place in np.argsort(times, kind="stable"):
                if times[place] >= begin_s:
                    yield Row(
                        arrival_s=float(times[place]),
                        prompt_tokens=int(prompts[place]),
                        output_tokens=int(outputs[place]),
                    )


def _drawn(
    window: Window, known: Sequence[ClientLengths], draw: np.random.Generator
) -> tuple[NDArray[np.float64], Tokens, Tokens]:
    """Arrivals, prompts and answers of one client's window."""
    times = window.times(draw)
    places = picked([one.requests for one in known], even(draw, len(times)))
    prompts, outputs = (np.empty(len(times), dtype=np.int64) for _ in range(2))
    for place, one in enumerate(known):
        here = np.flatnonzero(places == place)
        prompts[here] = one.prompt.drawn(even(draw, len(here)))
        outputs[here] = one.output.drawn(even(draw, len(here)))
    return times, prompts, outputs


def _own(window: Window, known: Sequence[ClientLengths]) -> Sequence[ClientLengths]:
    """The client's latest lengths at this time, else its first ones, else those of all clients."""
    of_client = sorted(
        (one for one in known if one.client == window.client), key=lambda one: one.start_s
    )
    before = [one for one in of_client if one.start_s <= window.start_s]
    return before[-1:] or of_client[:1] or known


def _lines(lines: Iterable[str], trace: str) -> Iterator[Line]:
    """Values by column, and those of the form `name:values` by that name."""
    table = csv.reader(lines)
    columns = next(table, [])
    for values in table:
        named = {
            name: rest for name, colon, rest in (one.partition(":") for one in values) if colon
        }
        by_column = dict(zip(columns, values, strict=False))
        yield Line(trace=trace, number=table.line_num, values=by_column | named)


def _window(line: Line) -> Window:
    pattern, shape = line.cell("pattern"), line.cell("p1")
    if pattern.text() not in _PATTERNS:
        raise pattern.wrong("Gamma or Weibull")
    if shape.number("a shape above 0") == 0:
        raise shape.wrong("a shape above 0")
    return Window(
        client=line.cell("client").text(),
        start_s=line.cell("t_s").number(),
        rate_rps=line.cell("rate_rps").number(),
        pattern=pattern.text(),
        shape=shape.number(),
    )


def _lengths(line: Line) -> ClientLengths:
    return ClientLengths(
        client=line.cell("client").text(),
        start_s=line.cell("t_s").number(),
        requests=line.cell("requests").number(),
        prompt=_quantiles(line.cell("input_tokens")),
        output=_quantiles(line.cell("output_tokens")),
    )


def _quantiles(cell: Cell) -> Lengths:
    """Parses `q05;q25;q50;q75;q95;q99;mean=...`."""
    try:
        read = [float(one) for one in cell.text().split(";")[: len(_QUANTILES)]]
        return Lengths(tokens=tuple(max(one, 1.0) for one in read), at=_QUANTILES)
    except ValueError as error:
        raise cell.wrong("six ascending token counts with ; between, the q05 to the q99") from error
