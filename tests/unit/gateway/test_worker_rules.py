import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.config import GatewayOptions
from services.gateway.worker_rules import RestartBudget, portion, refuse_state_of_one_process
from shared.errors import ConfigError
from shared.options import load


@given(limit=st.integers(1, 10**6), workers=st.integers(1, 64))
def test_portions_cover_the_limit_and_exceed_it_by_less_than_one_each(
    limit: int, workers: int
) -> None:
    assert limit <= workers * portion(limit, workers) < limit + workers


@given(times_s=st.lists(st.floats(0, 1000), min_size=1).map(sorted))
def test_no_window_has_more_restarts_than_the_budget(times_s: list[float]) -> None:
    budget = RestartBudget(restarts=3, window_s=60.0)

    taken_s = [at_s for at_s in times_s if budget.take(at_s)]

    assert taken_s
    for end_s in taken_s:
        assert sum(end_s - 60.0 < at_s <= end_s for at_s in taken_s) <= 3


def test_a_budget_that_is_used_up_is_back_after_its_window() -> None:
    budget = RestartBudget(restarts=1, window_s=60.0)

    assert [budget.take(at_s) for at_s in (0.0, 59.0, 60.0)] == [True, False, True]


@pytest.mark.parametrize(
    ("vllm", "environ", "named"),
    [
        ({}, {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        ({}, {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}, "VLLM_ENABLE_RESPONSES_API_STORE"),
        ({"enable-server-load-tracking": True}, {}, "vllm.enable-server-load-tracking"),
    ],
)
def test_state_that_one_worker_would_keep_is_refused_for_several_alone(
    vllm: dict[str, object], environ: dict[str, str], named: str
) -> None:
    refuse_state_of_one_process(1, vllm, environ)

    with pytest.raises(ConfigError, match=f"^{named} needs workers: 1, since [^\n]*$"):
        refuse_state_of_one_process(2, vllm, environ)


def test_settings_that_are_off_are_not_refused() -> None:
    off = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0", "VLLM_ENABLE_RESPONSES_API_STORE": "false"}

    refuse_state_of_one_process(2, {"enable_server_load_tracking": False}, off)


@pytest.mark.parametrize("read", ["0", "65", "two", "1.5"])
def test_a_number_of_workers_out_of_range_is_one_line_that_names_it(read: str) -> None:
    with pytest.raises(ConfigError, match="workers") as error:
        load(GatewayOptions, section="gateway", argv=["--workers", read], environ={}, prog="test")

    assert "\n" not in str(error.value)


def test_bodies_held_at_once_are_divided_among_workers() -> None:
    alone, among_four = GatewayOptions(), GatewayOptions(workers=4)

    assert alone.body_limits().largest_at_once == 4 * among_four.body_limits().largest_at_once
