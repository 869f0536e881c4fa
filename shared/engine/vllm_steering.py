"""Has vLLM's scheduler schedule chosen requests and no others; others choose them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import FCFSRequestQueue
from vllm.v1.request import Request, RequestStatus

_RUNNING = RequestStatus.RUNNING  # read some hundred times a step: an enum looks its names up
_UNPLANNED_TOKENS = 64  # of a request with KV that came, or failed to, since the step was formed


class SteeredScheduler(AsyncScheduler):
    """vLLM's scheduler under the policy `fcfs`, with queues cut down for the time of a step.

    `slos_blocked` are requests that cannot run before something arrives (KV, a grammar). vLLM finds
    out by itself that it did, so they take part in every step.
    """

    running: list[Request]
    waiting: FCFSRequestQueue
    kv_holding_waiting: FCFSRequestQueue

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slos_blocked: dict[str, Request] = {}
        self._slos_caps: Mapping[str, int] = {}
        self._slos_gives_all = False
        self._slos_all_running: list[Request] = []

    def schedule_chosen(
        self,
        chosen: list[Request],
        caps: Mapping[str, int],
        blocked_first: Iterable[Request],
        throttle_prefills: bool,
    ) -> SchedulerOutput:
        """`caps`: tokens of those that get less than they could use. Of the blocked ones, those in
        `blocked_first` may take their KV blocks before what waits, the others after.
        """
        self._slos_all_running = self.running
        held = self._hold_running(chosen)
        held_waiting = self._hold_waiting(chosen, blocked_first)
        unplanned = dict.fromkeys(self.slos_blocked, _UNPLANNED_TOKENS)
        output = self._schedule_within({**caps, **unplanned}, throttle_prefills)
        # Held ones keep their blocks and their place; vLLM's runner lets rows leave and rejoin.
        self.running.extend(held)
        for request in held_waiting:
            self._enqueue(request)
        return output

    def schedule_freely(self, throttle_prefills: bool) -> SchedulerOutput:
        """All that are there, as vLLM will."""
        return self._schedule_within({}, throttle_prefills)

    def _schedule_within(self, caps: Mapping[str, int], throttle_prefills: bool) -> SchedulerOutput:
        self._slos_caps = caps
        # Asked some hundred times a step: be quick where there is nothing to say.
        self._slos_gives_all = not caps and self.num_prefill_lookahead < 2
        return super().schedule(throttle_prefills)

    def _hold_running(self, chosen: list[Request]) -> list[Request]:
        """Leaves only the chosen ones, in order; the others are to be put back."""
        running = [one for one in chosen if one.status is _RUNNING]
        held: list[Request] = []
        if len(running) < len(self.running):
            kept = set(running)
            held = [one for one in self.running if one not in kept]
        self.running = running
        return held

    def _hold_waiting(
        self, chosen: list[Request], blocked_first: Iterable[Request]
    ) -> list[Request]:
        if not self.waiting and not self.kv_holding_waiting:
            return []
        starting = (one for one in chosen if one.status != RequestStatus.RUNNING)
        pool = [*self.kv_holding_waiting, *self.waiting]
        there = set(pool)
        wanted = dict.fromkeys((*blocked_first, *starting, *self.slos_blocked.values()))
        self.waiting, self.kv_holding_waiting = FCFSRequestQueue(), FCFSRequestQueue()
        if self.lora_config:
            wanted = dict.fromkeys(self._with_room_for_adapters(wanted))
        for request in wanted:
            if request in there:
                self._enqueue(request)
        return [one for one in pool if one not in wanted]

    @property
    def slos_adapters(self) -> tuple[int, ...]:
        """The LoRA adapters of all requests."""
        if not self.lora_config:
            return ()
        return tuple(sorted({_adapter(one) for one in self.requests.values()} - {0}))

    def slos_without_adapter(self) -> list[str]:
        """Waiting requests with a LoRA adapter that has no room beside those of all that run."""
        if not self.lora_config:
            return []
        running = {_adapter(one) for one in self.running} - {0}
        if len(running) < self.lora_config.max_loras:
            return []
        waiting = (*self.kv_holding_waiting, *self.waiting)
        return [one.request_id for one in waiting if _adapter(one) not in running | {0}]

    def _with_room_for_adapters(self, starting: Iterable[Request]) -> Iterator[Request]:
        """Those with a LoRA adapter that has room beside those of all that run.

        vLLM counts the adapters of a step alone, and ends when later steps bring more together.
        """
        adapters = {_adapter(one) for one in self._slos_all_running} - {0}
        for request in starting:
            if {_adapter(request)} <= adapters | {0}:
                yield request
            elif len(adapters) < self.lora_config.max_loras:
                adapters.add(_adapter(request))
                yield request

    def _enqueue(self, request: Request) -> None:
        holds = self._holds_kv_blocks(request)
        (self.kv_holding_waiting if holds else self.waiting).add_request(request)

    def _reserve_prefill_lookahead(
        self, request: Request, num_computed_tokens: int, num_new_tokens: int
    ) -> int:
        """vLLM asks this for every request of a step, with what it would give it."""
        if self._slos_gives_all:
            return num_new_tokens
        num_new_tokens = min(
            num_new_tokens, self._slos_caps.get(request.request_id, num_new_tokens)
        )
        reserved: int = super()._reserve_prefill_lookahead(
            request, num_computed_tokens, num_new_tokens
        )
        return reserved

    def slos_must_wait(self, request: Request) -> bool:
        """Whether a new request cannot run before something arrives."""
        params = request.kv_transfer_params
        fetched = bool(params and params.get("do_remote_prefill"))
        return fetched or bool(self._is_blocked_waiting_status(request.status))


def _adapter(request: Request) -> int:
    """The number of its LoRA adapter; 0: none."""
    return int(request.lora_request.lora_int_id) if request.lora_request else 0
