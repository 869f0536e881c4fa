from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from services.evaluation.mix import read_mix
from services.evaluation.scenarios import load_of
from shared.errors import ConfigError
from shared.requests import Pacing
from shared.workloads.calls import Call

CHAT = "{share: 3, prompt_tokens: 500, output_tokens: 200, ttft_slowdown: 5, tpot_ms: 60}"
CODE = "{prompt_tokens: 900, output_tokens: 50, ttft_slowdown: 3, tpot_ms: 30, bursty: true}"
STAGE = "{name: thinking, output_tokens: 300, tpot_ms: 20}"
TOOLS = "{calls: 3, response_tokens: 40, tool_ms: 250}"


def write(folder: Path, text: str, name: str = "mix.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_classes_come_in_their_shares_with_their_targets(tmp_path: Path) -> None:
    path = write(tmp_path, f"classes:\n  chat: {CHAT}\n  code: {CODE}\n")

    calls = [
        program.calls[0] for program in load_of(f"classes:{path}", rate=5, programs=400, seed=1)
    ]

    assert Counter(call.class_name for call in calls) == {"chat": 300, "code": 100}
    code = next(call for call in calls if call.class_name == "code")
    assert (code.ttft_slowdown, code.stages[0].tpot_s) == (3, 0.03)
    chats = sorted(call.prompt_tokens for call in calls if call.class_name == "chat")
    assert chats[len(chats) // 2] == pytest.approx(500, rel=0.05)


def test_a_class_may_mean_its_pace_as_deadlines(tmp_path: Path) -> None:
    asks = CHAT.replace("share", "pacing: deadlines, share")
    path = write(tmp_path, f"classes:\n  chat: {asks}\n  code: {CODE}\n")

    calls = [
        program.calls[0] for program in load_of(f"classes:{path}", rate=5, programs=40, seed=1)
    ]

    asked = {(call.class_name, call.targets().pacing) for call in calls}
    assert asked == {("chat", Pacing.DEADLINES), ("code", Pacing.MEAN)}


def calls_of(folder: Path, asks: str, programs: int = 50) -> list[tuple[Call, ...]]:
    path = write(folder, f"classes:\n  one: {asks}\n")
    return [one.calls for one in load_of(f"classes:{path}", rate=5, programs=programs, seed=1)]


def test_a_class_without_targets_asks_for_nothing(tmp_path: Path) -> None:
    (call,), *_ = calls_of(tmp_path, "{prompt_tokens: 50, output_tokens: 20, value: 3}")

    assert call.targets().asks_for_nothing
    assert call.value == 3


def test_a_first_token_may_be_asked_for_in_milliseconds(tmp_path: Path) -> None:
    asks = "{prompt_tokens: 50, output_tokens: 20, ttft_ms: 300, ttft_slowdown: 4}"
    (call,), *_ = calls_of(tmp_path, asks)

    assert (call.targets().ttft_s, call.targets().ttft_slowdown) == (0.3, None)
    assert call.targets().tpot_s is None


def test_stages_of_an_answer_have_lengths_and_paces_of_their_own(tmp_path: Path) -> None:
    answer = "{name: answer, output_tokens: 90, tpot_ms: 50}"
    (call,), *_ = calls_of(tmp_path, f"{{prompt_tokens: 50, stages: [{STAGE}, {answer}]}}")

    assert [one.name for one in call.stages] == ["thinking", "answer"]
    assert [one.tpot_s for one in call.targets().stages] == [0.02, 0.05]


def test_tools_make_a_program_of_calls_each_of_which_knows_what_came_before(tmp_path: Path) -> None:
    asks = f"{{prompt_tokens: 50, output_tokens: 20, tpot_ms: 40, tools: {TOOLS}}}"
    for calls in calls_of(tmp_path, asks):
        assert len(calls) == 3
        assert {(one.class_name, one.stages[0].tpot_s) for one in calls} == {("one", 0.04)}
        assert calls[0].after_s == 0 < min(calls[1].after_s, calls[2].after_s)
        for before, call in pairwise(calls):
            assert call.prefix_tokens == before.prompt_tokens + before.output_tokens
            assert call.prefix_group is None


def test_prompts_begin_with_one_of_so_many_texts_beside_their_own_tokens(tmp_path: Path) -> None:
    prefix = "prefix: {tokens: 1000, variants: 3}"
    plain = calls_of(tmp_path, "{prompt_tokens: 50, output_tokens: 20}")
    shared = calls_of(tmp_path, f"{{prompt_tokens: 50, output_tokens: 20, {prefix}}}")

    assert [one.prompt_tokens for (one,) in shared] == [
        1000 + one.prompt_tokens for (one,) in plain
    ]
    assert {one.prefix_tokens for (one,) in shared} == {1000}
    assert len({one.prefix_group for (one,) in shared}) == 3


def test_toml_says_the_same_as_yaml(tmp_path: Path) -> None:
    yaml = write(tmp_path, f"classes:\n  chat: {CHAT}\n")
    toml = write(
        tmp_path,
        "[classes.chat]\n" + CHAT.strip("{}").replace(": ", " = ").replace(", ", "\n"),
        "mix.toml",
    )

    assert read_mix(yaml) == read_mix(toml)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no mapping `classes`"),
        ("classes: {}", "no mapping `classes`"),
        ("classes: {chat: 3}", "allowed is a mapping with prompt_tokens"),
        ("classes: {chat: {prompt_tokens: 5}}", "output_tokens"),
        (f"classes: {{chat: {CHAT[:-1]}, tpott_ms: 3}}}}", "did you mean tpot_ms"),
        (f"classes: {{chat: {CHAT.replace('500', '0')}}}", "prompt_tokens"),
        (f"classes: {{chat: {CHAT.replace('share', 'pacing: late, share')}}}", "deadlines"),
        ("classes: {chat: {prompt_tokens: 5, stages: []}}", "output_tokens or stages"),
        (f"classes: {{chat: {CHAT[:-1]}, stages: [{STAGE}]}}}}", "output_tokens or stages"),
        (f"classes: {{chat: {{prompt_tokens: 5, tpot_ms: 9, stages: [{STAGE}]}}}}", "its own"),
        (f"classes: {{chat: {{prompt_tokens: 5, stages: [{STAGE}, {STAGE}, {STAGE}]}}}}", "most 2"),
        (f"classes: {{chat: {{prompt_tokens: 5, stages: [{STAGE}], tools: {TOOLS}}}}}", "or tools"),
        (f"classes: {{chat: {CHAT[:-1]}, acceptance: 1.0}}}}", "acceptance"),
        ("classes: [", "not YAML"),
    ],
)
def test_a_bad_file_says_what_to_write(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_mix(write(tmp_path, text))


def test_a_file_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mix(tmp_path / "none.yaml")
