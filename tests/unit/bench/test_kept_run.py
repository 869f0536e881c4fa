from pathlib import Path

import pytest

from services.bench.kept_run import DECISIONS, new_folder
from shared.errors import ConfigError


def test_the_folder_of_a_run_is_the_named_one_or_one_of_its_command(tmp_path: Path) -> None:
    assert new_folder("soak", str(tmp_path / "mine")) == tmp_path / "mine"
    assert new_folder("soak", "").parent == Path(".slos/soak").resolve()


def test_a_folder_that_holds_a_run_is_not_used_again(tmp_path: Path) -> None:
    (tmp_path / DECISIONS).touch()

    with pytest.raises(ConfigError, match="name another folder with --run-dir"):
        new_folder("chaos", str(tmp_path))
