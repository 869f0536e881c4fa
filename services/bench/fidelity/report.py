"""Renders the result of `bench fidelity`: a row for each system and rate."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from services.bench.fidelity.compare import ATTAINED_WITHIN, TIMES, TIMES_WITHIN, Compared, Outcome
from services.bench.fidelity.run import FidelityRun
from services.bench.machine import Machine


def as_json(run: FidelityRun, machine: Machine, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bench": "fidelity",
        "machine": machine.as_json(),
        "options": options,
        "attained_within": ATTAINED_WITHIN,
        "times_within": TIMES_WITHIN,
        "calibrated": [asdict(one) for one in run.calibrated],
        "points": [one.as_json() for one in run.compared],
        "requests": {
            system: [_times(real, simulated) for real, simulated in pairs]
            for system, pairs in run.requests.items()
        },
    }


def _times(real: Outcome, simulated: Outcome) -> dict[str, list[float | None]]:
    """Measured and simulated times of one request."""
    return {
        "ttft_ms": [_ms(real.ttft_s), _ms(simulated.ttft_s)],
        "tpot_ms": [_ms(real.tpot_s), _ms(simulated.tpot_s)],
    }


def _ms(time_s: float) -> float | None:
    return None if math.isnan(time_s) else round(1000 * time_s, 2)


def table(compared: Sequence[Compared]) -> Table:
    """Times in milliseconds, measured / simulated; ± is the spread of the simulations."""
    shown = Table(title="Measured / simulated (off ± chance); attained in %, times in ms")
    shown.add_column("system", no_wrap=True)
    for name in (
        "requests/s",
        "requests",
        "attained",
        *map(_words, TIMES),
        "within",
        "slower",
        "others, cores",
    ):
        shown.add_column(name, justify="right")
    for one in compared:
        shown.add_row(*_row(one))
    return shown


def _words(name: str) -> str:
    measure, percent = name.split("_")
    return f"{measure.upper()} {percent}"


def _row(one: Compared) -> Iterator[str]:
    yield one.system
    yield f"{one.rate_rps:.2f}"
    yield str(one.requests)
    yield f"{100 * one.real.attained:.1f} / {100 * one.simulated.attained:.1f}"
    for name in TIMES:
        real_ms, simulated_ms = 1000 * one.real.times_s[name], 1000 * one.simulated.times_s[name]
        chance = max(map(abs, one.by_chance[name]))
        yield f"{real_ms:.0f} / {simulated_ms:.0f}  ({one.times_off[name]:+.0%} ±{chance:.0%})"
    yield "yes" if one.is_true else "no"
    yield f"{one.slower:.2f}"
    yield f"{one.others_cores:.1f}"
