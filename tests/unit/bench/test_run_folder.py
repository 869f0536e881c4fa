from pathlib import Path

from services.bench.run_folder import run_folder


def test_a_named_folder_is_made_and_stays(tmp_path: Path) -> None:
    with run_folder(str(tmp_path / "deep" / "run")) as folder:
        (folder / "log").touch()

    assert (tmp_path / "deep" / "run" / "log").exists()


def test_a_temporary_folder_is_gone_afterwards() -> None:
    with run_folder("") as folder:
        assert folder.is_dir()

    assert not folder.exists()
