"""Renders the result of `bench gateway` as a JSON object or tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from services.bench.compare import Added, Comparison
from services.bench.gateway_cpu import CpuPerRequest
from services.bench.gateway_measure import DIRECT, GATEWAY, Loads
from services.bench.load import Load
from services.bench.machine import Machine
from services.bench.parts import ROUTER, STOCK

AIM_TTFT_MS, AIM_PER_TOKEN_MS, AIM_CPU_MS = 3.0, 0.3, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayResult:
    """The result; a part that was left out is None."""

    machine: Machine
    comparisons: Sequence[Comparison] | None
    cpu: Mapping[str, CpuPerRequest] | None
    loads: Loads | None

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"bench": "gateway", "machine": self.machine.as_json()}
        if self.comparisons is not None:
            shown["aim_ms"] = {"ttft": AIM_TTFT_MS, "per_token": AIM_PER_TOKEN_MS}
            shown["comparisons"] = [_comparison_json(one) for one in self.comparisons]
        if self.cpu is not None:
            shown["cpu_per_request"] = {
                server: _rounded(asdict(spent)) for server, spent in self.cpu.items()
            }
        if self.loads is not None:
            shown["stub"] = {
                kind: [_load_json(load) for load in loads] for kind, loads in self.loads.items()
            }
        return shown

    def tables(self) -> Iterator[Table]:
        for comparison in self.comparisons or ():
            yield _comparison_table(comparison)
        if self.cpu is not None:
            yield _cpu_table(self.cpu)
        if self.loads is not None:
            yield _loads_table(self.loads)


def _pairs(comparison: Comparison) -> list[tuple[str, str]]:
    """Each gateway with what it stands before, or is compared with."""
    pairs = ((GATEWAY, DIRECT), (GATEWAY, STOCK), (ROUTER, STOCK))
    return [pair for pair in pairs if all(server in comparison.answers for server in pair)]


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    servers = {
        server: {
            "requests": len(answers),
            "ttft": comparison.ttft(server).as_json(),
            "per_token": comparison.per_token(server).as_json(),
        }
        for server, answers in comparison.answers.items()
    }
    added = {
        f"{server}_over_{base}": _rounded(asdict(comparison.added(server, base)))
        for server, base in _pairs(comparison)
    }
    return {"in_flight": comparison.in_flight, "servers": servers, "added": added}


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(number, 4) for name, number in numbers.items()}


def _load_json(load: Load) -> dict[str, Any]:
    cpu_ms = load.cpu_ms_per_request
    return {
        "in_flight": load.in_flight,
        "requests": load.answers,
        "requests_per_s": round(load.requests_per_s, 1),
        "latency": load.latency.as_json(),
        "ttft": load.ttft.as_json(),
        "gateway_cpu_ms_per_request": None if cpu_ms is None else round(cpu_ms, 3),
    }


def _comparison_table(comparison: Comparison) -> Table:
    table = Table(
        title=f"{comparison.in_flight} at a time, milliseconds "
        f"(aim: added TTFT under {AIM_TTFT_MS:g}, per token under {AIM_PER_TOKEN_MS:g}, at p50)"
    )
    table.add_column("")
    for name in ("TTFT", "per token"):
        for kind in ("p50", "p99", "paired"):
            table.add_column(f"{name}\n{kind}", justify="right")
    for server in comparison.answers:
        ttft, token = comparison.ttft(server), comparison.per_token(server)
        numbers = (ttft.p50_ms, ttft.p99_ms, None, token.p50_ms, token.p99_ms, None)
        table.add_row(server, *map(_ms, numbers))
    for server, base in _pairs(comparison):
        added = comparison.added(server, base)
        table.add_row(f"{server} adds to {base}", *map(_ms, _numbers(added)), style="bold")
    return table


def _numbers(added: Added) -> tuple[float, ...]:
    return (
        added.ttft_p50_ms,
        added.ttft_p99_ms,
        added.ttft_paired_ms,
        added.per_token_p50_ms,
        added.per_token_p99_ms,
        added.per_token_paired_ms,
    )


def _cpu_table(cpu: Mapping[str, CpuPerRequest]) -> Table:
    table = Table(
        title="CPU per streamed request, one at a time, milliseconds "
        f"(aim: at most {AIM_CPU_MS:g} beyond the stock server's frontend)"
    )
    for name in ("", "p10", "p50"):
        table.add_column(name)
    for server, spent in cpu.items():
        table.add_row(server, _ms(spent.p10_ms), _ms(spent.p50_ms))
    gateway, stock = cpu[GATEWAY], cpu[STOCK]
    beyond = (gateway.p10_ms - stock.p10_ms, gateway.p50_ms - stock.p50_ms)
    table.add_row("gateway beyond stock", *map(_ms, beyond), style="bold")
    return table


def _loads_table(loads: Loads) -> Table:
    table = Table(title="The gateway against a stub engine")
    for name in ("asked", "in flight"):
        table.add_column(name)
    for name in ("requests/s", "p50 ms", "p99 ms", "TTFT p50 ms", "gateway CPU ms/request"):
        table.add_column(name, justify="right")
    for kind, rows in loads.items():
        for load in rows:
            table.add_row(
                kind,
                str(load.in_flight),
                f"{load.requests_per_s:.0f}",
                _ms(load.latency.p50_ms),
                _ms(load.latency.p99_ms),
                _ms(load.ttft.p50_ms),
                _ms(load.cpu_ms_per_request),
            )
    return table


def _ms(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"
