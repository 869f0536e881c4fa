"""Decides which refused requests are retried, and when."""

from dataclasses import dataclass, field

from shared.simulation.record import Retry


@dataclass(slots=True, kw_only=True)
class Retries:
    """`retry_s` is as in `Conditions`; `made` has the retries by index of the request."""

    retry_s: float | None
    made: dict[int, Retry] = field(default_factory=dict)

    def again_s(self, index: int, named_s: float | None, now: float) -> float | None:
        """When a request that is refused `now` is retried, in seconds of the run; None: never.

        `named_s` is the wait that the answer names; without one there is no retry.
        """
        if self.retry_s is None or named_s is None or index in self.made:
            return None
        again_s = now + (self.retry_s or named_s)
        self.made[index] = Retry(index=index, refused_s=now, again_s=again_s)
        return again_s
