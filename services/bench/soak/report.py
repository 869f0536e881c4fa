"""Renders the summary of `bench soak` as tables."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.table import Table

from services.bench.soak.causes import Cause
from services.bench.soak.summary import WORST_SHOWN

_WORTH_A_WORD_MS: Final = 5.0


def tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    yield _groups_table("By way", summary["ways"])
    yield _groups_table("By class", summary["classes"])
    yield _beside_table(summary["ways"])
    yield _beyond_table(summary["ways"])
    yield _causes_table(summary["causes"])
    if summary["misses"]:
        yield _misses_table(summary["misses"])
    if summary["steps"]:
        yield _steps_table(summary["steps"])


def _table(title: str, names: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _groups_table(title: str, groups: Mapping[str, Any]) -> Table:
    counted = ("requests", "admitted", "best_effort", "refused", "lost", "attained", "broken")
    table = _table(title, ("",), (*(name.replace("_", " ") for name in counted), "share", "95 %"))
    for name, group in groups.items():
        low, high = group["attained_95"]
        table.add_row(
            name,
            *(str(group[one]) for one in counted),
            f"{group['attained_share']:.1%}",
            f"{low:.0%} to {high:.0%}",
        )
    return table


def _beside_table(ways: Mapping[str, Any]) -> Table:
    numbers = ("requests", "error p50 ms", "error p95 ms", "of target p50", "of target p95")
    table = _table("Real less predicted, of what was promised", ("way", "time"), numbers)
    for name, group in ways.items():
        for time in ("ttft", "tpot"):
            if (found := group[time]) is not None:
                table.add_row(
                    name,
                    time.upper(),
                    str(found["requests"]),
                    f"{found['error_p50_ms']:.1f}",
                    f"{found['error_p95_ms']:.1f}",
                    f"{found['of_target_p50']:.2f}",
                    f"{found['of_target_p95']:.2f}",
                )
    return table


def _beyond_table(ways: Mapping[str, Any]) -> Table:
    causes = [cause.value for cause in Cause if cause is not Cause.LOST]
    title = "Beyond what was predicted, of all that was promised, ms: p50 / p95"
    table = _table(title, ("way", "time"), tuple(causes))
    for name, group in ways.items():
        for time, beyond in group["beyond"].items():
            if beyond:
                table.add_row(name, time.upper(), *(_two(beyond.get(cause)) for cause in causes))
    return table


def _two(found: Mapping[str, float] | None) -> str:
    return "" if found is None else f"{found['p50_ms']:.0f} / {found['p95_ms']:.0f}"


def _causes_table(causes: Mapping[str, Any]) -> Table:
    numbers = ("misses", "of TTFT", "of TPOT", "excess p50 ms", "excess most ms")
    table = _table("Broken promises by the cause that dominates", ("cause", "ways"), numbers)
    for name, found in causes.items():
        ways = ", ".join(f"{count} {way}" for way, count in found["ways"].items())
        counts = (str(found[one]) for one in ("misses", "ttft", "tpot"))
        most = f"{found['excess_most_ms']:.1f}"
        table.add_row(name, ways, *counts, f"{found['excess_p50_ms']:.1f}", most)
    return table


def _misses_table(misses: list[dict[str, Any]]) -> Table:
    title = f"The worst of {len(misses)}, milliseconds: real / predicted / asked"
    table = _table(title, ("decision", "class", "way", "cause"), ("TTFT", "TPOT", "late by"))
    table.add_column("beyond what was predicted")
    for miss in misses[:WORST_SHOWN]:
        taken = {
            cause: ms for cause, ms in miss["excess_ms"].items() if abs(ms) >= _WORTH_A_WORD_MS
        }
        excess = ", ".join(f"{cause} {ms:.0f}" for cause, ms in taken.items())
        table.add_row(
            miss["decision_id"],
            miss["class"],
            miss["way"],
            miss["cause"],
            _three(miss, "ttft"),
            _three(miss, "tpot"),
            f"{miss['late_by']:.2f}",
            excess,
        )
    return table


def _three(miss: Mapping[str, Any], time: str) -> str:
    values = (miss[f"{time}_ms"], miss[f"{time}_predicted_ms"], miss[f"{time}_target_ms"])
    return " / ".join("-" if value is None else f"{value:.0f}" for value in values)


def _steps_table(steps: Mapping[str, Any]) -> Table:
    numbers = ("real to expected", "beyond sure", "worst excess ms")
    table = _table("Steps beside what their table said at the decision", ("engine",), numbers)
    for name, found in steps.items():
        table.add_row(
            name,
            f"{found['real_to_expected']:.2f}",
            f"{found['beyond_sure_share']:.1%}",
            f"{found['worst_excess_ms']:.1f}",
        )
    return table
