import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from services.node import up
from services.node.config import NodeOptions
from services.node.part_options import check_part_options
from services.node.plan import NodePlan, Part, Rank
from shared.errors import ConfigError

FAULTS = {
    "gateway: {classes: {chat: {ttft_msx: 5}}}": r"gateway\.classes .*, chat: unknown key ttft_msx",
    "planner: {hold_s: soon}": r"planner\.hold_s .*: read 'soon', allowed is a number",
    "prefill: {kv_transport: pigeon}": r"prefill\.kv_transport .*: read 'pigeon'",
    "decode: {cores: all}": "cores: read 'all'",
}


async def never(_plan: NodePlan) -> int:
    raise AssertionError("the node served")


def start_node(config: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*_arguments: Any) -> None:
        raise AssertionError("the machine was read before the options were checked")

    monkeypatch.setattr(up, "survey", unwanted)
    file = folder / "node.yaml"
    file.write_text(config)
    options = NodeOptions(auto_ports=True, run_dir=str(folder / "run"))
    up.run_node(options, config=str(file), use=never, console=Console(file=StringIO()))


@pytest.mark.parametrize("config", FAULTS)
def test_a_fault_in_the_section_of_a_part_is_one_line_before_anything_starts(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=FAULTS[config]) as told:
        start_node(config, tmp_path, monkeypatch)
    assert "\n" not in str(told.value)


def test_valid_sections_let_the_start_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = "gateway: {classes: {chat: {ttft_ms: 5}}}\nplanner: {hold_s: 1}\n"
    with pytest.raises(AssertionError, match="machine was read"):
        start_node(config, tmp_path, monkeypatch)


def part(module: str, folder: Path, script: str) -> Part:
    command = (sys.executable, "-c", script, module)
    return Part(
        name=module,
        rank=Rank.ENGINE,
        command=command,
        address="",
        log=folder / "log",
        stop_limit_s=1.0,
    )


def test_parts_of_one_kind_are_checked_once(tmp_path: Path) -> None:
    script = "import pathlib, sys; pathlib.Path(sys.argv[1] + '.ran').touch(exist_ok=False)"
    twice = part(str(tmp_path / "one"), tmp_path, script)

    check_part_options([twice, twice])

    assert (tmp_path / "one.ran").exists()


def test_a_part_that_dies_without_an_error_of_ours_is_a_fault_as_well(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ZeroDivisionError: division by zero"):
        check_part_options([part("one", tmp_path, "1 / 0")])
