"""What a fleet leaves in shared memory."""

import mmap
from pathlib import Path

import pytest

from services.bench.chaos import processes


def test_a_file_in_shared_memory_is_left_behind_once_no_process_maps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_SHARED", tmp_path)
    path = tmp_path / "blocks"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        assert processes.orphans() == set()
    assert processes.orphans() == {"blocks"}


def test_a_file_that_got_its_name_after_it_was_mapped_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_SHARED", tmp_path)
    first, name = tmp_path / "temporary", tmp_path / "semaphore"
    first.write_bytes(bytes(mmap.PAGESIZE))
    with first.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        name.hardlink_to(first)
        first.unlink()
        assert processes.orphans() == set()
    assert processes.orphans() == {"semaphore"}
