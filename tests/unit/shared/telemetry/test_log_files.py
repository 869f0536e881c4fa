from pathlib import Path

from shared.telemetry.log_files import append_to, cut_back


def test_a_new_log_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    with append_to(log) as file:
        file.write(b"line\n")
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_log_at_its_limit_is_set_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    log, aside = tmp_path / "part.log", tmp_path / "part.log.1"
    with append_to(log) as file:
        for text in (b"first\n", b"second\n"):
            file.write(text)
            file.flush()
            cut_back(log, limit_bytes=6)
        file.write(b"third\n")

    assert log.read_bytes() == b"third\n"
    assert aside.read_bytes() == b"second\n"
    assert aside.stat().st_mode & 0o777 == 0o600


def test_a_short_log_and_one_that_is_not_there_stay(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_bytes(b"short")

    cut_back(log, limit_bytes=6)
    cut_back(tmp_path / "none.log", limit_bytes=6)

    assert [one.name for one in tmp_path.iterdir()] == ["part.log"]
