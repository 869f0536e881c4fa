from collections import Counter
from pathlib import Path

import pytest

from services.evaluation.mix import read_mix
from services.evaluation.scenarios import load_of
from shared.errors import ConfigError
from shared.requests import Pacing

CHAT = "{share: 3, prompt_tokens: 500, output_tokens: 200, ttft_slowdown: 5, tpot_ms: 60}"
CODE = "{prompt_tokens: 900, output_tokens: 50, ttft_slowdown: 3, tpot_ms: 30, bursty: true}"


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
        ("classes: {chat: 3}", "allowed is a mapping with share"),
        ("classes: {chat: {prompt_tokens: 5}}", "output_tokens"),
        (f"classes: {{chat: {CHAT[:-1]}, tpott_ms: 3}}}}", "did you mean tpot_ms"),
        (f"classes: {{chat: {CHAT.replace('500', '0')}}}", "prompt_tokens"),
        (f"classes: {{chat: {CHAT.replace('share', 'pacing: late, share')}}}", "deadlines"),
        ("classes: [", "not YAML"),
    ],
)
def test_a_bad_file_says_what_to_write(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_mix(write(tmp_path, text))


def test_a_file_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mix(tmp_path / "none.yaml")
