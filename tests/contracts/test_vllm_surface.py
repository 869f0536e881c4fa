"""Which names of vLLM our code stands on, and that the installed vLLM has them as they were.

`VLLM_SOURCES=<folder of the package vllm>` compares another version's sources, which need not be
installed; `UPDATE_GOLDEN=1` writes the list anew from the installed ones.
"""

import importlib.util
import os
from pathlib import Path

import pytest

from tests.contracts.vllm_names import MissingNameError, Sources, used_names

LISTED = Path(__file__).with_name("vllm_surface.txt")
ROOT = Path(__file__).parents[2]


def vllm_folder() -> Path:
    if named := os.environ.get("VLLM_SOURCES"):
        return Path(named)
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


VLLM = Sources(vllm_folder())


def form_of(name: str) -> str:
    try:
        return VLLM.form(name)
    except MissingNameError as error:
        return f"missing: {error}"


def listed() -> dict[str, str]:
    lines = (line.partition(" ") for line in LISTED.read_text().splitlines())
    return {name: form for name, _, form in lines}


if os.environ.get("UPDATE_GOLDEN"):
    LISTED.write_text("".join(f"{one} {form_of(one)}\n" for one in used_names(ROOT, VLLM)))


@pytest.mark.parametrize(("name", "form"), listed().items())
def test_vllm_has_the_name_in_the_form_that_we_use(name: str, form: str) -> None:
    assert form_of(name) == form


def test_the_list_holds_every_name_that_our_sources_use() -> None:
    assert sorted(listed()) == used_names(ROOT, VLLM)


def test_nothing_that_is_missing_is_listed() -> None:
    assert [name for name, form in listed().items() if form.startswith("missing")] == []


def test_a_name_that_is_gone_is_told_by_name() -> None:
    assert "no_such_method" in form_of(
        "vllm.v1.core.sched.async_scheduler:AsyncScheduler.no_such_method"
    )
    assert "no_such_module" in form_of("vllm.no_such_module:anything")
