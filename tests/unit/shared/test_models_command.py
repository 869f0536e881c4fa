from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.models.__main__ import main


def test_the_command_prints_what_vllm_will_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")

    assert main([str(tmp_path)]) == 0
    assert main(["owner/name"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path), "owner/name"]


@pytest.mark.parametrize("words", [[], ["a/b", "c/d"], ["--model"]])
def test_anything_but_one_name_is_an_error(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="one name"):
        main(words)
