"""Makes a load from the requests of a trace: classes, shared prefixes, start, length, rate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from shared.workloads.applications import MIXED, Application, Kind
from shared.workloads.calls import Call, Load, Program, StageLoad, at_rate
from shared.workloads.lengths import even, picked
from shared.workloads.trace_rows import MOONCAKE_BLOCK_TOKENS, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShare:
    """A stage of an answer: its TPOT target, and its share of the tokens."""

    name: str
    tpot_s: float
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SloClass:
    """A class with targets for requests of a trace, which itself has only lengths.

    `share` of the trace's requests get it, relative to the shares of the other classes.
    """

    name: str
    stages: tuple[StageShare, ...]
    share: float = 1.0
    ttft_s: float | None = None
    ttft_slowdown: float | None = None
    value: float = 1.0
    acceptance: float = 0.7
    acceptance_weight: float = 20.0


def classes_of(application: Application) -> tuple[SloClass, ...]:
    """The targets of an application's kinds; for tool loops, those of the final answer."""
    return tuple(_class_of(kind) for kind in application.kinds)


def _class_of(kind: Kind) -> SloClass:
    middle = np.array([0.5])
    return SloClass(
        name=kind.class_name,
        share=kind.share,
        stages=tuple(
            StageShare(name=one.stage, tpot_s=one.tpot_s, share=float(one.tokens.values(middle)[0]))
            for one in kind.answers
        ),
        ttft_slowdown=kind.ttft_slowdown,
        acceptance=kind.acceptance,
        acceptance_weight=kind.acceptance_weight,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TracePlan:
    """The part of a trace to take, and the classes of its requests.

    `start_s` counts from the trace's first request. At most `requests` are taken from there (None:
    all), and rescaled to `rate` programs per second (None: as recorded).
    """

    classes: tuple[SloClass, ...] = classes_of(MIXED)
    start_s: float = 0.0
    requests: int | None = None
    rate: float | None = None
    seed: int = 0


def load_of(rows: Iterator[Row], plan: TracePlan, *, name: str) -> Load:
    """Programs of one call each. A request without prompt or answer (it failed) is left out.

    `max_output_tokens` of all calls is the longest answer taken, since traces have no limits.
    """
    taken = sorted(_taken(rows, plan), key=lambda row: row.arrival_s)
    if not taken:
        return ()
    draw = np.random.default_rng(plan.seed)
    most = max(row.output_tokens for row in taken)
    prefixes = _prefixes(taken, name)
    load = tuple(
        Program(
            program_id=_id(name, number),
            application=name,
            arrives_s=row.arrival_s - taken[0].arrival_s,
            calls=(_call(row, one, acceptance, most, prefixes[number]),),
        )
        for number, (row, (one, acceptance)) in enumerate(
            zip(taken, _classes(plan.classes, len(taken), draw), strict=True)
        )
    )
    return load if plan.rate is None else at_rate(load, plan.rate)


def _taken(rows: Iterator[Row], plan: TracePlan) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        return
    start_s = first.arrival_s + plan.start_s
    wanted = (
        row
        for row in chain([first], rows)
        if row.arrival_s >= start_s and row.prompt_tokens and row.output_tokens
    )
    yield from islice(wanted, plan.requests)


def _id(name: str, number: int) -> str:
    return f"{name}-{number}"


def _classes(
    classes: Sequence[SloClass], count: int, draw: np.random.Generator
) -> Iterator[tuple[SloClass, float]]:
    """The class and the draft acceptance of each request."""
    places = picked([one.share for one in classes], even(draw, count))
    means = np.array([one.acceptance for one in classes])[places]
    weights = np.array([one.acceptance_weight for one in classes])[places]
    acceptances = draw.beta(means * weights, (1 - means) * weights)
    for place, acceptance in zip(places.tolist(), acceptances.tolist(), strict=True):
        yield classes[place], acceptance


def _call(
    row: Row, one: SloClass, acceptance: float, most: int, prefix: tuple[int, str | None]
) -> Call:
    return Call(
        class_name=one.name,
        prompt_tokens=row.prompt_tokens,
        prefix_tokens=prefix[0],
        prefix_group=prefix[1],
        stages=tuple(_stages(one.stages, row.output_tokens)),
        max_output_tokens=most,
        ttft_s=one.ttft_s,
        ttft_slowdown=one.ttft_slowdown,
        value=one.value,
        acceptance=acceptance,
    )


def _stages(stages: Sequence[StageShare], tokens: int) -> Iterator[StageLoad]:
    """Splits an answer into stages; the last one has the rest after rounding."""
    whole, left = sum(stage.share for stage in stages), tokens
    for stage in stages[:-1]:
        part = min(round(tokens * stage.share / whole), left)
        left -= part
        yield StageLoad(name=stage.name, output_tokens=part, tpot_s=stage.tpot_s)
    yield StageLoad(name=stages[-1].name, output_tokens=left, tpot_s=stages[-1].tpot_s)


def _prefixes(rows: Sequence[Row], name: str) -> list[tuple[int, str | None]]:
    """For each row, the tokens of the prefix shared with an earlier row, and that row's program.

    A block's number stands for the block and all before it, so the first row with the last shared
    block has all shared blocks.
    """
    brought: dict[int, int] = {}
    found: list[tuple[int, str | None]] = []
    for number, row in enumerate(rows):
        known = next(
            (place for place, block in enumerate(row.blocks) if block not in brought),
            len(row.blocks),
        )
        tokens = min(known * MOONCAKE_BLOCK_TOKENS, row.prompt_tokens)
        group = _id(name, brought[row.blocks[known - 1]]) if known else None
        found.append((tokens, group))
        for block in row.blocks[known:]:
            brought.setdefault(block, number)
    return found
