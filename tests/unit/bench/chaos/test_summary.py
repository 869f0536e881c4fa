"""A run with a problem says so, whatever the problem is."""

from collections.abc import Callable

import pytest
from rich.console import Console

from services.bench.chaos.answer import Answer
from services.bench.chaos.faults import Fault, Kind
from services.bench.chaos.processes import Use
from services.bench.chaos.report import tables
from services.bench.chaos.run import Found
from services.bench.chaos.summary import summary_json
from services.bench.chaos.verdicts import FaultRecord
from shared.requests import Explanation
from tests.unit.bench.soak.requests import outcome, record


def answer(words: str = "abc") -> Answer:
    one = Answer(number=0, kind="greedy", gateway=0, began_at_s=1.0, ended_at_s=2.0)
    one.texts, one.finishes, one.tokens = {0: words}, {0: "length"}, 3
    return one


def run() -> Found:
    return Found(
        began_at_s=0.0,
        ended_at_s=60.0,
        undisturbed={0: answer()},
        answers=[answer()],
        faults=[
            FaultRecord(
                fault=Fault(kind=Kind.KILL_CORE, target="decode-0"),
                began_at_s=0.5,
                ended_at_s=0.5,
                recovered_at_s=9.5,
            )
        ],
        used_before={"planner": Use(pid=1, rss_mib=200.0, files=20, threads=11)},
        used_after={"planner": Use(pid=1, rss_mib=201.0, files=21, threads=11)},
    )


def test_a_run_without_problems_has_none_and_its_numbers() -> None:
    summary = summary_json(run(), [record(outcome())], [], 0.25)

    assert summary["problems"] == []
    assert (summary["all"]["answers"], summary["all"]["right"]) == (1, 1)
    (fault,) = summary["faults"]
    assert (fault["fault"], fault["serve_again_s"]) == ("kill-core decode-0", 9.0)
    console = Console(width=200, record=True)
    for table in tables(summary):
        console.print(table)
    assert "kill-core decode-0" in console.export_text()


def wrong(found: Found) -> None:
    found.answers.append(answer("abX"))


def hostile(found: Found) -> None:
    found.wrongly_answered.append("/tokenize: 500")


def held(found: Found) -> None:
    found.held = "decode-0: 1 requests and 0 KV blocks"


def grown(found: Found) -> None:
    found.used_after["planner"] = Use(pid=1, rss_mib=200.0, files=200, threads=11)


def lame(found: Found) -> None:
    fault = Fault(kind=Kind.STOP_HOST, target="planner", lasts_s=5.0)
    found.faults.append(
        FaultRecord(fault=fault, began_at_s=20.0, ended_at_s=25.0, recovered_at_s=None)
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (wrong, "greedy 0 wrong"),
        (hostile, "hostile: /tokenize: 500"),
        (held, "still held: decode-0"),
        (grown, "planner has 200 files open"),
        (lame, "stop planner for 5 s: not all serve again"),
    ],
)
def test_each_problem_is_told(spoil: Callable[[Found], None], words: str) -> None:
    found = run()
    spoil(found)

    (line,) = summary_json(found, [], [], 0.25)["problems"]

    assert words in line


def test_what_was_left_behind_and_what_was_answered_twice_are_problems() -> None:
    twice: list[Explanation] = [record(outcome()), record(outcome())]

    problems = summary_json(run(), twice, ["a process"], 0.25)["problems"]

    assert problems == ["cmpl-5f0 was answered twice", "left behind: a process"]
