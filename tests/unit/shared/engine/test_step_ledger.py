import numpy as np
import pytest

from shared.batch_time.table import COUNTS, DECODES, PREFILL
from shared.engine.request_rows import Late
from shared.engine.step_ledger import Share, Standing, StepBook, StepLedger, counts_of
from shared.engines import PrefixNews, StepReport
from shared.scheduling.rows import empty, from_wire

IDLE = Standing(running=0, waiting=0, free_kv_blocks=10, queued_prefill_tokens=0)
LATE = Late()
NOTHING = PrefixNews()
BUSY = Standing(running=1, waiting=0, free_kv_blocks=9, queued_prefill_tokens=0)


def book(started_at_s: float, expected_s: float = 0.1) -> StepBook:
    counts = np.zeros(COUNTS)
    counts[DECODES] = 1
    return StepBook(started_at_s=started_at_s, counts=counts, expected_s=expected_s)


def ended(
    ledger: StepLedger, one: StepBook, now: float, late: Late = LATE, standing: Standing = BUSY
) -> StepReport:
    ledger.ended(one, late, now)
    (report,) = ledger.reports(standing, empty(0), NOTHING, now)
    return report


def test_one_token_that_gives_the_next_is_a_decode_and_anything_else_a_chunk() -> None:
    shares = [
        Share(tokens=3, drafted_tokens=2, earlier_tokens=50, gives=True),
        Share(tokens=16, drafted_tokens=0, earlier_tokens=32, gives=True),
        Share(tokens=1, drafted_tokens=0, earlier_tokens=0, gives=False),
    ]

    step = StepBook(started_at_s=0.0, counts=counts_of(shares)).step

    assert (step.decodes, step.speculated_tokens, step.decode_context_tokens) == (1, 2, 50)
    assert (step.chunks, step.prefill_tokens, step.earlier_tokens) == (2, 17, 32)
    assert step.longest_prompt_tokens == 48


def test_a_step_begins_after_those_that_run_and_guesses_are_put_right() -> None:
    ledger = StepLedger()
    first, second = book(1.0), book(1.01)
    ledger.began(first)
    assert ledger.starts_at_s(1.01) == pytest.approx(1.1)
    ledger.began(second)
    assert ledger.starts_at_s(1.02) == pytest.approx(1.2)

    report = ended(ledger, first, now=1.05)

    assert ledger.starts_at_s(1.06) == pytest.approx(1.15)
    assert report.busy_s == pytest.approx(0.1)


def test_the_time_of_a_step_runs_from_the_end_of_the_one_before() -> None:
    ledger = StepLedger()
    first, second = book(1.0), book(1.01)
    for one in (first, second):
        ledger.began(one)
    ended(ledger, first, now=1.05)

    report = ended(ledger, second, now=1.2)

    assert report.duration_s == pytest.approx(0.15)
    assert report.predicted_s == 0.1


def test_an_abort_in_the_middle_of_a_step_takes_nothing_off_its_time() -> None:
    ledger = StepLedger()
    running = book(1.0)
    ledger.began(running)
    ledger.finished.append("gone")
    (aborted,) = ledger.reports(IDLE, empty(0), NOTHING, now=1.09)

    report = ended(ledger, running, now=1.1, standing=IDLE)

    assert aborted.duration_s == 0
    assert aborted.finished == ("gone",)
    assert report.duration_s == pytest.approx(0.1)


def test_nothing_new_is_not_reported() -> None:
    ledger = StepLedger()
    assert ledger.reports(IDLE, empty(0), NOTHING, now=1.0)

    assert not ledger.reports(IDLE, empty(0), NOTHING, now=1.1)


def test_what_happened_is_told_once() -> None:
    ledger = StepLedger()
    ledger.evicted, ledger.transfers_failed = 2, 1
    ledger.drafts.observe("code", 4, 3)
    ledger.drafts.observe("code", 4, 0)
    steps = [book(1.0), book(2.0)]
    for one in steps:
        ledger.began(one)

    ledger.ended(steps[0], Late(tokens=2, worst_s=0.5), now=1.1)
    (told,) = ledger.reports(BUSY, empty(3), NOTHING, now=1.1)
    after = ended(ledger, steps[1], now=2.1)

    assert (told.evicted, told.kv_transfers_failed, told.late, told.worst_late_s) == (2, 1, 2, 0.5)
    (drafts,) = told.drafts
    assert (drafts.verifications, drafts.drafted_tokens, drafts.accepted_tokens) == (2, 8, 3)
    assert told.accepted_tokens == 3
    assert len(from_wire(told.requests, 0.0)) == 3
    assert (after.evicted, after.kv_transfers_failed, after.late, after.drafts) == (0, 0, 0, ())


def test_the_gain_of_drafts_is_what_a_class_had_accepted_of_late() -> None:
    ledger = StepLedger()
    assert ledger.drafts.gain("code") == 1

    for _ in range(200):
        ledger.drafts.observe("code", 4, 2)

    assert ledger.drafts.gain("code") == pytest.approx(3)
    assert ledger.drafts.gain("chat") == 1


def test_a_report_counts_prompt_tokens_and_decodes_apart() -> None:
    ledger = StepLedger()
    counts = np.zeros(COUNTS)
    counts[DECODES], counts[PREFILL] = 3, 64
    one = StepBook(started_at_s=0.0, counts=counts)
    ledger.began(one)

    report = ended(ledger, one, now=0.1)

    assert (report.decode_tokens, report.prefill_tokens, report.tokens) == (3, 64, 67)


def test_steps_that_wait_to_be_told_are_told_each_and_the_last_has_what_happened_beside() -> None:
    ledger = StepLedger()
    for number in range(3):
        ledger.began(book(1.0 + number))
        ledger.ended(book(1.0 + number), Late(tokens=number), now=1.1 + number)
        ledger.finished.append(f"r{number}")

    told = ledger.reports(BUSY, empty(2), NOTHING, now=3.1)

    assert [one.step for one in told] == [1, 2, 3]
    assert [one.ended_at_s for one in told] == pytest.approx([1.1, 2.1, 3.1])
    assert [one.late for one in told] == [0, 1, 2]
    assert [one.decode_tokens for one in told] == [1, 1, 1]
    assert [one.finished for one in told] == [(), (), ("r0", "r1", "r2")]
    assert [len(from_wire(one.requests, 0.0)) for one in told] == [0, 0, 2]


def test_what_nobody_waits_for_is_told_some_fifty_times_a_second() -> None:
    ledger = StepLedger()
    told_s = []
    for step in range(1000):
        now = 5 + 0.001 * step
        if not ledger.may_wait(now):
            ledger.finished.append("one")
            ledger.reports(BUSY, empty(0), NOTHING, now)
            told_s.append(now)

    assert 45 <= len(told_s) <= 55


def test_a_change_of_the_prefix_cache_is_told_even_where_nothing_else_happened() -> None:
    ledger, news = StepLedger(), PrefixNews(removed=(1,))
    ledger.reports(IDLE, empty(0), NOTHING, now=1.0)

    (report,) = ledger.reports(IDLE, empty(0), news, now=1.1)

    assert report.prefixes == news
