"""`slos-serve profile`: lets an engine core measure its step times, prints and draws them."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from services.bench.fit_measure import Measured, measure
from services.bench.fit_report import Compared, make_table
from services.bench.fit_tables import Table, Timed
from services.bench.profile_report import as_json, coefficients_table
from shared.batch_time import PAPER, RICH, to_plain
from shared.batch_time.profile_fit import MeasuredStep
from shared.engine.config import EngineOptions, ProfileWhen
from shared.engine.environment import set_environment
from shared.entry import exit_status
from shared.errors import ConfigError, DeadlinePassed
from shared.options import load, option
from shared.tables import for_tables

if TYPE_CHECKING:  # it imports vLLM
    from shared.engine.profile import Profile

PROGRAM = "slos-serve profile"
SECTION = "profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions(EngineOptions):
    """The options of an engine, and those of the output."""

    profile: ProfileWhen = option(
        ProfileWhen.FRESH,
        help="fresh: measure now, whatever was kept; the next start of such an engine uses it",
    )
    json: bool = option(False, help="print one JSON object instead of tables")
    plot: str = option("", help="also draw it: a file that ends in .svg, .png or .pdf")


def main(argv: Sequence[str]) -> int:
    """Profiles and prints. Raises ConfigError, and DeadlinePassed with too few steps measured."""
    options = load(ProfileOptions, section=SECTION, argv=argv, environ=os.environ, prog=PROGRAM)
    path = _plot_path(options.plot)
    profile = _profile(options)
    table, measured = _measured(options, profile.steps)
    if path is not None:
        # Imported only for --plot: matplotlib is an optional extra.
        from services.bench.profile_plot import draw

        draw(table, measured[-1].fit, path)
    _show(options, table, measured, profile)
    return 0


def measured_engine(options: EngineOptions) -> tuple[Table, list[Measured]]:
    """The steps of this machine's engine, and the paper's form and ours fitted to them."""
    return _measured(options, _profile(options).steps)


def _profile(options: EngineOptions) -> "Profile":
    # only the result goes to stdout, so that it can be redirected into a file
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    set_environment(options, os.environ)
    # vLLM takes seconds to import (--help must not wait) and reads the environment then
    from shared.engine.profile_alone import profile_alone

    profile = profile_alone(options)
    if profile is None or not profile.steps:
        raise _too_few()
    return profile


def _measured(
    options: EngineOptions, steps: Sequence[MeasuredStep]
) -> tuple[Table, list[Measured]]:
    rows = tuple(Timed(step=one.step, seconds=one.seconds) for one in steps)
    name = f"this machine, {options.api_model_name}"
    table = Table(name=name, note="whole steps of an engine core", rows=rows)
    try:
        return table, [measure(table, form) for form in (PAPER, RICH)]
    except ValueError as error:
        raise _too_few() from error


def _too_few() -> DeadlinePassed:
    return DeadlinePassed("Too few steps could be measured; give more time with --profile-limit-s.")


def _plot_path(name: str) -> Path | None:
    if not name:
        return None
    path = Path(name)
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(f"--plot: read {name!r}, allowed is a file that ends in .svg, .png, .pdf")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot: there is no folder {path.parent}; make it first")
    if find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib; install the extra `plots`")
    return path


def _show(
    options: ProfileOptions,
    table: Table,
    measured: Sequence[Measured],
    profile: "Profile",
) -> None:
    compared = Compared(table=table, measured=measured)
    if options.json:
        found = {
            "fit": to_plain(measured[-1].fit),
            "engine": dict(profile.engine),
            "measured": [one.plain for one in profile.steps],
        }
        shown = as_json(compared) | found
        print(json.dumps(shown))
        return
    console = Console()
    wide = for_tables(console)
    wide.print(coefficients_table(measured[-1].fit))
    wide.print(make_table([compared]))


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program=PROGRAM))
