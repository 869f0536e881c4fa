import pytest

from services.bench.answers import AnswerFailed
from services.bench.capacity.asking import Asked, Measure
from services.bench.capacity.classes import Multiples, Targets, ZeroLoad, mix
from services.bench.capacity.client import Ask, Note, Reply
from services.bench.capacity.judge import Ended
from services.bench.capacity.workload import poisson
from shared.clock import VirtualClock

LOAD = poisson("mixed", mix("mixed"), 1, 50)
TARGETS = Targets(
    zero_load=ZeroLoad(ttft_s=((10, 0.1), (110, 0.3)), tpot_s=0.08),
    multiples=Multiples(tight_ttft=3.0, loose_ttft=10.0, tight_tpot=2.0, loose_tpot=5.0),
)
FIRST_S, NEXT_S = 0.2, 0.05


class Server:
    """Answers at once, in as many tokens as are wanted, and remembers what it was asked."""

    def __init__(self, clock: VirtualClock, ended: Ended = Ended.DONE) -> None:
        self.clock, self.ended = clock, ended
        self.asks: list[Ask] = []

    async def ask(self, ask: Ask, note: Note) -> Reply:
        self.asks.append(ask)
        self.clock.at_s += FIRST_S
        note(1)
        for _ in range(ask.output_tokens - 1):
            self.clock.at_s += NEXT_S
            note(1)
        return Reply(ended=self.ended)

    async def tokenize(self, text: str) -> list[int]:
        return list(text.encode())


class LateServer(Server):
    """Every third answer is read when all of it is there."""

    async def ask(self, ask: Ask, note: Note) -> Reply:
        at_once = len(self.asks) % 3 == 0
        reply = await super().ask(ask, (lambda _: None) if at_once else note)
        if at_once:
            note(ask.output_tokens)
        return reply


def measure(clock: VirtualClock) -> Measure:
    return Measure(clock=clock, text_ids=range(900), seed=1, drain_s=0.01)


async def prompts(turn: int, *, knows_slos: bool = False) -> list[Ask]:
    clock = VirtualClock()
    server = Server(clock)
    asked = Asked(name="any", client=server, knows_slos=knows_slos)
    await measure(clock).point(asked, LOAD, 2.0, 5.0, TARGETS, turn=turn)
    return server.asks


async def test_two_systems_get_the_same_prompts_and_another_turn_gets_others() -> None:
    one, other, later = await prompts(0), await prompts(0), await prompts(1)

    assert [ask.prompt for ask in one] == [ask.prompt for ask in other]
    assert not {tuple(ask.prompt) for ask in one} & {tuple(ask.prompt) for ask in later}


async def test_only_a_system_that_knows_slos_gets_class_and_ttft() -> None:
    told = [ask.slo for ask in await prompts(0, knows_slos=True)]

    assert [ask.slo for ask in await prompts(0)] == [None] * 10
    assert told == [
        {
            "class": one.class_name,
            "ttft_ms": round(1000 * TARGETS.ttft_s(one.class_name, one.prompt_tokens), 1),
        }
        for one in LOAD.arrivals[:10]
    ]


async def test_zero_load_is_the_first_tokens_time_by_length_and_the_pace_of_the_rest() -> None:
    clock = VirtualClock()
    found = await measure(clock).zero_load(
        Asked(name="any", client=Server(clock), knows_slos=False)
    )

    assert [time_s for _, time_s in found.ttft_s] == pytest.approx([FIRST_S] * 5)
    assert found.tpot_s == pytest.approx(NEXT_S)


async def test_an_answer_that_is_read_late_and_all_at_once_makes_no_shorter_pace() -> None:
    clock = VirtualClock()
    late = LateServer(clock)

    found = await measure(clock).zero_load(Asked(name="any", client=late, knows_slos=False))

    assert found.tpot_s == pytest.approx(NEXT_S)


async def test_a_system_that_cannot_answer_at_its_start_is_named() -> None:
    clock = VirtualClock()
    broken = Asked(name="vllm-64", client=Server(clock, Ended.FAILED), knows_slos=False)

    with pytest.raises(AnswerFailed, match="vllm-64"):
        await measure(clock).warm_up(broken)
