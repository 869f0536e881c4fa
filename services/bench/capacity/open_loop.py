"""An open loop: every request is sent when it is due, however many are still open."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from services.bench.capacity.client import Note, Reply
from services.bench.capacity.judge import Ended, Seen
from services.bench.capacity.workload import Offered
from shared.clock import Clock

Send = Callable[[Offered, Note], Awaitable[Reply]]


@dataclass(slots=True)
class _Sent:
    """A request under way; times are the clock's."""

    offered: Offered
    due_at_s: float
    sent_at_s: float
    token_times_s: list[float] = field(default_factory=list)

    def seen(self, reply: Reply, now_s: float) -> Seen:
        return Seen(
            offered=self.offered,
            ended=reply.ended,
            sent_late_s=self.sent_at_s - self.due_at_s,
            token_times_s=tuple(self.token_times_s),
            cut_at_s=now_s - self.due_at_s,
            admission=reply.admission,
            reason=reply.reason,
            message=reply.message,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """Sends with `send`, which reports tokens as they come."""

    send: Send
    clock: Clock

    async def run(self, offered: Sequence[Offered], seconds: float, drain_s: float) -> list[Seen]:
        """Sends all requests within `seconds`; those open `drain_s` after that are cut.

        No late request is cut before: dropping it would relieve the engine.
        """
        started_at_s = self.clock.now()
        sent: list[_Sent] = []
        tasks: list[asyncio.Task[Seen]] = []
        try:
            for one in offered:
                due_at_s = started_at_s + one.at_s
                await self.clock.sleep(due_at_s - self.clock.now())
                sent.append(_Sent(one, due_at_s, self.clock.now()))
                tasks.append(asyncio.create_task(self._follow(sent[-1])))
                await asyncio.sleep(0)  # so that it is sent before the wait for the next one
            await self.clock.sleep(started_at_s + seconds - self.clock.now())
            await asyncio.wait(tasks, timeout=drain_s)
        finally:
            ended_at_s = self.clock.now()
            await _end(tasks)
        return [
            one.seen(Reply(ended=Ended.CUT), ended_at_s) if task.cancelled() else task.result()
            for one, task in zip(sent, tasks, strict=True)
        ]

    async def _follow(self, sent: _Sent) -> Seen:
        def note(tokens: int) -> None:
            sent.token_times_s.extend([self.clock.now() - sent.due_at_s] * tokens)

        return sent.seen(await self.send(sent.offered, note), self.clock.now())


async def _end(tasks: Sequence[asyncio.Task[Seen]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
