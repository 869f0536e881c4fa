"""Our scheduler inside vLLM's, without a model: random loads, too little KV, aborts."""

import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from vllm import SamplingParams
from vllm.config.lora import LoRAConfig
from vllm.lora.request import LoRARequest
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from services.bench.scheduler_cost import BLOCK_TOKENS, make_scheduler, scheduler_config
from services.planner.state.prefix_index import PrefixIndex
from shared.batch_time import ADDITIVE, Step, fit_curve, to_plain
from shared.engine.carried_terms import TERMS_KEY
from shared.engine.config import EngineOptions
from shared.engine.environment import engine_environment
from shared.engine.link import Instructions
from shared.engine.vllm_prefixes import number_of
from shared.engine.vllm_scheduler import SlosScheduler
from shared.engines import Policy, StepReport, prefix_span_tokens
from shared.models.tiny import make_tiny_model
from shared.requests import PromptHashes
from shared.scheduling.rows import COMPUTED, DEADLINE, RESIDENT, SHARED, TOTAL, TPOT
from shared.scheduling.terms import StageTerms, Terms, terms_as_plain
from tests.unit.planner.builders import make_engine

pytestmark = pytest.mark.engines
MODEL_LEN = 256
SPAN_TOKENS = prefix_span_tokens(BLOCK_TOKENS)


@dataclass(slots=True)
class Load:
    """A scheduler, its requests and their tokens; a step is always in flight."""

    scheduler: Any
    chance: random.Random
    wanted: dict[str, int] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    flying: Any = None
    hasher: Any = None

    def ask(
        self,
        terms: Terms,
        prompt_tokens: int,
        output_tokens: int,
        prompt: list[int] | None = None,
        *,
        fetched: bool = False,
        adapter: int = 0,
    ) -> str:
        """Args:
        adapter: the number of its LoRA adapter; 0: none.
        fetched: its KV would come from elsewhere, had the scheduler a connector.
        """
        name = f"r{len(self.wanted)}"
        params = SamplingParams(temperature=0, max_tokens=output_tokens, ignore_eos=True)
        params.extra_args = {TERMS_KEY: terms_as_plain(terms)}
        if fetched:
            params.extra_args["kv_transfer_params"] = {"do_remote_prefill": True}
        prompt = prompt or [self.chance.randrange(100, 200) for _ in range(prompt_tokens)]
        self.scheduler.add_request(
            Request(
                request_id=name,
                prompt_token_ids=prompt,
                sampling_params=params,
                pooling_params=None,
                block_hasher=self.hasher,
                lora_request=LoRARequest(f"a{adapter}", adapter, "/a") if adapter else None,
            )
        )
        self.wanted[name], self.given[name] = output_tokens, 0
        return name

    def step(self) -> int:
        """How many tokens were scheduled. The one before is taken in after it is formed."""
        output = self.scheduler.schedule()
        self.check_rows()
        if self.flying is not None:
            self.take_in(self.flying)
            self.check_rows()
        self.flying = output if output.total_num_scheduled_tokens else None
        return int(output.total_num_scheduled_tokens)

    def take_in(self, output: Any) -> None:
        names = list(output.num_scheduled_tokens)
        requests = self.scheduler.requests
        ready = [
            name in requests and not self.is_mid_prompt(requests[name], output) for name in names
        ]
        result = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: place for place, name in enumerate(names)},
            sampled_token_ids=[[7] if one else [] for one in ready],
        )
        for outputs in self.scheduler.update_from_output(output, result).values():
            for one in outputs.outputs:
                self.given[one.request_id] += len(one.new_token_ids)

    @staticmethod
    def is_mid_prompt(request: Request, output: Any) -> bool:
        """Whether the step ends before the last token that is known of this request."""
        cached = output.scheduled_cached_reqs
        starts = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        starts |= {one.req_id: one.num_computed_tokens for one in output.scheduled_new_reqs}
        name = request.request_id
        ended_at = starts[name] + output.num_scheduled_tokens[name]
        return bool(ended_at < request.num_tokens)

    def check_rows(self) -> None:
        """Checks that every row agrees with vLLM's request."""
        if not isinstance(self.scheduler, SlosScheduler):
            return
        rows = self.scheduler._slos_rows
        for name, request in self.scheduler.requests.items():
            if request.is_finished():
                continue
            row = rows.row(name)
            waits = request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)
            if not (waits and self.hasher):  # it may count on what is cached
                assert row[COMPUTED] == request.num_computed_tokens, name
            assert row[RESIDENT] == (request.status == RequestStatus.RUNNING), name
            if not request.num_stale_output_tokens:
                assert row[TOTAL] == request.num_tokens + request.num_output_placeholders, name
        assert len(rows._seats) == len(self.scheduler.requests)

    def run_dry(self, most_steps: int = 3000) -> None:
        for _ in range(most_steps):
            if not self.scheduler.requests:
                return
            self.step()
        raise AssertionError(f"left: {[*self.scheduler.requests]}")


@dataclass(slots=True)
class VirtualClock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_model(tmp_path_factory.mktemp("model")))


@contextmanager
def load(
    model: str,
    *,
    requests: int,
    blocks: int,
    seed: int = 1,
    prefix_caching: bool = False,
    kind: Any = SlosScheduler,
) -> Iterator[Load]:
    environment = patch.dict(os.environ, engine_environment(EngineOptions(), cpu=True))
    with environment, tempfile.TemporaryDirectory() as folder:
        config = scheduler_config(
            model, Path(folder), requests, MODEL_LEN, blocks, prefix_caching=prefix_caching
        )
        scheduler = make_scheduler(kind, config)
        steps = [Step(decodes=k).with_chunk(c) for k in (1, 4, 16) for c in (0, 16, 64)]
        fit = fit_curve(ADDITIVE, steps, [1e-3 + 1e-6 * one.tokens for one in steps])
        if kind is SlosScheduler:
            scheduler._slos_ledger.times.start_from(to_plain(fit))
        loaded = Load(scheduler, random.Random(seed))
        if prefix_caching:
            init_none_hash(sha256)
            loaded.hasher = get_request_block_hasher(BLOCK_TOKENS, sha256)
        yield loaded
        scheduler.shutdown()


def some_terms(chance: random.Random, now_s: float) -> Terms:
    kind = chance.random()
    if kind < 0.4:
        return Terms()
    return Terms(
        best_effort=kind < 0.6,
        first_token_due_s=now_s + chance.choice((0.01, 1.0, 100.0)),
        tpot_s=chance.choice((0.001, 0.05, 1.0)),
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("blocks", [20, 60, 400])
def test_every_request_gets_all_its_tokens_whatever_the_memory(
    model: str, seed: int, blocks: int
) -> None:
    with load(model, requests=8, blocks=blocks, seed=seed) as one:
        chance = one.chance
        for _ in range(40):
            for _ in range(chance.randrange(3)):
                terms = some_terms(chance, now_s=now())
                one.ask(terms, chance.randrange(1, 120), chance.randrange(1, 40))
            for _ in range(chance.randrange(4)):
                one.step()
        one.run_dry()

    assert one.given == one.wanted


@pytest.mark.parametrize("blocks", [30, 400])
def test_without_any_targets_every_step_is_stock_vllms(model: str, blocks: int) -> None:
    steps: list[list[dict[str, int]]] = []
    for kind in (AsyncScheduler, SlosScheduler):
        with load(model, requests=8, blocks=blocks, kind=kind) as one:
            steps.append([])
            for _ in range(150):
                for _ in range(one.chance.randrange(2)):
                    one.ask(Terms(), one.chance.randrange(1, 120), one.chance.randrange(1, 40))
                one.step()
                steps[-1].append(one.flying.num_scheduled_tokens if one.flying else {})

    assert sum(map(len, steps[0])) > 500
    assert steps[0] == steps[1]


def test_a_promise_among_many_that_asked_for_nothing_is_kept_and_then_they_go_on(
    model: str,
) -> None:
    with load(model, requests=4, blocks=200) as one:
        for _ in range(8):
            one.ask(Terms(), 60, 20)
        for _ in range(5):
            one.step()
        assert one.scheduler._slos_is_free
        promise = Terms(first_token_due_s=now() + 50, tpot_s=10.0)
        urgent = one.ask(promise, 50, 3)
        one.step()
        assert not one.scheduler._slos_is_free
        one.run_dry()

        assert one.scheduler._slos_is_free
    assert one.given[urgent] == 3
    assert one.given == one.wanted


@pytest.mark.parametrize("step_s", [1e-4, 1e-3, 0.02, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_no_more_adapters_run_at_once_than_vllm_can_hold(
    model: str, seed: int, step_s: float
) -> None:
    with load(model, requests=8, blocks=60, seed=seed) as one:
        clock = VirtualClock()
        one.scheduler.slos_now_s = clock
        one.scheduler.lora_config = LoRAConfig(max_loras=2)
        chance = one.chance
        for _ in range(60):
            terms = some_terms(chance, now_s=clock())
            adapter = chance.randrange(5)
            one.ask(terms, chance.randrange(1, 120), chance.randrange(1, 30), adapter=adapter)
            clock.now_s += step_s * chance.random()
            one.step()
            running = {r.lora_request.lora_int_id for r in one.scheduler.running if r.lora_request}
            assert len(running) <= 2
            asked = {
                r.lora_request.lora_int_id
                for r in one.scheduler.requests.values()
                if r.lora_request
            }
            assert set(one.scheduler.slos_adapters) == asked
        for _ in range(600):
            clock.now_s += step_s * chance.random()
            one.step()

    assert one.given == one.wanted


def test_an_abort_leaves_no_row_behind(model: str) -> None:
    with load(model, requests=4, blocks=100) as one:
        names = [one.ask(Terms(), 50, 30) for _ in range(8)]
        for _ in range(5):
            one.step()
        one.scheduler.finish_requests(names[::2], RequestStatus.FINISHED_ABORTED)
        one.run_dry()

        assert len(one.scheduler._slos_rows.rows) == 0
    assert all(one.given[name] == 30 for name in names[1::2])


def begin_best_effort(one: Load) -> str:
    """A request that decodes and holds most of nine blocks."""
    loose = Terms(best_effort=True, first_token_due_s=now() + 100, tpot_s=10.0)
    patient = one.ask(loose, 6 * BLOCK_TOKENS, 20)
    for _ in range(4):
        one.step()
    assert one.given[patient] > 0
    return patient


def test_best_effort_is_preempted_for_a_promise_and_resumes(model: str) -> None:
    blocks = 9  # eight of them to give: one of these requests with its answer, and a little
    with load(model, requests=4, blocks=blocks) as one:
        patient = begin_best_effort(one)
        promise = Terms(first_token_due_s=now() + 50, tpot_s=10.0)
        urgent = one.ask(promise, 5 * BLOCK_TOKENS, 4)
        before = one.given[patient]
        steps = 0
        while one.given[urgent] < 4:
            one.step()
            steps += 1

        assert steps <= 7
        assert one.given[patient] <= before + 1  # the one in the step that ran
        one.run_dry()
    assert one.given[patient] == 20


def test_best_effort_is_preempted_for_promised_kv_that_waits_elsewhere(model: str) -> None:
    with load(model, requests=4, blocks=9) as one:
        patient = begin_best_effort(one)
        promise = Terms(first_token_due_s=now() + 50, tpot_s=10.0)
        urgent = one.ask(promise, 5 * BLOCK_TOKENS, 4, fetched=True)
        before = one.given[patient]
        for _ in range(4):
            one.step()

        assert one.scheduler.requests[urgent].status == RequestStatus.RUNNING
        assert one.given[patient] <= before + 1  # the one in the step that ran
        one.run_dry()
    assert one.given == one.wanted


@dataclass(slots=True)
class OnePolicy:
    """What comes over the link: one policy, then nothing new."""

    policy: Policy | None

    def news(self) -> Instructions | None:
        told, self.policy = self.policy, None
        return Instructions(policy=told) if told else None


@pytest.mark.parametrize("kept_blocks", [0, 8])
def test_best_effort_leaves_blocks_that_are_reserved_for_sessions(
    model: str, kept_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = list(range(100, 200))
    with load(model, requests=4, blocks=20, prefix_caching=True) as one:
        told = OnePolicy(Policy(kept_blocks=kept_blocks))
        monkeypatch.setattr(one.scheduler._slos_link, "news", told.news)
        promise = Terms(first_token_due_s=now() + 50, tpot_s=10.0)
        one.ask(promise, 100, 2, prompt)
        one.run_dry()
        one.ask(promise, BLOCK_TOKENS, 60)  # while promised ones are there
        one.ask(Terms(best_effort=True), 12 * BLOCK_TOKENS - 1, 10)
        for _ in range(10):
            one.step()
        again = one.ask(promise, 100, 2, prompt)

        found = one.scheduler._slos_rows.row(again)[COMPUTED]
        assert found == 6 * BLOCK_TOKENS if kept_blocks else found < 6 * BLOCK_TOKENS
        one.scheduler.finish_requests(again, RequestStatus.FINISHED_ABORTED)
        del one.wanted[again], one.given[again]
        one.run_dry()
    assert one.given == one.wanted


def test_what_is_cached_of_a_prompt_counts_as_computed(model: str) -> None:
    prompt = list(range(100, 200))
    with load(model, requests=2, blocks=60, prefix_caching=True) as one:
        one.ask(Terms(), 100, 2, prompt)
        one.run_dry()
        again = one.ask(Terms(), 100, 2, prompt)

        assert one.scheduler._slos_rows.row(again)[COMPUTED] == 6 * BLOCK_TOKENS
        assert one.step() == 100 - 6 * BLOCK_TOKENS
        one.run_dry()
    assert one.given == one.wanted


def test_the_token_that_ends_a_stage_changes_the_pace(model: str) -> None:
    stages = (StageTerms(tpot_s=5.0, end_token_ids=(7,)), StageTerms(tpot_s=2.0))
    with load(model, requests=2, blocks=100) as one:
        name = one.ask(Terms(first_token_due_s=now() + 50, stages=stages), 50, 8)
        began_s = now()
        one.step()
        assert one.scheduler._slos_rows.row(name)[TPOT] == 5.0
        one.step()  # what the first step gave, a 7, is taken in

        row = one.scheduler._slos_rows.row(name)
        assert row[TPOT] == 2.0
        assert began_s + 4.0 <= row[DEADLINE] <= now() + 4.0
        one.run_dry()


def test_a_promise_goes_before_what_asked_for_nothing(model: str) -> None:
    with load(model, requests=1, blocks=100) as one:
        one.ask(Terms(), 50, 2)
        one.ask(Terms(), 50, 2)
        last = one.ask(Terms(first_token_due_s=now() + 50), 50, 2)
        for _ in range(4):
            one.step()

        assert one.given[last] == 2


def now() -> float:
    return time.monotonic()  # noqa: TID251 - the scheduler's clock


@pytest.mark.parametrize(
    ("blocks", "lost"), [(40, 0.0), (400, 0.0), (40, 0.5), (400, 0.5)], ids=str
)
def test_what_is_told_of_the_prefix_cache_is_what_vllm_finds_there(
    model: str, blocks: int, lost: float
) -> None:
    """`lost`: the share of reports that find the pipe to the host full."""
    with load(model, requests=8, blocks=blocks, prefix_caching=True) as one:
        engine = make_engine(block_size_tokens=BLOCK_TOKENS, prefix_span_tokens=SPAN_TOKENS)
        index, send = PrefixIndex(), one.scheduler._slos_link.report
        dropped = 0

        def hear(reports: list[StepReport]) -> bool:
            nonlocal dropped
            if loses and one.chance.random() < lost:
                dropped += 1
                return False
            for report in reports:
                index.hear(engine, report.prefixes)
            return bool(send(reports))

        one.scheduler._slos_link.report, loses = hear, True
        prompts = [[1 + one.chance.randrange(2)] * one.chance.randrange(1, 230) for _ in range(30)]
        for prompt in prompts:
            one.ask(some_terms(one.chance, now_s=now()), 0, one.chance.randrange(1, 20), prompt)
            for _ in range(one.chance.randrange(6)):
                one.step()
        one.run_dry()
        loses = False
        one.ask(Terms(), 0, 1, [300])  # too short to be cached
        one.run_dry()
        one.step()

        hits = [hit_tokens(one, prompt) for prompt in prompts]
        told = [index.found(hashes_of(one, prompt)).get(engine.name, 0) for prompt in prompts]

    assert told == [hit - hit % SPAN_TOKENS for hit in hits]
    assert (dropped > 0) == (lost > 0)
    assert max(told) > 0


def test_requests_with_a_common_prefix_run_at_once_where_vllm_has_room_for_them(model: str) -> None:
    """Eight prompts with eight blocks in common and one of their own, and twenty blocks in all."""
    terms = Terms(first_token_due_s=now() + 1000.0, tpot_s=1000.0)
    prefix = [7] * (8 * BLOCK_TOKENS)
    most_running = {}
    for kind in (AsyncScheduler, SlosScheduler):
        with load(model, requests=8, blocks=20, prefix_caching=True, kind=kind) as one:
            one.ask(terms, 0, 12, [*prefix, *[1] * 3])
            for _ in range(3):
                one.step()
            for own in range(2, 9):
                one.ask(terms, 0, 12, [*prefix, *[own] * 3])
            running = []
            while one.step() or one.flying:
                running.append(len(one.scheduler.running))
            most_running[kind] = max(running)
            assert one.given == one.wanted

    assert most_running == {AsyncScheduler: 8, SlosScheduler: 8}


def test_rows_tell_which_of_their_tokens_are_in_blocks_that_others_hold_as_well(
    model: str,
) -> None:
    terms = Terms(first_token_due_s=now() + 1000.0, tpot_s=1000.0)
    with load(model, requests=8, blocks=100, prefix_caching=True) as one:
        first = one.ask(terms, 0, 200, [7] * (4 * BLOCK_TOKENS + 1))
        for _ in range(3):
            one.step()
        second = one.ask(terms, 0, 4, [7] * (2 * BLOCK_TOKENS) + [8] * BLOCK_TOKENS)
        rows = one.scheduler._slos_rows
        waiting = rows.row(second)[SHARED]
        for _ in range(3):
            one.step()
        running = rows.row(first)[SHARED], rows.row(second)[SHARED]
        while second in one.scheduler.requests:
            one.step()
        for _ in range(3):
            one.step()
        alone = rows.row(first)[SHARED]

    assert waiting == 2 * BLOCK_TOKENS
    assert running == (2 * BLOCK_TOKENS, 2 * BLOCK_TOKENS)
    assert alone == 0


def hit_tokens(one: Load, prompt: list[int]) -> int:
    """What vLLM would find of it, were it longer by a token."""
    longer = probe(one, [*prompt, 1])
    return int(one.scheduler.kv_cache_manager.get_computed_blocks(longer)[1])


def hashes_of(one: Load, prompt: list[int]) -> PromptHashes:
    each = SPAN_TOKENS // BLOCK_TOKENS
    hashes = probe(one, prompt).block_hashes[each - 1 :: each]
    return PromptHashes(
        span_tokens=SPAN_TOKENS, hashes=tuple(number_of(block_hash) for block_hash in hashes)
    )


def probe(one: Load, prompt: list[int]) -> Request:
    return Request(
        request_id="probe",
        prompt_token_ids=prompt,
        sampling_params=SamplingParams(max_tokens=1),
        pooling_params=None,
        block_hasher=one.hasher,
    )
