from services.evaluation.baselines.vllm import whole_prompts
from shared.batch_time.table import DECODES
from shared.scheduling.shares import EVICT
from tests.unit.evaluation.baselines.steps import decode, prompt, step

VLLM = whole_prompts(2048)


def test_decodes_stall_while_prompts_wait() -> None:
    formed = step(VLLM, decode(), prompt(300), prompt(200), max_tokens=8192)

    assert formed.tokens == [0, 300, 200]
    assert formed.counts[DECODES] == 0


def test_without_prompts_all_requests_decode() -> None:
    assert step(VLLM, decode(), decode(runs=False), decode()).tokens == [1, 1, 1]


def test_prompts_go_together_up_to_the_budget_and_none_is_passed() -> None:
    rows = prompt(1500), prompt(600), prompt(10)

    assert step(VLLM, *rows, max_tokens=8192).tokens == [1500, 0, 0]


def test_a_prompt_longer_than_the_budget_goes_alone() -> None:
    rows = prompt(3000), prompt(10)

    assert step(VLLM, *rows, max_tokens=8192).tokens == [3000, 0]


def test_a_prompt_longer_than_any_step_goes_on_in_the_next() -> None:
    assert step(VLLM, prompt(600), decode()).tokens == [512, 0]
    assert step(VLLM, prompt(600, computed=512, runs=True), decode()).tokens == [88, 0]


def test_decodes_go_on_while_the_first_prompt_has_no_room() -> None:
    formed = step(VLLM, decode(), prompt(160), prompt(16), free_blocks=9)

    assert formed.tokens == [1, 0, 0]


def test_a_hundredth_of_all_blocks_stays_free_when_a_prompt_begins() -> None:
    rows = decode(context=16_000), prompt(1000)  # 1,000 blocks, and 63

    assert step(VLLM, *rows, free_blocks=72, max_tokens=2048).tokens == [1, 0]
    assert step(VLLM, *rows, free_blocks=73, max_tokens=2048).tokens == [0, 1000]


def test_the_last_decode_gives_way_where_kv_runs_out() -> None:
    assert step(VLLM, decode(), decode(), decode(), free_blocks=0).tokens == [1, 1, EVICT]


def test_every_decode_verifies_its_drafts() -> None:
    assert step(VLLM, decode(), decode(), drafts=4).tokens == [5, 5]


def test_no_request_takes_a_place_that_is_not_there() -> None:
    rows = decode(), decode(runs=False), prompt(100)

    assert step(VLLM, *rows, max_resident=1).tokens == [1, 0, 0]
