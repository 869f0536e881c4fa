import pytest

from shared.engine.policy_limits import speculation_limit, step_limit
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
