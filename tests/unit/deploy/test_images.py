import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "deploy/images/Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICES = ("planner", "gateway", "engine-cpu", "engine-cuda")


def stages() -> dict[str, str]:
    """The text of each stage by its name."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_runs_without_rights_and_says_its_health_and_version(service: str) -> None:
    stage = stages()[service]

    assert "USER 65532:65532" in stage
    assert "HEALTHCHECK" in stage
    assert 'org.opencontainers.image.version="${VERSION}"' in stage
    assert "VOLUME /var/cache/slos-serve" in stage


def test_images_carry_the_version_of_the_project() -> None:
    environment = (ROOT / "deploy/compose/.env").read_text()

    assert f"ARG VERSION={PROJECT['project']['version']}\n" in DOCKERFILE
    assert f"\nVERSION={PROJECT['project']['version']}\n" in environment


def test_what_is_left_out_of_a_lock_is_in_it() -> None:
    for names, lock in re.findall(r"LEFT_OUT='([^']+)' /pip/install -r /(\S+)", DOCKERFILE):
        locked = (ROOT / "deploy" / lock).read_text()
        missing = [name for name in names.split() if f"\n{name}==" not in locked]
        assert not missing, lock


def test_each_lock_of_an_image_holds_all_of_the_one_below() -> None:
    locks = [
        set((ROOT / f"deploy/locks/{name}.txt").read_text().splitlines()[1:])
        for name in ("planner", "gateway", "engine-cpu")
    ]

    assert locks[0] < locks[1] < locks[2]


def test_the_image_for_cuda_installs_its_lock_and_torch_for_cuda() -> None:
    stage = stages()["engine-cuda-packages"]

    assert "/pip/install -r /locks/engine-cuda.txt" in stage
    assert "assert torch.version.cuda" in stage


@pytest.mark.parametrize("package", ["torch", "vllm", "nixl"])
def test_the_lock_for_cuda_has_the_versions_of_its_extra(package: str) -> None:
    asked = PROJECT["project"]["optional-dependencies"]["engine-cuda"]
    pin = next(one for one in asked if one.startswith(f"{package}=="))
    locked = (ROOT / "deploy/locks/engine-cuda.txt").read_text().replace("===", "==")

    assert f"\n{pin}\n" in locked


def test_certificates_and_own_builds_reach_no_image() -> None:
    for stage in stages().values():
        assert "COPY deploy/images/wheels" not in stage
        assert "COPY . " not in stage
    assert "/run/secrets/pip_ca" in (ROOT / "deploy/images/install.sh").read_text()
