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
