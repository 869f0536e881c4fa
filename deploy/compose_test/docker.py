"""Runs docker and docker compose, with a limit on every call."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
_SHORT_S: Final = 60.0
_SHOWN_CHARACTERS: Final = 4000


class Failed(Exception):
    """A step did not give what it must; the message says what was seen."""


def run(
    words: Sequence[str],
    *,
    limit_s: float = _SHORT_S,
    environ: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> str:
    """What a command prints. Raises Failed when it fails or takes too long."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
            cwd=ROOT,
            input=stdin,
            env={**os.environ, **(environ or {})},
        )
    except FileNotFoundError as error:
        raise Failed(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(words)}: not done after {limit_s:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-_SHOWN_CHARACTERS:]
        raise Failed(f"{' '.join(words)}: status {done.returncode}\n{said}")
    return done.stdout


def lacking() -> str:
    """What keeps this machine from running the test; empty when nothing does."""
    try:
        run(["docker", "version", "--format", "{{.Server.Version}}"])
        run(["docker", "compose", "version"])
        run(["docker", "buildx", "version"])
    except Failed as error:
        return str(error).splitlines()[-1]
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compose:
    """The project under test. `environ` stands before deploy/compose/.env."""

    project: str
    environ: Mapping[str, str]
    observed: bool = False

    def __call__(self, *words: str, limit_s: float = _SHORT_S) -> str:
        file = str(ROOT / "deploy" / "compose" / "compose.yaml")
        profile = ("--profile", "observability") if self.observed else ()
        command = ["docker", "compose", "-p", self.project, "-f", file, *profile, *words]
        return run(command, limit_s=limit_s, environ=self.environ)

    def containers(self, service: str) -> list[str]:
        """Names of the running containers of a service, in the order of their numbers."""
        lines = self("ps", "--format", "json", service).splitlines()
        return sorted(json.loads(line)["Name"] for line in lines if line.strip())

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run(["docker", "inspect", container]))[0]
        return found

    def page(self, container: str, url: str) -> str:
        """What a port inside a container answers over HTTP."""
        read = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=10).read().decode())"
        return run(["docker", "exec", container, "python", "-c", read])

    def log(self, service: str, lines: int = 40) -> str:
        return self("logs", "--no-color", "--tail", str(lines), service)
