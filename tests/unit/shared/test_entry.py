import pytest

from shared.entry import exit_status
from shared.errors import ConfigError


def test_the_exit_status_is_the_program_s_own() -> None:
    assert exit_status(len, ["a", "b", "c"], program="test") == 3


def test_an_error_of_ours_is_one_line_and_any_other_is_shown_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(argv: object) -> int:
        raise (ConfigError if argv else RuntimeError)("no such model: name a folder")

    assert exit_status(fail, ["x"], program="test") == 2
    assert capsys.readouterr().err == "test: error: no such model: name a folder\n"
    with pytest.raises(RuntimeError):
        exit_status(fail, [], program="test")
