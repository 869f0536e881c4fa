import pytest

from services.planner.state.idle_sessions import IdleSessions
from tests.unit.planner.builders import make_engine

D0 = make_engine("d0", block_size_tokens=16)


def rest(resting: IdleSessions, session: str = "s", *, tokens: int = 100, now: float = 0.0) -> None:
    resting.begin(session, "d0", class_name="agent", tokens=tokens, now=now)


def come_back(resting: IdleSessions, after_s: float, times: int = 100) -> None:
    """Sessions of the class rest for so long."""
    for number in range(times):
        rest(resting, f"before-{number}")
        resting.end(f"before-{number}", "d0", after_s)


def test_what_rests_counts_in_whole_blocks_until_it_comes_back() -> None:
    resting = IdleSessions()
    rest(resting, "a", tokens=100)
    rest(resting, "b", tokens=16)

    assert resting.blocks(D0, 0.5) == 7 + 1
    resting.end("a", "d0", 0.5)
    assert resting.blocks(D0, 0.5) == 1
    assert resting.blocks(make_engine("d1"), 0.5) == 0


def test_the_last_round_of_a_session_is_what_counts() -> None:
    resting = IdleSessions()
    rest(resting, tokens=100)
    rest(resting, tokens=200, now=1.0)

    assert resting.blocks(D0, 1.0) == 13


@pytest.mark.parametrize("gap_s", [0.2, 1.0, 4.0])
def test_a_session_is_waited_for_three_times_as_long_as_others_of_its_class_took(
    gap_s: float,
) -> None:
    resting = IdleSessions()
    come_back(resting, gap_s)
    rest(resting, now=100.0)

    assert resting.blocks(D0, 100.0 + 2.9 * gap_s) == 7
    assert resting.blocks(D0, 100.0 + 3.1 * gap_s) == 0


def test_nothing_is_kept_for_sessions_whose_users_think_for_long() -> None:
    resting = IdleSessions()
    come_back(resting, 60.0)
    rest(resting, now=100.0)

    assert resting.blocks(D0, 100.0) == 0


def test_long_gaps_are_learned_of_engines_that_are_looked_at_meanwhile() -> None:
    resting = IdleSessions()
    for number in range(100):
        rest(resting, f"before-{number}")
        resting.blocks(D0, 30.0)
        resting.end(f"before-{number}", "d0", 60.0)
    rest(resting, now=100.0)

    assert resting.blocks(D0, 100.0) == 0


def test_a_class_whose_sessions_come_sooner_again_is_waited_for_again() -> None:
    resting = IdleSessions()
    come_back(resting, 60.0)
    come_back(resting, 0.5)
    rest(resting, now=100.0)

    assert resting.blocks(D0, 100.0) == 7


def test_with_an_engine_goes_what_rested_there() -> None:
    resting = IdleSessions()
    rest(resting)

    resting.lost("d0")

    assert resting.blocks(D0, 0.0) == 0


def test_only_so_many_sessions_are_kept() -> None:
    resting = IdleSessions()
    for number in range(20_000):
        rest(resting, f"s{number}", tokens=16)

    assert resting.blocks(D0, 0.0) == 16_384
