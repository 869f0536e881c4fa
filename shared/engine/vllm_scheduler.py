"""Our scheduler inside vLLM's engine core: shapes each step, then delegates to vLLM's own.
Decisions are the step former's.

The engine core imports this class by name, so everything it needs reaches it through
`VllmConfig.additional_config["slos"]`.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from shared.batch_time import Step
from shared.engine.link import SchedulerEnd
from shared.engine.parent import end_with_parent
from shared.engine.step_times import StepTimes
from shared.engines import Policy, StepReport
from shared.scheduling.step_former import Candidate, StepShape, shape_step
from shared.scheduling.terms import Terms, terms_from_plain

TERMS_KEY = "slos"
"""Where a request carries its terms: `sampling_params.extra_args[TERMS_KEY]`."""


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - the engine core calls us without a clock


def terms_of(request: Request) -> Terms:
    """The terms that the host attached; a request without any asked for nothing."""
    params = request.sampling_params
    raw = (params.extra_args or {}).get(TERMS_KEY) if params is not None else None
    return terms_from_plain(raw) if raw else Terms(arrived_at_s=0.0)


@dataclass(slots=True)
class StepBook:
    """What one scheduled step holds, kept until its output is there."""

    started_at_s: float
    prefill_tokens: int = 0
    decode_tokens: int = 0
    decode_context_tokens: int = 0
    longest_context_tokens: int = 0
    chunks: int = 0
    earlier_tokens: int = 0
    attention_pairs: float = 0.0
    longest_prompt_tokens: int = 0
    speculated_tokens: int = 0

    def add(
        self, tokens: int, drafted_tokens: int, earlier_tokens: int, prompt_tokens: int
    ) -> None:
        """`earlier_tokens` are those that were computed before, of a prompt of `prompt_tokens`."""
        chunk_tokens = max(0, min(tokens, prompt_tokens - earlier_tokens))
        if chunk_tokens:
            self.chunks += 1
            self.prefill_tokens += chunk_tokens
            self.earlier_tokens += earlier_tokens
            self.attention_pairs += chunk_tokens * (earlier_tokens + chunk_tokens / 2)
            longest_tokens = max(self.longest_prompt_tokens, earlier_tokens + chunk_tokens)
            self.longest_prompt_tokens = longest_tokens
        else:
            self.speculated_tokens += drafted_tokens
            self.decode_tokens += tokens - drafted_tokens
            self.decode_context_tokens += earlier_tokens
            self.longest_context_tokens = max(self.longest_context_tokens, earlier_tokens)

    def as_step(self) -> Step:
        return Step(
            decodes=self.decode_tokens,
            speculated_tokens=self.speculated_tokens,
            speculation_steps=self.speculated_tokens / max(1, self.decode_tokens),
            decode_context_tokens=self.decode_context_tokens,
            longest_context_tokens=self.longest_context_tokens or None,
            chunks=self.chunks,
            prefill_tokens=self.prefill_tokens,
            earlier_tokens=self.earlier_tokens,
            attention_pairs=self.attention_pairs,
            longest_prompt_tokens=self.longest_prompt_tokens,
        )


@dataclass(slots=True)
class Ledger:
    """What goes into the next report."""

    step: int = 0
    last_ended_at_s: float = 0.0
    finished: list[str] = field(default_factory=list)
    transfers_failed: int = 0
    last_state: tuple[int, int, int] = (-1, -1, -1)


class SlosScheduler(AsyncScheduler):
    """Shapes, then delegates."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = self.vllm_config.additional_config["slos"]
        end_with_parent(settings["host_pid"])
        self._slos_link = SchedulerEnd(settings["link"])
        self._slos_policy = Policy()
        self._slos_terms: dict[str, Terms] = {}
        self._slos_ledger = Ledger()
        # Steps in flight, oldest first: with asynchronous scheduling one is formed while
        # another runs.
        self._slos_books: dict[int, StepBook] = {}
        self._slos_times = StepTimes()
        self._slos_may_hold = True
        self._slos_engine_max_tokens: int = self.max_num_scheduled_tokens

    # -- shaping ------------------------------------------------------------------------------

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        started_at_s = _now_s()
        self._slos_listen()
        shape = self._slos_shape()
        held = self._slos_apply(shape)
        output = super().schedule(throttle_prefills)
        # Held ones keep their blocks and their place; vLLM's runner lets rows leave and rejoin.
        self.running.extend(held)
        self._slos_may_hold = not held or len(self.running) > len(shape.order)
        self._slos_books[id(output)] = self._slos_book(output, started_at_s)
        return output

    def _slos_listen(self) -> None:
        news = self._slos_link.news()
        if news is None:
            return
        self._slos_policy = news.policy or self._slos_policy
        if news.profile is not None:
            self._slos_times.start_from(news.profile)

    def _slos_shape(self) -> StepShape:
        return shape_step(
            map(self._slos_candidate, self.running),
            self._slos_policy,
            engine_max_tokens=self._slos_engine_max_tokens,
            next_waiting=self._slos_next_waiting(),
        )

    def _slos_candidate(self, request: Request) -> Candidate:
        return Candidate(
            request_id=request.request_id,
            terms=self._slos_terms[request.request_id],
            prefilling=request.num_computed_tokens < request.num_prompt_tokens,
            produced_tokens=request.num_output_tokens,
            drafted_tokens=len(request.spec_token_ids),
        )

    def _slos_next_waiting(self) -> Candidate | None:
        """The most urgent request that could start at once if it were given the tokens."""
        # A hold that let nobody in is not repeated: what waits may lack more than tokens.
        if not self._slos_may_hold or not self.waiting or self.kv_holding_waiting:
            return None
        if len(self.running) >= self.max_num_active_reqs:
            return None
        request = self.waiting.peek_request()
        startable = request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)
        fits = self._slos_blocks_for(request) <= self._slos_free_blocks()
        return self._slos_candidate(request) if startable and fits else None

    def _slos_blocks_for(self, request: Request) -> int:
        blocks: int = -(-(request.num_tokens + 1) // self.block_size)
        return blocks

    def _slos_free_blocks(self) -> int:
        free_blocks: int = self.kv_cache_manager.block_pool.get_num_free_blocks()
        return free_blocks

    def _slos_apply(self, shape: StepShape) -> list[Request]:
        """Returns the requests that sit this step out; they must be put back after it."""
        self.max_num_scheduled_tokens = shape.max_tokens
        for request_id, allowed_tokens in shape.speculation_tokens.items():
            request = self.requests[request_id]
            request.spec_token_ids = request.spec_token_ids[:allowed_tokens]
        ordered = [self.requests[request_id] for request_id in shape.order]
        self.running = [each for each in ordered if each.request_id not in shape.held]
        return [each for each in ordered if each.request_id in shape.held]

    # -- the life of a request ----------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        self._slos_terms[request.request_id] = terms_of(request)
        super().add_request(request)

    def finish_requests(
        self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus
    ) -> list[Request]:
        finished: list[Request] = super().finish_requests(request_ids, finished_status)
        # An abort may leave the engine idle, and no step would come to tell of it.
        self._slos_report(StepBook(started_at_s=_now_s()), accepted_tokens=0)
        return finished

    def _free_request(self, request: Request, delay_free_blocks: bool = False) -> Any:
        self._slos_ledger.finished.append(request.request_id)
        return super()._free_request(request, delay_free_blocks)

    def _free_blocks(self, request: Request) -> None:
        super()._free_blocks(request)
        self._slos_terms.pop(request.request_id, None)

    def _update_waiting_for_remote_kv(self, request: Request) -> None:
        if request.request_id in self.failed_recving_kv_req_ids:
            self._slos_ledger.transfers_failed += 1
        super()._update_waiting_for_remote_kv(request)

    # -- reporting ----------------------------------------------------------------------------

    def _slos_book(self, output: SchedulerOutput, started_at_s: float) -> StepBook:
        book = StepBook(started_at_s=started_at_s)
        for request_id, tokens in output.num_scheduled_tokens.items():
            request = self.requests[request_id]
            # vLLM has already advanced the count by what it just scheduled.
            earlier_tokens = request.num_computed_tokens - tokens
            drafted_tokens = len(output.scheduled_spec_decode_tokens.get(request_id, ()))
            book.add(tokens, drafted_tokens, earlier_tokens, request.num_prompt_tokens)
        return book

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        accepted_tokens = _accepted_tokens(scheduler_output, model_runner_output)
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(
            scheduler_output, model_runner_output
        )
        book = self._slos_books.pop(id(scheduler_output))
        self._slos_report(book, accepted_tokens=accepted_tokens)
        return outputs

    def _slos_report(self, book: StepBook, *, accepted_tokens: int) -> None:
        ledger = self._slos_ledger
        running, waiting = self.get_request_counts()
        state = (running, waiting, self._slos_free_blocks())
        computed_tokens = book.prefill_tokens + book.decode_tokens + book.speculated_tokens
        if not computed_tokens and not ledger.finished and state == ledger.last_state:
            return
        now_s = _now_s()
        # Steps overlap under asynchronous scheduling: a step's time runs from the end of the one
        # before.
        duration_s = now_s - max(book.started_at_s, ledger.last_ended_at_s)
        predicted_s = 0.0
        if computed_tokens:
            predicted_s = self._slos_times.expected_s(book.as_step())
            self._slos_times.observe(book.as_step(), duration_s, now_s)
        ledger.step += 1
        self._slos_link.report(
            StepReport(
                step=ledger.step,
                ended_at_s=now_s,
                duration_s=duration_s if computed_tokens else 0.0,
                prefill_tokens=book.prefill_tokens,
                decode_tokens=book.decode_tokens,
                decode_context_tokens=book.decode_context_tokens,
                longest_context_tokens=book.longest_context_tokens,
                chunks=book.chunks,
                earlier_tokens=book.earlier_tokens,
                attention_pairs=book.attention_pairs,
                longest_prompt_tokens=book.longest_prompt_tokens,
                speculated_tokens=book.speculated_tokens,
                accepted_tokens=accepted_tokens,
                running=running,
                waiting=waiting,
                queued_prefill_tokens=self._slos_queued_prefill_tokens(),
                free_kv_blocks=state[2],
                kv_transfers_failed=ledger.transfers_failed,
                finished=tuple(ledger.finished),
                predicted_s=predicted_s,
                step_time=self._slos_times.news(now_s),
            )
        )
        if computed_tokens:  # an abort comes in the middle of a step
            ledger.last_ended_at_s = now_s
        ledger.last_state = state
        ledger.transfers_failed = 0
        ledger.finished.clear()

    def _slos_queued_prefill_tokens(self) -> int:
        queued = (
            request.num_prompt_tokens - request.num_computed_tokens
            for request in self.requests.values()
            if not request.is_finished() and request.num_computed_tokens < request.num_prompt_tokens
        )
        return sum(queued)

    def shutdown(self) -> None:
        self._slos_link.close()
        super().shutdown()


def _accepted_tokens(output: SchedulerOutput, result: ModelRunnerOutput) -> int:
    """Drafted tokens that the model confirmed in this step: all sampled ones but the last of each
    request.
    """
    accepted = 0
    for request_id in output.scheduled_spec_decode_tokens:
        sampled = result.sampled_token_ids[result.req_id_to_index[request_id]]
        accepted += max(0, len(sampled) - 1)
    return accepted
