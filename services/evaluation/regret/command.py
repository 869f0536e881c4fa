"""`slos-serve regret`: searches for loads on which other systems keep more than ours."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from services.evaluation.files import json_of, write
from services.evaluation.options import RegretOptions
from services.evaluation.regret.kept import KeptRegrets
from services.evaluation.regret.loads import RegretLoad
from services.evaluation.regret.play import Regret, play
from services.evaluation.regret.report import whole
from services.evaluation.regret.search import Search
from services.evaluation.stage import Told, jobs_of, progressing
from services.evaluation.workers import workers
from shared.clock import MonotonicClock
from shared.options import load

LOADS: Final = "loads"  # folder of the files with which loads are replayed
_HOUR_S: Final = 3600.0


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError before anything is played."""
    options = load(
        RegretOptions, section="regret", argv=argv, environ=os.environ, prog="slos-serve regret"
    )
    with progressing() as shown:
        regrets = regret(options, shown.show("regret"))
    folder = Path(options.out)
    report = whole(regrets, folder / LOADS)
    write(folder / "regret.md", f"# Regret\n\n{report}\n")
    write(folder / "regret.json", json_of(regrets))
    print(report)
    return 0


def regret(options: RegretOptions, told: Told) -> list[Regret]:
    """Plays a sample of loads, then for the given hours loads near the worst. Results are stored in
    the options' folder, with a file that replays each load; `told` is called after each.
    """
    folder, clock = Path(options.out), MonotonicClock()
    kept = KeptRegrets(folder)
    search = Search(
        seed=options.seed,
        loads=options.loads,
        until_s=clock.now() + options.hours * _HOUR_S,
        clock=clock.now,
    )
    played = partial(play, folder=folder / LOADS)
    with workers(jobs_of(options.jobs), played) as pool:
        _drive(search, pool, kept, told)
    return list(search.known.values())


class _WorkerPool(Protocol):
    jobs: int

    def start(self, task: RegretLoad) -> None: ...

    def next(self) -> Regret: ...


def _drive(search: Search, pool: _WorkerPool, kept: KeptRegrets, told: Told) -> None:
    """Plays as many loads at once as there are workers, and skips known ones."""
    running = 0
    for one in search:
        known = kept.find(one.key)
        if known is not None:
            search.add(known)
            continue
        pool.start(one)
        running += 1
        if running == pool.jobs:
            _take(search, pool, kept, told)
            running -= 1
    for _ in range(running):
        _take(search, pool, kept, told)


def _take(search: Search, pool: _WorkerPool, kept: KeptRegrets, told: Told) -> None:
    found = pool.next()
    kept.add(found)
    search.add(found)
    played = len(search.known)
    told(played, max(played, search.loads), f"{found.load.hardware}, {found.load.fleet} x")
