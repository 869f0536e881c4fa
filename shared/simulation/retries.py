"""Which refused requests are asked for once more, and when."""

from dataclasses import dataclass, field

from shared.simulation.record import Retry


@dataclass(slots=True, kw_only=True)
class Retries:
    """Clients that ask once more. `retry_s` as in `Conditions`; `made` is by row of the lives."""

    retry_s: float | None
    made: dict[int, Retry] = field(default_factory=dict)

    def again_s(self, life: int, named_s: float | None, now: float) -> float | None:
        """When a request that is refused `now` comes again, in seconds of the run; None: it does
        not. `named_s`: how long the answer says to wait; a request that gets no time gives up.
        """
        if self.retry_s is None or named_s is None or life in self.made:
            return None
        again_s = now + (self.retry_s or named_s)
        self.made[life] = Retry(life=life, refused_s=now, again_s=again_s)
        return again_s
