"""Traces of every published form become loads; what is wrong in one is named by line and column."""

import gzip
from itertools import pairwise
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.workloads.applications import MIXED, REASONING, TOOLLLM
from shared.workloads.calls import Load, rate
from shared.workloads.summary import gap_cv, summary
from shared.workloads.trace_load import SloClass, StageShare, TracePlan, classes_of
from shared.workloads.traces import read_rows, read_trace

DATA = Path(__file__).parents[4] / ".." / "shared" / "data" / "traces"
CHAT = SloClass(
    name="chat", ttft_slowdown=5.0, stages=(StageShare(name="answer", tpot_s=0.1),), value=2.0
)
CODE = SloClass(name="code", ttft_s=1.0, stages=(StageShare(name="answer", tpot_s=0.05),))
ONE_CLASS = TracePlan(classes=(CHAT,))
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:51.2224670,879,55
"""
COMPACT = "arrival_s,input_tokens,output_tokens\n10,100,5\n12,200,6\n15,300,7\n20,400,8\n"
MOONCAKE = """{"timestamp": 0, "input_length": 1200, "output_length": 5, "hash_ids": [1, 2, 3]}
{"timestamp": 1500, "input_length": 1100, "output_length": 6, "hash_ids": [1, 2, 9]}

{"timestamp": 3000, "input_length": 1400, "output_length": 7, "hash_ids": [1, 2, 9]}
{"timestamp": 4500, "input_length": 600, "output_length": 8, "hash_ids": [7, 8]}
"""
MOONCAKE_COMPACT = """timestamp_ms,input_tokens,output_tokens,hash_ids
0,1200,5,1 2 3
1500,1100,6,1 2 9
3000,1400,7,1 2 9
4500,600,8,7 8
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,API log
"""
WINDOWS = """client,t_s,rate_rps,cv,pattern,p1,p2
0,600,0.5,1.0,Gamma,1.0,2.0
1,600,0.25,3.0,Weibull,0.5,2.0
0,1200,1.0,1.0,Gamma,1.0,1.0
"""
LENGTHS = """client,t_s,requests,fields(q05;q25;q50;q75;q95;q99;mean)
0,0,100,input_tokens:10;20;30;40;50;60;mean=31,output_tokens:1;2;3;4;5;6;mean=3
0,1200,100,input_tokens:100;200;300;400;500;600;mean=310,output_tokens:1;2;3;4;5;6;mean=3
"""


def written(folder: Path, text: str, name: str = "some.trace.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def lengths(load: Load) -> list[tuple[float, int, int]]:
    return [
        (round(one.arrives_s, 3), call.prompt_tokens, call.output_tokens)
        for one in load
        for call in one.calls
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AZURE, [(0.0, 374, 44), (4.315, 396, 109), (64.542, 879, 55)]),
        (COMPACT, [(0.0, 100, 5), (2.0, 200, 6), (5.0, 300, 7), (10.0, 400, 8)]),
        (MOONCAKE, [(0.0, 1200, 5), (1.5, 1100, 6), (3.0, 1400, 7), (4.5, 600, 8)]),
        (MOONCAKE_COMPACT, [(0.0, 1200, 5), (1.5, 1100, 6), (3.0, 1400, 7), (4.5, 600, 8)]),
        (BURSTGPT, [(0.0, 472, 18), (113.0, 417, 276)]),
    ],
    ids=["azure", "compact", "mooncake", "mooncake compact", "burstgpt"],
)
@pytest.mark.parametrize("name", ["some.trace", "some.trace.gz"])
def test_a_trace_is_read_by_its_first_line(
    tmp_path: Path, text: str, expected: list[tuple[float, int, int]], name: str
) -> None:
    load = read_trace(written(tmp_path, text, name), ONE_CLASS)
    assert lengths(load) == expected
    assert {one.application for one in load} == {"some"}
    assert len({one.program_id for one in load}) == len(load)


def test_a_zone_and_a_byte_order_mark_are_understood(tmp_path: Path) -> None:
    text = "\ufeff" + AZURE.replace("00,", "00+00:00,").replace("\n", "\r\n")
    assert len(read_trace(written(tmp_path, text), ONE_CLASS)) == 3


def test_start_count_and_rate_choose_a_part_and_stretch_it(tmp_path: Path) -> None:
    plan = TracePlan(classes=(CHAT,), start_s=2.0, requests=2, rate=0.1)
    load = read_trace(written(tmp_path, COMPACT), plan)
    assert lengths(load) == [(0.0, 200, 6), (10.0, 300, 7)]
    assert rate(load) == pytest.approx(0.1)


def test_rows_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens\n1,100,5\n3,300,7\n2,200,6\n"
    assert lengths(read_trace(written(tmp_path, text), ONE_CLASS)) == [
        (0.0, 100, 5),
        (1.0, 200, 6),
        (2.0, 300, 7),
    ]


def test_calls_carry_the_targets_of_their_class_and_the_longest_answer_as_bound(
    tmp_path: Path,
) -> None:
    first, *_ = read_trace(written(tmp_path, COMPACT), ONE_CLASS)
    call = first.calls[0]
    assert (call.class_name, call.ttft_slowdown, call.value) == ("chat", 5.0, 2.0)
    assert call.targets().tpot_s == 0.1
    assert call.max_output_tokens == 8


def test_classes_fall_by_their_shares_and_by_the_seed(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "arrival_s,input_tokens,output_tokens\n" + "".join(f"{n},9,9\n" for n in range(400)),
    )
    classes = (SloClass(name="chat", stages=CHAT.stages, share=3.0), CODE)
    once, again, other = (
        [one.calls[0].class_name for one in read_trace(path, TracePlan(classes=classes, seed=seed))]
        for seed in (1, 1, 2)
    )
    assert once == again
    assert once != other
    assert once.count("chat") == other.count("chat") == 300


def test_stages_share_an_answer_and_lose_none_of_it(tmp_path: Path) -> None:
    thinks = SloClass(
        name="thinks",
        stages=(
            StageShare(name="thinking", tpot_s=0.05, share=6),
            StageShare(name="answer", tpot_s=0.1),
        ),
    )
    load = read_trace(written(tmp_path, COMPACT), TracePlan(classes=(thinks,)))
    assert [[stage.output_tokens for stage in one.calls[0].stages] for one in load] == [
        [4, 1],
        [5, 1],
        [6, 1],
        [7, 1],
    ]


def test_an_applications_classes_have_its_targets() -> None:
    assert [(one.name, one.ttft_slowdown, one.stages[0].tpot_s) for one in classes_of(MIXED)] == [
        ("chatbot", 5.0, 0.1),
        ("coder", 5.0, 0.05),
        ("summarizer", 3.0, 0.1),
    ]
    assert [one.name for one in classes_of(TOOLLLM)] == ["tool-answer"]
    thinking, answer = classes_of(REASONING)[0].stages
    assert thinking.share / (thinking.share + answer.share) == pytest.approx(0.85, abs=0.01)


@pytest.mark.parametrize("text", [MOONCAKE, MOONCAKE_COMPACT])
def test_prompts_that_begin_alike_name_the_program_that_was_first(
    tmp_path: Path, text: str
) -> None:
    load = read_trace(written(tmp_path, text), ONE_CLASS)
    found = [(one.calls[0].prefix_tokens, one.calls[0].prefix_group) for one in load]
    first, second = load[0].program_id, load[1].program_id
    # Two blocks of 512 are the first one's; the third is as the second one's, and only then ends.
    assert found == [(0, None), (1024, first), (1400, second), (0, None)]


SERVEGEN = TracePlan(classes=(CHAT,))


def servegen(folder: Path, windows: str = WINDOWS, lengths: str = LENGTHS) -> Path:
    written(folder, lengths, "m_lengths.csv")
    return written(folder, windows, "m_windows.csv")


def test_servegen_windows_become_as_many_requests_as_their_rates_say(tmp_path: Path) -> None:
    load = read_trace(servegen(tmp_path), SERVEGEN)
    assert len(load) == 300 + 150 + 600
    assert load == read_trace(servegen(tmp_path), SERVEGEN)
    assert 0 <= load[0].arrives_s < load[-1].arrives_s <= 1200
    assert all(left.arrives_s <= right.arrives_s for left, right in pairwise(load))
    assert {one.calls[0].output_tokens for one in load} == {1, 2, 3, 4, 5, 6}


def test_servegen_lengths_are_the_clients_at_the_time(tmp_path: Path) -> None:
    path = servegen(tmp_path, WINDOWS.replace("1,600,0.25", "0,600,0.25"))
    later = read_trace(path, TracePlan(classes=(CHAT,), start_s=600.0, requests=500))
    before = read_trace(path, TracePlan(classes=(CHAT,), requests=400))
    assert max(one.calls[0].prompt_tokens for one in before) <= 60
    assert min(one.calls[0].prompt_tokens for one in later) >= 100


def test_servegen_without_lengths_beside_it_says_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`lengths` in its name"):
        read_trace(written(tmp_path, WINDOWS, "m_windows.csv"), SERVEGEN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (COMPACT.replace("200", "two"), r"line 3, input_tokens: read 'two', expected a whole"),
        (COMPACT.replace("15,300,7", "15,300"), r"line 4, output_tokens: read nothing"),
        (COMPACT.replace("20,", "-20,"), r"line 5, arrival_s: read '-20', expected a number"),
        (COMPACT.replace("20,", "inf,"), r"line 5, arrival_s: read 'inf'"),
        (COMPACT.replace(",200,", ",200.5,"), r"line 3, input_tokens: read '200.5'"),
        (AZURE.replace("2023-11-16 18:15:50", "yesterday"), r"line 3, TIMESTAMP: read 'yesterday"),
        (MOONCAKE.replace("1500", '"soon"'), r"line 2, timestamp: read 'soon', expected millisec"),
        (MOONCAKE.replace("[7, 8]", '["x"]'), r"line 5, hash_ids: .* prompt blocks"),
        (MOONCAKE.replace("[7, 8]}", "[7, 8]"), r"line 5 is no JSON"),
        (MOONCAKE_COMPACT.replace("7 8", "7 b"), r"line 5, hash_ids: read '7 b'"),
        (BURSTGPT.replace("417", ""), r"line 4, Request tokens: read nothing"),
        ("a,b\n1,2\n", r"line 1: read the columns a, b; known are azure: TIMESTAMP"),
        ("", r"line 1: read the columns nothing"),
        ("\n".join(COMPACT.splitlines()[:2]), "fewer than two requests"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_trace(written(tmp_path, text), ONE_CLASS)


@pytest.mark.parametrize(
    ("windows", "lengths", "message"),
    [
        (WINDOWS.replace("Weibull", "Pareto"), LENGTHS, "line 3, pattern: read 'Pareto'"),
        (WINDOWS.replace("0.5,1.0,G", "x,1.0,G"), LENGTHS, "line 2, rate_rps: read 'x'"),
        (WINDOWS.replace("Gamma,1.0,2", "Gamma,0,2"), LENGTHS, "line 2, p1: .* above 0"),
        (WINDOWS, LENGTHS.replace(":10;20;", ":90;20;"), "line 2, input_tokens: .* ascending"),
        (WINDOWS, LENGTHS.replace(",output_tokens:", ","), "line 2, output_tokens: read nothing"),
        (WINDOWS.splitlines()[0], LENGTHS, "has no clients"),
    ],
)
def test_what_is_wrong_in_servegen_is_named_by_line_and_column(
    tmp_path: Path, windows: str, lengths: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_trace(servegen(tmp_path, windows, lengths), SERVEGEN)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary, false_gzip = tmp_path / "binary.csv", tmp_path / "false.csv.gz"
    binary.write_bytes(b"\xff\xfe\x00")
    false_gzip.write_bytes(b"no gzip")
    for path in (tmp_path / "missing.csv", binary, false_gzip):
        with pytest.raises(ConfigError, match=path.name):
            read_trace(path, ONE_CLASS)


def test_rows_are_as_the_file_has_them(tmp_path: Path) -> None:
    rows = list(read_rows(written(tmp_path, BURSTGPT)))
    assert [(one.arrival_s, one.output_tokens) for one in rows] == [(5, 18), (45, 0), (118, 276)]


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path


def test_the_azure_coding_trace_has_its_published_figures() -> None:
    load = read_trace(real("azure2023_code.csv.gz"), TracePlan())
    found = summary(load)
    assert found.programs == 8819
    assert gap_cv(load) == pytest.approx(13.2, abs=0.1)
    assert (found.prompt_tokens.p50, found.prompt_tokens.p99) == pytest.approx((1469, 7436), abs=1)


def test_two_thirds_of_mooncakes_prompts_were_there_before() -> None:
    load = read_trace(real("mooncake_synthetic.csv.gz"), TracePlan())
    known = {one.program_id for one in load}
    groups = {one.calls[0].prefix_group for one in load} - {None}
    assert groups < known
    assert summary(load).prefix_share == pytest.approx(0.65, abs=0.02)


def test_real_servegen_clients_ask_at_their_rates() -> None:
    path = real("servegen_m-small_client_windows.csv.gz")
    load = read_trace(path, TracePlan(requests=2000))
    assert len(load) == 2000
    assert rate(load) == pytest.approx(810, rel=0.1)
