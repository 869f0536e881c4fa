"""What the host knows of its engine: the last report, attachment, draining.

Written by the host's loops, read by its services.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace

from shared.engines import EngineDescription, PrefixNews, StepReport

_KEPT_REPORTS = 4096


@dataclass(slots=True)
class EngineState:
    """`unsent` holds reports that the planner has not been given yet; the oldest go when it is away
    for long. `prefixes` are the spans in the engine's prefix cache, as it told of them.
    """

    description: EngineDescription
    last: StepReport | None = None
    attached: bool = False
    alive: bool = True
    unsent: deque[StepReport] = field(default_factory=lambda: deque(maxlen=_KEPT_REPORTS))
    prefixes: set[int] = field(default_factory=set)
    _lost_some: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, report: StepReport) -> None:
        report.prefixes.bring_up_to_date(self.prefixes)
        self._lost_some |= len(self.unsent) == self.unsent.maxlen
        self.last = report
        self.unsent.append(report)
        self._news.set()

    def take_unsent(self) -> list[StepReport]:
        reports = list(self.unsent)
        if reports and self._lost_some:
            reports[-1] = replace(reports[-1], prefixes=self._all_prefixes)
            self._lost_some = False
        self.unsent.clear()
        self._news.clear()
        return reports

    @property
    def _all_prefixes(self) -> PrefixNews:
        return PrefixNews(stored=tuple(self.prefixes), anew=True)

    async def until_news(self) -> None:
        """Until there is something to send, or `wake` is called."""
        await self._news.wait()

    def wake(self) -> None:
        """There is something else to tell the planner."""
        self._news.set()

    def restate(self) -> None:
        """Leaves just the present state to be sent: what a planner that knows nothing yet needs."""
        self.unsent.clear()
        if self.last is not None:
            self.unsent.append(
                replace(
                    self.last,
                    finished=(),
                    kv_transfers_failed=0,
                    kv_transfers=(),
                    prefixes=self._all_prefixes,
                )
            )
            self._news.set()

    @property
    def cached_tokens(self) -> int:
        """Tokens of prompts in the prefix cache, in whole spans."""
        return self.description.prefix_span_tokens * len(self.prefixes)

    @property
    def free_kv_blocks(self) -> int:
        return self.description.kv_blocks if self.last is None else self.last.free_kv_blocks

    @property
    def running(self) -> int:
        return 0 if self.last is None else self.last.running

    @property
    def waiting(self) -> int:
        return 0 if self.last is None else self.last.waiting

    @property
    def idle(self) -> bool:
        """Nothing runs, nothing waits, and no KV is held for another engine to fetch."""
        return (
            self.running == 0
            and self.waiting == 0
            and self.free_kv_blocks >= self.description.kv_blocks
        )
