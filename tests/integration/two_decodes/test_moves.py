"""Requests go on on another engine when theirs dies, hangs or is stopped: clients see a pause."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

import httpx
import psutil
import pytest

from tests.integration.node import Node, wait_until
from tests.integration.streams import Seen, Streams
from tests.limits import ANSWER_LIMIT_S

pytestmark = pytest.mark.engines

ALL_CASES = bool(os.environ.get("SLOS_TEST_ALL_CASES"))
STREAMS = 12
AGAIN_S = 180.0
BUSIEST = "the decode engine that runs most of the streams"
WAYS = ("colocated", "disaggregated")
STARVED_S = 10.0
SETTLED_S = 6.0  # of load before a fault and after it


@pytest.fixture(scope="module")
def undisturbed(node: Node) -> Mapping[int, Seen]:
    seen = asyncio.run(Streams(node.url, node.model).run(range(STREAMS)))
    assert [one.error for one in seen if one.error] == []
    return {one.number: one for one in seen}


def pid_of(node: Node, part: str, engine: str) -> int:
    if engine == BUSIEST:
        engine = max(node.decodes, key=lambda one: node.health(one).running)
    return node.core_pid(engine) if part == "core" else node.host_pid(engine)


def wrong(seen: list[Seen], undisturbed: Mapping[int, Seen]) -> list[int]:
    """Numbers of the answers that came to an end and are not the undisturbed one."""
    return [
        one.number for one in seen if not one.error and one.answer != undisturbed[one.number].answer
    ]


def told(seen: list[Seen]) -> str:
    causes = Counter(move["cause"] for one in seen for move in one.moves)
    errors = [one.error for one in seen if one.error]
    continued_s, again_s = (
        max((one.pause_s for one in seen if one.again is again), default=0.0)
        for again in (False, True)
    )
    return (
        f"{len(seen)} answers, {len(errors)} errors, longest pause {continued_s:.1f} s "
        f"(of what is computed again {again_s:.1f} s), moves {dict(causes)} {errors[:2] or ''}"
    )


def until_whole(node: Node) -> float:
    """Seconds until all engines serve again in both ways and nothing is held."""
    again_s = wait_until(lambda: node.engine_count() == len(node.engines), AGAIN_S)
    again_s += wait_until(lambda: all(node.answers(way) for way in WAYS), AGAIN_S)
    return again_s + wait_until(node.at_rest, AGAIN_S)


@pytest.mark.parametrize(
    ("lost", "number"),
    [
        ((("core", BUSIEST),), signal.SIGKILL),
        ((("core", BUSIEST),), signal.SIGSTOP),
        ((("host", "prefill-0"), ("host", "planner")), signal.SIGKILL),
    ],
    ids=["decode core dies", "decode core hangs", "prefill host and planner die"],
)
def test_streams_of_a_lost_part_go_on_elsewhere_token_by_token(
    node: Node,
    undisturbed: Mapping[int, Seen],
    lost: tuple[tuple[str, str], ...],
    number: signal.Signals,
) -> None:
    async def disturbed() -> list[Seen]:
        streams = Streams(node.url, node.model)
        running = asyncio.create_task(streams.run(range(STREAMS)))
        await streams.until_all_began(STREAMS)
        for pid in [pid_of(node, part, name) for part, name in lost]:
            os.kill(pid, number)
        return await running

    seen = asyncio.run(disturbed())

    print(f"\n{lost} {number.name}: {told(seen)}")
    assert [one.error for one in seen if one.error] == []
    assert wrong(seen, undisturbed) == []
    assert any(one.moves for one in seen) or BUSIEST not in dict(lost).values()
    until_whole(node)


def test_a_machine_that_stands_still_for_ten_seconds_loses_no_engine_and_moves_nothing(
    node: Node, undisturbed: Mapping[int, Seen]
) -> None:
    until_whole(node)
    everything = psutil.Process(node.process.pid).children(recursive=True)
    before = moves_counted(node)

    async def disturbed() -> list[Seen]:
        streams = Streams(node.url, node.model)
        running = asyncio.create_task(streams.run(range(STREAMS)))
        await streams.until_all_began(STREAMS)
        for one in everything:
            one.suspend()
        await asyncio.sleep(STARVED_S)
        for one in everything:
            one.resume()
        return await running

    seen = asyncio.run(disturbed())

    print(f"\nall processes stopped for {STARVED_S:g} s: {told(seen)}")
    assert [one.error for one in seen if one.error] == []
    assert wrong(seen, undisturbed) == []
    assert not any(one.moves for one in seen)
    assert moves_counted(node) == before
    assert node.engine_count() == len(node.engines)


def moves_counted(node: Node) -> float:
    page = httpx.get(f"{node.url}/metrics", timeout=ANSWER_LIMIT_S).text
    lines = [line for line in page.splitlines() if line.startswith("slos_gateway_moves_total{")]
    return sum(float(line.split()[-1]) for line in lines)


def test_moves_are_counted_by_cause(node: Node) -> None:
    page = httpx.get(f"{node.url}/metrics", timeout=ANSWER_LIMIT_S).text

    assert 'slos_gateway_moves_total{cause="lost"}' in page
    assert 'slos_gateway_moves_total{cause="stalled"}' in page


@pytest.mark.skipif(not ALL_CASES, reason="takes half an hour: SLOS_TEST_ALL_CASES=1")
@pytest.mark.parametrize(
    "stopped_s", [0.0, 5.0, 40.0, 90.0], ids=lambda s: f"stop {s:g} s" if s else "kill -9"
)
@pytest.mark.parametrize(
    ("part", "engine"),
    [
        ("host", "planner"),
        ("host", "prefill-0"),
        ("core", "prefill-0"),
        ("host", "decode-0"),
        ("core", "decode-0"),
    ],
)
def test_under_load_no_client_sees_more_than_a_pause(
    node: Node, undisturbed: Mapping[int, Seen], part: str, engine: str, stopped_s: float
) -> None:
    pid = pid_of(node, part, engine)

    async def disturbed() -> list[Seen]:
        done = asyncio.Event()
        streams = Streams(node.url, node.model, both_ways=False)
        load = asyncio.create_task(streams.run_until(done, clients=STREAMS, numbers=STREAMS))
        await asyncio.sleep(SETTLED_S)
        os.kill(pid, signal.SIGSTOP if stopped_s else signal.SIGKILL)
        await asyncio.sleep(stopped_s)
        with suppress(ProcessLookupError):  # its host has ended it
            os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(SETTLED_S)
        done.set()
        return await load

    seen = asyncio.run(disturbed())

    again_s = until_whole(node)
    what = f"stopped for {stopped_s:g} s" if stopped_s else "killed"
    print(f"\n{engine} {part} {what}: {told(seen)}, again {again_s:.1f} s after the load")
    assert wrong(seen, undisturbed) == []
    assert [one.error for one in seen if one.error] == []
