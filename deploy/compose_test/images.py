"""Images for the test: a base where none can be pulled, ours, and a Prometheus of Debian's."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from deploy.compose_test.docker import ROOT, Compose, Failed, run

PREFIX: Final = "slos-serve-test"
PROMETHEUS: Final = f"{PREFIX}/prometheus"
_DEBIAN: Final = "debian:bookworm-slim"
_OWN_BASE: Final = f"{PREFIX}/base:bookworm"
_WHEELS: Final = ROOT / "deploy" / "images" / "wheels"
_PULL_S, _DEBOOTSTRAP_S, _BUILD_S = 120.0, 900.0, 5400.0
_NOT_NEEDED: Final = (
    "var/cache/apt/archives",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
)
_PROMETHEUS_FILE: Final = """
ARG BASE
FROM ${BASE}
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends prometheus \\
    && rm -rf /var/lib/apt/lists/* && install -d -o 65534 -g 65534 /prometheus
ENTRYPOINT ["prometheus"]
"""


def base_image() -> str:
    """A Debian that the images can stand on: there, pulled, or made with debootstrap."""
    for image in (_DEBIAN, _OWN_BASE):
        if _exists(image):
            return image
    with suppress(Failed):
        run(["docker", "pull", "--quiet", _DEBIAN], limit_s=_PULL_S)
        return _DEBIAN
    return _debootstrapped()


def _exists(image: str) -> bool:
    return bool(run(["docker", "image", "ls", "--quiet", image]).strip())


def _debootstrapped() -> str:
    if os.geteuid() != 0:
        raise Failed(f"{_DEBIAN} cannot be pulled, and debootstrap, which makes one, needs root")
    with tempfile.TemporaryDirectory() as folder:
        root, archive = Path(folder) / "root", Path(folder) / "root.tar"
        run(
            [
                "debootstrap",
                "--variant=minbase",
                "--include=ca-certificates",
                "bookworm",
                str(root),
            ],
            limit_s=_DEBOOTSTRAP_S,
        )
        for name in _NOT_NEEDED:
            for one in (root / name).iterdir():
                shutil.rmtree(one) if one.is_dir() else one.unlink()
        run(["tar", "-C", str(root), "-cf", str(archive), "."], limit_s=_DEBOOTSTRAP_S)
        run(["docker", "import", str(archive), _OWN_BASE], limit_s=_DEBOOTSTRAP_S)
    return _OWN_BASE


def pip_environment() -> dict[str, str]:
    """Where this machine's pip finds packages, in the words of deploy/compose/.env."""
    names = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
    found = {name: os.environ[name] for name in names if name in os.environ}
    certificates = os.environ.get("PIP_CERT", "")
    if certificates:
        # A build may read files of the repository; one beside it must be allowed.
        found |= {"PIP_CA_FILE": certificates, "BUILDX_BAKE_ENTITLEMENTS_FS": "0"}
    return found


@contextmanager
def own_wheels() -> Iterator[None]:
    """Lays what is in pip's `find-links` folder, if there is one, where the build looks for it."""
    source = Path(os.environ.get("PIP_FIND_LINKS") or os.devnull)
    laid: list[Path] = []
    if source.is_dir():
        _WHEELS.mkdir(exist_ok=True)
        for wheel in source.glob("*.whl"):
            target = _WHEELS / wheel.name
            if not target.exists():
                shutil.copy2(wheel, target)
                laid.append(target)
    try:
        yield
    finally:
        for target in laid:
            target.unlink()
        if _WHEELS.is_dir() and not any(_WHEELS.iterdir()):
            _WHEELS.rmdir()


def build(compose: Compose, base: str) -> None:
    with own_wheels():
        compose("build", limit_s=_BUILD_S)
    run(
        [
            "docker",
            "buildx",
            "build",
            "--load",
            "-q",
            "--build-arg",
            f"BASE={base}",
            "-t",
            PROMETHEUS,
            "-",
        ],
        limit_s=_BUILD_S,
        stdin=_PROMETHEUS_FILE,
    )


def sizes() -> dict[str, int]:
    """Megabytes (1e6 bytes) of each image that was built, by its tag."""
    lines = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).splitlines()
    ours = [line for line in lines if line.startswith(PREFIX)]
    found = (run(["docker", "image", "inspect", "-f", "{{.Size}}", one]) for one in ours)
    return {name: int(size) // 1_000_000 for name, size in zip(ours, found, strict=True)}


def remove() -> None:
    """Takes the tags away; the build's cache stays, so that the next build is quick."""
    for tag in sizes():
        if tag != _OWN_BASE:
            with suppress(Failed):
                run(["docker", "image", "rm", tag])
