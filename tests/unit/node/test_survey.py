from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from services.node import survey
from services.node.config import NodeOptions
from services.node.plan import Surroundings
from shared.errors import ConfigError
from tests.unit.node.inventory import smi


class Machine:
    """Where `survey` looks: an answer of vLLM, and an nvidia-smi that lists some GPUs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.console = Console(file=StringIO(), width=200)
        self._folder, self._monkeypatch = folder, monkeypatch

    def has(self, device: str, gpus: int = 0) -> None:
        patch: Any = self._monkeypatch
        patch.setattr(survey, "ask_device", lambda: None)
        patch.setattr(survey, "answered_device", lambda _asked: device)
        patch.setattr(survey, "resolve_model", lambda _model, say: "/model")  # noqa: ARG005 - by name
        patch.setattr(survey, "memory_gib", lambda: 64.0)
        patch.setenv("PATH", str(self._folder))
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if gpus:
            listed = smi(gpus)(["--query-gpu=index,uuid,name,memory.total,memory.free,"])
            fake = self._folder / "nvidia-smi"
            fake.write_text(
                f'#!/bin/sh\nwhile read -r line; do echo "$line"; done <<E\n{listed}E\n'
            )
            fake.chmod(0o755)

    def survey(self, **options: Any) -> Surroundings:
        run_dir = str(self._folder / "run")
        return survey.survey(NodeOptions(run_dir=run_dir, **options), None, self.console)

    @property
    def said(self) -> str:
        file = self.console.file
        assert isinstance(file, StringIO)
        return file.getvalue()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_engines_on_cpu_share_cores_and_memory_even_beside_gpus(machine: Machine) -> None:
    machine.has("cpu", gpus=2)

    around = machine.survey()

    assert len(around.shares) == 2
    assert not around.gpu_shares


def test_engines_on_gpus_share_those_that_nvidia_smi_lists(machine: Machine) -> None:
    machine.has("cuda", gpus=4)

    around = machine.survey(decode=3)

    assert not around.shares
    assert [share.gpus for share in around.gpu_shares] == [(0,), (1,), (2,), (3,)]
    assert machine.said == ""


def test_gpus_without_an_engine_are_told(machine: Machine) -> None:
    machine.has("cuda", gpus=8)
    machine.survey()

    assert "6 of 8 GPUs stay idle: more engines with --prefill and --decode" in machine.said


def test_a_cuda_build_without_a_gpu_is_said_with_the_cure(machine: Machine) -> None:
    machine.has("")

    with pytest.raises(ConfigError, match="slos-serve doctor"):
        machine.survey()


def test_gpus_cannot_be_asked_for_on_cpu(machine: Machine) -> None:
    machine.has("cpu")

    with pytest.raises(ConfigError, match="--gpus-per-engine has no GPU to give"):
        machine.survey(gpus_per_engine=1)


def test_gpus_of_another_maker_are_left_to_the_engines(machine: Machine) -> None:
    machine.has("rocm")

    around = machine.survey()

    assert not around.shares
    assert not around.gpu_shares
