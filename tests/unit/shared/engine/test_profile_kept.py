import json
from pathlib import Path

import pytest

from shared.batch_time import ADDITIVE, Fit, Step, fit_curve, to_plain
from shared.engine.profile_kept import fit_in, identity, keep_fit, kept_fit
from shared.errors import ConfigError

HARDWARE = {"device": "a card", "threads": "3", "vllm": "1"}


def some_fit() -> Fit:
    steps = [Step(decodes=k).with_chunk(c) for k in (1, 4) for c in (0, 16, 64)]
    return fit_curve(ADDITIVE, steps, [0.1 + 0.01 * one.tokens for one in steps])


def make_model(folder: Path, config: str = "{}", weights: bytes = b"12") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(weights)
    return str(folder)


def test_what_was_kept_is_found_again_by_the_same_engine(tmp_path: Path) -> None:
    wanted, fit = identity(make_model(tmp_path / "m"), HARDWARE), some_fit()
    keep_fit(tmp_path, wanted, fit)

    assert kept_fit(tmp_path, wanted) == fit
    assert [one.suffix for one in (tmp_path / "profiles").iterdir()] == [".json"]


def test_another_model_or_hardware_finds_nothing(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    keep_fit(tmp_path, identity(model, HARDWARE), some_fit())

    others = [
        identity(make_model(tmp_path / "o", config="{1}"), HARDWARE),
        identity(make_model(tmp_path / "p", weights=b"123"), HARDWARE),
        identity("owner/name", HARDWARE),
        identity(model, HARDWARE | {"threads": "4"}),
    ]

    assert [kept_fit(tmp_path, one) for one in others] == [None] * 4


def test_a_copy_of_the_model_elsewhere_is_the_same_model(tmp_path: Path) -> None:
    assert identity(make_model(tmp_path / "m"), {}) == identity(make_model(tmp_path / "n"), {})


def test_a_broken_file_is_measured_anew(tmp_path: Path) -> None:
    wanted = identity("owner/name", HARDWARE)
    keep_fit(tmp_path, wanted, some_fit())
    (file,) = (tmp_path / "profiles").iterdir()
    file.write_text(file.read_text()[:100])

    assert kept_fit(tmp_path, wanted) is None


def test_a_folder_that_cannot_be_written_costs_no_start_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "profiles").write_text("a file where the folder should be")

    keep_fit(tmp_path, identity("owner/name", HARDWARE), some_fit())

    assert f"The profile cannot be kept in {tmp_path}" in caplog.text


def test_a_file_of_a_printed_profile_gives_its_fit(tmp_path: Path) -> None:
    printed = tmp_path / "profile.json"
    printed.write_text(json.dumps({"fit": to_plain(some_fit()), "measured": []}))

    assert fit_in(printed) == some_fit()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fit": {"form": "rich"}}'])
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, text: str) -> None:
    other = tmp_path / "other.json"
    other.write_text(text)

    with pytest.raises(ConfigError, match=r"other\.json is no profile"):
        fit_in(other)
