import subprocess
import sys

import pytest

from shared.entry import CUT_OFF, exit_status
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


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    script = (
        "import sys; from shared.entry import exit_status\n"
        "sys.exit(exit_status(lambda _: print('x\\n' * 100_000) or 0, [], program='p'))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == CUT_OFF


def test_an_end_at_once_keeps_status_and_output_and_runs_nothing_else() -> None:
    script = (
        "import atexit; from shared.entry import end_at_once\n"
        "atexit.register(print, 'the interpreter ends')\n"
        "print('served', end='')\n"
        "end_at_once(7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (7, "served")
