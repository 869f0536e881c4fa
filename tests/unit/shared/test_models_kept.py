import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.models.kept import KeptFolder

QUIET: list[str] = []  # what is said there is of no interest


def write_one(folder: Path) -> None:
    (folder / "weights").write_text("whole")


def never(folder: Path) -> None:
    raise AssertionError(f"{folder} was made again")


def kept(tmp_path: Path, *, needed_bytes: int = 0, wait_limit_s: float = 5.0) -> KeptFolder:
    return KeptFolder(tmp_path / "m", needed_bytes=needed_bytes, wait_limit_s=wait_limit_s)


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    folder = kept(tmp_path)

    folder.get(write_one, QUIET.append)

    assert (folder.get(never, QUIET.append) / "weights").read_text() == "whole"


def test_a_failed_making_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write_one(folder)
        raise ConfigError("cut")

    with pytest.raises(ConfigError, match="cut"):
        kept(tmp_path).get(fail, QUIET.append)

    assert [file.name for file in tmp_path.iterdir()] == ["m.lock"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "m.partial").mkdir()
    (tmp_path / "m.partial" / "half").write_text("half")

    made = kept(tmp_path).get(write_one, QUIET.append)

    assert not (made / "half").exists()
    assert not (tmp_path / "m.partial").exists()


def test_a_folder_with_a_file_of_another_size_is_made_again(tmp_path: Path) -> None:
    made = kept(tmp_path).get(write_one, QUIET.append)
    (made / "weights").write_text("cut")

    kept(tmp_path).get(write_one, QUIET.append)

    assert (made / "weights").read_text() == "whole"


def test_a_folder_that_we_did_not_finish_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights").write_text("half")

    assert not kept(tmp_path).complete


def test_too_little_space_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MiB free and the model needs .* SLOS_CACHE"):
        kept(tmp_path, needed_bytes=1 << 60).get(never, QUIET.append)


def test_a_cache_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = KeptFolder(tmp_path / "file" / "m", needed_bytes=0)

    with pytest.raises(ConfigError, match="SLOS_CACHE"):
        folder.get(never, QUIET.append)


RACE = """
import sys, time
from pathlib import Path
from shared.models.kept import KeptFolder
def make(folder):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    (folder / "weights").write_text("wh")
    time.sleep(0.3)
    (folder / "weights").write_text("whole")
made = KeptFolder(Path(sys.argv[1]), needed_bytes=0).get(make, print)
assert (made / "weights").read_text() == "whole"
"""


def test_processes_that_race_make_it_once_and_all_get_it_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path / "m"), str(tmp_path / "log")]

    racers = [subprocess.Popen(command) for _ in range(3)]

    assert [racer.wait(20) for racer in racers] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_the_wait_for_another_process_has_a_limit(tmp_path: Path) -> None:
    waiting, said = kept(tmp_path, wait_limit_s=0.2), list[str]()

    def meanwhile(folder: Path) -> None:
        write_one(folder)
        with pytest.raises(ConfigError, match=r"end it and start again"):
            waiting.get(never, said.append)

    kept(tmp_path).get(meanwhile, QUIET.append)

    assert "waiting" in said[0]
