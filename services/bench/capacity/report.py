"""Renders the result of `bench capacity` as tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from services.bench.capacity.points import Point, times
from services.bench.capacity.result import CapacityResult, Searched


def tables(result: CapacityResult) -> Iterator[Table]:
    if result.targets is not None:
        yield _targets_table(result)
    if result.searched:
        yield _capacities_table(result)
    for one in result.searched:
        yield _points_table(result, one)
    if result.overload:
        yield _overload_table(result)
    if result.throughputs:
        yield _throughput_table(result)


def _targets_table(result: CapacityResult) -> Table:
    assert result.targets is not None
    alone = result.targets.zero_load.as_json()
    table = Table(title=f"Targets, milliseconds; alone: {alone}")
    for name in ("class", "TTFT of a median prompt", "TPOT"):
        table.add_column(name)
    for name, told in result.targets.configuration().items():
        table.add_row(name, str(told["ttft_ms"]), str(told["tpot_ms"]))
    return table


def _capacities_table(result: CapacityResult) -> Table:
    table = Table(title=f"Capacity at {result.needed:.0%} attainment, requests/s")
    classes = sorted({name for one in result.searched for name in result.class_names(one.load)})
    for name in ("load", "system", "best of"):
        table.add_column(name)
    for name in ("capacity", "next tried", "crossing", *classes):
        table.add_column(name, justify="right")
    for one in result.searched:
        found = result.capacity_json(one)
        above = found["next_rate_tried_rps"]
        table.add_row(
            one.load,
            one.contender,
            ", ".join(one.variants),
            _rate(found["capacity_rps"]),
            "" if above is None else _rate(above),
            _rate(found["crossing_rps"]),
            *(_class_capacity(found["classes"].get(name)) for name in classes),
        )
    return table


def _class_capacity(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else _rate(found["capacity_rps"])


def _points_table(result: CapacityResult, one: Searched) -> Table:
    table = Table(title=f"{one.load}: {one.contender}")
    classes = result.class_names(one.load)
    table.add_column("variant", no_wrap=True)
    for name in ("requests/s", "requests", "attained", "95 %", "every token", *classes):
        table.add_column(name, justify="right")
    for name in ("refused", "best effort", "cut", "failed", "sent late p99 ms", "busy before"):
        table.add_column(name, justify="right")
    points = [
        point
        for point in [*result.points, *result.overload]
        if point.load == one.load and point.system in one.variants
    ]
    for point in sorted(points, key=lambda each: (each.rate_rps, each.system)):
        table.add_row(*_point_row(point, classes))
    return table


def _point_row(point: Point, classes: list[str]) -> Iterator[str]:
    shown, (low, high) = point.as_json(), point.interval
    yield point.system
    yield _rate(point.rate_rps)
    yield str(shown["requests"])
    yield f"{point.attainment:.0%}"
    yield f"{low:.0%} to {high:.0%}"
    yield f"{shown['attained_at_every_token']:.0%}"
    for name in classes:
        share = point.attainment_of(name)
        yield "" if share is None else f"{share:.0%}"
    for name in ("refused", "best_effort", "cut", "failed"):
        yield str(shown[name] or "")
    yield f"{shown['sent_late_p99_ms']:.1f}"
    yield f"{point.busy_cores:.1f}"


def _overload_table(result: CapacityResult) -> Table:
    table = Table(
        title=f"Overload, {result.overload[0].rate_rps:.2f} requests/s: times of admitted requests "
        "as shares of their targets"
    )
    table.add_column("system")
    table.add_column("class")
    for name in ("requests", "refused", "attained", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"):
        table.add_column(name, justify="right")
    for point in result.overload:
        shown = point.as_json()["classes"]
        for name, judged in point.by_class.items():
            counts, spread = shown[name], times(judged)
            table.add_row(
                point.system,
                name,
                str(counts["requests"]),
                str(counts["refused"]),
                f"{counts['attained']:.0%}",
                *_shares(spread["ttft"]),
                *_shares(spread["tpot"]),
            )
    return table


def _shares(spread: Mapping[str, float] | None) -> tuple[str, str]:
    if spread is None:
        return "", ""
    return f"{spread['of_target_p50']:.2f}", f"{spread['of_target_p99']:.2f}"


def _throughput_table(result: CapacityResult) -> Table:
    table = Table(title="Throughput without targets at saturation, in turns")
    table.add_column("system")
    for name in ("requests/s", "tokens/s"):
        table.add_column(name, justify="right")
    for one in result.throughputs:
        table.add_row(one.system, f"{one.requests_per_s:.3f}", f"{one.tokens_per_s:.1f}")
    return table


def _rate(rate_rps: float) -> str:
    return f"{rate_rps:.2f}"
