"""The folder of a run, with its decisions, result and logs."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from services.bench.machine import Machine
from shared.clock import wall_time_s
from shared.errors import ConfigError
from shared.tables import for_tables

DECISIONS: Final = "decisions.jsonl"


def new_folder(command: str, run_dir: str) -> Path:
    """The folder for a run, not made yet: `run_dir`, or one named by the time. Raises ConfigError
    if it holds a run already.
    """
    now = datetime.fromtimestamp(wall_time_s(), UTC)
    folder = Path(run_dir or f".slos/{command}/{now:%Y%m%d-%H%M%S}").expanduser().resolve()
    if (folder / DECISIONS).exists():
        raise ConfigError(f"{folder} holds a run already: name another folder with --run-dir.")
    return folder


def about(options: Any, machine: Machine, folder: Path) -> dict[str, Any]:
    """What a result says of its run beside the numbers. `options`: a dataclass."""
    return {"options": asdict(options), "machine": machine.as_json(), "run_dir": str(folder)}


def show(
    result: dict[str, Any],
    tables: Callable[[dict[str, Any]], Iterable[Table]],
    lines: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Prints a result as one JSON object, or its tables and the lines below them."""
    if as_json:
        print(json.dumps(result), flush=True)
        return
    console = Console()
    wide = for_tables(console)
    for table in tables(result):
        wide.print(table)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
