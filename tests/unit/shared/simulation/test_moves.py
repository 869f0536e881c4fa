"""KV on its way between engines, and what becomes of it when one of them dies."""

import pytest

from shared.scheduling.rows import BEST_EFFORT, PROMISED
from shared.simulation.links import Links, transfer_s
from shared.simulation.record import Conditions, Outage, Record
from shared.simulation.request_metrics import EVICTED, FIRST, LAST, MOVED, OUTPUT, TOKENS
from shared.simulation.run import Run
from shared.simulation.system import Route
from tests.unit.shared.simulation.fleet import AT_ONCE, InTurns, call, fleet, hardware, program

_SLOW_LINK = hardware(link_bytes_per_s=1e5, link_latency_s=0.1)  # 1000 tokens take 10 s


def run_split(*outages: Outage) -> tuple[Record, InTurns]:
    """One request through `p0` to `d0`: 0.01 s of prompt, then 1.1 s on the way."""
    load = (program("only", 0.0, call(prompt=100, output=5)),)
    system = InTurns()  # the first request goes through the prefill engine
    conditions = Conditions(network_s=0.0, decision_s=0.0, outages=outages)
    return Run(load, system, fleet(_SLOW_LINK, 1, 1), conditions).record(), system


def test_transfers_over_one_link_take_turns_and_others_do_not_wait() -> None:
    links, machine = Links(), _SLOW_LINK
    alone_s = transfer_s(50, machine)

    assert links.move("a", "x", 50, machine, 0.0) == pytest.approx(alone_s)
    assert links.move("a", "y", 50, machine, 0.0) == pytest.approx(2 * alone_s)
    assert links.move("b", "x", 50, machine, 0.0) == pytest.approx(2 * alone_s)
    assert links.move("c", "z", 50, machine, 0.0) == pytest.approx(alone_s)


def test_the_second_token_waits_for_the_kv_and_the_lease_ends_with_its_coming() -> None:
    record, system = run_split()

    (request,) = record.metrics
    assert record.routes[0].prefill == "p0"
    assert [end.moved_s for end in system.ends] == [pytest.approx(1.1 + 0.01)]
    assert request[FIRST] == pytest.approx(0.01)
    assert request[MOVED] == pytest.approx(1.1)
    assert request[LAST] == pytest.approx(0.01 + 1.1 + 4 * 0.01)
    assert [engine.leased_blocks for engine in record.engines] == [0, 0]
    assert [engine.computed_tokens for engine in record.engines] == [4, 100]


def test_where_the_sender_dies_on_the_way_the_prompt_is_computed_again_by_the_receiver() -> None:
    record, system = run_split(Outage(engine="p0", from_s=0.5))

    (request,) = record.metrics
    assert request[TOKENS] == request[OUTPUT]
    assert [engine.computed_tokens for engine in record.engines] == [101 + 3, 100]
    assert request[LAST] == pytest.approx(0.5 + 4 * 0.01)
    assert len(system.ends) == 1


def test_where_the_receiver_dies_on_the_way_the_lease_ends_and_the_request_is_placed_anew() -> None:
    record, system = run_split(Outage(engine="d0", from_s=0.5, until_s=0.6))

    (request,) = record.metrics
    assert request[TOKENS] == request[OUTPUT]
    assert system.placed >= 2
    assert [engine.leased_blocks for engine in record.engines] == [0, 0]
    assert [end.tokens for end in system.ends] == [5]


@pytest.mark.parametrize(("fetched_at_steps", "steps_later"), [(False, 0), (True, 1)])
def test_an_engine_may_take_notice_of_kv_only_when_its_step_is_over(
    fetched_at_steps: bool, steps_later: int
) -> None:
    machine = hardware(step_s=0.05, link_bytes_per_s=1e9)
    load = (
        program("moved", 0.0, call(prompt=100, output=2)),  # its prompt is done at 0.05
        program("busy", 0.01, call(prompt=100, output=9)),  # d0 is at a step until 0.06
    )
    conditions = Conditions(network_s=0.0, decision_s=0.0, fetched_at_steps=fetched_at_steps)

    record = Run(load, InTurns(), fleet(machine, 1, 1), conditions).record()

    assert record.routes[0].prefill == "p0"
    assert record.routes[1].prefill is None
    assert record.metrics[0, LAST] == pytest.approx(0.11 + 0.05 * steps_later)


def test_kv_waits_on_its_engine_until_the_other_has_room() -> None:
    machine = hardware(kv_blocks=40)
    load = tuple(program(f"p{n}", 0.0, call(prompt=300, output=20)) for n in range(6))

    record = Run(load, InTurns(), fleet(machine, 1, 1), AT_ONCE).record()

    assert (record.metrics[:, TOKENS] == 20).all()
    assert any(route.prefill for route in record.routes.values())


class BestEffortFirst(InTurns):
    """The first request is best effort, where it decodes; the next is promised and moves there."""

    def _route(self, names: list[str]) -> Route:  # noqa: ARG002 - there are but these two
        self.placed += 1
        if self.placed == 1:
            return Route(decode="d0", kind=BEST_EFFORT)
        return Route(decode="d0", prefill="p0", kind=PROMISED)


def test_best_effort_makes_room_for_promised_kv() -> None:
    machine = hardware(kv_blocks=30)
    load = (
        program("beside", 0.0, call(prompt=400, output=60)),
        program("promised", 0.1, call(prompt=300, output=5)),
    )

    record = Run(load, BestEffortFirst(), fleet(machine, 1, 1), AT_ONCE).record()

    assert (record.metrics[:, TOKENS] == record.metrics[:, OUTPUT]).all()
    assert record.metrics[0, EVICTED] == 1
    assert record.metrics[1, LAST] < record.metrics[0, LAST]
