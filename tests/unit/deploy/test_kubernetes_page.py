"""What docs/how-to/kubernetes.md tells a reader to run, as far as no cluster is needed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from services.cli import COMMANDS
from tests.unit.deploy.manifests import OVERLAYS, ROOT, run, tool

PAGE = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
# What reaches for a cluster, and what shows the same without one.
DRY = {"helm install": "helm template", "kubectl apply -k": "kubectl kustomize"}


def blocks(kind: str) -> list[str]:
    """The fenced blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language == kind]


def commands() -> Iterator[str]:
    for block in blocks(""):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.partition("#")[0].partition(" | ")[0]
            for cluster, dry in DRY.items():
                command = command.replace(cluster, dry)
            if command.startswith(("kubectl kustomize", "helm template", "helm lint")):
                yield " ".join(command.split())


def test_the_page_has_commands_that_need_no_cluster() -> None:
    assert len(list(commands())) >= 6


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_of_the_page_works(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name, *arguments = shlex.split(command)
    assert run(tool(name), *arguments)


def test_the_folders_and_files_that_the_page_names_are_there() -> None:
    for path in set(re.findall(r"\bdeploy/[\w./-]+\w", PAGE)):
        assert (ROOT / path).exists(), path


def test_the_commands_of_ours_that_the_page_names_exist() -> None:
    assert set(re.findall(r"^slos-serve ([\w-]+)", PAGE, re.MULTILINE)) <= COMMANDS.keys()


def test_the_kustomization_of_the_page_is_part_of_the_example() -> None:
    (shown,) = [yaml.safe_load(one) for one in blocks("yaml")]
    example = yaml.safe_load((Path(OVERLAYS["example"]) / "kustomization.yaml").read_text())
    for key, value in shown.items():
        whole = example[key]
        assert value == whole if isinstance(value, str) else all(one in whole for one in value)
