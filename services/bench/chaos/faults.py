"""The kinds of faults, and a seeded sequence of them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """A kind of fault."""

    KILL_HOST = "kill"  # SIGKILL to a gateway, the planner or an engine host
    KILL_CORE = "kill-core"  # to the engine core of an engine host
    STOP_HOST = "stop"  # SIGSTOP, and SIGCONT at the end of the fault
    STOP_CORE = "stop-core"
    CUT = "cut"  # a link: connections are closed, new ones end at once
    SILENCE = "silence"  # a link: nothing comes through, connections stay open
    DELAY = "delay"  # a link: all that comes through is late
    DISK_FULL = "disk-full"  # no process of a part can write to a file
    SLOW_READERS = "slow-readers"  # clients that ask for streams and do not read them
    HOSTILE = "hostile"  # clients that send malformed requests


KILLS: Final = frozenset({Kind.KILL_HOST, Kind.KILL_CORE})
LINK_FAULTS: Final = frozenset({Kind.CUT, Kind.SILENCE, Kind.DELAY})
DELAY_S: Final = 0.2  # of every piece of data, in each direction
# Seconds that a fault lasts. Stops and silences lie on both sides of the time limits between
# processes: 4 s of an engine core, 10 s of a KV transfer, 30 s of a KV lease.
_LASTS_S: Final = {
    Kind.STOP_HOST: (2.0, 5.0, 15.0, 40.0, 90.0),
    Kind.STOP_CORE: (2.0, 5.0, 40.0, 90.0),
    Kind.CUT: (0.5, 5.0, 20.0),
    Kind.SILENCE: (1.0, 5.0, 20.0),
    Kind.DELAY: (10.0,),
    Kind.DISK_FULL: (10.0,),
    Kind.SLOW_READERS: (10.0,),
    Kind.HOSTILE: (10.0,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `target` names a process or a link; empty if clients are the fault."""

    kind: Kind
    target: str = ""
    lasts_s: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:g} s" if self.lasts_s else ""
        return f"{self.kind.value} {self.target}".rstrip() + lasts


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Names of possible targets."""

    parts: Sequence[str]  # all processes of the fleet
    engines: Sequence[str]
    links: Sequence[str]

    def of(self, kind: Kind) -> Sequence[str]:
        """The targets of a kind of fault; empty if there are none."""
        if kind in (Kind.SLOW_READERS, Kind.HOSTILE):
            return ("",)
        if kind in (Kind.KILL_CORE, Kind.STOP_CORE):
            return self.engines
        return self.links if kind in LINK_FAULTS else self.parts


def drawn(kinds: Sequence[Kind], targets: Targets, chance: random.Random) -> Iterator[Fault]:
    """Endless faults; every kind comes once before any kind comes again."""
    possible = [kind for kind in kinds if targets.of(kind)]
    while possible:
        for kind in chance.sample(possible, len(possible)):
            yield Fault(
                kind=kind,
                target=chance.choice(targets.of(kind)),
                lasts_s=chance.choice(_LASTS_S.get(kind, (0.0,))),
            )
