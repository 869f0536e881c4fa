"""Searches for capacities: every system in turns, round by round. Knows no process."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from services.bench.capacity.points import Point
from services.bench.capacity.result import CapacityResult, Searched
from services.bench.capacity.search import Bisection, Contender
from services.bench.capacity.workload import Load

Take = Callable[[str, Load, float], Awaitable[Point]]  # of a system, at a rate in requests/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Takes points with `take` and keeps them in `result`. `first_rps` says where to begin."""

    take: Take
    result: CapacityResult
    first_rps: Callable[[Load, str], float]

    async def search(
        self, load: Load, contenders: Mapping[str, tuple[str, ...]], rounds: int
    ) -> dict[str, Contender]:
        """Each contender, named with its variants, has one rate in each round.

        The order turns around from round to round, so that a drift of the machine touches all.
        """
        made = {
            name: Contender(
                name=name, variants=variants, bisection=Bisection(self.first_rps(load, name))
            )
            for name, variants in contenders.items()
        }
        self.result.searched += [
            Searched(load=load.name, contender=name, variants=variants)
            for name, variants in contenders.items()
        ]
        for number in range(rounds):
            for contender in list(made.values())[:: 1 if number % 2 == 0 else -1]:
                await self._round(load, contender)
        return made

    async def _round(self, load: Load, contender: Contender) -> None:
        rate_rps = contender.bisection.next_rps
        points = {name: await self.take(name, load, rate_rps) for name in contender.variants}
        self.result.points += points.values()
        attainments = {name: point.attainment for name, point in points.items()}
        contender.note(rate_rps, attainments, self.result.needed)
