import pytest
from vllm.config.compilation import CompilationConfig, CUDAGraphMode

from shared.engine.policy_limits import (
    has_full_decode_graphs,
    speculation_limit,
    step_limit,
    worth_a_full_graph,
)
from shared.engines import Policy
from shared.scheduling.terms import Terms


@pytest.mark.parametrize(("asked", "got"), [(0, 512), (64, 64), (4096, 512), (-5, 512), (1, 1)])
def test_a_policy_bounds_a_step_within_the_engine_s_own_limit(asked: int, got: int) -> None:
    assert step_limit(Policy(max_step_tokens=asked), 512) == got


def test_the_class_s_own_bound_on_drafts_goes_before_that_of_all() -> None:
    policy = Policy(speculation_tokens=3, speculation_by_class={"code": 1})

    assert speculation_limit(Terms(class_name="code"), policy) == 1
    assert speculation_limit(Terms(class_name="chat"), policy) == 3
    assert speculation_limit(Terms(), Policy()) is None


@pytest.mark.parametrize(
    ("mode", "full"),
    [
        (CUDAGraphMode.NONE, False),
        (CUDAGraphMode.PIECEWISE, False),
        (CUDAGraphMode.FULL, False),  # one graph for all batches, whatever their lengths
        (CUDAGraphMode.FULL_DECODE_ONLY, True),
        (CUDAGraphMode.FULL_AND_PIECEWISE, True),
    ],
)
def test_vllm_s_graph_modes_with_graphs_of_decodes_alone_are_known(
    mode: CUDAGraphMode, full: bool
) -> None:
    assert has_full_decode_graphs(CompilationConfig(cudagraph_mode=mode)) is full


@pytest.mark.parametrize(
    ("limits", "worth"),
    [([4, 4], True), ([None, 0], True), ([4, 0, 0], False), ([0, 0], False), ([9, 0], True)],
)
def test_all_drafts_are_verified_where_the_lengths_by_class_come_to_half_of_them(
    limits: list[int | None], worth: bool
) -> None:
    assert worth_a_full_graph(limits, 4) is worth


def test_a_step_without_requests_needs_no_graph() -> None:
    assert not worth_a_full_graph([], 4)
