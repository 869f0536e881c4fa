from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bench.answers import Answer, AnswerFailed, Stopwatch
from services.bench.compare import Added, Ask, compare, turns
from services.bench.prompts import Prompt, texts

ANSWERS = st.builds(
    Answer, first_s=st.floats(0, 1), last_s=st.floats(1, 2), tokens=st.integers(2, 50)
)


async def test_servers_are_asked_in_turns_and_no_prompt_twice() -> None:
    asked: list[tuple[str, str]] = []

    def server(name: str) -> Ask:
        async def ask(prompt: Prompt) -> Answer:
            asked.append((name, prompt.text))
            return Answer(first_s=0.1, last_s=0.2, tokens=2)

        return ask

    prompts = (Prompt(text=str(number), token_ids=()) for number in count())
    result = await compare({"a": server("a"), "b": server("b")}, prompts, requests=5, in_flight=2)

    assert [name for name, _ in asked[:6]] == ["a", "a", "b", "b", "a", "a"]
    assert len({text for _, text in asked}) == len(asked) == 2 * 2 * turns(5, 2)
    assert {name: len(answers) for name, answers in result.answers.items()} == {"a": 6, "b": 6}


@given(st.lists(ANSWERS, min_size=1, max_size=30), st.floats(0, 1))
def test_a_constant_delay_is_found_in_every_number(answers: list[Answer], delay_s: float) -> None:
    late = [
        Answer(
            first_s=answer.first_s + delay_s, last_s=answer.last_s + delay_s, tokens=answer.tokens
        )
        for answer in answers
    ]

    added = Added.of(late, answers)

    ttft = (added.ttft_p50_ms, added.ttft_p99_ms, added.ttft_paired_ms)
    assert ttft == pytest.approx([1000 * delay_s] * 3, abs=1e-6)
    assert added.per_token_paired_ms == pytest.approx(0, abs=1e-6)


def test_the_time_of_a_token_leaves_out_the_first() -> None:
    watch = Stopwatch(10.0)
    for tokens, at_s in ((1, 11.0), (2, 12.0), (2, 13.0)):
        watch.note(tokens, at_s)

    assert watch.answer(5).first_s == 1.0
    assert watch.answer(5).per_token_s == pytest.approx(0.5)


def test_an_answer_that_is_cut_short_does_not_count() -> None:
    watch = Stopwatch(0.0)
    watch.note(3, 1.0)

    with pytest.raises(AnswerFailed, match="3 tokens came where 4"):
        watch.answer(4)


@given(st.integers(0, 1000), st.integers(1, 20))
def test_no_two_prompts_begin_alike(seed: int, words: int) -> None:
    drawn = texts(words, seed)
    starts = [next(drawn).split()[0] for _ in range(50)]

    assert len(set(starts)) == 50
