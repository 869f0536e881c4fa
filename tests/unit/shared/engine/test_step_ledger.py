import numpy as np
import pytest

from shared.batch_time.table import COUNTS, DECODES, PREFILL
from shared.engine.request_rows import Late
from shared.engine.step_ledger import Share, Standing, StepBook, StepLedger, counts_of
from shared.scheduling.rows import empty, from_wire

IDLE = Standing(running=0, waiting=0, free_kv_blocks=10, queued_prefill_tokens=0)
BUSY = Standing(running=1, waiting=0, free_kv_blocks=9, queued_prefill_tokens=0)


def book(started_at_s: float, expected_s: float = 0.1) -> StepBook:
    counts = np.zeros(COUNTS)
    counts[DECODES] = 1
    return StepBook(started_at_s=started_at_s, counts=counts, expected_s=expected_s)


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

    report = ledger.ended(first, Late(), BUSY, empty(0), now=1.05)

    assert ledger.starts_at_s(1.06) == pytest.approx(1.15)
    assert report is not None
    assert report.busy_s == pytest.approx(0.1)


def test_the_time_of_a_step_runs_from_the_end_of_the_one_before() -> None:
    ledger = StepLedger()
    first, second = book(1.0), book(1.01)
    for one in (first, second):
        ledger.began(one)
    ledger.ended(first, Late(), BUSY, empty(0), now=1.05)

    report = ledger.ended(second, Late(), BUSY, empty(0), now=1.2)

    assert report is not None
    assert report.duration_s == pytest.approx(0.15)
    assert report.predicted_s == 0.1


def test_an_abort_in_the_middle_of_a_step_takes_nothing_off_its_time() -> None:
    ledger = StepLedger()
    running = book(1.0)
    ledger.began(running)
    ledger.finished.append("gone")
    aborted = ledger.ended(None, Late(), IDLE, empty(0), now=1.09)

    report = ledger.ended(running, Late(), IDLE, empty(0), now=1.1)

    assert aborted is not None
    assert aborted.duration_s == 0
    assert aborted.finished == ("gone",)
    assert report is not None
    assert report.duration_s == pytest.approx(0.1)


def test_nothing_new_is_not_reported() -> None:
    ledger = StepLedger()
    assert ledger.ended(None, Late(), IDLE, empty(0), now=1.0) is not None

    assert ledger.ended(None, Late(), IDLE, empty(0), now=1.1) is None


def test_what_happened_is_told_once() -> None:
    ledger = StepLedger()
    ledger.evicted, ledger.transfers_failed = 2, 1
    ledger.drafts.observe("code", 4, 3)
    ledger.drafts.observe("code", 4, 0)
    steps = [book(1.0), book(2.0)]
    for one in steps:
        ledger.began(one)

    told = ledger.ended(steps[0], Late(tokens=2, worst_s=0.5), BUSY, empty(3), now=1.1)
    after = ledger.ended(steps[1], Late(), BUSY, empty(0), now=2.1)

    assert told is not None
    assert after is not None
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

    report = ledger.ended(one, Late(), BUSY, empty(0), now=0.1)

    assert report is not None
    assert (report.decode_tokens, report.prefill_tokens, report.tokens) == (3, 64, 67)
