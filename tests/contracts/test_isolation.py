import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from services.cli import COMMANDS

FREE_OF_EVERYTHING = (
    "shared.requests",
    "shared.engines",
    "shared.errors",
    "shared.clock",
    "shared.scheduling",
    "shared.batch_time",
)
QUICK = ("services.cli", *(command.module for command in COMMANDS.values()))
ROOT = Path(__file__).parents[2]
PLANNER = sorted((ROOT / "services" / "planner").rglob("*.py"))
ENGINE = ("vllm", "torch", "transformers", "nixl")
IMPORT = """
import importlib, json, sys
modules, unwanted = json.loads(sys.argv[1])
loaded = {}
for module in modules:
    importlib.import_module(module)
    loaded |= {one: loaded.get(one, module) for one in unwanted if one in sys.modules}
print(json.dumps(loaded))
"""


def loaded_by(modules: Sequence[str], unwanted: Sequence[str]) -> dict[str, str]:
    """What of `unwanted` a fresh interpreter loads as it imports `modules`, and with which."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, json.dumps([modules, unwanted])],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, str] = json.loads(done.stdout)
    return loaded


def test_the_words_and_what_decides_need_only_the_standard_library_and_numpy() -> None:
    unwanted = ("grpc", "google.protobuf", "pydantic", "zmq", "torch", "vllm")
    assert loaded_by(FREE_OF_EVERYTHING, unwanted) == {}


def test_a_command_answers_help_without_loading_an_engine() -> None:
    assert loaded_by(QUICK, ENGINE) == {}


def test_the_planner_s_image_needs_no_engine() -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PLANNER]
    assert len(modules) > 5
    assert loaded_by(modules, (*ENGINE, "zmq", "fastapi")) == {}
