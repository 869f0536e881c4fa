import subprocess
import sys
from pathlib import Path


def test_a_conversion_for_a_process_that_has_ended_does_not_begin(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    arguments = [str(tmp_path / "no.gguf"), str(tmp_path), str(gone.pid)]

    done = subprocess.run(
        [sys.executable, "-m", "shared.models.convert", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stderr) == (1, "")
