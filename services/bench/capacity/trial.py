"""Searches for capacities, every system in turn, round by round."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from services.bench.capacity.points import Point
from services.bench.capacity.result import CapacityResult, Searched
from services.bench.capacity.search import Bisection, Contender
from services.bench.capacity.workload import Load

Take = Callable[[str, Load, float], Awaitable[Point]]  # of a system, at a rate in requests/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Takes points with `take` into `result`. `first_rps` gives the first rate of a search."""

    take: Take
    result: CapacityResult
    first_rps: Callable[[Load, str], float]

    async def search(
        self, load: Load, contenders: Mapping[str, tuple[str, ...]], rounds: int
    ) -> dict[str, Contender]:
        """Tries one rate per round for each contender, with all its variants.

        The order reverses from round to round, so that drift of the machine affects all.
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
