"""`slos-serve bench fit`: errors of fitted step times, the paper's form beside ours."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from services.bench.fit_distserve import distserve
from services.bench.fit_hybrid import hybrid
from services.bench.fit_measure import measure
from services.bench.fit_options import FitOptions
from services.bench.fit_report import Compared, as_json, make_table
from services.bench.fit_tables import Table, composed, sarathi, splitwise
from services.bench.profile import measured_engine
from shared.batch_time import PAPER, RICH
from shared.engine.config import EngineOptions, ProfileWhen
from shared.options import load
from shared.tables import for_tables

_NOWHERE = "no measured step times here: give their folder with --data, or a file with --steps"


def main(argv: Sequence[str]) -> int:
    """Prints the comparison, or that there is no table. Raises ConfigError for a broken table."""
    options = load(
        FitOptions, section="bench_fit", argv=argv, environ=os.environ, prog="slos-serve bench fit"
    )
    folder = options.folder(Path.cwd())
    compared = [compare(table) for table in tables(folder, options.steps)]
    if options.engine:
        table, measured = measured_engine(engine_options(options))
        compared.append(Compared(table=table, measured=measured))
    if options.json:
        print(json.dumps(as_json(compared, None if compared else _NOWHERE)))
    elif compared:
        _print(compared)
    else:
        print(_NOWHERE)
    return 0


def tables(folder: Path | None, steps_file: str = "") -> Iterator[Table]:
    """All tables of step times; missing ones are left out."""
    if steps_file:
        yield from composed(Path(steps_file))
    if folder is None:
        return
    for name, read in (("composed_steps", composed), ("splitwise_perf_model", splitwise)):
        path = folder / f"{name}.csv.gz"
        if path.exists():
            yield from read(path)
    yield from hybrid(folder)
    yield from sarathi(folder)
    yield from distserve(folder)


def engine_options(options: FitOptions) -> EngineOptions:
    return EngineOptions(
        model=options.model,
        dtype=options.dtype,
        max_model_len=options.max_model_len,
        kv_cache_gib=options.kv_cache_gib,
        profile=ProfileWhen.FRESH,
        profile_limit_s=options.engine_limit_s,
    )


def compare(table: Table) -> Compared:
    return Compared(table=table, measured=[measure(table, form) for form in (PAPER, RICH)])


def _print(compared: Sequence[Compared]) -> None:
    console = Console()
    wide = for_tables(console)
    wide.print(make_table(compared))
