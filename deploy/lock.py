"""Writes deploy/locks from the packages of the environment it runs in. Resolves nothing itself.

To upgrade: install what you want into .venv with pip, run `make test`, then `make lock`. A lock
holds what its extra in pyproject.toml asks for and all that this asks for in turn, each at the
version installed here, so that every image gets exactly what was tested.
"""

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "deploy" / "locks"
IMAGES = ("planner", "gateway", "engine-cpu", "plots", "ray", "dev", "build")
ON_TOP = ("ray", "dev")
LEFT_OUT = {
    "torchvision": "for pictures; one built for another torch breaks every transformers model",
    "torchaudio": "for sound; the same",
    "torchcodec": "for films; the same",
    "tomlkit": "only the command `hatchling version` reads it",
}


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
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


def lock_text(image: str, project: dict[str, Any]) -> str:
    """The lock of one image as pip reads it. Raises PackageNotFoundError."""
    lines = [f"{name}=={pinned_version(name)}" for name in sorted(closure(asked(image, project)))]
    head = (
        f"# What `{image}` needs, all of it. Written by `make lock`; install with pip's --no-deps."
    )
    return "\n".join([head, *lines, ""])


def asked(image: str, project: dict[str, Any]) -> list[Requirement]:
    """What pyproject.toml asks for. `ray`, `dev` and `build` come on top of an image."""
    extras = project["project"]["optional-dependencies"]
    if image == "build":
        return [Requirement(line) for line in (*project["build-system"]["requires"], "editables")]
    own = [Requirement(line) for line in extras[image]]
    base = [Requirement(line) for line in project["project"]["dependencies"]]
    inner = [
        Requirement(line)
        for one in own
        if is_ours(one, project)
        for extra in one.extras
        for line in extras[extra]
    ]
    return [
        *(() if image in ON_TOP else base),
        *inner,
        *(one for one in own if not is_ours(one, project)),
    ]


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
    sys.exit(main())
