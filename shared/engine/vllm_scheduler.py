"""Our scheduler inside vLLM's engine core: the step former says which request gets how many
tokens, vLLM's own scheduler carries it out.

The engine core imports this class by name, so everything it needs reaches it through
`VllmConfig.additional_config["slos"]`.
"""

import math
import time
from collections.abc import Iterable
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from shared.batch_time import ADDITIVE, StepCurve, StepTable
from shared.engine.carried_terms import terms_in
from shared.engine.link import HostLink, SchedulerEnd
from shared.engine.new_rows import row_of
from shared.engine.policy_limits import (
    has_full_decode_graphs,
    speculation_limit,
    step_limit,
    worth_a_full_graph,
)
from shared.engine.prefix_spans import PrefixSpans
from shared.engine.request_rows import Late, RequestRows
from shared.engine.step_ledger import Standing, StepBook, StepLedger
from shared.engine.vllm_exports import cut_to_cached, exports
from shared.engine.vllm_grammar import end_compilation
from shared.engine.vllm_kv import kv_layout
from shared.engine.vllm_prefixes import PrefixEvents
from shared.engine.vllm_room import Room, blocks_to_come, promised_first, with_room
from shared.engine.vllm_shared_blocks import SharedBlocks
from shared.engine.vllm_steering import SteeredScheduler
from shared.engine.vllm_steps import after, begun
from shared.engines import Policy
from shared.parent import end_with_parent
from shared.scheduling.former import StepFormer, StepPlan
from shared.scheduling.shares import FREE_BLOCKS, KEPT, LONGEST_S, MAX_TOKENS, SET_ASIDE

_LISTEN_EVERY_S = 0.02  # to the socket costs several system calls, and instructions come rarely
UNKNOWN_SPEED = StepTable.of(StepCurve(form=ADDITIVE, coefficients=(0.0, 0.0, 0.0, 0.0)))


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - the engine core calls us without a clock


class SlosScheduler(SteeredScheduler):
    """Forms each step, then has vLLM schedule just that. `slos_now_s` is its clock."""

    slos_now_s = staticmethod(_now_s)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._slos_kv = kv_layout(self.vllm_config, self.kv_cache_config, self.block_size)
        self._slos_link = self._slos_connect()
        self._slos_link.tell_layout(self._slos_kv)
        self._slos_policy = Policy()
        self._slos_ledger = StepLedger()
        self._slos_engine_max_tokens: int = self.max_num_scheduled_tokens
        former = StepFormer(
            UNKNOWN_SPEED,
            max_tokens=self._slos_engine_max_tokens,
            block_tokens=self.block_size,
            max_resident=self.max_num_running_reqs,
        )
        former.form(0.0)  # compiled here rather than in the first step
        self._slos_rows: RequestRows[Request] = RequestRows(former)
        self._slos_books: dict[int, StepBook] = {}
        self._slos_prefixes = PrefixSpans(self.block_size)
        self._slos_shared = SharedBlocks(self.kv_cache_manager, self.block_size)
        self.kv_event_publisher: Any = PrefixEvents(self._slos_prefixes, self.kv_event_publisher)
        self._slos_bounded = False  # whether the policy bounds steps
        self._slos_full_graphs = has_full_decode_graphs(self.vllm_config.compilation_config)
        self._slos_listen_at_s = -math.inf
        self._slos_link.beat_while(lambda: not self.requests, self.slos_now_s)

    def _slos_connect(self) -> HostLink:
        """The link to the engine host, with which this process ends."""
        settings = self.vllm_config.additional_config["slos"]
        end_with_parent(settings["host_pid"])
        return SchedulerEnd(settings["link"])

    # -- forming ------------------------------------------------------------------------------

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        now_s = self.slos_now_s()
        self._slos_link.beat(now_s)
        if now_s >= self._slos_listen_at_s:
            self._slos_listen_at_s = now_s + _LISTEN_EVERY_S
            self._slos_listen()
        self._slos_rows.hold(self.slos_without_adapter())
        if self._slos_is_free:
            return self._slos_run_freely(now_s, throttle_prefills)
        self._slos_rows.age(now_s)
        starts_s = self._slos_ledger.starts_at_s(now_s)
        plan = self._slos_form(starts_s)
        chosen = self._slos_rows.of_slots(plan.order.tolist())
        caps = self._slos_caps_of(plan, chosen)
        if len(plan.evicted):
            chosen = with_room(chosen, caps, self._slos_rows, self._slos_room())
        first = promised_first(self.slos_blocked, self._slos_rows, self._slos_room())
        output = self.schedule_chosen(chosen, caps, first, throttle_prefills)
        self._slos_note(output, plan, now_s, starts_s)
        return output

    def _slos_listen(self) -> None:
        news = self._slos_link.news()
        if news is None:
            return
        if news.profile is not None:
            self._slos_ledger.times.start_from(news.profile)
        if news.policy is not None:
            self._slos_policy = news.policy
            limits = self._slos_rows.former.limits
            limits[LONGEST_S] = news.policy.longest_step_s
            limits[KEPT] = news.policy.kept_blocks
            limits[MAX_TOKENS] = step_limit(news.policy, self._slos_engine_max_tokens)
            cut = limits[MAX_TOKENS] < self._slos_engine_max_tokens
            self._slos_bounded = bool(cut or limits[LONGEST_S] > 0)

    @property
    def _slos_is_free(self) -> bool:
        """Whether vLLM's own order is ours: no request has an SLO or soon will."""
        return self._slos_rows.all_in_turn and not (self._slos_bounded or self.num_spec_tokens)

    def _slos_run_freely(self, now_s: float, throttle_prefills: bool) -> SchedulerOutput:
        output = self.schedule_freely(throttle_prefills)
        for request_id, computed, total in begun(output, self.requests):
            self.slos_blocked.pop(request_id, None)
            self._slos_rows.begin(request_id, computed=computed, total=total, now=now_s)
        counts = self._slos_rows.take_off_freely(output.num_scheduled_tokens)
        expected_s = self._slos_ledger.times.expected_s(counts)
        self._slos_keep(output, StepBook(started_at_s=now_s, counts=counts, expected_s=expected_s))
        return output

    def _slos_form(self, starts_s: float) -> StepPlan:
        if self.num_spec_tokens:
            self._slos_cut_drafts()
        former = self._slos_rows.former
        former.table = self._slos_ledger.times.table or UNKNOWN_SPEED
        self._slos_shared.look(self._slos_rows, starts_s)
        former.limits[FREE_BLOCKS] = self._slos_free_blocks()
        former.limits[SET_ASIDE] = blocks_to_come(
            self.slos_blocked, self._slos_rows, self.block_size
        )
        plan = former.form(starts_s)
        for request in self._slos_rows.of_slots(plan.evicted.tolist()):
            self._slos_evict(request)
        return plan

    def _slos_cut_drafts(self) -> None:
        terms = [self._slos_rows.terms(one.request_id) for one in self.running]
        limits = [speculation_limit(one, self._slos_policy) for one in terms]
        if not (self._slos_full_graphs and worth_a_full_graph(limits, self.num_spec_tokens)):
            for request, allowed in zip(self.running, limits, strict=True):
                if allowed is not None and len(request.spec_token_ids) > allowed:
                    request.spec_token_ids = request.spec_token_ids[:allowed]
        self._slos_rows.set_drafts(
            ((one.request_id, len(one.spec_token_ids)) for one in self.running),
            self._slos_ledger.drafts.gain,
        )

    def _slos_evict(self, request: Request) -> None:
        if request.status == RequestStatus.RUNNING:
            self.running.remove(request)
            self._preempt_request(
                request, self.slos_now_s(), drop_stale_output=self.requires_kv_delivery
            )

    def _slos_free_blocks(self) -> int:
        """Whole blocks, as the former and the planner count them."""
        free_blocks: int = self.kv_cache_manager.block_pool.get_num_free_blocks()
        return self._slos_kv.whole_blocks(free_blocks, len(self.running))

    def _slos_room(self) -> Room:
        return Room(free_blocks=self._slos_free_blocks(), block_tokens=self.block_size)

    def _slos_caps_of(self, plan: StepPlan, chosen: list[Request]) -> dict[str, int]:
        """The tokens of those that get less than all that they could use."""
        cut = range(len(plan.order) - plan.cut, len(plan.order))
        return {chosen[i].request_id: int(plan.tokens[plan.order[i]]) for i in cut}

    # -- what became of it --------------------------------------------------------------------

    def _slos_note(
        self, output: SchedulerOutput, plan: StepPlan, now_s: float, starts_s: float
    ) -> None:
        as_planned = (
            output.total_num_scheduled_tokens == plan.scheduled_tokens
            and len(output.num_scheduled_tokens) == len(plan.order)
            and not output.scheduled_new_reqs
            and not output.scheduled_cached_reqs.resumed_req_ids
            and not output.scheduled_spec_decode_tokens
        )
        book = StepBook(started_at_s=now_s, counts=plan.counts, expected_s=plan.expected_s)
        if as_planned:
            book.flight = self._slos_rows.take_off(plan, starts_s + plan.expected_s)
        else:
            self._slos_note_other(output, book, starts_s)
        self._slos_keep(output, book)

    def _slos_keep(self, output: SchedulerOutput, book: StepBook) -> None:
        if not book.is_empty:  # vLLM need not come back with an empty one
            self._slos_ledger.began(book)
            self._slos_books[id(output)] = book

    def _slos_note_other(self, output: SchedulerOutput, book: StepBook, starts_s: float) -> None:
        """A step that was not planned in just this way: by what vLLM says of each request."""
        for request_id in output.num_scheduled_tokens:
            self.slos_blocked.pop(request_id, None)
        became = after(output, self.requests)
        book.counts = became.counts
        book.expected_s = self._slos_ledger.times.expected_s(book.counts)
        book.flight = self._slos_rows.take_off_as(
            became.request_ids,
            became.computed,
            became.total,
            became.gives,
            starts_s + book.expected_s,
        )

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        now_s = self.slos_now_s()
        sampled = model_runner_output.sampled_token_ids
        index = model_runner_output.req_id_to_index
        drafts = scheduler_output.scheduled_spec_decode_tokens
        given = {one: len(sampled[index[one]]) for one in drafts if sampled}
        book = self._slos_books.pop(id(scheduler_output), None)
        late = self._slos_rows.land(book.flight, now_s) if book and book.flight else Late()
        staged = [one for one in self._slos_rows.staged if sampled and one in index]
        tokens_of_staged = {one: list(sampled[index[one]]) for one in staged}
        self._slos_note_drafts(drafts, given)
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(
            scheduler_output, model_runner_output
        )
        if self.connector is not None:
            # Of a request that left meanwhile, the end of its lease says nothing about the pair.
            transfers = self.connector.take_transfers()
            self._slos_ledger.transfers += [
                one for one in transfers if one.request_id in self.requests
            ]
        self._slos_correct(given)
        self._slos_note_stages(tokens_of_staged, now_s)
        ended_s = self.slos_now_s()
        if book is not None:
            self._slos_ledger.ended(book, late, ended_s, at_leisure=self._slos_is_free)
        self._slos_report(ended_s)
        return outputs

    def _slos_note_drafts(self, drafts: dict[str, list[int]], given: dict[str, int]) -> None:
        for request_id, tokens in given.items():
            if request_id in self._slos_rows and tokens:
                class_name = self._slos_rows.terms(request_id).class_name
                self._slos_ledger.drafts.observe(class_name, len(drafts[request_id]), tokens - 1)

    def _slos_correct(self, given: dict[str, int]) -> None:
        """Of those that had drafts, how many tokens came is known only now."""
        for request_id, tokens in given.items():
            request = self.requests.get(request_id)
            if request is not None and request_id in self._slos_rows:
                self._slos_rows.correct(
                    request_id,
                    more=max(0, tokens - 1),
                    computed=request.num_computed_tokens,
                    total=request.num_tokens + request.num_output_placeholders,
                )

    def _slos_note_stages(self, tokens: dict[str, list[int]], now_s: float) -> None:
        for request_id, token_ids in tokens.items():
            if request_id in self._slos_rows:
                ahead = int(self.requests[request_id].num_output_placeholders > 0)
                self._slos_rows.produced(request_id, token_ids, ahead, now_s)

    def _slos_report(self, now_s: float) -> None:
        if self.running and self._slos_ledger.may_wait(now_s):
            return  # another step will tell
        rows = self._slos_rows
        running, waiting = self.get_request_counts()
        standing = Standing(
            running=running,
            waiting=waiting,
            free_kv_blocks=self._slos_free_blocks(),
            queued_prefill_tokens=rows.queued_prefill_tokens,
            adapters=self.slos_adapters,
        )
        prefixes = self._slos_prefixes.take()
        reports = self._slos_ledger.reports(standing, rows.rows, prefixes, now_s)
        if reports and not self._slos_link.report(reports):
            self._slos_prefixes.restate()

    # -- the life of a request ----------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        if exports(request):
            cached_tokens = self.kv_cache_manager.get_computed_blocks(request)[1]
            cut_to_cached(request, cached_tokens, self.hash_block_size)
        super().add_request(request)
        self._slos_listen_at_s = -math.inf  # what was told before it came holds for its first step
        params = request.sampling_params
        terms = terms_in(params.extra_args if params else None)
        blocked = self.slos_must_wait(request)
        computed, shared = (0, 0) if blocked else self._slos_shared.found(request)
        if blocked:
            self.slos_blocked[request.request_id] = request
        row = row_of(
            terms,
            tokens=request.num_tokens,
            computed=computed,
            shared=shared,
            left=min(request.max_tokens, max(1, self.max_model_len - request.num_tokens)),
            came_s=math.inf if blocked else self.slos_now_s(),
            priority=request.priority,
        )
        self._slos_rows.add(request.request_id, request, terms, row, request.priority)
        self._slos_rows.wait(request.request_id, self.slos_now_s())

    def finish_requests(
        self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus
    ) -> list[Request]:
        finished: list[Request] = super().finish_requests(request_ids, finished_status)
        self._slos_report(self.slos_now_s())  # no step may come that could tell of it
        return finished

    def _free_request(self, request: Request, delay_free_blocks: bool = False) -> Any:
        self._slos_ledger.finished.append(request.request_id)
        self._slos_rows.remove(request.request_id)
        self.slos_blocked.pop(request.request_id, None)
        end_compilation(request)
        return super()._free_request(request, delay_free_blocks)

    def _handle_blocked_waiting_request(self, request: Request) -> bool:
        """A grammar that is ready takes what other engines gave of the answer first."""
        waited_for_grammar = request.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        goes_on: bool = super()._handle_blocked_waiting_request(request)
        if waited_for_grammar and goes_on:
            goes_on = self._slos_tell_grammar(request)
        return goes_on

    def _slos_tell_grammar(self, request: Request) -> bool:
        answered = terms_in(request.sampling_params.extra_args).answered_tokens
        known = list(request.prompt_token_ids[-answered:]) if answered else []
        accepts: bool = self.structured_output_manager.accept_tokens(request, known)
        if not accepts:
            self.grammar_compile_error_reqs.add(request.request_id)
        return accepts

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        ahead = request.num_output_placeholders
        super()._preempt_request(request, *args, **kwargs)
        self._slos_ledger.evicted += 1
        lost_tokens = ahead if request.drop_stale_output else 0
        self._slos_rows.evicted(request.request_id, lost_tokens)

    def _update_waiting_for_remote_kv(self, request: Request) -> None:
        if request.request_id in self.failed_recving_kv_req_ids:
            self._slos_ledger.transfers_failed += 1
        super()._update_waiting_for_remote_kv(request)

    def shutdown(self) -> None:
        self._slos_link.close()
        super().shutdown()
