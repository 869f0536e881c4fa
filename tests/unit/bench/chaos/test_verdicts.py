"""An answer is right where it is that of the undisturbed run; a clear refusal is no fault."""

from typing import Any

import pytest

from services.bench.chaos.answer import Answer
from services.bench.chaos.faults import Fault, Kind
from services.bench.chaos.processes import Use
from services.bench.chaos.verdicts import (
    FaultRecord,
    Verdict,
    faults_of_answers,
    growth,
    twice_promised,
    verdict,
)
from tests.unit.bench.soak.requests import outcome, record


def answer(*events: dict[str, Any], gateway: int = 0, ended_at_s: float = 2.0) -> Answer:
    one = Answer(number=0, kind="greedy", gateway=gateway, began_at_s=1.0, ended_at_s=ended_at_s)
    for event in events:
        one.take(event)
    return one


def text(words: str, index: int = 0, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "text": words, "finish_reason": finish}]}


def fault_record(
    kind: Kind, target: str, began_at_s: float = 0.0, over_at_s: float = 10.0
) -> FaultRecord:
    return FaultRecord(
        fault=Fault(kind=kind, target=target),
        began_at_s=began_at_s,
        ended_at_s=began_at_s,
        recovered_at_s=over_at_s,
    )


USAGE = {"choices": [], "usage": {"completion_tokens": 3}}
UNDISTURBED = {0: answer(text("abc"), text("def", finish="length"), USAGE)}


def test_the_same_answer_in_other_pieces_is_right() -> None:
    one = answer(text("a"), text("bcdef"), text("", finish="length"), USAGE)

    assert verdict(one, UNDISTURBED, []) is Verdict.RIGHT


@pytest.mark.parametrize(
    "events",
    [
        (text("abcdeX", finish="length"), USAGE),
        (text("abcdef"), USAGE),
        (text("abcdef", finish="stop"), USAGE),
        (text("abcdef", finish="length"),),
        (text("abcdefdef", finish="length"), USAGE),
        (text("abcdef", finish="length"), text("x", index=1), USAGE),
    ],
    ids=["token", "no end", "end", "count", "twice", "sequence"],
)
def test_an_answer_that_differs_is_wrong_and_told_with_its_faults(
    events: tuple[dict[str, Any], ...],
) -> None:
    one = answer(*events)

    assert verdict(one, UNDISTURBED, []) is Verdict.WRONG
    (line,) = faults_of_answers([one], UNDISTURBED, [fault_record(Kind.CUT, "to decode-0")])
    assert "wrong during [cut to decode-0]" in line


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_in_the_shape_of_openai_is_clear(status: int) -> None:
    one = answer()
    one.refuse(status, {"error": {"message": "no engine", "code": "no_engine"}})

    assert verdict(one, UNDISTURBED, []) is Verdict.REFUSED


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, {"error": {"message": "m", "code": "c"}}), (503, {}), (503, {"error": "no"})],
)
def test_any_other_error_has_failed(status: int, body: dict[str, Any]) -> None:
    one = answer()
    one.refuse(status, body)

    assert verdict(one, UNDISTURBED, []) is Verdict.FAILED


def test_an_error_within_a_stream_has_failed() -> None:
    one = answer(text("abc"), {"error": {"message": "engine lost"}})

    assert verdict(one, UNDISTURBED, []) is Verdict.FAILED


@pytest.mark.parametrize(
    ("fault", "becomes"),
    [
        (fault_record(Kind.KILL_HOST, "gateway-1"), Verdict.GATEWAY_LOST),
        (fault_record(Kind.KILL_HOST, "gateway-0"), Verdict.FAILED),
        (fault_record(Kind.STOP_HOST, "gateway-1"), Verdict.FAILED),
        (fault_record(Kind.KILL_HOST, "gateway-1", began_at_s=5.0), Verdict.FAILED),
    ],
    ids=["its own", "another", "not killed", "later"],
)
def test_only_a_killed_gateway_excuses_a_lost_connection(
    fault: FaultRecord, becomes: Verdict
) -> None:
    one = answer(gateway=1)
    one.fault, one.disconnected = "reset", True

    assert verdict(one, UNDISTURBED, [fault]) is becomes


def test_a_request_that_moved_ended_once_and_one_that_ended_twice_is_told() -> None:
    moved = [record(outcome(finished="moved"), number=1), record(outcome(), number=1)]
    twice = [record(outcome(), number=2), record(outcome(), number=2)]

    assert twice_promised(moved) == []
    assert twice_promised([*moved, *twice]) == [twice[0].query.request_id]


def test_growth_is_told_of_processes_that_lived_through_it_all() -> None:
    before = {"a": use(), "b": use(), "c": use()}
    after = {
        "a": use(rss_mib=600.0, files=90, threads=80, tasks=70),
        "b": use(rss_mib=900.0, pid=2),
    }

    assert [line.split()[0] for line in growth(before, after, kv_cache_gib=0.25)] == ["a"] * 4


@pytest.mark.parametrize(("rss_mib", "told"), [(1442.0, 0), (1950.0, 1)])
def test_an_engine_core_may_grow_by_its_kv_cache_and_its_kernels(rss_mib: float, told: int) -> None:
    before, after = use(rss_mib=997.0), use(rss_mib=rss_mib)
    core = growth({"decode-0 core": before}, {"decode-0 core": after}, kv_cache_gib=0.25)
    host = growth({"decode-0": before}, {"decode-0": after}, kv_cache_gib=0.25)

    assert len(list(core)) == told
    assert len(list(host)) == 1


def use(
    pid: int = 1, rss_mib: float = 100.0, files: int = 20, threads: int = 10, tasks: int = 30
) -> Use:
    return Use(pid=pid, rss_mib=rss_mib, files=files, threads=threads, tasks=tasks)


@pytest.mark.parametrize(
    ("events", "content"),
    [
        (
            [
                {"choices": [{"index": 0, "delta": {"content": "ab"}}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                USAGE,
            ],
            ({0: "ab"}, {0: "stop"}, 3),
        ),
        (
            [
                {
                    "choices": [
                        {"index": 0, "delta": {"tool_calls": [{"function": {"arguments": a}}]}}
                    ]
                }
                for a in ('{"city"', ': "x"}')
            ],
            ({0: '{"city": "x"}'}, {}, 0),
        ),
        (
            [
                {"type": "response.output_text.delta", "delta": "ab"},
                {
                    "type": "response.incomplete",
                    "response": {"status": "incomplete", "usage": {"output_tokens": 2}},
                },
            ],
            ({0: "ab"}, {0: "incomplete"}, 2),
        ),
        (
            [
                {"type": "content_block_delta", "delta": {"text": "ab"}},
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "max_tokens"},
                    "usage": {"output_tokens": 2},
                },
            ],
            ({0: "ab"}, {0: "max_tokens"}, 2),
        ),
    ],
    ids=["chat", "tools", "responses", "messages"],
)
def test_streams_of_all_routes_are_read(events: list[dict[str, Any]], content: object) -> None:
    assert answer(*events).content == content


def test_pauses_are_between_what_came() -> None:
    one = answer()
    one.heard_at_s = 1.0
    for now_s in (1.5, 4.0, 4.2):
        one.note(now_s)

    assert one.longest_pause_s == 2.5
