"""`python -m services.evaluation.shared_prefixes` prints a table for each load."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from services.evaluation.files import json_of
from services.evaluation.options import SharedPrefixesOptions
from services.evaluation.shared_prefixes.loads import LOADS, PrefixLoad
from services.evaluation.shared_prefixes.play import NAMES, Played, play
from services.evaluation.shared_prefixes.report import tables
from services.evaluation.stage import Told, progressing
from shared.entry import exit_status
from shared.errors import ConfigError
from shared.options import load as load_options
from shared.spelling import nearest


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError before anything is played."""
    options = load_options(
        SharedPrefixesOptions,
        section="shared_prefixes",
        argv=argv,
        environ=os.environ,
        prog="python -m services.evaluation.shared_prefixes",
    )
    with progressing() as shown:
        played = compare(options, shown.show("shared prefixes"))
    print(json_of([asdict(one) for one in played]) if options.json else tables(played))
    return 0


def compare(options: SharedPrefixesOptions, told: Told) -> list[Played]:
    """Plays all; `told` is called after each. Raises ConfigError for unknown loads."""
    loads = [_load(name) for name in options.loads] or list(LOADS)
    whole, played = len(loads) * len(NAMES) * len(options.engines), list[Played]()
    for load in loads:
        for one in play(load, options.engines, options.hardware, options.seed):
            played.append(one)
            told(len(played), whole, f"{load.name}, {one.system}, {one.engines} engines")
    return played


def _load(name: str) -> PrefixLoad:
    known = {one.name: one for one in LOADS}
    if name not in known:
        raise ConfigError(f"--loads {name}: unknown{nearest(name, known)}")
    return known[name]


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:], program="services.evaluation.shared_prefixes"))
