import sys
from collections.abc import Sequence
from types import ModuleType

import pytest

from services import cli
from shared.errors import PlannerUnavailable


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A planner that does nothing, in place of the real one."""
    module = ModuleType("services.planner.__main__")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_command_gets_the_rest_of_the_words_and_gives_the_exit_status(
    planner: ModuleType,
) -> None:
    seen: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> int:
        seen.append(argv)
        return 7

    planner.__dict__["main"] = run
    assert cli.main(["planner", "--port", "1"]) == 7
    assert seen == [["--port", "1"]]


def test_an_error_that_we_know_is_one_line_and_status_2(
    planner: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_argv: Sequence[str]) -> int:
        raise PlannerUnavailable("nobody answers at 127.0.0.1:8100: start one")

    planner.__dict__["main"] = fail
    assert cli.main(["planner"]) == 2
    assert (
        capsys.readouterr().err
        == "slos-serve: error: nobody answers at 127.0.0.1:8100: start one\n"
    )


def test_ctrl_c_ends_without_a_traceback(
    planner: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_argv: Sequence[str]) -> int:
        raise KeyboardInterrupt

    planner.__dict__["main"] = stop
    assert cli.main(["planner"]) == 130
    assert capsys.readouterr().err == ""


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plannr"]) == 2
    assert (
        capsys.readouterr().err
        == "slos-serve: error: unknown command plannr; did you mean planner?\n"
    )


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_help_lists_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("slos-serve ")
