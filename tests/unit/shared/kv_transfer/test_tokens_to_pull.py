from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.kv_transfer.scheduler import tokens_to_pull

REMOTE: dict[str, Any] = {"do_remote_prefill": True, "remote_num_tokens": 40}


def test_a_request_that_continues_pulls_what_the_prefill_engine_holds() -> None:
    assert tokens_to_pull(REMOTE, prompt_tokens=41, local_tokens=0) == 40


def test_what_is_cached_here_is_not_pulled() -> None:
    assert tokens_to_pull(REMOTE, prompt_tokens=41, local_tokens=32) == 8


def test_vllm_decides_when_the_whole_prompt_is_there() -> None:
    assert tokens_to_pull(REMOTE, prompt_tokens=40, local_tokens=0) is None


def test_vllm_decides_for_requests_without_a_transfer() -> None:
    assert tokens_to_pull(None, prompt_tokens=41, local_tokens=0) is None
    assert tokens_to_pull({"do_remote_decode": True}, prompt_tokens=41, local_tokens=0) is None


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 1000))
def test_never_more_than_held_and_never_negative(held: int, prompt: int, local: int) -> None:
    params = {"do_remote_prefill": True, "remote_num_tokens": held}

    pulled = tokens_to_pull(params, prompt_tokens=prompt, local_tokens=local)

    assert pulled is None or 0 <= pulled <= held < prompt
