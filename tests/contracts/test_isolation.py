import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

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


def loaded_by(modules: Sequence[str], unwanted: tuple[str, ...]) -> str:
    """Which of `unwanted` a fresh interpreter has loaded after importing all of `modules`."""
    script = (
        f"import importlib, sys; [importlib.import_module(one) for one in {list(modules)!r}];"
        f"print(' '.join(one for one in {unwanted!r} if one in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", FREE_OF_EVERYTHING)
def test_the_words_and_what_decides_need_only_the_standard_library_and_numpy(module: str) -> None:
    assert (
        loaded_by([module], ("grpc", "google.protobuf", "pydantic", "zmq", "torch", "vllm")) == ""
    )


@pytest.mark.parametrize("module", QUICK)
def test_a_command_answers_help_without_loading_an_engine(module: str) -> None:
    assert loaded_by([module], ("vllm", "torch", "transformers", "nixl")) == ""


def test_the_planner_s_image_needs_no_engine() -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PLANNER]
    assert len(modules) > 5
    assert loaded_by(modules, ("vllm", "torch", "transformers", "nixl", "zmq", "fastapi")) == ""
