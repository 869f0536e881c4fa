"""Renders the summary of `bench chaos` as tables."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.table import Table

from services.bench.chaos.verdicts import Verdict

_COUNTS: Final = ("answers", *(one.name.lower() for one in Verdict))


def tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    yield _kinds_table(summary)
    yield _faults_table(summary["faults"])
    yield _uses_table(summary["used"])


def _kinds_table(summary: Mapping[str, Any]) -> Table:
    table = _table(f"Answers of {summary['seconds']:g} s", ("kind",))
    for name, counts in [*summary["kinds"].items(), ("all", summary["all"])]:
        table.add_row(name, *_numbers(counts))
    return table


def _faults_table(faults: list[Mapping[str, Any]]) -> Table:
    table = _table("Faults, with the answers under way until all served again", ("at s", "fault"))
    table.add_column("serve again s", justify="right")
    for one in faults:
        again = one["serve_again_s"]
        shown = "not" if again is None else f"{again:g}"
        table.add_row(f"{one['at_s']:g}", one["fault"], *_numbers(one), shown)
    return table


def _uses_table(uses: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="Held by each process, at the start and at the end", title_justify="left")
    table.add_column("process")
    for name in ("RSS MiB", "files", "threads", "tasks"):
        table.add_column(name, justify="right")
    for name, use in uses.items():
        before, after = use["before"], use["after"]
        same = after is not None and after["pid"] == before["pid"]
        table.add_row(
            name if same else f"{name} (started again)",
            *(
                _pair(before[key], after[key] if same else None)
                for key in ("rss_mib", "files", "threads", "tasks")
            ),
        )
    return table


def _pair(before: float | None, after: float | None) -> str:
    return ", ".join(f"{one:g}" for one in (before, after) if one is not None)


def _table(title: str, names: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in (*_COUNTS, "longest pause s"):
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("moves")
    return table


def _numbers(counts: Mapping[str, Any]) -> Iterator[str]:
    for name in _COUNTS:
        yield str(counts[name])
    yield f"{counts['longest_pause_s']:g}"
    yield ", ".join(f"{count} {cause}" for cause, count in counts["moves"].items())
