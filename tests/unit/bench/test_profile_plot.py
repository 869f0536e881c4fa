from pathlib import Path

import pytest

from services.bench.profile import main
from services.bench.profile_plot import draw
from shared.batch_time import RICH, fit_curve
from shared.errors import ConfigError
from tests.unit.bench.test_profile_report import table


@pytest.mark.parametrize("name", ["steps.svg", "steps.png"])
def test_a_profile_is_drawn_as_a_file_of_the_named_kind(tmp_path: Path, name: str) -> None:
    drawn, path = table(), tmp_path / name
    fit = fit_curve(RICH, [row.step for row in drawn.rows], [row.seconds for row in drawn.rows])

    draw(drawn, fit, path)

    begins = path.read_bytes()[:200]
    assert begins.startswith(b"\x89PNG") if name.endswith("png") else b"<?xml" in begins


def test_the_same_profile_is_the_same_picture(tmp_path: Path) -> None:
    drawn = table()
    fit = fit_curve(RICH, [row.step for row in drawn.rows], [row.seconds for row in drawn.rows])

    for name in ("a.svg", "b.svg"):
        draw(drawn, fit, tmp_path / name)

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(("name", "cure"), [("a.txt", ".svg, .png"), ("no/where.svg", "make it")])
def test_a_file_that_cannot_be_drawn_is_told_before_anything_is_measured(
    tmp_path: Path, name: str, cure: str
) -> None:
    with pytest.raises(ConfigError, match=cure):
        main(["--plot", str(tmp_path / name)])
