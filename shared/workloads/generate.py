"""Generates seeded loads of an application, at any rate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from operator import itemgetter

import numpy as np

from shared.workloads.applications import Application, Kind, ToolLoop
from shared.workloads.calls import Call, Load, Program, StageLoad
from shared.workloads.lengths import correlated, even, fitted, picked


def generate(application: Application, *, rate: float, requests: int, seed: int) -> Load:
    """`requests` programs at exactly `rate` programs per second.

    Another rate rescales the same programs: lengths, order and relative gaps stay. Each kind has
    its share, at least one program, and separate arrivals. Raises ValueError for fewer programs
    than kinds and for a rate that is not above 0.
    """
    kinds = application.kinds
    if requests < len(kinds):
        raise ValueError(f"{application.name} has {len(kinds)} kinds of programs, not {requests}")
    if rate <= 0:
        raise ValueError(f"a rate is above 0, not {rate}")
    numbers = _numbers([kind.share for kind in kinds], requests)
    programs = sorted(
        chain.from_iterable(
            _programs(kind, number, np.random.default_rng((seed, place)))
            for place, (kind, number) in enumerate(zip(kinds, numbers, strict=True))
        ),
        key=itemgetter(0),
    )
    start, end = programs[0][0], programs[-1][0]
    stretch = (requests - 1) / (rate * (end - start)) if end > start else 0.0
    return tuple(
        Program(
            program_id=f"{application.name.lower()}-{number}",
            application=application.name,
            arrives_s=(time - start) * stretch,
            calls=calls,
        )
        for number, (time, calls) in enumerate(programs)
    )


def _numbers(shares: Sequence[float], requests: int) -> list[int]:
    """Programs of each kind: one, plus its share of the rest by the largest-remainder method."""
    left, whole = requests - len(shares), sum(shares)
    exact = [left * share / whole for share in shares]
    numbers = [1 + int(one) for one in exact]
    by_remainder = sorted(range(len(shares)), key=lambda place: int(exact[place]) - exact[place])
    for place in by_remainder[: requests - sum(numbers)]:
        numbers[place] += 1
    return numbers


def _programs(
    kind: Kind, count: int, draw: np.random.Generator
) -> Iterator[tuple[float, tuple[Call, ...]]]:
    """Arrival times between 0 and 1, with the calls of each program."""
    times = kind.arrivals.times(draw, count)
    calls = _loops(kind, kind.loop, count, draw) if kind.loop else _single(kind, count, draw)
    return zip(times.tolist(), calls, strict=True)


def _single(kind: Kind, count: int, draw: np.random.Generator) -> Iterator[tuple[Call, ...]]:
    at_prompt, at_answer = correlated(draw, count, kind.correlation)
    prompts = kind.prompt.drawn(at_prompt)
    parts = [kind.answers[0].tokens.drawn(at_answer)]
    parts += [later.tokens.drawn(even(draw, count)) for later in kind.answers[1:]]
    if kind.context_tokens is not None:
        parts[0] = fitted(draw, prompts, parts[0], kind.context_tokens)
    rows = zip(
        prompts.tolist(),
        zip(*(part.tolist() for part in parts), strict=True),
        _acceptances(kind, count, draw),
        _prefixes(kind, count, draw),
        strict=True,
    )
    for prompt, tokens, acceptance, begins in rows:
        yield (_call(kind, prompt + begins.tokens, tokens, acceptance, begins=begins),)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begins:
    """Tokens at the start of a prompt that may be cached; group None: of its program."""

    tokens: int = 0
    group: str | None = None


def _prefixes(kind: Kind, count: int, draw: np.random.Generator) -> Iterator[_Begins]:
    """The shared prefix of each program."""
    prefix = kind.shared_prefix
    if prefix is None:
        yield from repeat(_Begins(), count)
        return
    for variant in draw.integers(prefix.variants, size=count).tolist():
        yield _Begins(tokens=prefix.tokens, group=f"{kind.class_name}-prefix-{variant}")


def _call(
    kind: Kind,
    prompt: int,
    tokens: Sequence[int],
    acceptance: float,
    *,
    begins: _Begins,
    after_s: float = 0.0,
) -> Call:
    most = sum(answer.tokens.most for answer in kind.answers)
    if kind.context_tokens is not None:
        most = min(most, kind.context_tokens - prompt)  # the limit of a server with that context
    return Call(
        class_name=kind.class_name,
        prompt_tokens=prompt,
        prefix_tokens=begins.tokens,
        prefix_group=begins.group,
        after_s=after_s,
        stages=tuple(
            StageLoad(name=answer.stage, output_tokens=number, tpot_s=answer.tpot_s)
            for answer, number in zip(kind.answers, tokens, strict=True)
        ),
        max_output_tokens=max(most, sum(tokens)),
        ttft_s=kind.ttft_s,
        ttft_slowdown=kind.ttft_slowdown,
        value=kind.value,
        acceptance=acceptance,
        pacing=kind.pacing,
    )


def _acceptances(kind: Kind, count: int, draw: np.random.Generator) -> list[float]:
    """The acceptance of each call, strictly between 0 and 1."""
    weight = kind.acceptance_weight
    drawn = draw.beta(kind.acceptance * weight, (1 - kind.acceptance) * weight, count)
    return [float(one) for one in drawn]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """A call of a tool loop: `tool_s` before it, `response_tokens` of the tool after it."""

    answer_tokens: int
    response_tokens: int
    tool_s: float
    acceptance: float


def _loops(
    kind: Kind, loop: ToolLoop, count: int, draw: np.random.Generator
) -> Iterator[tuple[Call, ...]]:
    prompts = kind.prompt.drawn(even(draw, count))
    numbers = picked(loop.calls, even(draw, count)) + 1
    rounds = _rounds(kind, loop, int(numbers.sum()), draw)
    quick = (replace(kind.answers[0], tpot_s=loop.tpot_s),)
    within = replace(kind, class_name=loop.class_name, answers=quick)
    prefixes = _prefixes(kind, count, draw)
    for prompt, number, begins in zip(prompts.tolist(), numbers.tolist(), prefixes, strict=True):
        kinds = [within] * (number - 1) + [kind]
        yield tuple(_loop(prompt + begins.tokens, kinds, begins, islice(rounds, number)))


def _rounds(kind: Kind, loop: ToolLoop, count: int, draw: np.random.Generator) -> Iterator[_Round]:
    answers = kind.answers[0].tokens.drawn(even(draw, count))
    responses = loop.response.drawn(even(draw, count))
    tools = loop.median_tool_s * np.exp(loop.sigma_tool * draw.standard_normal(count))
    acceptances = _acceptances(kind, count, draw)
    for answer, response, tool_s, acceptance in zip(
        answers.tolist(),
        responses.tolist(),
        np.minimum(tools, loop.longest_tool_s).tolist(),
        acceptances,
        strict=True,
    ):
        yield _Round(
            answer_tokens=answer, response_tokens=response, tool_s=tool_s, acceptance=acceptance
        )


def _loop(
    prompt: int, kinds: Sequence[Kind], begins: _Begins, rounds: Iterator[_Round]
) -> Iterator[Call]:
    """The calls of a loop, in which the context grows by every answer and tool response."""
    for number, (kind, one) in enumerate(zip(kinds, rounds, strict=True)):
        tokens, after_s = (one.answer_tokens,), one.tool_s if number else 0.0
        yield _call(kind, prompt, tokens, one.acceptance, begins=begins, after_s=after_s)
        begins = _Begins(tokens=prompt + one.answer_tokens)
        prompt = begins.tokens + one.response_tokens
