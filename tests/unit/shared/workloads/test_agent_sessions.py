"""Recorded sessions of agents."""

import gzip
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.workloads.agent_sessions import (
    SessionCall,
    SessionPlan,
    load_of,
    read_sessions,
    scale_of,
)
from shared.workloads.inference_perf import LONGEST_PAUSE_S, MOST_CALLS

HEAD = "session,call,t_s,input_tokens,output_tokens,cached_tokens,think_time_s,sub_agent"
PLAN = SessionPlan(context_tokens=8192, programs=5, rate=2.0, seed=1, ttft_s=30.0, tpot_s=0.1)


def calls(count: int, *, input_tokens: int = 2000) -> list[SessionCall]:
    return [
        SessionCall(
            input_tokens=input_tokens + 100 * number,
            output_tokens=50,
            cached_tokens=input_tokens - 100 if number else 0,
            pause_s=3.0 * number,
        )
        for number in range(count)
    ]


def write(path: Path, *rows: str) -> Path:
    path.write_bytes(gzip.compress("\n".join([HEAD, *rows]).encode()))
    return path


def test_a_session_is_one_program_without_the_calls_of_its_sub_agents(tmp_path: Path) -> None:
    path = write(
        tmp_path / "sessions.csv.gz",
        "1,0,0.0,1000,20,0,,0",
        "1,0,3.0,500,5,0,0.0,1",
        "1,1,9.0,1200,30,1000,4.0,0",
    )

    load = read_sessions(path, PLAN)

    assert len(load) == PLAN.programs
    assert all(len(program.calls) == 2 for program in load)
    first, second = load[0].calls
    assert (first.prompt_tokens, first.output_tokens, first.after_s) == (1000, 20, 0.0)
    assert (second.prompt_tokens, second.prefix_tokens, second.after_s) == (1200, 1000, 4.0)
    assert (first.ttft_s, first.stages[0].tpot_s) == (30.0, 0.1)


def test_prompts_that_are_too_long_are_scaled_with_their_target() -> None:
    sessions = [calls(10, input_tokens=100_000)]
    scale = scale_of(sessions, PLAN.context_tokens)

    load = load_of(sessions, PLAN)

    assert scale < 0.05
    assert load[0].calls[0].prompt_tokens == round(100_000 * scale)
    assert load[0].calls[0].ttft_s == pytest.approx(30.0 * scale)
    assert load[0].calls[0].output_tokens == 50
    assert max(call.prompt_tokens for call in load[0].calls) < PLAN.context_tokens


def test_sessions_are_cut_to_calls_and_pauses_that_a_run_can_last(tmp_path: Path) -> None:
    rows = [f"1,{number},0.0,1000,20,0,{number}.0,0" for number in range(3 * MOST_CALLS)]

    load = read_sessions(write(tmp_path / "sessions.csv.gz", *rows), PLAN)

    assert {len(program.calls) for program in load} == {MOST_CALLS}
    assert max(call.after_s for call in load[0].calls) == LONGEST_PAUSE_S


def test_sessions_come_again_until_there_are_enough() -> None:
    sessions = [calls(1), calls(2), calls(3)]

    load = load_of(sessions, PLAN)

    assert sorted(len(program.calls) for program in load[:3]) == [1, 2, 3]
    assert len({program.program_id for program in load}) == PLAN.programs


@pytest.mark.parametrize("rows", [(), ("1,0,0.0,many,20,0,0.0,0",)])
def test_a_file_without_sessions_is_named(tmp_path: Path, rows: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"sessions\.csv\.gz has no sessions"):
        read_sessions(write(tmp_path / "sessions.csv.gz", *rows), PLAN)
