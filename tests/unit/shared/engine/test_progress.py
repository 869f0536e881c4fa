from hypothesis import given
from hypothesis import strategies as st

from shared.engine.progress import Progress
from shared.ticks import TICK_S
from tests.unit.shared.engine.test_state import make_report


def silent(progress: Progress, seconds: float) -> None:
    for _ in range(round(seconds / TICK_S)):
        progress.tick(holds_work=True)


@given(longest_s=st.floats(0, 20), limit_s=st.floats(2, 20))
def test_a_core_is_stalled_after_its_limit_and_four_of_its_longest_steps(
    longest_s: float, limit_s: float
) -> None:
    progress, ticks = Progress(longest_s=longest_s, limit_s=limit_s), 0
    while not progress.stalled:
        progress.tick(holds_work=True)
        ticks += 1

    least_s = max(limit_s, 4 * longest_s)
    assert least_s <= ticks * TICK_S < least_s + TICK_S + 1e-9


def test_a_core_without_work_may_be_silent_for_ever() -> None:
    progress = Progress()
    for _ in range(10_000):
        progress.tick(holds_work=False)

    assert (progress.silent_s, progress.overdue_s, progress.stalled) == (0, 0, False)


def test_a_core_that_is_busy_gets_five_times_as_long() -> None:
    progress = Progress(limit_s=4.0)
    for _ in range(round(19 / TICK_S)):
        progress.tick(holds_work=True, busy=True)
    slow = progress.stalled

    silent(progress, 0.5)

    assert not slow
    assert progress.stalled


def test_any_sign_starts_the_silence_anew() -> None:
    progress = Progress(limit_s=4.0)
    for _ in range(10):
        silent(progress, 3.5)
        progress.heard()

    assert not progress.stalled
    assert progress.silent_s == 0


def test_a_core_is_overdue_only_beyond_its_longest_step() -> None:
    progress = Progress(longest_s=2.0)
    silent(progress, 2.0)
    within_s = progress.overdue_s

    silent(progress, 2.0)

    assert within_s == 0
    assert progress.overdue_s == 4.0 - 2.0 - TICK_S


def test_a_step_that_takes_longer_than_any_before_makes_the_limit_longer() -> None:
    progress = Progress(longest_s=0.1, limit_s=2.0)
    progress.stepped(make_report(duration_s=1.5, predicted_s=1.0))

    silent(progress, 5.5)

    assert not progress.stalled
    silent(progress, 0.5)
    assert progress.stalled
