import pytest

from shared.engine.attainment import Attainment, Kind, Target
from shared.engine.standalone import Slo

CHAT = Slo(class_name="chat", ttft_s=0.5, tpot_s=0.1)


def taken(slo: Slo = CHAT, kind: Kind = Kind.SLO) -> Attainment:
    attainment = Attainment()
    attainment.take("a", slo, kind, arrived_s=10.0)
    return attainment


@pytest.mark.parametrize(("first_s", "met"), [(10.5, True), (10.6, False)])
def test_ttft_is_judged_at_the_first_token(first_s: float, met: bool) -> None:
    attainment = taken()

    attainment.give("a", 0, 10.1)
    attainment.give("a", 1, first_s)
    attainment.give("a", 1, 99.0)

    assert attainment.judged == {("chat", Target.TTFT, met): 1}


@pytest.mark.parametrize(("last_s", "met"), [(10.7, True), (10.8, False)])
def test_tpot_is_the_mean_time_per_token_after_the_first(last_s: float, met: bool) -> None:
    attainment = taken(Slo(class_name="chat", tpot_s=0.1))

    attainment.give("a", 1, 10.4375)
    attainment.give("a", 2, last_s)
    attainment.give("a", 1, last_s)
    attainment.end("a", last_s)

    assert attainment.judged == {("chat", Target.TPOT, met): 1}


def test_an_answer_of_one_token_has_no_tpot() -> None:
    attainment = taken()

    attainment.give("a", 1, 10.1)
    attainment.end("a", 10.1)

    assert attainment.judged == {("chat", Target.TTFT, True): 1}


@pytest.mark.parametrize(("end_s", "judged"), [(10.4, 0), (10.6, 1)])
def test_a_request_that_leaves_without_a_token_has_missed_only_what_was_due(
    end_s: float, judged: int
) -> None:
    attainment = taken()

    attainment.end("a", end_s)

    assert attainment.judged[("chat", Target.TTFT, False)] == judged
    assert attainment.judged.total() == judged


def test_an_end_is_counted_once() -> None:
    attainment = taken()
    attainment.give("a", 3, 10.1)
    attainment.end("a", 10.2)
    before = attainment.judged.copy()

    attainment.end("a", 99.0)

    assert attainment.judged == before


def test_what_has_no_slo_is_counted_and_not_judged() -> None:
    attainment = taken(Slo(), Kind.NO_SLO)

    attainment.give("a", 5, 99.0)
    attainment.end("a", 99.0)
    attainment.take_invalid()

    assert attainment.judged.total() == 0
    assert attainment.taken == {("default", Kind.NO_SLO): 1, ("default", Kind.INVALID): 1}


def test_the_log_has_a_line_for_each_class() -> None:
    attainment = taken()
    attainment.take("b", CHAT, Kind.SLO, arrived_s=10.0)
    attainment.take("c", Slo(), Kind.NO_SLO, arrived_s=10.0)
    attainment.give("a", 1, 10.1)
    attainment.give("b", 1, 11.0)

    assert attainment.lines() == [
        "class chat: 2 slo; TTFT met by 1 of 2",
        "class default: 1 no_slo",
    ]
