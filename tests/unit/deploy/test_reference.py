"""The generated pages of docs/reference say what the code says."""

import re
from pathlib import Path

import pytest

from deploy.reference import ALL_OPTIONS, FOLDER, PAGES

ROOT = Path(__file__).parents[3]
INTERNAL = {"bench_stub"}  # the stub engine that `bench` starts itself


def sections() -> set[str]:
    """Sections that the code reads options of, by the calls of `load`."""
    found: set[str] = set()
    for package in ("services", "shared"):
        for path in (ROOT / package).rglob("*.py"):
            found |= set(
                re.findall(r'\bsection="(\w+)"|^SECTION = "(\w+)"', path.read_text(), re.MULTILINE)
            )
    return {one for pair in found for one in pair if one}


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run make reference"


def test_every_section_of_options_has_its_table() -> None:
    shown = {one.section for one in ALL_OPTIONS}
    assert sections() - INTERNAL <= shown
    assert shown - sections() == {"prefill", "decode"}  # their section is the name of the role


def test_every_metric_that_the_dashboards_and_alerts_read_is_on_its_page() -> None:
    page = PAGES["metrics.md"]()
    read: set[str] = set()
    for path in (ROOT / "deploy" / "observability").rglob("*"):
        if path.suffix in {".json", ".yml"} and "test" not in path.name:
            read |= set(re.findall(r"\bslos_[a-z_]+[a-z]\b", path.read_text()))
    histograms = {re.sub(r"_(bucket|sum|count)$", "", name) for name in read}
    assert histograms
    assert {name for name in histograms if f"`{name}`" not in page} == set()
