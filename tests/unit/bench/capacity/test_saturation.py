import asyncio
from dataclasses import dataclass, field

import pytest

from services.bench.answers import AnswerFailed
from services.bench.capacity.asking import Asked
from services.bench.capacity.client import Ask, Note, Reply
from services.bench.capacity.judge import Ended
from services.bench.capacity.saturation import in_turns
from services.bench.capacity.workload import Prompts
from shared.clock import MonotonicClock

PROMPTS = Prompts(list(range(1000)), 1)


@dataclass
class Steps:
    """Gives each request a token every 10 ms; fails the `fails`-th request."""

    fails: int = 0
    asked: list[int] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    given: int = 0

    async def ask(self, ask: Ask, note: Note) -> Reply:
        self.asked.append(ask.output_tokens)
        if len(self.asked) == self.fails:
            return Reply(ended=Ended.FAILED, message="broken")
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            for _ in range(ask.output_tokens):
                await asyncio.sleep(0.01)
                self.given += 1
                note(1)
        finally:
            self.open -= 1
        return Reply(ended=Ended.DONE)

    async def tokenize(self, text: str) -> list[int]:
        raise NotImplementedError(text)


async def test_tokens_count_while_all_of_the_load_is_there_and_none_after() -> None:
    one, other = Steps(), Steps()
    systems = [Asked(name=n, client=c, knows_slos=False) for n, c in (("a", one), ("b", other))]

    seconds = 0.3
    found = await in_turns(
        systems, PROMPTS, MonotonicClock(), in_flight=4, seconds=seconds, turns=2
    )

    assert [each.system for each in found] == ["a", "b", "a", "b"]
    assert all(0 < each.tokens_per_s <= 420 for each in found)
    for name, steps in (("a", one), ("b", other)):
        counted = sum(each.tokens_per_s * seconds for each in found if each.system == name)
        assert counted < steps.given
    assert all(each.requests_per_s == each.tokens_per_s / 32 for each in found)
    assert (one.open, one.most_open) == (0, 4)
    assert sorted(one.asked[:4]) == [1, 9, 17, 25]


async def test_an_answer_that_fails_ends_the_measurement() -> None:
    broken = Asked(name="a", client=Steps(fails=3), knows_slos=False)

    with pytest.raises(AnswerFailed, match="broken"):
        await in_turns([broken], PROMPTS, MonotonicClock(), in_flight=4, seconds=5, turns=1)
