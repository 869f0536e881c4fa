"""`slos-serve bench hardware`: makes the tables of simulated engines from measurements.

It prints how well they fit, and how well a planner's profile predicts them.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.bench.fit_options import FitOptions
from services.bench.hardware_answers import answers
from services.bench.hardware_believed import believed
from services.bench.hardware_made import Made
from services.bench.hardware_mixed import fit_mixed
from services.bench.hardware_paper import paper_tables
from services.bench.hardware_plans import Plans
from services.bench.hardware_report import Answered, answered, as_json, fitted, show
from shared.errors import ConfigError
from shared.hardware import load as load_hardware
from shared.hardware import names
from shared.options import load, option


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareOptions:
    """Options of `bench hardware`."""

    data: str = option(
        "", help="folder of measured tables; none: shared/data/timing here or further up"
    )
    write: str = option("", help="write the tables that are made into this folder")
    json: bool = option(False, help="print one JSON object instead of tables")


def main(argv: Sequence[str]) -> int:
    """Prints the errors; without measurements only those of profiles of the packaged tables.

    Raises ConfigError if a measurement cannot be read, or a table cannot be written.
    """
    options = load(
        HardwareOptions,
        section="bench_hardware",
        argv=argv,
        environ=os.environ,
        prog="slos-serve bench hardware",
    )
    folder = FitOptions(data=options.data).folder(Path.cwd())
    made = list(made_tables(folder)) if folder else []
    if options.write:
        _write(made, Path(options.write))
    found = [fitted(one) for one in made]
    whole = list(_answered(made, folder)) if folder else []
    known = {name: believed(load_hardware(name)) for name in names()}
    if options.json:
        print(json.dumps(as_json(found, whole, known)))
    else:
        show(found, whole, known)
    return 0


def made_tables(folder: Path) -> Iterator[Made]:
    """All tables. Raises ConfigError if the folder has no measured mixed calls."""
    mixed = fit_mixed(folder)
    yield from paper_tables(mixed)
    yield from Plans(folder=folder, mixed=mixed).all()


def _answered(made: Sequence[Made], folder: Path) -> Iterator[Answered]:
    for one in made:
        if found := answers(folder, one.gpu, one.model, one.gpus):
            yield answered(one, found)


def _write(made: Sequence[Made], folder: Path) -> None:
    if not made:
        raise ConfigError("--write: no measurements here; give their folder with --data")
    if not folder.is_dir():
        raise ConfigError(f"--write: there is no folder {folder}; make it first")
    for one in made:
        (folder / f"{one.name}.toml").write_text(one.text, encoding="utf-8")
