"""What is learned of KV on its way is when it is there to be used, and how fast each link is."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.estimators.kv_speed import Line
from services.planner.estimators.transfers import Transfers
from shared.engines import KV_USED, KvTransfer
from shared.requests import (
    Admission,
    EngineRef,
    Explanation,
    Outcome,
    Placement,
    Reason,
)
from tests.unit.planner.builders import make_query

FORESEEN_S = 0.02
FORESEEN = Line(fixed_s=FORESEEN_S)
BYTES = 1_000_000


def explained(*, moved: bool = True) -> Explanation:
    start = EngineRef(name="p0", engine_id="p0-first", address="b")
    placement = Placement(
        decision_id="d",
        admission=Admission.ADMITTED,
        reason=Reason.NONE,
        prefill=start if moved else None,
        decode=EngineRef(name="d0", engine_id="d0-first", address="a"),
    )
    return Explanation(query=make_query(), placement=placement, decided_at_epoch_s=0.0, ways=())


def outcome(*, transfer_s: float, step_s: float, tokens: int) -> Outcome:
    """The first token of the second engine comes after `transfer_s`, the others `step_s` apart."""
    tpot_s = (transfer_s + (tokens - 2) * step_s) / (tokens - 1)
    return Outcome(
        decision_id="d",
        request_id="r",
        finished="stop",
        output_tokens=tokens,
        tpot_s=tpot_s,
        transfer_s=transfer_s,
    )


def after(*, seen_s: Sequence[float], transfer_s: float = 0.25, lost: bool = False) -> Transfers:
    """Transfers that ended at these times, each with a step of 50 ms behind it."""
    transfers = Transfers(FORESEEN)
    for now in seen_s:
        ended = replace(outcome(transfer_s=transfer_s, step_s=0.05, tokens=9), recomputed=lost)
        transfers.learn(explained(), ended, BYTES, now)
    return transfers


@pytest.mark.parametrize("tokens", [3, 10, 200])
def test_the_step_that_first_uses_it_is_no_part_of_its_way(tokens: int) -> None:
    transfers = Transfers(FORESEEN)
    for _ in range(1000):
        transfers.learn(
            explained(), outcome(transfer_s=0.25, step_s=0.05, tokens=tokens), BYTES, 0.0
        )

    assert transfers.link("p0", "d0", 0.0).likely_s(BYTES) == pytest.approx(0.2, rel=0.1)
    assert transfers.link("p0", "d1", 0.0).likely_s(BYTES) == FORESEEN_S


def test_what_stays_on_one_engine_teaches_nothing() -> None:
    transfers = Transfers(FORESEEN)

    transfers.learn(
        explained(moved=False), outcome(transfer_s=0.25, step_s=0.05, tokens=9), BYTES, 0.0
    )

    assert transfers.link("p0", "d0", 0.0).likely_s(BYTES) == FORESEEN_S


def test_the_more_transfers_were_slow_the_more_of_it_is_believed() -> None:
    likely_s = [
        after(seen_s=[0.0] * times).link("p0", "d0", 0.0).likely_s(BYTES) for times in range(4)
    ]

    assert likely_s[0] == FORESEEN_S
    assert likely_s[1] == pytest.approx(FORESEEN_S + 0.18 / 2)
    assert likely_s == sorted(set(likely_s))


@pytest.mark.parametrize("times", [1, 20])
def test_the_delay_of_an_unused_pair_decays(times: int) -> None:
    slow = after(seen_s=[0.0] * times, transfer_s=5.0)

    likely_s = [slow.link("p0", "d0", now).likely_s(BYTES) for now in (0.0, 60.0, 120.0, 1e6)]

    assert likely_s == sorted(likely_s, reverse=True)
    assert likely_s[-1] == pytest.approx(FORESEEN_S)


def test_kv_that_got_lost_is_forgiven_as_well() -> None:
    losing = after(seen_s=[0.0, 0.0, 0.0], lost=True)

    shares = [losing.recomputed_share("p0", "d0", now) for now in (0.0, 60.0, 1e6)]

    assert shares == pytest.approx([3 / 4, 1.5 / 2.5, 0.0])
    assert losing.link("p0", "d0", 0.0).likely_s(BYTES) == FORESEEN_S


MB = 1_000_000
TOLD = Line(fixed_s=0.005, s_per_byte=1 / (500 * MB))


def moved(
    *, request_id: str = "r", transport: str = "zmq", size: int, seconds: float
) -> KvTransfer:
    return KvTransfer(
        request_id=request_id,
        peer_engine_id="p0-first",
        transport=transport,
        bytes=size,
        seconds=seconds,
        outcome=KV_USED,
    )


def told_of(
    transfers: Transfers, link: Line, sizes: Sequence[int], transport: str = "zmq"
) -> Transfers:
    """Transfers of these sizes over such a link from p0 to d0, all at time 0."""
    for size in sizes:
        one = moved(transport=transport, size=size, seconds=link.seconds(size))
        transfers.report("p0", "d0", one, 0.0)
    return transfers


links = st.builds(Line, fixed_s=st.floats(1e-3, 0.1), s_per_byte=st.floats(1e-10, 1e-7))


@given(links, st.integers(0, 200 * MB))
def test_a_link_that_is_as_it_was_told_stays_so(link: Line, size: int) -> None:
    transfers = told_of(Transfers(link), link, [MB, 10 * MB, size])

    assert transfers.link("p0", "d0", 0.0).likely_s(size) == pytest.approx(link.seconds(size))


@given(links)
def test_speed_is_learned_by_size(link: Line) -> None:
    """Small transfers say what is fixed, large ones what a byte takes; sizes between follow."""
    transfers = told_of(Transfers(TOLD), link, [10_000, 400 * MB] * 50)

    for size in (10_000, 400 * MB):
        within = (TOLD.seconds(size) - link.seconds(size)) / 5
        error_s = transfers.link("p0", "d0", 0.0).likely_s(size) - link.seconds(size)
        assert abs(error_s) <= abs(within) + 0.1 * TOLD.seconds(size)


def test_each_transport_of_a_pair_has_a_speed_of_its_own() -> None:
    fast, slow = Line(fixed_s=0.001, s_per_byte=1e-10), Line(fixed_s=0.05, s_per_byte=1e-8)
    transfers = told_of(Transfers(TOLD), fast, [10 * MB] * 20, transport="nixl")
    told_of(transfers, slow, [10 * MB] * 20, transport="zmq")

    likely_s = {
        one: transfers.link("p0", "d0", 0.0, (one,)).likely_s(10 * MB) for one in ("nixl", "zmq")
    }

    assert likely_s["nixl"] < TOLD.seconds(10 * MB) < likely_s["zmq"]
    assert transfers.link("p0", "d0", 0.0).likely_s(10 * MB) == likely_s["zmq"]  # the last one used


def test_a_pair_that_was_not_seen_is_taken_to_be_as_its_transport_is_elsewhere() -> None:
    slow = Line(fixed_s=0.05, s_per_byte=1e-8)
    transfers = told_of(Transfers(TOLD), slow, [10 * MB] * 20, transport="zmq")

    other_s = transfers.link("p1", "d1", 0.0, ("zmq",)).likely_s(10 * MB)

    assert TOLD.seconds(10 * MB) < other_s <= transfers.link("p0", "d0", 0.0).likely_s(10 * MB)
    assert transfers.link("p1", "d1", 0.0, ("nixl",)).likely_s(10 * MB) == TOLD.seconds(10 * MB)


@pytest.mark.parametrize("times", [1, 20])
def test_a_speed_that_is_not_seen_again_fades(times: int) -> None:
    slow = told_of(Transfers(TOLD), Line(fixed_s=5.0), [10 * MB] * times)

    likely_s = [slow.link("p0", "d0", now).likely_s(10 * MB) for now in (0.0, 60.0, 120.0, 1e6)]

    assert likely_s == sorted(likely_s, reverse=True)
    assert likely_s[-1] == pytest.approx(TOLD.seconds(10 * MB))


def test_what_the_engine_reported_is_not_counted_again_as_delay() -> None:
    """The gateway saw 0.25 s and a step of 0.05 s; 0.15 s of that were the transfer."""
    transfers = Transfers(FORESEEN)
    for number in range(1000):
        transfers.report("p0", "d0", moved(request_id=str(number), size=BYTES, seconds=0.15), 0.0)
        ended = replace(outcome(transfer_s=0.25, step_s=0.05, tokens=9), request_id=str(number))
        transfers.learn(explained(), ended, BYTES, 0.0)

    assert transfers.link("p0", "d0", 0.0).likely_s(BYTES) == pytest.approx(0.2, rel=0.1)


def test_kv_that_was_not_used_counts_once_as_lost() -> None:
    """The engine tells of it, and the gateway does."""
    transfers = Transfers(TOLD)
    for number in range(3):
        lost = replace(moved(request_id=str(number), size=0, seconds=1.0), outcome="expired")
        transfers.report("p0", "d0", lost, 0.0)
        ended = replace(outcome(transfer_s=0.25, step_s=0.05, tokens=9), recomputed=True)
        transfers.learn(explained(), replace(ended, request_id=str(number)), MB, 0.0)

    assert transfers.recomputed_share("p0", "d0", 0.0) == pytest.approx(3 / 4)
    assert transfers.link("p0", "d0", 0.0).likely_s(MB) == TOLD.seconds(MB)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.booleans(), st.floats(0, 60)), max_size=6)
)
def test_asking_for_a_link_does_not_change_what_is_said_of_it_later(
    seen: list[tuple[bool, float, bool, float]],
) -> None:
    asked, unasked, now = Transfers(FORESEEN), Transfers(FORESEEN), 0.0
    for reported, seconds, lost, later_s in seen:
        for transfers in (asked, unasked):
            if reported:
                told = moved(size=BYTES, seconds=seconds)
                told = replace(told, outcome="expired" if lost else KV_USED)
                transfers.report("p0", "d0", told, now)
            else:
                ended = replace(outcome(transfer_s=seconds, step_s=0.05, tokens=9), recomputed=lost)
                transfers.learn(explained(), ended, BYTES, now)
        asked.link("p0", "d0", now)
        now += later_s
        asked.link("p0", "d0", now)

    assert asked.link("p0", "d0", now) == unasked.link("p0", "d0", now)
