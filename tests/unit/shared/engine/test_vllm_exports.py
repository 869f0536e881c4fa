from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core import kv_cache_utils
from vllm.v1.request import Request

from shared.engine.vllm_exports import cut_to_cached, exports
from shared.kv_transfer.settings import EXPORT_KEY

BLOCK_TOKENS = 4
HASH = get_hash_fn_by_name("sha256")
kv_cache_utils.init_none_hash(HASH)


def request(tokens: int, **transfer: object) -> Request:
    return Request(
        "r1",
        list(range(tokens)),
        SamplingParams(max_tokens=1, extra_args={"kv_transfer_params": transfer}),
        None,
        block_hasher=kv_cache_utils.get_request_block_hasher(BLOCK_TOKENS, HASH),
    )


@given(st.integers(1, 60), st.integers(0, 15))
def test_one_token_beyond_the_cached_ones_is_computed_and_no_more(tokens: int, blocks: int) -> None:
    cached_tokens = min(blocks * BLOCK_TOKENS, (tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS)
    cut = request(tokens)

    cut_to_cached(cut, cached_tokens, BLOCK_TOKENS)

    same = request(cached_tokens + 1)
    assert cut.num_tokens == cut.num_prompt_tokens == cached_tokens + 1
    assert list(cut.all_token_ids) == cut.prompt_token_ids == same.prompt_token_ids
    assert cut.block_hashes == same.block_hashes


def test_only_an_export_is_cut() -> None:
    assert exports(request(8, do_remote_decode=True, **{EXPORT_KEY: True}))
    assert not exports(request(8, do_remote_decode=True))
